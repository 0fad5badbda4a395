"""What a head is made of, as indices, and how new geometry is hung onto it.

Original vertices keep their indices, new ones come after them and bring their own blendshape offsets. It knows
nothing of eyes, mouths or necks.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...models.topology import HeadTopology
from ...runtime.avatar import Avatar

FloatArray = npt.NDArray[np.floating]
IndexArray = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class NewVertices:
    """N vertices to append.

    Attributes:
        positions: (N, 3) metres.
        blendshapes: (K, N, 3) metres, offsets at full weight in the order of the topology's names.
        expression: (N, 3) metres, offset of the photo's expression.
    """

    positions: FloatArray
    blendshapes: FloatArray
    expression: FloatArray


@dataclass(frozen=True, eq=False)
class NewTriangles:
    """M triangles to append; `triangles` (M, 3) count on from the avatar's own vertices, `corner_uv` (M, 3, 2)."""

    part: str
    triangles: IndexArray
    corner_uv: FloatArray


def with_geometry(
    avatar: Avatar,
    vertices: NewVertices,
    *triangles: NewTriangles,
    keep: npt.NDArray[np.bool_] | None = None,
) -> Avatar:
    """The avatar with more vertices and triangles, and without the triangles that `keep` (F,) leaves out.

    A part that the topology does not know is added at the end of its names.
    """
    topology = avatar.topology
    names = topology.part_names + tuple(
        dict.fromkeys(new.part for new in triangles if new.part not in topology.part_names)
    )
    kept = np.ones(len(topology.triangles), bool) if keep is None else keep
    grown = dataclasses.replace(
        topology,
        triangles=np.concatenate([topology.triangles[kept], *(new.triangles for new in triangles)]).astype(np.int32),
        corner_uv=np.concatenate([topology.corner_uv[kept], *(new.corner_uv for new in triangles)]).astype(np.float32),
        triangle_part=np.concatenate(
            [
                topology.triangle_part[kept],
                *(np.full(len(new.triangles), names.index(new.part)) for new in triangles),
            ]
        ).astype(np.uint8),
        blendshapes=np.concatenate([topology.blendshapes, vertices.blendshapes], axis=1).astype(np.float32),
        part_names=names,
    )
    return dataclasses.replace(
        avatar,
        topology=grown,
        vertices=np.concatenate([avatar.vertices, vertices.positions]).astype(np.float32),
        expression_offset=np.concatenate([avatar.expression_offset, vertices.expression]).astype(np.float32),
    )


def vertices_of(topology: HeadTopology, *parts: str) -> IndexArray:
    """Increasing vertex indices of the triangles of those of the named parts that the topology has."""
    known = [part for part in parts if part in topology.part_names]
    return np.unique(topology.triangles[topology.triangles_of(*known)])


def connected_pieces(triangles: IndexArray) -> list[IndexArray]:
    """Vertex indices of each connected piece of some triangles (F, 3)."""
    vertices, local = np.unique(triangles, return_inverse=True)
    local = local.reshape(-1, 3)
    label = np.arange(len(vertices))
    while True:
        lowest = label[local].min(1)
        spread = label.copy()
        np.minimum.at(spread, local.ravel(), np.repeat(lowest, 3))
        spread = spread[spread]
        if (spread == label).all():
            return [vertices[label == piece] for piece in np.unique(label)]
        label = spread


def boundary_loops(triangles: IndexArray) -> list[IndexArray]:
    """Closed rings of vertices along the open edges of triangles (F, 3), in the triangles' own direction.

    Rings that touch themselves in a vertex are left out.
    """
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    _, first, count = np.unique(np.sort(edges, 1), axis=0, return_index=True, return_counts=True)
    following: dict[int, list[int]] = defaultdict(list)
    for start, end in edges[first[count == 1]].tolist():
        following[start].append(end)
    loops: list[IndexArray] = []
    while following:
        start = next(iter(following))
        loop, simple = [start], True
        while loop[-1] in following:
            ends = following.pop(loop[-1])
            simple &= len(ends) == 1
            loop.append(ends[0])
        if simple and loop[-1] == start:
            loops.append(np.array(loop[:-1]))
    return loops
