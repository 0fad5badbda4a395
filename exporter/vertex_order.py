"""Triangles and vertices in the order in which a GPU and a delta coder like them: neighbours one after another.

It knows nothing of files. `meshoptimizer` is an extra: fitdiff[meshopt].
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from .compression import meshoptimizer
from .mesh import MorphTarget, Primitive


def reordered(primitive: Primitive) -> Primitive:
    """The same primitive with triangles ordered for the vertex cache, and vertices as the triangles first use them.

    `source_vertex` no longer increases.

    Raises:
        MissingError: meshoptimizer is not installed.
    """
    flat = np.ascontiguousarray(primitive.triangles, np.uint32).ravel()
    triangles = np.zeros_like(flat)
    meshoptimizer("optimizer").optimize_vertex_cache(triangles, flat, len(flat), len(primitive.positions))
    _, first = np.unique(triangles, return_index=True)  # every vertex is used
    order = triangles[np.sort(first)]
    place = np.empty(len(order), np.uint32)
    place[order] = np.arange(len(order), dtype=np.uint32)
    return dataclasses.replace(
        primitive,
        source_vertex=primitive.source_vertex[order],
        positions=primitive.positions[order],
        normals=primitive.normals[order],
        tangents=primitive.tangents[order],
        uv=primitive.uv[order],
        triangles=place[triangles].reshape(-1, 3),
        joint_index=primitive.joint_index[order],
        joint_weight=primitive.joint_weight[order],
        targets=tuple(_moved(target, place) for target in primitive.targets),
    )


def _moved(target: MorphTarget, place: npt.NDArray[np.uint32]) -> MorphTarget:
    positions, normals = place[target.position_index], place[target.normal_index]
    by_position, by_normal = np.argsort(positions), np.argsort(normals)
    return MorphTarget(
        position_index=positions[by_position],
        position_delta=target.position_delta[by_position],
        normal_index=normals[by_normal],
        normal_delta=target.normal_delta[by_normal],
    )
