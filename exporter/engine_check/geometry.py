"""Whether the head in a GLB file is a head: metres, upright, facing +Z, the character's left at +X.

Left, up and front are told by blendshapes with ARKit's names, whose meaning nobody can doubt: the left eye blinks on
the left, the jaw opens below the eyes, and both lie in front.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .finding import EVERY, Finding
from .glb_file import GlbFile

Points = npt.NDArray[np.float64]

HEAD_HEIGHT = (0.2, 0.35)  # metres, crown to the end of the neck
_MOVED = 0.2  # share of the largest displacement from which on a vertex counts as moved
_OFF = 0.15  # share of the head's size by which something must lie on the wrong side to be an error


def geometry_findings(glb: GlbFile) -> list[Finding]:
    """Scale and orientation, from the arrays themselves."""
    try:
        placed = _placed_primitives(glb)
    except ValueError as error:
        return [Finding(EVERY, "note", "geometry", f"size and orientation were not checked: {error}")]
    if not placed:
        return [Finding(EVERY, "error", "meshes", "there is no mesh")]
    points = np.concatenate([positions for positions, _ in placed])
    low, high = points.min(0), points.max(0)
    height = float(high[1] - low[1])
    return [*_scale_findings(height), *_orientation_findings(placed, low, high)]


def _scale_findings(height: float) -> list[Finding]:
    if HEAD_HEIGHT[0] <= height <= HEAD_HEIGHT[1]:
        return []
    for unit, factor in (("centimetres", 100), ("millimetres", 1000), ("decimetres", 10)):
        if HEAD_HEIGHT[0] <= height / factor <= HEAD_HEIGHT[1]:
            return [Finding(EVERY, "error", "scale", f"{height:.3g} m high: these are {unit}; glTF has metres")]
    text = f"{height:.3g} m high; a head has {HEAD_HEIGHT[0]} to {HEAD_HEIGHT[1]} m"
    return [Finding(EVERY, "warning", "scale", text)]


def _orientation_findings(placed: list[tuple[Points, dict[str, Points]]], low: Points, high: Points) -> list[Finding]:
    centre, size = (low + high) / 2, high - low
    places = {}
    for name in ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen"):
        place = _moved_centre(placed, name)
        if place is None:
            return [Finding(EVERY, "note", "orientation", f"no blendshape {name}: left, up and front were not checked")]
        places[name] = (place - centre) / size
    left, right, jaw = places["eyeBlinkLeft"], places["eyeBlinkRight"], places["jawOpen"]
    findings = []
    if left[0] < right[0]:
        findings.append(
            Finding(EVERY, "error", "left and right", "eyeBlinkLeft lies at -X: mirrored, or names swapped")
        )
    if (left + right)[1] / 2 < jaw[1]:
        findings.append(Finding(EVERY, "error", "up", "the eyes lie below the jaw along Y: glTF has +Y up"))
    if (left + right)[2] / 2 < -_OFF:
        findings.append(Finding(EVERY, "error", "facing", "the eyes lie at -Z: glTF's front is +Z"))
    elif (left + right)[2] / 2 < _OFF:
        findings.append(Finding(EVERY, "error", "facing", "the eyes lie in the middle along Z: the face looks aside"))
    return findings


def _moved_centre(placed: list[tuple[Points, dict[str, Points]]], name: str) -> Points | None:
    """(3,) middle of what a blendshape moves, weighted by how far."""
    weights = [np.linalg.norm(morphs[name], axis=1) for _, morphs in placed if name in morphs]
    if not weights or max(weight.max(initial=0) for weight in weights) == 0:
        return None
    far = _MOVED * max(weight.max(initial=0) for weight in weights)
    points = np.concatenate([positions for positions, morphs in placed if name in morphs])
    weight = np.concatenate(weights)
    weight[weight < far] = 0
    return np.average(points, axis=0, weights=weight)


def _placed_primitives(glb: GlbFile) -> list[tuple[Points, dict[str, Points]]]:
    """(N, 3) rest positions in the scene and (N, 3) offsets by blendshape, of every primitive of the scene's nodes."""
    found = []
    for matrix, node in _nodes_of_scene(glb):
        if "mesh" not in node:
            continue
        mesh = glb.items("meshes")[node["mesh"]]
        names = mesh.get("extras", {}).get("targetNames", [])
        if "skin" in node:
            matrix = _rest_matrix(glb, node["skin"])
        for primitive in mesh["primitives"]:
            if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                raise ValueError("Draco's compression is not decoded here")
            positions = glb.array(primitive["attributes"]["POSITION"]).astype(np.float64)
            morphs = {
                name: glb.array(target["POSITION"]).astype(np.float64) @ matrix[:3, :3].T
                for name, target in zip(names, primitive.get("targets", []), strict=False)
                if name in ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen") and "POSITION" in target
            }
            found.append((positions @ matrix[:3, :3].T + matrix[:3, 3], morphs))
    return found


def _nodes_of_scene(glb: GlbFile) -> list[tuple[Points, dict]]:
    """Every node of the default scene with its (4, 4) matrix in the scene."""
    nodes, scenes = glb.items("nodes"), glb.items("scenes")
    roots = scenes[glb.document.get("scene", 0)].get("nodes", []) if scenes else range(len(nodes))
    waiting = [(np.eye(4), index) for index in roots]
    found = []
    while waiting and len(found) <= len(nodes):
        above, index = waiting.pop()
        matrix = above @ _local_matrix(nodes[index])
        found.append((matrix, nodes[index]))
        waiting.extend((matrix, child) for child in nodes[index].get("children", []))
    return found


def _rest_matrix(glb: GlbFile, skin: int) -> Points:
    """(4, 4) of a vertex that hangs on the skin's first joint: joint in the scene times inverse bind matrix."""
    about = glb.items("skins")[skin]
    joint = glb.items("nodes")[about["joints"][0]]
    placed = next((matrix for matrix, node in _nodes_of_scene(glb) if node is joint), np.eye(4))
    if "inverseBindMatrices" not in about:
        return placed
    inverse = glb.array(about["inverseBindMatrices"])[0].reshape(4, 4).T  # columns first in the file
    return placed @ inverse


def _local_matrix(node: dict) -> Points:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
