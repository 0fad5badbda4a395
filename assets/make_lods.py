"""Make `lods.safetensors`: levels of detail of the finished head, about 17k, 8k, 4k and 2k render vertices.

    python -m fitdiff.assets.make_lods        # needs meshoptimizer and scipy: pip install 'fitdiff[meshopt,evaluate]'

The head is subdivided once where it is skin or tongue, and then simplified by meshoptimizer, whose error measure
also gets what the blendshapes do, so that eyes, lids and lips keep their vertices. It must run again when the
morphable model's topology or `exporter/anatomy/head.py` changes: the table names the topology it is for.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from meshoptimizer import simplifier
from scipy.spatial import KDTree

from ..exporter.anatomy.head import finished_head
from ..exporter.lod import TABLE, topology_key
from ..models.morphable import load_morphable
from ..models.topology import HeadTopology
from ..runtime.avatar import Avatar, HeadMaps, ReflectanceMaps
from .make_morphable import CC0
from .subdivision import Subdivision, subdivide

TARGETS = (17000, 8000, 4000, 2000)  # render vertices: positions with their texture coordinates
SMOOTH = ("skin", "mouth", "tongue")  # eyes and corneas are fine as they come; teeth and lashes are cards
# Share of its vertices that each group keeps at each level; the skin, with the mouth sewn to it, takes what is left.
SHARES = {
    ("eye_left", "cornea_left"): (1.0, 0.5, 0.25, 0.12),
    ("eye_right", "cornea_right"): (1.0, 0.5, 0.25, 0.12),
    ("teeth",): (1.0, 1.0, 0.7, 0.5),
    ("lashes",): (1.0, 1.0, 0.6, 0.4),
    ("tongue",): (0.5, 0.25, 0.12, 0.06),
}
SKIN = ("skin", "mouth")
COMPONENTS = 24  # of the blendshapes' displacement, as attributes of the error measure
MORPH_WEIGHT = 4.0  # of a millimetre that a blendshape goes wrong, against one of shape
UV_METRES = 0.1  # that the whole atlas counts as, where a vertex looks for its place on a coarser level
UV_WEIGHT = 0.02  # of the whole atlas, against the head's size


@dataclass(frozen=True, eq=False)
class FineMesh:
    """The subdivided mean head by render vertex (position, part and texture coordinate)."""

    position: np.ndarray  # (R, 3)
    delta: np.ndarray  # (R, 52, 3)
    uv: np.ndarray  # (R, 2)
    vertex: np.ndarray  # (R,) into the subdivision's vertices
    part: np.ndarray  # (R,)
    corner_source: np.ndarray  # (R, 2)
    triangles: np.ndarray  # (M, 3)


def mean_head() -> Avatar:
    """The morphable model's mean, finished; maps that nobody looks at."""
    model, card = load_morphable()
    flat, one = np.zeros((8, 8, 3), np.float32), np.ones((8, 8), np.float32)
    return finished_head(
        Avatar(
            vertices=model.mean.numpy(),
            expression_offset=np.zeros_like(model.mean.numpy()),
            expression_weights={},
            topology=model.topology(),
            face_maps=ReflectanceMaps(flat, flat, flat),
            head_maps=HeadMaps(np.ones((8, 8, 4), np.float32), one, flat, one),
            light={},
            pose=None,
            models=(card,),
            seed=0,
        )
    )


def fine_mesh(head: Avatar, subdivision: Subdivision) -> FineMesh:
    """The subdivision over the head."""
    topology = head.topology
    triangles, source = subdivision.triangles, subdivision.corner_source
    index, weight = table_of(subdivision)
    position = (head.vertices[index] * weight[..., None]).sum(1)
    moves = topology.blendshapes.transpose(1, 0, 2)
    delta = sum(moves[index[:, k]] * weight[:, k, None, None] for k in range(index.shape[1]))
    uv = topology.corner_uv.reshape(-1, 2)[source].mean(2).reshape(-1, 2).astype(np.float32)
    part = topology.triangle_part[source[:, 0, 0] // 3].repeat(3)
    keys = np.stack([triangles.ravel(), part, *uv.view(np.uint32).T], 1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    vertex = triangles.ravel()[first]
    return FineMesh(
        position[vertex].astype(np.float32), np.asarray(delta)[vertex], uv[first], vertex, part[first],
        source.reshape(-1, 2)[first], inverse.reshape(-1, 3),
    )  # fmt: skip


def subdivided_head(topology: HeadTopology) -> Subdivision:
    """The head's triangles, four for each where it is smooth."""
    smooth = topology.triangles_of(*(part for part in SMOOTH if part in topology.part_names))
    subdivision = subdivide(topology.triangles[smooth], topology.vertex_count)
    original = np.flatnonzero(smooth)
    corner = subdivision.corner_source
    source = 3 * original[corner // 3] + corner % 3
    rest = np.flatnonzero(~smooth)
    corners = 3 * rest[:, None] + np.arange(3)
    return Subdivision(
        subdivision.mixtures,
        np.concatenate([subdivision.triangles, topology.triangles[rest]]),
        np.concatenate([source, np.stack([corners, corners], 2)]),
    )


def table_of(subdivision: Subdivision) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures as arrays: (N, K) indices and weights, padded with weight 0."""
    width = max(map(len, subdivision.mixtures))
    index = np.zeros((len(subdivision.mixtures), width), np.int32)
    weight = np.zeros((len(subdivision.mixtures), width), np.float32)
    for row, mixture in enumerate(subdivision.mixtures):
        index[row, : len(mixture)], weight[row, : len(mixture)] = list(mixture), list(mixture.values())
    return index, weight


def level_triangles(mesh: FineMesh, finer: np.ndarray, part_names: tuple[str, ...], number: int) -> np.ndarray:
    """(M, 3) triangles of a level into the render vertices, out of those of the next finer one."""

    def faces_of(names: tuple[str, ...], triangles: np.ndarray) -> np.ndarray:
        return triangles[np.isin(mesh.part[triangles[:, 0]], [part_names.index(name) for name in names])]

    pieces, left = [], TARGETS[number]
    for names, shares in SHARES.items():
        whole = len(np.unique(faces_of(names, mesh.triangles)))
        pieces.append(simplified(mesh, faces_of(names, finer), round(shares[number] * whole)))
        left -= len(np.unique(pieces[-1]))
    return np.concatenate([simplified(mesh, faces_of(SKIN, finer), left), *pieces])


def simplified(mesh: FineMesh, faces: np.ndarray, target: int) -> np.ndarray:
    """(M, 3) of the faces' render vertices about `target`; none is moved, and no attribute is changed."""
    if target >= len(np.unique(faces)):
        return faces
    extent = np.ptp(mesh.position, axis=0).max()
    flat = mesh.delta.reshape(len(mesh.delta), -1).astype(np.float64)
    energy, directions = np.linalg.eigh(flat.T @ flat)
    parts = flat @ directions[:, np.argsort(energy)[::-1][:COMPONENTS]] / extent
    attributes = np.ascontiguousarray(np.concatenate([parts, mesh.uv], 1), np.float32)
    weights = np.array([MORPH_WEIGHT] * COMPONENTS + [UV_WEIGHT] * 2, np.float32)
    # The package leaves these undeclared, which on 64 bits cuts sizes and rejects the float.
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    simplifier.lib.meshopt_simplifyWithAttributes.argtypes = [
        pointer, pointer, size, pointer, size, size, pointer, size, pointer, size, pointer, size,
        ctypes.c_float, ctypes.c_uint, pointer,
    ]  # fmt: skip
    simplifier.lib.meshopt_simplifyWithAttributes.restype = size
    low, high, best = 0, len(faces), faces
    for _ in range(16):
        wanted = (low + high) // 2
        out = np.zeros(faces.size, np.uint32)
        count = simplifier.simplify_with_attributes(
            out, faces.ravel(), mesh.position, attributes, weights,
            target_index_count=3 * wanted, target_error=1.0,
        )  # fmt: skip
        best = out[:count].reshape(-1, 3).astype(np.int64)
        left = len(np.unique(best))
        low, high = (wanted, high) if left < target else (low, wanted)
        if high - low <= 8:
            break
    return best


def errors(mesh: FineMesh, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R,) how far each of the finest vertices is from a level's surface, at rest and, at most, under a blendshape.

    The surface's point is the nearest in space and texture together: the lips touch, but are not each other.
    """
    geometric, morph = np.zeros(len(mesh.position)), np.zeros(len(mesh.position))
    both = np.concatenate([mesh.position, mesh.uv * UV_METRES], 1).astype(np.float64)
    for part in np.unique(mesh.part):
        own = np.flatnonzero(mesh.part == part)
        faces = triangles[mesh.part[triangles[:, 0]] == part]
        _, near = KDTree(both[faces].mean(1)).query(both[own], k=min(128, len(faces)))
        near = near.reshape(len(own), -1)
        weight = nearest_barycentrics(both[own], both[faces[near]])
        point = (weight[..., None] * both[faces[near]]).sum(2)
        best = np.linalg.norm(point - both[own, None], axis=2).argmin(1)
        rows = np.arange(len(own))
        chosen, share = faces[near[rows, best]], weight[rows, best]
        geometric[own] = np.linalg.norm((point[rows, best] - both[own])[:, :3], axis=1)
        moved = sum(mesh.delta[chosen[:, k]] * share[:, k, None, None] for k in range(3))
        morph[own] = np.linalg.norm(moved - mesh.delta[own], axis=2).max(1)
    return geometric, morph


def nearest_barycentrics(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(P, D) and (P, k, 3 corners, D) -> (P, k, 3) barycentrics of the nearest point of each triangle."""
    a, b, c = corners[:, :, 0], corners[:, :, 1], corners[:, :, 2]
    p = points[:, None]
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inner = np.stack([1 - v - w, v, w], -1)
    best, least = inner, np.where((inner >= 0).all(-1), 0.0, np.inf)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, :, end] - corners[:, :, start]
        t = ((p - corners[:, :, start]) * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-30)
        t = t.clip(0, 1)
        offset = corners[:, :, start] + t[..., None] * edge - p
        distance = (offset * offset).sum(-1)
        on_edge = np.zeros_like(inner)
        on_edge[..., start], on_edge[..., end] = 1 - t, t
        better = (distance < least) & ~(least == 0)
        best, least = np.where(better[..., None], on_edge, best), np.where(better, distance, least)
    return best


def main() -> None:
    head = mean_head()
    subdivision = subdivided_head(head.topology)
    mesh = fine_mesh(head, subdivision)
    print(f"subdivided: {len(mesh.position)} render vertices, {len(mesh.triangles)} triangles")
    tensors: dict[str, np.ndarray] = {}
    used: list[np.ndarray] = []
    rows = []
    triangles = mesh.triangles
    for number in range(len(TARGETS)):
        triangles = level_triangles(mesh, triangles, head.topology.part_names, number)
        vertices, flat = np.unique(mesh.vertex[triangles], return_inverse=True)
        tensors[f"level{number}.triangles"] = flat.reshape(-1, 3).astype(np.uint16)
        tensors[f"level{number}.corner_source"] = mesh.corner_source[triangles].astype(np.int32)
        used.append(vertices)
        geometric, morph = errors(mesh, triangles)
        rows.append({
            "render_vertices": len(np.unique(triangles)), "vertices": len(vertices), "triangles": len(triangles),
            "largest_error_mm": round(float(geometric.max()) * 1e3, 3),
            "mean_error_mm": round(float(geometric.mean()) * 1e3, 4),
            "largest_morph_error_mm": round(float(morph.max()) * 1e3, 3),
        })  # fmt: skip
        print(number, rows[-1])
        for part, name in enumerate(head.topology.part_names):
            own = mesh.part == part
            count = (mesh.part[np.unique(triangles)] == part).sum()
            worst = f"{geometric[own].max() * 1e3:.2f} mm, under a blendshape {morph[own].max() * 1e3:.2f} mm"
            print(f"    {name:13}{count:6} vertices, largest error {worst}")
    every = np.unique(np.concatenate(used))
    index, weight = table_of(subdivision)
    filled = weight[every] != 0
    tensors["mixture_count"] = filled.sum(1).astype(np.uint8)
    tensors["mixture_index"] = index[every][filled].astype(np.uint16)
    tensors["mixture_weight"] = weight[every][filled]
    for number, vertices in enumerate(used):
        tensors[f"level{number}.vertices"] = np.searchsorted(every, vertices).astype(np.uint16)
    metadata = {"format": "fitdiff-lods/1", "levels": str(len(TARGETS)), "topology": topology_key(head.topology)}
    data = safetensors.numpy.save({name: tensors[name] for name in sorted(tensors)}, metadata)
    TABLE.write_bytes(data)
    manifest = {
        "source": "the morphable model's topology, finished by exporter/anatomy/head.py",
        "licence": "CC0-1.0", "sha256": hashlib.sha256(data).hexdigest(), "levels": rows,
    }  # fmt: skip
    TABLE.with_suffix(".json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    TABLE.with_suffix(".LICENSE").write_text(CC0, encoding="utf-8")


if __name__ == "__main__":
    main()
