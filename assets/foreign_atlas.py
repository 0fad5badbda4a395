"""Texture coordinates in our atlas for a foreign head that has been registered to ours.

Skin takes those of the point of our head that it lies on, so that the face chart, its maps and its networks fit; each
half of the head and the neck's strip by themselves, because our texture has its seams there. Other parts are laid out
in the rectangles that the atlas has for them. Knows nothing of files or networks.
"""

from __future__ import annotations

import numpy as np

from ..evaluation.alignment import Surface
from ..models.importers.source import REGIONS, SourceHead
from ..models.morphable import MorphableModel
from .atlas_layout import (
    ATLAS_SIZE,
    ENAMEL_RECT,
    SOCKET_RECTS,
    TONGUE_RECT,
    eye_uv,
    fit_to_rect,
)
from .foreign_lashes import lash_uv
from .foreign_registration import head_island, neck_island

SEAM = 3.0 / ATLAS_SIZE  # two halves that agree to this are one
OVERHANG = 1.0  # share of a triangle by which skin may lie beyond the border of our texture
RELAXATIONS = 40
MOUTH_INSIDE = (320, 742, 152, 90)  # a rectangle of the atlas that our mouth, which is no rectangle, covers wholly
_RECTS = {"mouth": MOUTH_INSIDE, "gums": MOUTH_INSIDE, "teeth": ENAMEL_RECT, "tongue": TONGUE_RECT,
          "socket_left": SOCKET_RECTS["left"], "socket_right": SOCKET_RECTS["right"]}  # fmt: skip


def foreign_atlas_uv(
    source: SourceHead, vertices: np.ndarray, registered: np.ndarray, model: MorphableModel
) -> np.ndarray:
    """(F, 3, 2) float32 in [0, 1], v down.

    vertices: (V, 3) the source's mean in metres, our axes; registered: (V, 3) the same on our mean head.
    """
    uv = np.zeros((len(source.triangles), 3, 2))
    for number, region in enumerate(REGIONS):
        chosen = source.region == number
        if not chosen.any():
            continue
        triangles = source.triangles[chosen]
        if region == "skin":
            uv[chosen] = skin_uv(registered, triangles, model)
        elif region in ("eye_left", "eye_right"):
            uv[chosen] = eye_uv(vertices[triangles].astype(np.float64))
        elif region == "lashes":
            eyes = [vertices[source.members(name)] for name in ("eye_left", "eye_right")]
            own = None if source.own_uv is None else source.own_uv[chosen]
            uv[chosen] = lash_uv(vertices, triangles, eyes, model, own)
        else:
            layout = source.own_uv[chosen] if source.own_uv is not None else _from_above(vertices[triangles])
            uv[chosen] = fit_to_rect(layout.astype(np.float64), _RECTS[region])
    return uv.clip(0, 1).astype(np.float32)


def skin_uv(registered: np.ndarray, triangles: np.ndarray, model: MorphableModel) -> np.ndarray:
    """(F, 3, 2): for skin triangles over registered vertices (V, 3), the places in the atlas of what they lie on."""
    ours = model.mean.numpy()[model.triangles.numpy()]  # (T, 3, 3)
    head, neck = head_island(model), neck_island(model)
    left = ours[..., 0].mean(1) > 0
    middle = registered[triangles].mean(1)
    nearest = _nearest(middle, model, head)
    on_neck, on_left = neck[nearest], middle[:, 0] > 0
    uv = np.zeros((len(triangles), 3, 2))
    for strip in (False, True):
        halves = []
        for side in (False, True):
            island = head & (neck == strip) & (left == side)
            chosen = (on_neck == strip) & (on_left == side)
            index = np.unique(triangles[chosen])
            halves.append((index, _looked_up(registered[index], island, model), chosen))
        _join(halves, len(registered))
        for index, found, chosen in halves:
            uv[chosen] = found[np.searchsorted(index, triangles[chosen])]
    return unfolded(uv, triangles)


def _nearest(points: np.ndarray, model: MorphableModel, chosen: np.ndarray) -> np.ndarray:
    """(N, 3) -> (N,) our triangles, of those chosen, that are nearest."""
    rows = np.flatnonzero(chosen)
    return rows[Surface(model.mean.numpy(), model.triangles.numpy()[rows]).closest(points)[1]]


def _looked_up(points: np.ndarray, island: np.ndarray, model: MorphableModel) -> np.ndarray:
    """(N, 3) -> (N, 2): the island's texture coordinates under them, continued a little beyond its borders."""
    if not len(points):
        return np.zeros((0, 2))
    rows = np.flatnonzero(island)
    surface = Surface(model.mean.numpy(), model.triangles.numpy()[rows])
    _, triangle, weights = surface.closest(points)
    beyond = _plane_weights(points, surface.corners[triangle])
    opposite = weights <= 1e-9  # an edge of the triangle opposite to a corner of no weight
    border = _border_edges(model.triangles.numpy()[rows])[triangle]  # (N, 3): edge opposite to corner k
    outside = (opposite & border & (beyond < 0)).any(1)
    weights[outside] = _limited(beyond[outside])
    return (model.corner_uv.numpy()[rows[triangle]] * weights[..., None]).sum(1)


def _plane_weights(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentrics (N, 3), also outside [0, 1], of the points dropped on the planes of triangles (N, 3, 3)."""
    first, second, away = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    d00, d01, d11 = (first * first).sum(1), (first * second).sum(1), (second * second).sum(1)
    d20, d21 = (away * first).sum(1), (away * second).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    return np.stack([1 - v - w, v, w], 1)


def _limited(weights: np.ndarray) -> np.ndarray:
    """Pulled towards the middle of the triangle until no weight is below -OVERHANG."""
    lowest = weights.min(1, keepdims=True)
    share = np.minimum(1.0, (1 / 3 + OVERHANG) / np.maximum(1 / 3 - lowest, 1e-9))
    return 1 / 3 + (weights - 1 / 3) * share


def _border_edges(triangles: np.ndarray) -> np.ndarray:
    """(F, 3) bool: whether no other triangle shares the edge opposite to corner k."""
    edges = np.sort(np.stack([np.roll(triangles, -1, axis=1), np.roll(triangles, -2, axis=1)], -1), axis=-1)
    _, inverse, count = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True)
    return count[inverse.reshape(-1, 3)] == 1


def _join(halves: list[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int) -> None:
    """Give vertices that both halves put in the same place exactly the same coordinates."""
    (index_a, uv_a, _), (index_b, uv_b, _) = halves
    both, at_a, at_b = np.intersect1d(index_a, index_b, return_indices=True)
    close = np.abs(uv_a[at_a] - uv_b[at_b]).max(1) < SEAM if len(both) else np.zeros(0, bool)
    mean = (uv_a[at_a[close]] + uv_b[at_b[close]]) / 2
    uv_a[at_a[close]], uv_b[at_b[close]] = mean, mean


def unfolded(uv: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(F, 3, 2) with folds smoothed out: corners of flipped triangles move to the middle of their neighbours.

    A corner is one with others of the same vertex and the same place. Unmirrored triangles are clockwise on the page,
    as all of our head's are.
    """
    keys = np.concatenate([triangles.reshape(-1, 1), np.round(uv.reshape(-1, 2) * ATLAS_SIZE * 64)], 1)
    _, first, node = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    place, node = uv.reshape(-1, 2)[first], node.reshape(-1, 3)
    edges = np.concatenate([node[:, [0, 1]], node[:, [1, 2]], node[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    degree = np.maximum(np.bincount(edges[:, 0], minlength=len(place)), 1)[:, None]
    for _ in range(RELAXATIONS):
        flipped = _signed_area(place[node]) > -1e-9
        if not flipped.any():
            break
        moving = np.unique(node[flipped])
        ring = np.unique(edges[np.isin(edges[:, 0], moving), 1])
        moving = np.union1d(moving, ring)
        middle = np.stack([np.bincount(edges[:, 0], place[edges[:, 1], axis], len(place)) for axis in (0, 1)], 1)
        place[moving] += 0.6 * ((middle / degree)[moving] - place[moving])
    return place[node]


def _signed_area(uv: np.ndarray) -> np.ndarray:
    """(F, 3, 2), v down -> (F,): negative where a triangle seen from outside is not mirrored in the texture."""
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _from_above(corners: np.ndarray) -> np.ndarray:
    """(F, 3, 3) -> (F, 3, 2), v up: seen from above, for parts without coordinates of their own."""
    return corners[..., [0, 2]].astype(np.float64)
