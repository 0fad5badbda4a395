"""Render vertices from an avatar: corners split by texture coordinate, normals, tangents, morph targets.

Normals come from the welded head, so neither a texture seam nor the border between two parts shows. It knows
nothing of materials' contents, accessors or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.avatar import Avatar
from .anatomy.skeleton import Skeleton
from .tangents import triangle_handedness, vertex_normals, vertex_tangents

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.uint32]

POSITION_EPSILON = 5e-6  # metres: a vertex that moves less is left out of a morph target
NORMAL_EPSILON = 2e-3  # length of the change of a unit normal: a tenth of a degree


@dataclass(frozen=True, eq=False)
class MorphTarget:
    """One blendshape on one primitive: only the render vertices that move or turn.

    Attributes:
        position_index: (P,) strictly increasing render vertices.
        position_delta: (P, 3) metres.
        normal_index: (Q,) strictly increasing render vertices.
        normal_delta: (Q, 3) change of the unit normal at full weight.
    """

    position_index: IndexArray
    position_delta: FloatArray
    normal_index: IndexArray
    normal_delta: FloatArray


@dataclass(frozen=True, eq=False)
class Primitive:
    """The triangles of one material with their own N render vertices.

    Attributes:
        source_vertex: (N,) non-decreasing vertex of the avatar that each render vertex copies.
        positions: (N, 3) metres, neutral face.
        normals: (N, 3) unit.
        tangents: (N, 4) unit xyz, w = +1 or -1.
        uv: (N, 2) v down.
        triangles: (F, 3) counter-clockwise.
        joint_index: (N, 4) joints.
        joint_weight: (N, 4) shares, rows sum to 1.
        targets: one for each blendshape of the topology, in its order.
    """

    source_vertex: IndexArray
    positions: FloatArray
    normals: FloatArray
    tangents: FloatArray
    uv: FloatArray
    triangles: IndexArray
    joint_index: npt.NDArray[np.uint8]
    joint_weight: FloatArray
    targets: tuple[MorphTarget, ...]


def primitives_from_avatar(
    avatar: Avatar, skeleton: Skeleton, groups: Sequence[Sequence[str]]
) -> list[Primitive | None]:
    """One primitive for each group of part names, None for a group without triangles.

    The order of vertices depends on nothing but the topology: by vertex of the avatar, then handedness, then
    texture coordinate. Triangles keep their order. A part that the topology does not have is left out.
    """
    topology = avatar.topology
    normals = vertex_normals(avatar.vertices, topology.triangles)
    masks = [topology.triangles_of(*(part for part in parts if part in topology.part_names)) for parts in groups]
    corners = [_render_vertices(topology.triangles[mask], topology.corner_uv[mask]) for mask in masks]
    targets: list[list[MorphTarget]] = [[] for _ in groups]
    for offsets in topology.blendshapes:
        turned = vertex_normals(avatar.vertices + offsets, topology.triangles) - normals
        for group, (source, _, _, _) in enumerate(corners):
            targets[group].append(_morph_target(offsets[source], turned[source]))

    primitives: list[Primitive | None] = []
    for (source, handedness, uv, triangles), morphs in zip(corners, targets, strict=True):
        if not len(triangles):
            primitives.append(None)
            continue
        tangents = vertex_tangents(avatar.vertices[source], normals[source], uv, handedness, triangles)
        primitives.append(
            Primitive(
                source_vertex=source,
                positions=avatar.vertices[source],
                normals=normals[source].astype(np.float32),
                tangents=tangents.astype(np.float32),
                uv=uv,
                triangles=triangles,
                joint_index=skeleton.joint_index[source],
                joint_weight=skeleton.joint_weight[source],
                targets=tuple(morphs),
            )
        )
    return primitives


def _render_vertices(
    triangles: npt.NDArray[np.int32], corner_uv: FloatArray
) -> tuple[IndexArray, npt.NDArray[np.int8], FloatArray, IndexArray]:
    """Vertex, handedness (N,) and uv (N, 2) of each render vertex, and the triangles (F, 3) over them."""
    handedness = np.repeat(triangle_handedness(corner_uv), 3)
    uv = corner_uv.reshape(-1, 2) + np.float32(0)  # turns -0 into +0, so that equal numbers have equal bits
    bits = uv.view(np.uint32)
    keys = np.stack([triangles.ravel(), handedness, bits[:, 0], bits[:, 1]], axis=1, dtype=np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    source = triangles.ravel()[first].astype(np.uint32)
    return source, handedness[first], uv[first], inverse.reshape(-1, 3).astype(np.uint32)


def _morph_target(offsets: FloatArray, turned: npt.NDArray[np.float64]) -> MorphTarget:
    moved = np.flatnonzero(np.linalg.norm(offsets, axis=1) > POSITION_EPSILON)
    bent = np.flatnonzero(np.linalg.norm(turned, axis=1) > NORMAL_EPSILON)
    return MorphTarget(
        position_index=moved.astype(np.uint32),
        position_delta=offsets[moved],
        normal_index=bent.astype(np.uint32),
        normal_delta=turned[bent].astype(np.float32),
    )
