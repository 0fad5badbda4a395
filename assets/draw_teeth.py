"""Draw teeth and gums onto the two bands that stand for the rows of teeth in MakeHuman's mesh.

Every texel is looked up on the mesh in three dimensions, so that widths and heights are millimetres on the head and
not of its texture. It knows the geometry of the bands (a front, a slope behind its biting edge), and nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_SCALE = 1.15  # the model's mouth and eyes are that much larger than people's
# Crowns from the middle outwards, millimetres: width, height, how much shorter than the middle ones they end.
_UPPER = np.array(
    [[8.5, 10.5, 0.0], [6.6, 9.2, 0.7], [7.6, 10.2, 0.1], [7.0, 8.6, 0.6], [6.8, 8.0, 0.8], [10.2, 7.5, 0.8],
     [9.4, 7.0, 0.8]]
)  # fmt: skip
_LOWER = np.array(
    [[5.2, 9.0, 0.0], [5.8, 9.2, 0.1], [6.8, 10.0, 0.0], [7.0, 8.8, 0.3], [7.0, 8.0, 0.5], [11.0, 7.5, 0.6],
     [10.5, 7.0, 0.6]]
)  # fmt: skip
_ENAMEL = np.array([0.715, 0.665, 0.575])  # linear albedo
PLAIN_ENAMEL = 0.7 * _ENAMEL  # of teeth that are not drawn, in a mouth's mean light
_NECK = np.array([0.6, 0.51, 0.38])  # of a tooth beside the gum
_GUM = np.array([0.36, 0.135, 0.125])
_GAP = np.array([0.045, 0.018, 0.014])
_PAPILLA = 3.6  # mm that the gum reaches down between two teeth
_MIDDLE_DEPTH = 0.6  # of the foremost tooth's: a point between the rows' two arms
_BULGE = 0.55  # mm that a tooth's middle stands before its sides
# What cheeks and lips leave of the light: mm from the middle along the row, share.
_LIGHT_AT = np.array([0.0, 12.0, 22.0, 32.0, 45.0, 70.0])
_LIGHT = np.array([0.92, 0.84, 0.52, 0.22, 0.10, 0.05])


@dataclass(frozen=True, eq=False)
class DrawnTeeth:
    """A rectangle of the atlas with teeth on it.

    Attributes:
        albedo: (h, w, 3) linear RGB.
        slope: (h, w, 2) of the surface, to the right and downwards in the picture.
        wet: (h, w) 1 on gums, 0 on enamel.
        covered: (h, w) bool: on a band.
    """

    albedo: Array
    slope: Array
    wet: Array
    covered: npt.NDArray[np.bool_]


def draw_teeth(
    vertices: Array, triangles: Indices, uv: Array, rows: list[Indices], size: tuple[int, int]
) -> DrawnTeeth:
    """Draw both rows.

    Args:
        vertices: (V, 3) metres, +Y up, +Z forward, X = 0 in the middle.
        triangles: (F, 3) of the teeth.
        uv: (F, 3, 2) texels of the rectangle, x right, y down.
        rows: vertices of the upper row and of the lower one.
        size: height and width of the rectangle.
    """
    albedo = np.zeros((*size, 3))
    height = np.zeros(size)
    wet, covered = np.zeros(size), np.zeros(size, bool)
    mm_per_texel = np.ones(size)
    for row, crowns, up in zip(rows, (_UPPER, _LOWER), (1.0, -1.0), strict=True):
        chosen = np.isin(triangles, row).all(1)
        places, inside = _places_of_texels(vertices * 1000, triangles[chosen], uv[chosen], size)
        along, above = _along_and_above(places[inside], vertices * 1000, triangles[chosen], up)
        color, relief, gum = _crowns(along / _SCALE, above / _SCALE, crowns)
        albedo[inside], height[inside], wet[inside] = color, relief * _SCALE, gum
        covered |= inside
        mm_per_texel[inside] = _texel_length(vertices * 1000, triangles[chosen], uv[chosen])
    slope = np.stack([np.gradient(height, axis=1), np.gradient(height, axis=0)], -1) / mm_per_texel[..., None]
    return DrawnTeeth(albedo, slope * covered[..., None], wet, covered)


def _texel_length(vertices: Array, triangles: Indices, uv: Array) -> float:
    """Millimetres that a texel is wide, by the areas."""

    def area(corners: Array) -> float:
        first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        product = (first**2).sum(1) * (second**2).sum(1) - (first * second).sum(1) ** 2
        return float(np.sqrt(np.maximum(product, 0)).sum())

    return float(np.sqrt(area(vertices[triangles]) / area(uv)))


def _places_of_texels(
    vertices: Array, triangles: Indices, uv: Array, size: tuple[int, int]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(h, w, 3) the point of the mesh that each texel shows, and whether it shows one."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    points = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
    places, inside = np.zeros((len(points), 3)), np.zeros(len(points), bool)
    for corners, flat in zip(vertices[triangles], uv, strict=True):
        system = np.concatenate([flat, np.ones((3, 1))], 1)
        if abs(np.linalg.det(system)) < 1e-9:
            continue
        weight = points @ np.linalg.inv(system)
        here = (weight >= -1e-6).all(1)
        places[here], inside[here] = weight[here] @ corners, True
    return places.reshape(*size, 3), inside.reshape(size)


def _along_and_above(places: Array, vertices: Array, triangles: Indices, up: float) -> tuple[Array, Array]:
    """(N,) mm along the row from its middle and above its edge (for the lower row below): its biting edge is 0."""
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = corners.mean(1) - np.array([0.0, 0.0, _MIDDLE_DEPTH * vertices[triangles, 2].max()])
    out[:, 1] = 0
    front = (normal * out).sum(1) > 0.5 * np.linalg.norm(normal, axis=1) * np.linalg.norm(out, axis=1)
    edge = vertices[np.intersect1d(triangles[front], triangles[~front])]
    edge = edge[np.argsort(edge[:, 0])]
    length = np.concatenate([[0], np.hypot(*np.diff(edge[:, [0, 2]], axis=0).T).cumsum()])
    length -= np.interp(0, edge[:, 0], length)
    fine = np.linspace(length[0], length[-1], 2000)
    x, y, z = (np.interp(fine, length, edge[:, axis]) for axis in range(3))
    parts = np.array_split(places, max(1, len(places) // 10_000))  # of all at once the distances would fill gigabytes
    nearest = np.concatenate([np.hypot(part[:, :1] - x, part[:, 2:] - z).argmin(1) for part in parts])
    return fine[nearest], (places[:, 1] - y[nearest]) * up


def _crowns(along: Array, above: Array, crowns: Array) -> tuple[Array, Array, Array]:
    """Colour (N, 3), relief in mm and share of gum (N,) at places given in mm of a person's mouth."""
    borders = np.concatenate([[0], crowns[:, 0].cumsum()])
    tooth = np.minimum(np.searchsorted(borders, np.abs(along), side="right") - 1, len(crowns) - 1)
    width, height, short = crowns[tooth].T
    across = np.clip((np.abs(along) - borders[tooth]) / width * 2 - 1, -1, 1)  # -1 and 1 at a tooth's sides
    from_side = (1 - np.abs(across)) * width / 2
    crown = short + 0.25 * across**2 + 0.9 * np.clip(0.7 - from_side, 0, 1)  # where it ends: round corners
    margin = height - _PAPILLA * np.abs(across) ** 2.2  # where the gum begins
    gum = _step((above - margin) / 0.5)
    gap = _step((0.16 + 0.10 * np.exp(-above / 1.5) - from_side) / 0.22 + 0.5)
    beyond = _step((crown - above) / 0.35 + 0.5)
    depth = np.clip(above / height, 0, 1)
    color = _ENAMEL + (_NECK - _ENAMEL) * (_step((depth - 0.35) / 0.65) * 0.8)[:, None]
    color = color * (1 - 0.10 * np.exp(-above / 1.2))[:, None] * np.array([0.985, 1.0, 1.02]) ** (1 - depth)[:, None]
    color = color * (1 - 0.28 * np.abs(across) ** 3)[:, None]
    color = color + (_GUM - color) * gum[:, None]
    hidden = np.maximum(gap * (1 - gum), beyond)
    color = color + (_GAP - color) * hidden[:, None]
    light = np.interp(np.abs(along), _LIGHT_AT, _LIGHT) * (1 - 0.45 * _step((above - 5) / 7))
    relief = _BULGE * np.sqrt(np.clip(1 - across**2, 0.04, 1)) * (1 - gum) * (1 - 0.5 * np.exp(-above / 1.5))
    relief = relief + gum * (0.5 + 0.15 * np.cos(np.pi * across))
    return color * light[:, None], relief, gum


def _step(ramp: Array) -> Array:
    """0 below 0, 1 above 1, an even step between."""
    clipped = np.clip(ramp, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)
