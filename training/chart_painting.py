"""Brushes for the face chart: noise, strokes, hills about landmarks, and the canvas that a face is painted on.

Knows where the landmarks of the mean head lie in the chart; nothing of skin, hair or people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..models.landmark_indices import LIPS_INNER, LIPS_OUTER
from ..models.morphable import MorphableModel
from .skins import CHART, face_weight

TEXEL_MM = 0.57  # of the face chart on the mean head


@dataclass
class Canvas:
    """One face while it is painted; the brushes change the arrays in place.

    log: (512, 512, 3) natural log of linear albedo, a view of three planes; relief: (512, 512) mm above the mesh;
    gloss: (512, 512) natural log of the specular albedo relative to dry skin.
    """

    log: np.ndarray
    relief: np.ndarray
    gloss: np.ndarray

    def tint(self, layer: np.ndarray, change: Sequence[float] | np.ndarray) -> None:
        """Add a (512, 512) layer times a change of log albedo, (3,)."""
        for channel in range(3):  # one plane at a time: ten times as fast as broadcasting over the last axis
            self.log[..., channel] += layer * float(change[channel])

    def cover(self, share: np.ndarray, colour: np.ndarray) -> None:
        """Paint an opaque linear colour, (3,) or (512, 512, 3), over a (512, 512) share of every texel."""
        part = share.clip(0, 1).astype(np.float32)
        for channel in range(3):
            linear = np.exp(self.log[..., channel]) * (1 - part) + part * colour[..., channel]
            self.log[..., channel] = np.log(np.maximum(linear, 1e-4))


class FaceChart:
    """The chart's landmarks and areas, shared by all faces."""

    def __init__(self, model: MorphableModel) -> None:
        self.points: np.ndarray = model.landmarks_on_chart().double().numpy()  # (468, 2) texels
        self.face = face_weight(model)
        self.lips = area(self.points[list(LIPS_OUTER)], 2.5)
        self.mouth = area(self.points[list(LIPS_INNER)], 2.0)

    def blob(self, landmark: int, radius: float, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
        """(512, 512): a Gaussian hill of height 1 about a landmark; radius and shift (right, down) in texels."""
        return hill(self.points[landmark] + shift, radius)


def hill(at: np.ndarray, radius: float | tuple[float, float]) -> np.ndarray:
    """(512, 512): a Gaussian hill of height 1; one radius, or one along x and one along y, in texels."""
    rx, ry = radius if isinstance(radius, tuple) else (radius, radius)
    axis = np.arange(CHART, dtype=np.float32)
    along = [np.exp(-(((axis - float(c)) / float(r)) ** 2) / 2) for c, r in zip(at, (rx, ry), strict=True)]
    return np.outer(along[1], along[0])


def area(outline: np.ndarray, feather: float) -> np.ndarray:
    """(512, 512) in [0, 1]: a closed outline (N, 2), its edge softened over `feather` texels."""
    field = np.zeros((CHART, CHART), np.float32)
    cv2.fillPoly(field, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
    return soft(field, feather)


def blank() -> np.ndarray:
    """(512, 512) of zeros."""
    return np.zeros((CHART, CHART), np.float32)


def soft(layer: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of (H, W) or (H, W, C); a wide one is made at half or quarter size."""
    step = 4 if sigma >= 8 else 2 if sigma >= 4 else 1
    if step == 1:
        return cv2.GaussianBlur(layer, (0, 0), sigma)
    size = layer.shape[1::-1]
    small = cv2.resize(layer, (size[0] // step, size[1] // step), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / step), size, interpolation=cv2.INTER_LINEAR)


def noise(rng: np.random.Generator, sigma: float, amplitude: float) -> np.ndarray:
    """(512, 512) smooth noise of the given standard deviation; drawn at the scale it needs."""
    step = max(1, int(sigma // 1.5))
    small = rng.standard_normal((CHART // step + 2, CHART // step + 2)).astype(np.float32)
    small = cv2.GaussianBlur(small, (0, 0), max(sigma / step, 0.3))
    field = cv2.resize(small, (CHART, CHART), interpolation=cv2.INTER_CUBIC)
    return field * float(amplitude / max(float(small.std()), 1e-6))


def dot(layer: np.ndarray, at: np.ndarray, radius: float, value: float) -> None:
    """A filled disc."""
    cv2.circle(layer, (round(at[0] * 16), round(at[1] * 16)), round(radius * 16), value, -1, cv2.LINE_AA, 4)


def stroke(layer: np.ndarray, points: np.ndarray, width: float, value: float) -> None:
    """An open line through (N, 2) points."""
    pixels = np.round(np.asarray(points) * 16).astype(np.int32)
    cv2.polylines(layer, [pixels], False, value, max(1, round(width)), cv2.LINE_8, 4)


def curve(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(16, 2) points of a quadratic Bezier curve."""
    t = np.linspace(0, 1, 16)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def hairs(
    roots: np.ndarray, angles: np.ndarray, lengths: np.ndarray, bend: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(512, 512) in [0, 1]: hairs half a texel wide, fainter and bolder ones mixed.

    roots: (N, 2) texels; angles: (N,) radians, 0 right, anticlockwise as seen; lengths: (N,) texels;
    bend: (N,) radians by which the second half turns.
    """
    layer = np.zeros((CHART * 2, CHART * 2), np.float32)

    def step(angle: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(angle), -np.sin(angle)], 1) * (lengths / 2)[:, None]

    middle = roots + step(angles)
    paths = np.stack([roots, middle, middle + step(angles + bend)], 1) * 2
    pixels = np.round(paths * 16).astype(np.int32)
    groups = rng.integers(0, 5, len(roots))
    for group, value in enumerate((0.4, 0.55, 0.7, 0.85, 1.0)):
        cv2.polylines(layer, list(pixels[groups == group]), False, value, 1, cv2.LINE_AA, 4)
    return cv2.resize(layer, (CHART, CHART), interpolation=cv2.INTER_AREA)
