"""Vertex normals and tangents as MikkTSpace has them, so that normal maps look the same in every engine.

Works on bare arrays in float64. It knows nothing of avatars, parts or files.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_TINY = 1e-40  # squared lengths below this are no direction; 0.01 mm times a hundredth of a texel is above


def vertex_normals(vertices: npt.NDArray, triangles: npt.NDArray[np.integer]) -> Array:
    """Area-weighted unit normals (V, 3) of welded vertices (V, 3) with counter-clockwise triangles (F, 3).

    A vertex that no triangle with an area touches gets +Z.
    """
    corners = vertices.astype(np.float64)[triangles]  # (F, 3 corners, 3)
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # length is twice the area
    normals = np.zeros((len(vertices), 3))
    for axis in range(3):
        normals[:, axis] = np.bincount(triangles.ravel(), np.repeat(face[:, axis], 3), len(vertices))
    return _unit(normals, np.array([0.0, 0.0, 1.0]))


def triangle_handedness(corner_uv: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
    """(F,) handedness of the tangent frames from corner_uv (F, 3, 2), v down: -1 where mirrored, else +1.

    It is the w of a glTF tangent: bitangent = w * cross(normal, tangent) points up in the image, against v.
    Triangles without an area in the texture count as unmirrored.
    """
    edge_1, edge_2 = _uv_edges(corner_uv)
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]  # negative is counter-clockwise, because v is down
    return np.where(area > 0, -1, 1).astype(np.int8)


def vertex_tangents(
    positions: npt.NDArray,
    normals: npt.NDArray,
    uv: npt.NDArray,
    handedness: npt.NDArray,
    triangles: npt.NDArray[np.integer],
) -> Array:
    """Tangents (N, 4) of render vertices: unit xyz along +u and orthogonal to the normal, w the handedness.

    As in MikkTSpace (Mikkelsen 2008, section 3.5) each corner gives the direction of +u in the plane of its
    vertex normal, weighted by the corner's angle in that plane. A vertex whose triangles have no area in the
    texture gets any direction in its plane.

    Args:
        positions: (N, 3) render vertices, one for each position and texture coordinate.
        normals: (N, 3) unit normals.
        uv: (N, 2) texture coordinates, v down.
        handedness: (N,) +1 or -1, see `triangle_handedness`; both kinds never share a render vertex.
        triangles: (F, 3) indices into the N vertices.
    """
    corners = positions.astype(np.float64)[triangles]
    edge_1, edge_2 = _uv_edges(uv.astype(np.float64)[triangles])
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    along_u = (corners[:, 1] - corners[:, 0]) * edge_2[:, 1:] - (corners[:, 2] - corners[:, 0]) * edge_1[:, 1:]
    along_u *= np.sign(area)[:, None]  # the division by the area, less its length; no area gives no direction

    sums = np.zeros((len(positions), 3))
    for corner in range(3):
        index = triangles[:, corner]
        normal = normals.astype(np.float64)[index]
        direction = _unit(_in_plane(along_u, normal), np.zeros(3))
        to_next = _unit(_in_plane(corners[:, (corner + 1) % 3] - corners[:, corner], normal), np.zeros(3))
        to_last = _unit(_in_plane(corners[:, (corner + 2) % 3] - corners[:, corner], normal), np.zeros(3))
        angle = np.arccos(np.clip((to_next * to_last).sum(1), -1, 1))
        for axis in range(3):
            sums[:, axis] += np.bincount(index, direction[:, axis] * angle, len(positions))

    normals = normals.astype(np.float64)
    tangents = _unit(_in_plane(sums, normals), _any_perpendicular(normals))
    return np.concatenate([tangents, handedness[:, None].astype(np.float64)], axis=1)


def _uv_edges(corner_uv: npt.NDArray) -> tuple[Array, Array]:
    corner_uv = corner_uv.astype(np.float64)
    return corner_uv[:, 1] - corner_uv[:, 0], corner_uv[:, 2] - corner_uv[:, 0]


def _in_plane(vectors: Array, normals: Array) -> Array:
    return vectors - normals * (vectors * normals).sum(1, keepdims=True)


def _any_perpendicular(normals: Array) -> Array:
    axis = np.where(np.abs(normals[:, :1]) < 0.9, np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    return _unit(_in_plane(axis, normals), np.array([1.0, 0.0, 0.0]))


def _unit(vectors: Array, fallback: Array) -> Array:
    """Vectors (N, 3) at length one; those without a length become the fallback (3,) or (N, 3)."""
    squared = (vectors * vectors).sum(1, keepdims=True)
    return np.where(squared > _TINY, vectors / np.sqrt(np.maximum(squared, _TINY)), fallback)
