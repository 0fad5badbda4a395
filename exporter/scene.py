"""Nodes, skin and scene of a head: joints, and one mesh node for each level of detail.

It knows nothing of what a mesh holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .anatomy.skeleton import Skeleton
from .targets import LodRoute, Names

LOD_EXTENSION = "MSFT_lod"
# Share of the screen's height down to which each level is shown, the last one to the end.
SCREEN_COVERAGE = (0.5, 0.25, 0.1, 0.0)


def scene_json(
    skeleton: Skeleton, levels: int, names: Names, route: LodRoute, inverse_bind_matrices: int
) -> dict[str, Any]:
    """`scenes`, `nodes` and `skins`; the mesh of level n is mesh n.

    A skinned mesh stands at the root of the scene: only its joints place it (glTF 2.0, 3.7.3.3). With MSFT_lod the
    scene holds the first level only; with "nodes" it holds them all, named _LOD0 and so on.

    Args:
        inverse_bind_matrices: accessor of one matrix a joint.
    """
    joints = skeleton.joints
    first_mesh = 1 + len(joints)
    nodes: list[dict[str, Any]] = [{"name": names.mesh, "children": [_number(joints, None)]}]
    for number, joint in enumerate(joints):
        parent = np.zeros(3) if joint.parent is None else np.array(joints[joint.parent].position)
        node: dict[str, Any] = {
            "name": joint.name,
            "translation": (np.array(joint.position) - parent).tolist(),
        }
        children = [1 + child for child, other in enumerate(joints) if other.parent == number]
        nodes.append(node | ({"children": children} if children else {}))
    several = levels > 1
    for level in range(levels):
        suffix = names.level.format(level) if several and (level or route == "nodes") else "Mesh"
        nodes.append({"name": f"{names.mesh}{suffix}", "mesh": level, "skin": 0})
    if several and route == "MSFT_lod":
        others = list(range(first_mesh + 1, first_mesh + levels))
        coverage = [*SCREEN_COVERAGE[: levels - 1], 0.0]
        nodes[first_mesh] |= {
            "extensions": {LOD_EXTENSION: {"ids": others}},
            "extras": {"MSFT_screencoverage": coverage},
        }
    shown = levels if route == "nodes" else 1
    return {
        "scene": 0,
        "scenes": [{"name": "FitDiff", "nodes": [0, *range(first_mesh, first_mesh + shown)]}],
        "nodes": nodes,
        "skins": [
            {
                "name": names.mesh,
                "skeleton": 0,
                "joints": list(range(1, first_mesh)),
                "inverseBindMatrices": inverse_bind_matrices,
            }
        ],
    }


def inverse_bind_matrices(skeleton: Skeleton, stored: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(J, 4, 4) from stored positions to each joint's frame; `stored` (4, 4) takes stored positions to metres."""
    matrices = np.tile(np.eye(4), (len(skeleton.joints), 1, 1))
    matrices[:, :3, 3] = [[-value for value in joint.position] for joint in skeleton.joints]
    return (matrices @ stored).astype(np.float32)


def _number(joints: tuple[Any, ...], parent: int | None) -> int:
    return 1 + next(number for number, joint in enumerate(joints) if joint.parent == parent)
