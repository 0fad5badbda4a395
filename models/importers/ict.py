"""ICT-FaceKit (University of Southern California): its own folder `FaceXModel` of OBJ files, or a NumPy archive of it.

Folder: generic_neutral_mesh.obj, identity000.obj ... and one OBJ for each of 57 expressions, all of 26,719 vertices.
Archive: V (26719, 3) mean, I (K, 26719, 3) and E (57, 26719, 3) offsets, ex their names, F and FT (26384, 4) quads over
vertices and texture coordinates, VT (T, 2). Centimetres.

Taken are face, head, neck, mouth, sockets, gums, tongue, teeth, lashes and the outer surface of the eyes; the iris
behind it and the layers of fluid and shadow over the eyes are left out. The 57 expressions become ARKit's 52: what
ARKit does not split is added up, the eyeballs, which FaceKit leaves still, follow the gaze, and a `tongueOut` is made,
for which FaceKit has no shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from . import licences
from .gaze import gaze_offsets
from .gnm import load_archive
from .mat_file import require_keys
from .obj_mesh import read_obj, read_obj_vertices
from .source import REGIONS, SourceHead, triangles_from_quads, unreadable, without_unused

VERTICES, POLYGONS = 26719, 26384
NEUTRAL = "generic_neutral_mesh.obj"
KEYS = ("V", "I", "E", "ex", "F", "VT", "FT")
# Polygons of FaceKit's geometries (its README), by the region they become.
_POLYGONS = {
    "skin": (0, 11144), "mouth": (11144, 13226), "socket_left": (13226, 13630), "socket_right": (13630, 14034),
    "gums": (14034, 16572), "tongue": (16572, 17006), "teeth": (17006, 21496), "eye_left": (21496, 22296),
    "eye_right": (23094, 23894), "lashes": (25304, 26384),
}  # fmt: skip
_SOFT = (15874, 16572)  # polygons of palate, throat and floor of the mouth, which give way to the tongue
_DROPPED = ("PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R")  # ARKit has no such shapes
_SIDES = {"_L": "Left", "_R": "Right"}
_WHOLE = ("browInnerUp", "cheekPuff")  # ARKit's are of both sides
SOFT_SWEEPS = 400
_TONGUE_REACH = (0.4, 2.7, -0.4)  # centimetres: forward at the root and at the tip, and down


def read_ict(path: Path) -> SourceHead:
    """Read FaceKit's folder (or its neutral OBJ), or the archive.

    Raises:
        UsageError: it is neither, or of another topology.
    """
    if path.is_dir() or path.suffix.lower() == ".obj":
        content = _content_from_folder(path if path.is_dir() else path.parent)
    else:
        content = load_archive(path, "ict")
        require_keys(path, "ict", content, KEYS)
    mean, quads = content["V"], content["F"].astype(np.int64)
    if mean.shape != (VERTICES, 3) or quads.shape != (POLYGONS, 4) or content["FT"].shape != quads.shape:
        got = f"{mean.shape[0]} vertices, polygons {quads.shape}"
        raise unreadable(path, "ict", got, f"{VERTICES} vertices, {POLYGONS} polygons")
    if content["I"].shape[1:] != mean.shape or content["E"].shape != (len(content["ex"]), *mean.shape):
        raise unreadable(path, "ict", f"I {content['I'].shape}, E {content['E'].shape}", f"(K, {VERTICES}, 3)")
    uv = content["VT"][content["FT"].astype(np.int64)]  # (Q, 4, 2)
    chosen = np.concatenate([np.arange(*span) for span in _POLYGONS.values()])
    region = np.concatenate([np.full(b - a, REGIONS.index(name), np.uint8) for name, (a, b) in _POLYGONS.items()])
    triangles, corners = triangles_from_quads(quads[chosen])
    used = np.unique(triangles)
    triangles = without_unused(used, VERTICES)[triangles]
    region = region[corners[:, 0] // 4]
    vertices = mean[used].astype(np.float32)
    units = {str(n).removesuffix(".obj"): e[used].astype(np.float32) for n, e in zip(content["ex"], content["E"],
                                                                                     strict=True)}  # fmt: skip

    def members(name: str) -> np.ndarray:
        return np.unique(triangles[region == REGIONS.index(name)])

    blendshapes = arkit_shapes(units)
    eyes = {side: members(f"eye_{side.lower()}") for side in ("Left", "Right")}
    for name, offsets in gaze_offsets(vertices, eyes).items():
        blendshapes[name] = blendshapes.get(name, 0) + offsets
    soft = without_unused(used, VERTICES)[np.unique(quads[slice(*_SOFT)])]
    blendshapes["tongueOut"] = _tongue_out(vertices, triangles, members("tongue"), soft)
    return SourceHead(
        name="ict-facekit",
        vertices=vertices,
        triangles=triangles,
        region=region,
        identity=content["I"][:, used].astype(np.float32),
        expression=np.zeros((0, len(used), 3), np.float32),
        licence=licences.ICT,
        blendshapes=dict(sorted(blendshapes.items())),
        own_uv=uv[chosen].reshape(-1, 2)[corners].astype(np.float32),
    )


def arkit_shapes(units: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """FaceKit's expressions by its own names -> by ARKit's: "eyeBlink_L" is "eyeBlinkLeft"."""
    found: dict[str, np.ndarray] = {}
    for name, offsets in units.items():
        if name in _DROPPED:
            continue
        stem, side = (name[:-2], _SIDES[name[-2:]]) if name[-2:] in _SIDES else (name, "")
        key = stem if stem in _WHOLE else stem + side
        found[key] = found[key] + offsets if key in found else offsets
    return found


def _tongue_out(vertices: np.ndarray, triangles: np.ndarray, tongue: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """The tongue stretched forward out of the mouth, most at its tip, with what it is attached to: (V, 3)."""
    offsets = np.zeros_like(vertices)
    depth = vertices[tongue, 2]
    share = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-6)
    root, tip, down = _TONGUE_REACH
    smooth = share * share * (3 - 2 * share)
    offsets[tongue, 2] = root + (tip - root) * smooth
    offsets[tongue, 1] = down * smooth
    free = np.setdiff1d(soft, tongue)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    edges = edges[np.isin(edges[:, 0], free)]
    degree = np.maximum(np.bincount(edges[:, 0], minlength=len(vertices)), 1)[free, None]
    for _ in range(SOFT_SWEEPS):
        sums = np.stack([np.bincount(edges[:, 0], offsets[edges[:, 1], axis], len(vertices)) for axis in range(3)], 1)
        offsets[free] = sums[free] / degree
    return offsets


def _content_from_folder(folder: Path) -> dict[str, np.ndarray]:
    """FaceKit's OBJ files in the archive's form."""
    if not (folder / NEUTRAL).is_file():
        raise unreadable(folder, "ict", f"no {NEUTRAL}", "FaceKit's folder FaceXModel")
    neutral = read_obj(folder / NEUTRAL)
    files = sorted(file for file in folder.glob("*.obj") if file.name != NEUTRAL)
    identities = [file for file in files if file.name.startswith("identity")]
    expressions = [file for file in files if file not in identities]
    return {
        "V": neutral.vertices, "F": neutral.quads, "VT": neutral.uv, "FT": neutral.quad_uv,
        "I": _offsets(identities, neutral.vertices), "E": _offsets(expressions, neutral.vertices),
        "ex": np.array([file.stem for file in expressions]),
    }  # fmt: skip


def _offsets(files: Iterable[Path], mean: np.ndarray) -> np.ndarray:
    rows = []
    for file in files:
        vertices = read_obj_vertices(file)
        if vertices.shape != mean.shape:
            raise unreadable(file, "ict", f"{len(vertices)} vertices", f"{len(mean)}, as the neutral mesh has")
        rows.append((vertices - mean).astype(np.float32))
    return np.stack(rows) if rows else np.zeros((0, *mean.shape), np.float32)
