"""Least-squares alignment of points, and distances from points to a surface.

Metres in, metres out. Reflections are never allowed: a mirrored face is another face. Knows nothing of faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MissingError

if TYPE_CHECKING:
    from scipy.spatial import KDTree

CANDIDATES = 16  # triangles, nearest by their middle, among which the nearest point of a surface is looked for
ITERATIONS = 60
SETTLED = 1e-7  # metres: change of the root mean square distance at which the iteration ends


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale * rotation @ x + translation; rotation (3, 3), translation (3,)."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) -> (N, 3)."""
        return self.scale * points @ self.rotation.T + self.translation

    def inverse(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) -> (N, 3), the way back."""
        return (points - self.translation) @ self.rotation / self.scale


def aligned_points(source: np.ndarray, target: np.ndarray, *, scaled: bool) -> Similarity:
    """The motion that brings source (N, 3) nearest to target (N, 3) (Umeyama 1991, eqs. 40-42).

    `scaled` lets it choose a scale too; without, the scale is 1. Never a reflection.

    Raises:
        ValueError: the shapes differ, or the source's points coincide.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(f"points {source.shape} and {target.shape}: expected the same (N, 3)")
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    variance = ((source - source_mean) ** 2).sum(1).mean()
    if not variance > 0:
        raise ValueError("the points coincide: they fix no rotation and no scale")
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    U, D, Vt = np.linalg.svd(covariance)
    S = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    rotation = (U * S) @ Vt
    scale = float((D * S).sum() / variance) if scaled else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def closest_on_triangles(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentrics (..., 3) of the point of each triangle (..., 3, 3) nearest to each point (..., 3)."""
    a, b, c = np.moveaxis(corners, -2, 0)
    first, second, away = b - a, c - a, points - a
    d00, d01, d11 = _dot(first, first), _dot(first, second), _dot(second, second)
    d20, d21 = _dot(away, first), _dot(away, second)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inner = np.stack([1 - v - w, v, w], -1)
    edges = []
    for start, end in ((0, 1), (1, 2), (2, 0)):
        along = corners[..., end, :] - corners[..., start, :]
        share = _dot(points - corners[..., start, :], along) / np.maximum(_dot(along, along), 1e-30)
        share = share.clip(0, 1)
        weights = np.zeros((*share.shape, 3))
        weights[..., start], weights[..., end] = 1 - share, share
        edges.append(weights)
    edge = np.stack(edges, -2)  # (..., 3 edges, 3 corners)
    distance = np.linalg.norm(edge @ corners - points[..., None, :], axis=-1)
    nearest = np.take_along_axis(edge, distance.argmin(-1)[..., None, None], -2)[..., 0, :]
    return np.where((inner >= 0).all(-1, keepdims=True), inner, nearest)


class Surface:
    """Triangles among which the nearest point is found. Close to exact where neighbours are of like size."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        """vertices (V, 3), triangles (F, 3).

        Raises:
            MissingError: scipy is not installed.
        """
        self.corners = vertices[triangles].astype(np.float64)
        self._tree = kd_tree(self.corners.mean(1))

    def closest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, 3) -> the nearest points (N, 3), their triangles (N,) and barycentrics (N, 3)."""
        count = min(CANDIDATES, len(self.corners))
        candidates = np.asarray(self._tree.query(points, k=count)[1]).reshape(len(points), count)
        corners = self.corners[candidates]  # (N, K, 3, 3)
        weights = closest_on_triangles(np.broadcast_to(points[:, None], corners.shape[:-1]), corners)
        found = (weights[..., None] * corners).sum(-2)  # (N, K, 3)
        best = np.linalg.norm(found - points[:, None], axis=-1).argmin(1)
        row = np.arange(len(points))
        return found[row, best], candidates[row, best], weights[row, best]


def distances_to_surface(points: np.ndarray, surface: Surface, start: Similarity) -> np.ndarray:
    """Distances (N,) from points to a surface that was moved and scaled onto them by iterated closest points.

    Lengths are those of the points, whatever the surface's scale. `start` maps the surface roughly onto the points
    (Besl and McKay 1992, with the scale of Umeyama 1991).
    """
    motion, before = start, np.inf
    for _ in range(ITERATIONS):
        found = surface.closest(motion.inverse(points))[0]
        motion = aligned_points(found, points, scaled=True)
        error = float(np.sqrt(((motion(found) - points) ** 2).sum(1).mean()))
        if before - error < SETTLED:
            break
        before = error
    found = surface.closest(motion.inverse(points))[0]
    return np.linalg.norm(motion(found) - points, axis=1)


def kd_tree(points: np.ndarray) -> KDTree:
    """Raises MissingError when scipy is not installed."""
    try:
        from scipy.spatial import KDTree
    except ImportError as error:
        raise MissingError(
            "package scipy", "not installed", "it, to compare surfaces", "pip install 'fitdiff[evaluate]'"
        ) from error
    return KDTree(points)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1)
