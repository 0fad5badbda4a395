"""How far one surface of a head keeps clear of another, in metres: rays from one point, and what lies in flesh.

The measures that fit eyelids and tongue at export, and that a table of all blendshapes is made from. It works on
bare arrays and knows nothing of avatars.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_CHUNK = 2_000_000  # pairs of a ray or point and a triangle at a time
_PARALLEL = 1e-12


def outermost_hit(directions: npt.NDArray, corners: npt.NDArray) -> Array:
    """(N,) distance at which the rays leave the farthest triangle that they cross from behind, else -inf.

    Args:
        directions: (N, 3) unit vectors of rays from the origin.
        corners: (F, 3, 3) triangles relative to that origin, counter-clockwise seen from outside.
    """
    first, second, third = corners.astype(np.float64).transpose(1, 0, 2)
    sides = [np.cross(first, second), np.cross(second, third), np.cross(third, first)]
    normal = np.cross(second - first, third - first)
    reach = (first * normal).sum(1)
    farthest = np.full(len(directions), -np.inf)
    step = max(1, _CHUNK // max(1, len(corners)))
    for start in range(0, len(directions), step):
        rays = directions[start : start + step]
        facing = rays @ normal.T
        # A ray that leaves through the triangle has all three edges on the same side.
        crossed = (facing > _PARALLEL**2) & (reach > 0)
        for side in sides:
            crossed &= rays @ side.T >= -_PARALLEL
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(crossed, reach / facing, -np.inf)
        farthest[start : start + step] = distance.max(1, initial=-np.inf)
    return farthest


def beyond_surface(points: npt.NDArray, corners: npt.NDArray, origin: npt.NDArray) -> Array:
    """(N,) metres by which points lie outside of a surface, negative behind it, -inf where nothing covers them.

    Measured along rays from `origin` (3,), which is inside: teeth before a lip have come through it, teeth in an
    open mouth are not covered.
    """
    arms = points - origin
    reach = np.linalg.norm(arms, axis=1)
    hit = outermost_hit(arms / reach[:, None], corners - origin)
    return np.where(np.isfinite(hit), reach - hit, -np.inf)


def winding_number(points: npt.NDArray, corners: npt.NDArray) -> Array:
    """(N,) turns of a surface around points (N, 3): 1 inside of a closed one, 0 outside.

    The sum of the solid angles of its triangles (F, 3, 3), each by Van Oosterom and Strackee's formula.
    """
    turns = np.zeros(len(points))
    step = max(1, _CHUNK // 8 // max(1, len(corners)))
    for start in range(0, len(points), step):
        a, b, c = (corners[None, :, k] - points[start : start + step, None] for k in range(3))
        la, lb, lc = (np.sqrt(np.einsum("nfi,nfi->nf", v, v)) for v in (a, b, c))
        volume = np.einsum("nfi,nfi->nf", a, np.cross(b, c))
        rest = (
            la * lb * lc
            + np.einsum("nfi,nfi->nf", a, b) * lc
            + np.einsum("nfi,nfi->nf", b, c) * la
            + np.einsum("nfi,nfi->nf", c, a) * lb
        )
        turns[start : start + step] = 2 * np.arctan2(volume, rest).sum(1) / (4 * np.pi)
    return turns


def depth_in_flesh(points: npt.NDArray, corners: npt.NDArray) -> Array:
    """(N,) metres to the nearest of the closed surface's triangles for points inside of it, 0 for the others."""
    depth = np.zeros(len(points))
    inside = np.flatnonzero(winding_number(points, corners) > 0.5)
    for i in inside:
        depth[i] = distance_to_triangles(points[i], corners)
    return depth


def distance_to_triangles(point: npt.NDArray, corners: npt.NDArray) -> float:
    """Metres from a point (3,) to the nearest of triangles (F, 3, 3)."""
    relative = corners - point
    normal = np.cross(relative[:, 1] - relative[:, 0], relative[:, 2] - relative[:, 0])
    length = np.linalg.norm(normal, axis=1)
    ahead = np.ones(len(corners), bool)
    nearest = np.inf
    for k in range(3):
        start, edge = relative[:, k], relative[:, (k + 1) % 3] - relative[:, k]
        share = np.clip(-(start * edge).sum(1) / np.maximum((edge**2).sum(1), 1e-24), 0, 1)
        nearest = min(nearest, float(np.linalg.norm(start + share[:, None] * edge, axis=1).min()))
        ahead &= (np.cross(normal, edge) * -start).sum(1) >= 0
    if ahead.any():
        plane = np.abs((relative[:, 0] * normal).sum(1))[ahead] / np.maximum(length[ahead], 1e-24)
        nearest = min(nearest, float(plane.min()))
    return nearest
