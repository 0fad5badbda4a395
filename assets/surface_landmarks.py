"""Where on a head's surface the points of the face mesh lie: the landmark network on renderings, looked up.

Triangle and barycentrics under every point, averaged over a few small turns of the head, because the network is
noisy by a pixel. Knows nothing of files or of how the head came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.landmark_indices import LANDMARK_COUNT, LIPS_INNER, LIPS_OUTER
from ..models.landmarks import FaceMesh
from ..rendering.camera import camera_front, project
from ..rendering.renderer import HeadMapsTensor, HeadRenderer
from ..rendering.shader import Light, srgb_from_linear

SIZE = 768  # pixels of the picture
DISTANCE = 1.2  # metres
FACE_CENTRE = (0.0, -0.012, 0.06)  # metres: about the middle of our mean head's face
FACE_WIDTH = 0.28  # metres across the picture
ROI_SCALE = 1.5  # the landmark network wants a square of 1.5 times the face's points
REACH = 14  # pixels from a point to the skin that it means
TURNS = ((0.0, 0.0), (0.12, 0.0), (-0.12, 0.0), (0.0, 0.1), (0.0, -0.1))  # yaw, pitch
WALL = 0.35  # sRGB level behind the head


@dataclass(frozen=True, eq=False)
class Surface:
    """A dressed head: (F, 3) triangles, (F, 3, 2) texture coordinates, (F,) parts with their names, and maps."""

    triangles: Tensor
    corner_uv: Tensor
    triangle_part: Tensor
    part_names: tuple[str, ...]
    maps: HeadMapsTensor

    @cached_property
    def renderer(self) -> HeadRenderer:
        """Of this topology."""
        return HeadRenderer(self.triangles, self.corner_uv, self.triangle_part, self.part_names)


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points of the face mesh on the skin: triangle (468,), barycentrics (468, 3), valid (468,) bool.

    logit: the network's, in the turn that it likes least; above 0 it rather sees a face. picture: (S, S, 3) uint8 BGR
    with the points of the first turn drawn in.
    """

    triangle: np.ndarray
    barycentrics: np.ndarray
    valid: np.ndarray
    logit: float
    picture: np.ndarray

    def positions(self, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """(V, 3) and (F, 3) -> (468, 3)."""
        return (vertices[triangles[self.triangle]] * self.barycentrics[..., None]).sum(1)

    def with_lips_of(self, opened: SurfacePoints) -> SurfacePoints:
        """The same with the lips' points of a head whose mouth is open."""
        lips = [*LIPS_OUTER, *LIPS_INNER]
        fields = {name: getattr(self, name).copy() for name in ("triangle", "barycentrics", "valid")}
        for name, values in fields.items():
            values[lips] = getattr(opened, name)[lips]
        return replace(self, **fields)


@dataclass(frozen=True, eq=False)
class View:
    """A head in one picture: sRGB (3, S, S), triangle of each pixel (S, S), its part, and the vertices' pixels."""

    image: Tensor
    triangle: np.ndarray
    part: np.ndarray
    screen: np.ndarray  # (V, 3) x, y in pixels and depth in metres


@torch.no_grad()
def view_of(
    surface: Surface,
    vertices: Tensor,
    centre: Sequence[float] = FACE_CENTRE,
    width: float = FACE_WIDTH,
    turn: tuple[float, float] = (0.0, 0.0),
    size: int = SIZE,
) -> View:
    """Render a head (V, 3) whose picture is `width` metres wide at `centre`, turned by yaw and pitch in radians."""
    light = Light(torch.full((1, 3), 0.45), torch.full((1, 3), 0.6), torch.tensor([[0.25, 0.45, 0.86]]))
    camera = camera_front(torch.tensor(centre), DISTANCE, size * DISTANCE / width, size, yaw=turn[0], pitch=turn[1])
    rendering = surface.renderer.render(vertices[None], surface.maps, camera, light)
    image = srgb_from_linear(rendering.color[0]).clamp(0, 1) + WALL * (1 - rendering.alpha[0])
    return View(
        image, rendering.triangle[0].numpy(), rendering.part[0].numpy(), project(camera, vertices[None])[0].numpy()
    )


def detect(network: FaceMesh, image: Tensor) -> tuple[np.ndarray, float]:
    """(3, S, S) sRGB in [0, 1], the face filling the picture -> (468, 2) pixels, and the logit that it is a face."""
    picture = image.permute(1, 2, 0).numpy()
    size = picture.shape[0]
    centre, side = np.array([size / 2, size / 2]), float(size)
    points, logit = np.zeros((LANDMARK_COUNT, 2)), 0.0
    for _ in range(4):  # each pass frames the points of the one before
        to_crop = np.array([[192 / side, 0, 96 - centre[0] * 192 / side], [0, 192 / side, 96 - centre[1] * 192 / side]])
        blurred = cv2.GaussianBlur(picture, (0, 0), max(side / 192 / 2, 0.3))
        crop = cv2.warpAffine(blurred, to_crop, (192, 192), borderMode=cv2.BORDER_REPLICATE)
        with torch.no_grad():
            found, score = network(torch.from_numpy(crop).permute(2, 0, 1)[None])
        points = (found[0, :, :2].numpy() - to_crop[:, 2]) * side / 192
        logit = float(score[0])
        low, high = points.min(0), points.max(0)
        centre, side = (low + high) / 2, max(float((high - low).max()) * ROI_SCALE, 1.0)
    return points, logit


def surface_points(
    network: FaceMesh,
    surface: Surface,
    vertices: Tensor,
    centre: Sequence[float] = FACE_CENTRE,
    width: float = FACE_WIDTH,
    turns: Sequence[tuple[float, float]] = TURNS,
    size: int = SIZE,
) -> SurfacePoints:
    """Points of a head (V, 3), metres, on its skin; the face is about `centre`, in a picture `width` metres wide."""
    found = np.full((len(turns), LANDMARK_COUNT, 3), np.nan)
    logits, pictures = [], []
    for row, turn in zip(found, turns, strict=True):
        view = view_of(surface, vertices, centre, width, turn, size)
        points, logit = detect(network, view.image)
        logits.append(logit)
        pictures.append(_drawn(view.image, points))
        _look_up(row, points, view, surface, vertices)
    counts = (~np.isnan(found[..., :1])).sum(0)
    mean_points = np.where(counts > 0, np.nansum(found, 0) / np.maximum(counts, 1), np.nan)
    triangle, weights, valid = closest_on_skin(surface, vertices.numpy(), mean_points)
    return SurfacePoints(triangle, weights, valid, min(logits), pictures[0])


def _look_up(row: np.ndarray, points: np.ndarray, view: View, surface: Surface, vertices: Tensor) -> None:
    """Write the places (468, 3) on the skin under points (468, 2) of a picture; NaN stays where none is near."""
    skin = view.part == surface.part_names.index("skin")
    size = len(skin)
    reach = REACH * size / SIZE
    margin = int(reach) + 2
    for i, (x, y) in enumerate(points):
        if not (0 <= x < size and 0 <= y < size):
            continue
        left, top = max(0, int(x) - margin), max(0, int(y) - margin)
        skin_y, skin_x = np.nonzero(skin[top : int(y) + margin + 1, left : int(x) + margin + 1])
        if not len(skin_y):
            continue
        distance = np.hypot(skin_x + left + 0.5 - x, skin_y + top + 0.5 - y)
        near = int(distance.argmin())
        if distance[near] > reach:
            continue
        column, line = skin_x[near] + left, skin_y[near] + top
        if distance[near] > 1:  # on teeth, an eye or beside the head: the nearest skin in sight is meant
            x, y = column + 0.5, line + 0.5
        corners = surface.triangles[view.triangle[line, column]].numpy()
        weights = np.linalg.solve(np.vstack([view.screen[corners, :2].T, np.ones(3)]), [x, y, 1])
        weights = weights / view.screen[corners, 2]  # perspective-correct
        row[i] = (weights / weights.sum()) @ vertices[corners].numpy()


def _drawn(picture: Tensor, points: np.ndarray) -> np.ndarray:
    image = (picture.permute(1, 2, 0).numpy()[..., ::-1].clip(0, 1) * 255).astype(np.uint8).copy()
    for x, y in points:
        cv2.circle(image, (round(x), round(y)), 2, (0, 255, 0), -1)
    return image


def closest_on_skin(
    surface: Surface, vertices: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangle and barycentrics of the skin point nearest to each of (N, 3) points; NaN rows are not valid."""
    skin = np.flatnonzero(surface.triangle_part.numpy() == surface.part_names.index("skin"))
    corners = vertices[surface.triangles.numpy()[skin]]  # (S, 3, 3)
    triangle, weights = np.zeros(len(points), np.int64), np.full((len(points), 3), 1 / 3)
    valid = np.isfinite(points).all(1).reshape(len(points))
    centre = corners.mean(1)
    for i in np.flatnonzero(valid):
        near = np.argsort(((centre - points[i]) ** 2).sum(1))[:24]
        a, ab, ac = corners[near, 0], corners[near, 1] - corners[near, 0], corners[near, 2] - corners[near, 0]
        gram = np.stack([np.stack([(ab * ab).sum(1), (ab * ac).sum(1)], 1),
                         np.stack([(ab * ac).sum(1), (ac * ac).sum(1)], 1)], 1)  # fmt: skip
        right = np.stack([(ab * (points[i] - a)).sum(1), (ac * (points[i] - a)).sum(1)], 1)
        vw = np.linalg.solve(gram, right[..., None])[..., 0]
        barycentric = np.concatenate([1 - vw.sum(1, keepdims=True), vw], 1).clip(0, 1)
        barycentric /= barycentric.sum(1, keepdims=True)
        distance = (((barycentric[..., None] * corners[near]).sum(1) - points[i]) ** 2).sum(1)
        best = int(distance.argmin())
        triangle[i], weights[i] = skin[near[best]], barycentric[best]
    return triangle, weights, valid
