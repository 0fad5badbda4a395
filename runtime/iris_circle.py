"""One photographed eye, turned level and brought to one size, and the circle of its iris.

The circle is where an integro-differential operator (Daugman 1993) is largest on the two sides of the iris, which
lids seldom cover. Works on pixels and a lid contour; it knows nothing of colours' meaning, of heads or of avatars.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..rendering.shader import linear_from_srgb

FloatArray = np.ndarray  # of float32: what OpenCV returns is annotated without a type

EYE_WIDTH = 96  # px between the eye's corners in a patch
PATCH_SIZE = (96, 160)  # height, width
_SIDE_ANGLES = np.radians(np.concatenate([np.arange(-40, 41, 13), np.arange(140, 221, 13)]))
_RADII = np.arange(6.0, 34.0)
_EXPECTED_RADIUS, _RADIUS_SPREAD = 0.205 * EYE_WIDTH, 0.03 * EYE_WIDTH
_RADIUS_WEIGHT, _HEIGHT_WEIGHT = 0.05, 0.0005  # of a spread squared, and of a pixel squared off the opening's middle
_BAND = 4  # radii on either side that a border is compared over


@dataclass(frozen=True, eq=False)
class EyePatch:
    """An eye in a frame of its own: corners level, `EYE_WIDTH` px apart.

    Attributes:
        pixels: (96, 160, 3) float32 linear RGB in [0, 1].
        opening: (96, 160) bool, between the lids.
        scale: patch px for one px of the photo.
        openness: height of the opening over its width.
    """

    pixels: FloatArray
    opening: npt.NDArray[np.bool_]
    scale: float
    openness: float

    @property
    def luminance(self) -> FloatArray:
        """(96, 160), Rec. 709."""
        return self.pixels @ np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class IrisCircle:
    """Middle and radius in px of the patch; contrast: the step at its border over the luminance outside, at most 1."""

    x: float
    y: float
    radius: float
    contrast: float


def cut_eye(photo: npt.NDArray[np.uint8], contour: npt.NDArray[np.floating]) -> EyePatch:
    """(H, W, 3) sRGB photo and a lid contour (N, 2) px whose points 0 and N / 2 are the corners -> the patch.

    Which corner comes first does not matter: the patch is turned, never mirrored.
    """
    points = np.asarray(contour, np.float64)
    first, second = sorted((points[0], points[len(points) // 2]), key=lambda point: point[0])
    width = max(float(np.hypot(*(second - first))), 1e-3)
    scale = EYE_WIDTH / width
    c, s = (second - first) / width * scale
    linear = np.array([[c, s], [-s, c]])
    offset = np.array([PATCH_SIZE[1], PATCH_SIZE[0]]) / 2 - linear @ ((first + second) / 2)

    # Only the eye's surroundings are made linear; OpenCV puts pixel centres at whole numbers.
    limits = np.array(photo.shape[1::-1])
    low = np.clip(np.floor(points.min(0) - width), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(points.max(0) + width), low + 1, limits).astype(int)
    window = linear_from_bytes(photo[low[1] : high[1], low[0] : high[0]])
    if scale < 1:
        window = cv2.GaussianBlur(window, (0, 0), 0.4 / scale)
    shift = offset + linear @ (low + 0.5) - 0.5
    transform = np.concatenate([linear, shift[:, None]], axis=1)
    pixels = cv2.warpAffine(window, transform, PATCH_SIZE[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    own = points @ linear.T + offset
    opening = np.zeros(PATCH_SIZE, np.uint8)
    cv2.fillPoly(opening, [np.round(own * 16 - 8).astype(np.int32)], 1, shift=4)
    area = 0.5 * abs(float(np.dot(own[:, 0], np.roll(own[:, 1], 1)) - np.dot(own[:, 1], np.roll(own[:, 0], 1))))
    return EyePatch(pixels.clip(0, 1), opening.astype(bool), scale, area / (0.75 * EYE_WIDTH**2))


def find_iris(patch: EyePatch) -> IrisCircle:
    """The circle that fits best; its contrast says whether there is one at all."""
    rows, columns = np.nonzero(patch.opening)
    if not len(rows):
        return IrisCircle(PATCH_SIZE[1] / 2, PATCH_SIZE[0] / 2, _EXPECTED_RADIUS, 0.0)
    middle_y = float(rows.mean())
    # Square roots, for the step from white to iris to outweigh the one from iris to pupil; highlights cut off.
    light = np.sqrt(np.maximum(cv2.GaussianBlur(patch.luminance, (0, 0), 1.2), 0))
    white = max(float(np.quantile(light[patch.opening], 0.85)), 1e-3)
    light = np.minimum(light / white, 1)
    inside = cv2.dilate(patch.opening.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)

    xs = np.arange(columns.min() + 18, columns.max() - 17, 3.0)
    ys = np.arange(middle_y - 6, middle_y + 9, 3.0)
    x, y = (grid.ravel() for grid in np.meshgrid(xs, ys))
    if not len(x):
        return IrisCircle(PATCH_SIZE[1] / 2, middle_y, _EXPECTED_RADIUS, 0.0)
    map_x = x[:, None, None] + np.cos(_SIDE_ANGLES)[:, None] * _RADII - 0.5  # (centres, angles, radii)
    map_y = y[:, None, None] + np.sin(_SIDE_ANGLES)[:, None] * _RADII - 0.5
    flat_x, flat_y = (grid.reshape(len(x), -1).astype(np.float32) for grid in (map_x, map_y))
    samples = cv2.remap(light, flat_x, flat_y, cv2.INTER_LINEAR).reshape(map_x.shape)
    seen = cv2.remap(inside, flat_x, flat_y, cv2.INTER_NEAREST).reshape(map_x.shape)
    score, contrast = _borders(samples, seen)
    radii = _RADII[_BAND:-_BAND]
    off = (radii - _EXPECTED_RADIUS) / _RADIUS_SPREAD
    score = score - _RADIUS_WEIGHT * off * off - _HEIGHT_WEIGHT * ((y - middle_y) ** 2)[:, None]
    centre, radius = np.unravel_index(int(np.argmax(score)), score.shape)
    return IrisCircle(float(x[centre]), float(y[centre]), float(radii[radius]), float(contrast[centre, radius]))


def _borders(light: FloatArray, seen: FloatArray) -> tuple[npt.NDArray, npt.NDArray]:
    """Score and contrast (centres, radii) of every circle, from samples (centres, angles, radii)."""
    sums, counts = (np.cumsum(values, axis=2, dtype=np.float32) for values in (light * seen, seen))
    sums, counts = (np.pad(values, ((0, 0), (0, 0), (1, 0))) for values in (sums, counts))
    at = np.arange(_BAND, len(_RADII) - _BAND)
    whole = (counts[..., at + _BAND] - counts[..., at - _BAND]) > 2 * _BAND - 0.5  # all of a border's samples are seen
    step = (sums[..., at + _BAND] - 2 * sums[..., at] + sums[..., at - _BAND]) / _BAND * whole
    half = light.shape[1] // 2
    share = np.stack([whole[:, :half].mean(1), whole[:, half:].mean(1)])  # (2 sides, centres, radii)
    total = np.stack([step[:, :half].mean(1), step[:, half:].mean(1)])
    contrast = total / np.maximum(share, 0.3)  # a side that is hardly seen counts little
    darkness = 1 - sums[..., at].sum(1) / np.maximum(counts[..., at].sum(1), 1)
    return contrast.clip(-1, 0.6).mean(0) + 0.5 * darkness, contrast.max(0).clip(0, 1)


def linear_from_bytes(pixels: npt.NDArray[np.uint8]) -> FloatArray:
    """sRGB bytes -> linear values in [0, 1] (IEC 61966-2-1)."""
    table = linear_from_srgb(torch.arange(256) / 255).numpy()
    return table[pixels]
