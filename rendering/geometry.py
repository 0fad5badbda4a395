"""Smooth normals and tangents of a deforming mesh, differentiable in its vertices.

Vertices are welded across UV seams (UVs belong to corners), so normals are smooth there. Tangents follow the
UV gradient and are split where the UVs are. The frame is glTF's: tangent along +u, bitangent = cross(normal,
tangent) * sign, which points up in the texture image (v runs down). Vectors are component-first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .vectors import columns_at, columns_summed, cross, dot, unit


@dataclass(frozen=True)
class TangentLayout:
    """What never changes about a mesh's tangents.

    Attributes:
        corner_slot: (F, 3) long: which tangent a corner uses; corners of one vertex and one UV share it.
        count: number of tangents S.
        edge_weight: (F, 2) weights of the triangle's two edge vectors that sum to its tangent, UV area long.
        sign: (F,) +1, or -1 where the UV is mirrored: glTF's TANGENT.w.
    """

    corner_slot: Tensor
    count: int
    edge_weight: Tensor
    sign: Tensor


def tangent_layout(triangles: Tensor, corner_uv: Tensor) -> TangentLayout:
    """(F, 3) long and (F, 3, 2) UVs with v down -> TangentLayout."""
    keys = torch.cat([triangles[:, :, None].double(), corner_uv.double()], 2).reshape(-1, 3)
    distinct, slot = torch.unique(keys, dim=0, return_inverse=True)
    first, second = corner_uv[:, 1] - corner_uv[:, 0], corner_uv[:, 2] - corner_uv[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    # Counter-clockwise triangles of an unmirrored chart have negative area where v runs down.
    sign = torch.where(area > 0, -1.0, 1.0).to(corner_uv)
    # dP/du = (dv2 e1 - dv1 e2) / area; keeping only the sign of the area weighs tangents by it.
    edge_weight = torch.stack([second[:, 1], -first[:, 1]], 1) * -sign[:, None]
    return TangentLayout(slot.reshape(-1, 3), len(distinct), edge_weight, sign)


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """(3, B, V) and (F, 3) long -> (3, B, V) unit normals, area-weighted; counter-clockwise is outside."""
    first, second = _edges(vertices, triangles)
    return unit(_summed_at_corners(cross(first, second), triangles, vertices.shape[2]))


def vertex_tangents(vertices: Tensor, triangles: Tensor, layout: TangentLayout) -> Tensor:
    """(3, B, V) -> (3, B, S) unit tangents along +u, not yet orthogonal to the normals."""
    first, second = _edges(vertices, triangles)
    face = layout.edge_weight[:, 0] * first + layout.edge_weight[:, 1] * second  # (3, B, F)
    return unit(_summed_at_corners(face, layout.corner_slot, layout.count))


def bent_normals(normal: Tensor, tangent: Tensor, sign: Tensor, texel: Tensor) -> Tensor:
    """Apply a tangent-space normal map.

    Args:
        normal: (3, N) unit geometric normal.
        tangent: (3, N) along +u, any length; made orthogonal to the normal here.
        sign: (N,) glTF's TANGENT.w.
        texel: (3, N) in [-1, 1], +Y up in the texture image (OpenGL), any length.

    Returns:
        (3, N) unit normal in the frame of `normal`.
    """
    tangent = unit(tangent - normal * dot(normal, tangent))
    bitangent = cross(normal, tangent) * sign
    return unit(tangent * texel[0] + bitangent * texel[1] + normal * texel[2])


def _edges(vertices: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """(3, B, V) -> (3, B, F) edges from a triangle's first corner to its second and to its third."""
    a, b, c = columns_at(vertices.flatten(1), _batched(triangles, vertices.shape[1], vertices.shape[2])).unbind(1)
    return b - a, c - a


def _summed_at_corners(face: Tensor, corner_slot: Tensor, count: int) -> Tensor:
    """Sum (3, B, F) triangle vectors into their corners' slots -> (3, B, count)."""
    batch = face.shape[1]
    corners = face[:, None].expand(-1, 3, -1, -1)
    return columns_summed(corners, _batched(corner_slot, batch, count), batch * count).reshape(3, batch, count)


def _batched(corner_slot: Tensor, batch: int, count: int) -> Tensor:
    """(F, 3) -> (3, B, F) index into a flat run of `batch` times `count` slots."""
    offset = torch.arange(batch, device=corner_slot.device) * count
    return corner_slot.T[:, None] + offset[:, None]
