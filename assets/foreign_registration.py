"""Bend a foreign mean face onto our mean head, so that each of its points has a place on our surface.

First a similarity and thin plates through the landmarks that both have, then a non-rigid iteration of closest points
whose displacements a graph Laplacian keeps smooth (in the manner of Amberg et al. 2007), from stiff to soft. Points
that find no partner, beside the borders of our head or where the surfaces face away from each other, follow their
neighbours. Metres throughout. Knows nothing of files or of texture coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MissingError
from ..evaluation.alignment import Similarity, Surface, aligned_points
from ..models.landmark_indices import FACE_OVAL
from ..models.morphable import MorphableModel
from .atlas_layout import ATLAS_SIZE, NECK_RECT, SOCKET_RECTS

PLATE_SMOOTHING = 3e-3  # of the thin plates: the network's landmarks are noisy by a millimetre
VAGUE = (*FACE_OVAL,)  # landmarks on the silhouette, which slide along it


@dataclass(frozen=True)
class RegistrationConfig:
    """smooth: metres over which displacements vary, at the first and the last iteration; reach: within which a closest
    point is believed; landmarks: their share of the pull, against all closest points; facing: least cosine.
    """

    iterations: int = 24
    smooth: tuple[float, float] = (0.25, 0.006)
    reach: tuple[float, float] = (0.03, 0.008)
    landmarks: tuple[float, float] = (0.1, 0.01)
    facing: float = 0.5


@dataclass(frozen=True, eq=False)
class Registration:
    """points: (V, 3) the foreign vertices on our mean head, skin registered and the rest carried along.

    distance: (V,) metres from each skin vertex to our surface, NaN for the rest; similarity: ours from theirs.
    """

    points: np.ndarray
    distance: np.ndarray
    similarity: Similarity


def head_island(model: MorphableModel) -> np.ndarray:
    """(F,) bool: skin triangles of our head but the eye sockets."""
    skin = (model.triangle_part == model.config.part_names.index("skin")).numpy()
    return skin & ~np.any([in_rect(model.corner_uv.numpy(), rect) for rect in SOCKET_RECTS.values()], axis=0)


def neck_island(model: MorphableModel) -> np.ndarray:
    """(F,) bool: skin triangles whose texture lies on the neck's own strip."""
    return head_island(model) & in_rect(model.corner_uv.numpy(), NECK_RECT)


def in_rect(corner_uv: np.ndarray, rect: tuple[int, int, int, int]) -> np.ndarray:
    """(F, 3, 2) -> (F,) bool: all corners within (x, y, width, height) pixels of the atlas."""
    x, y, width, height = rect
    texel = corner_uv * ATLAS_SIZE
    inside = (texel >= (x, y)) & (texel <= (x + width, y + height))
    return np.asarray(inside.reshape(len(inside), -1).all(1))


def register(
    vertices: np.ndarray,
    skin: np.ndarray,
    landmarks: np.ndarray,
    ours: np.ndarray,
    model: MorphableModel,
    config: RegistrationConfig = RegistrationConfig(),
) -> Registration:
    """Register a foreign mean (V, 3), metres, whose skin is the triangles `skin` (S, 3).

    landmarks: (468, 3) its face-mesh points, NaN where unknown; ours: (468, 3) those of our mean head.

    Raises:
        MissingError: scipy is not installed.
    """
    interpolate = _thin_plates()
    clear = np.setdiff1d(np.arange(len(landmarks)), VAGUE)
    clear = clear[np.isfinite(landmarks[clear]).all(1) & np.isfinite(ours[clear]).all(1)]
    theirs, ours = landmarks[clear], ours[clear].astype(np.float64)
    similarity = aligned_points(theirs, ours, scaled=True)
    bend = interpolate(similarity(theirs), ours, kernel="thin_plate_spline", smoothing=PLATE_SMOOTHING)
    # Thin plates run wild far from their nodes: beyond the face the plain similarity takes over.
    plain = similarity(vertices.astype(np.float64))
    away = np.linalg.norm(plain[:, None] - ours[None, ::6], axis=2).min(1)
    share = np.clip(1 - (away - 0.015) / 0.06, 0, 1)[:, None]
    start = plain + share * (bend(plain) - plain)
    points, distance = _closest_points(start, skin, bend(similarity(theirs)), ours, model, config)
    return Registration(points, distance, similarity)


def _closest_points(
    start: np.ndarray,
    skin: np.ndarray,
    landmarks: np.ndarray,
    ours: np.ndarray,
    model: MorphableModel,
    config: RegistrationConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """The iteration. Only vertices of the skin move; the rest takes over the displacement of the nearest skin.

    landmarks: (L, 3) of the started head; ours: (L, 3) where they belong.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import splu
    from scipy.spatial import KDTree

    used = np.unique(skin)
    local = np.searchsorted(used, skin)
    position = start[used].copy()
    laplacian = _laplacian(local, len(used))
    smooth = (laplacian.T @ laplacian).tocsc()
    edge = float(np.linalg.norm(position[local[:, 0]] - position[local[:, 1]], axis=1).mean())
    target = model.triangles.numpy()[head_island(model)]
    surface = Surface(model.mean.numpy(), target)
    target_normals = _triangle_normals(surface.corners)
    border = _border_triangles(target)
    marked = KDTree(position).query(landmarks)[1]
    pull = np.zeros((len(used), 3))
    np.add.at(pull, marked, ours - landmarks)
    marks = np.bincount(marked, minlength=len(used)).astype(np.float64)
    for done in np.linspace(0, 1, config.iterations):
        found, triangle, _ = surface.closest(position)
        facing = (_vertex_normals(position, local) * target_normals[triangle]).sum(1)
        near = np.linalg.norm(found - position, axis=1) < _between(config.reach, done)
        weight = (near & (facing > config.facing) & ~border[triangle]).astype(np.float64)
        each = _between(config.landmarks, done) * weight.sum() / max(len(landmarks), 1)
        stiffness = (_between(config.smooth, done) / edge) ** 4  # a bending plate carries loads as far as its 4th root
        matrix = (stiffness * smooth + diags(weight + each * marks + 1e-6)).tocsc()
        right = weight[:, None] * (found - start[used]) + each * pull
        position = start[used] + splu(matrix).solve(np.ascontiguousarray(right))
    points = start.copy()
    points[used] = position
    rest = np.setdiff1d(np.arange(len(start)), used)
    if len(rest):
        nearest = KDTree(start[used]).query(start[rest])[1]
        points[rest] += (position - start[used])[nearest]
    distance = np.full(len(start), np.nan)
    distance[used] = np.linalg.norm(surface.closest(position)[0] - position, axis=1)
    return points, distance


def _between(ends: tuple[float, float], done: float) -> float:
    """From the first to the second, in equal ratios."""
    return float(ends[0] ** (1 - done) * ends[1] ** done)


def _laplacian(triangles: np.ndarray, count: int) -> Any:
    """(count, count) sparse: each row a vertex less the mean of its neighbours."""
    from scipy.sparse import coo_matrix, diags

    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ones = np.ones(len(edges) * 2)
    rows, columns = np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]])
    neighbours = coo_matrix((ones, (rows, columns)), shape=(count, count)).tocsr()
    neighbours.data[:] = 1.0
    degree = np.maximum(np.asarray(neighbours.sum(1)).ravel(), 1)
    return diags(np.ones(count)) - diags(1 / degree) @ neighbours


def _triangle_normals(corners: np.ndarray) -> np.ndarray:
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)


def _vertex_normals(position: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    corners = position[triangles]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = np.stack(
        [np.bincount(triangles.ravel(), np.repeat(face[:, axis], 3), len(position)) for axis in range(3)], 1
    )
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)


def _border_triangles(triangles: np.ndarray) -> np.ndarray:
    """(F,) bool: triangles with an edge that no other shares."""
    edges = np.sort(np.stack([triangles, np.roll(triangles, -1, axis=1)], -1), axis=-1)  # (F, 3, 2)
    _, inverse, count = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True)
    return (count[inverse.reshape(-1, 3)] == 1).any(1)


def _thin_plates() -> Any:
    try:
        from scipy.interpolate import RBFInterpolator
    except ImportError as error:
        raise MissingError(
            "package scipy", "not installed", "it, to bring another model's face onto ours", "pip install scipy"
        ) from error
    return RBFInterpolator
