"""A canvas over a face, to draw things on that hide it: a frame in eye distances, lines, hairs, fingers.

Drawn larger than the photo, then averaged down to its pixels, with the share of each pixel that is covered. Knows
nothing of what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ..models.landmark_indices import LEFT_EYE, RIGHT_EYE

CANVAS_SIDE = 900  # px of the canvas at least: drawn larger than small photos, then averaged
REACH = 2.6  # eye distances from the face's middle to the canvas's edge
SHIFT = 4  # fractional bits of OpenCV's coordinates


@dataclass(frozen=True)
class Frame:
    """The face on a canvas: canvas px = origin + x * across + y * down, in eye distances from between the eyes."""

    points: np.ndarray  # (468, 2) canvas px
    origin: np.ndarray
    across: np.ndarray  # towards the character's left, the length of one eye distance
    side: int

    @property
    def unit(self) -> float:
        return float(np.hypot(*self.across))

    @property
    def down(self) -> np.ndarray:
        return np.array([-self.across[1], self.across[0]])

    def pixels(self, xy: np.ndarray) -> np.ndarray:
        """(..., 2) eye distances -> canvas px."""
        return self.origin + xy[..., :1] * self.across + xy[..., 1:] * self.down

    def units(self, pixels: np.ndarray) -> np.ndarray:
        """The inverse of `pixels`."""
        offset = pixels - self.origin
        return np.stack([offset @ self.across, offset @ self.down], -1) / self.unit**2


def pasted(
    image: np.ndarray, landmarks: np.ndarray, draw: Callable[[Frame, np.ndarray], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw on a canvas over the face, average it down to the photo's pixels, lay it over the photo.

    The canvas is (S, S, 4): sRGB times coverage, and coverage, 8 bits.
    """
    points = landmarks[:, :2].astype(np.float64)
    right, left = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
    middle, unit = (right + left) / 2, float(np.hypot(*(left - right)))
    width = max(int(np.ceil(2 * REACH * unit)), 8)
    corner = np.floor(middle - width / 2 + 0.5 * unit * np.array([0, 1]))
    factor = max(1, int(np.ceil(CANVAS_SIDE / width)))
    frame = Frame((points - corner) * factor, (middle - corner) * factor, (left - right) * factor, width * factor)
    canvas = np.zeros((frame.side, frame.side, 4), np.uint8)
    draw(frame, canvas)
    drawn = cv2.resize(canvas, (width, width), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    drawn = cv2.GaussianBlur(drawn, (0, 0), 0.4)  # a lens's, so that edges are as soft as the photo's

    left_px, top_px = (int(v) for v in corner)
    height, across = image.shape[:2]
    rows = slice(max(top_px, 0), min(top_px + width, height))
    columns = slice(max(left_px, 0), min(left_px + width, across))
    inside = drawn[rows.start - top_px : rows.stop - top_px, columns.start - left_px : columns.stop - left_px]
    out, mask = image.astype(np.float32).copy(), np.zeros((height, across), np.float32)
    mask[rows, columns] = inside[..., 3]
    out[rows, columns] = out[rows, columns] * (1 - inside[..., 3:]) + inside[..., :3]
    return out.clip(0, 1), mask


def line(canvas: np.ndarray, pixels: np.ndarray, colour: np.ndarray, width: float, closed: bool = False) -> None:
    path = np.round((pixels - 0.5) * 2**SHIFT).astype(np.int32)
    painted = (*(float(v) for v in np.clip(colour, 0, 255)), 255.0)
    cv2.polylines(canvas, [path], closed, painted, max(1, round(width)), cv2.LINE_AA, SHIFT)


def strand(canvas: np.ndarray, pixels: np.ndarray, colour: np.ndarray, width: float) -> None:
    """A hair: thinner towards its ends, with a sheen where it bends."""
    last = len(pixels) - 2
    for i in range(last + 1):
        along = i / last
        sheen = 1 + 0.3 * np.exp(-(((along - 0.45) / 0.16) ** 2))
        line(canvas, pixels[i : i + 2], colour * sheen, width * (1 - 0.75 * abs(2 * along - 1) ** 3))


def finger(
    canvas: np.ndarray,
    frame: Frame,
    start: np.ndarray,
    end: np.ndarray,
    radius: tuple[float, float],
    colour: np.ndarray,
    noise: np.ndarray,
) -> None:
    """A rounded cone between two points, lit from above and in front; all lengths in eye distances.

    noise: (S, S), the skin's unevenness.
    """
    ends, margin = frame.pixels(np.stack([start, end])), (max(radius) + 0.05) * frame.unit
    low, high = (ends.min(0) - margin).astype(int).clip(0), (ends.max(0) + margin).astype(int).clip(0, frame.side)
    if (high <= low).any():
        return
    yy, xx = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32) + 0.5
    here = frame.units(np.stack([xx, yy], -1))
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    axis = end - start
    share = ((here - start) @ axis / (axis @ axis)).clip(0, 1)
    offset = here - (start + share[..., None] * axis)
    wide = radius[0] + (radius[1] - radius[0]) * share
    out = np.hypot(offset[..., 0], offset[..., 1]) / wide  # 1 on the outline
    rise = np.sqrt(np.maximum(1 - out**2, 0))
    lit = 0.48 + 0.52 * rise - 0.26 * offset[..., 1] / wide
    crease = 1 - 0.1 * sum(np.exp(-(((share - at) / 0.025) ** 2)) for at in (0.42, 0.72))
    shaded = colour * (lit * crease * (1 + 0.03 * noise[window]))[..., None]
    cover = (1 - np.clip((out - 1) * wide / 0.02 + 0.5, 0, 1))[..., None]
    layer = np.concatenate([shaded.clip(0, 255), np.full_like(cover, 255.0)], -1)
    canvas[window] = (canvas[window] * (1 - cover) + layer * cover + 0.5).astype(np.uint8)


def sampled(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2 or 3) px -> (N, 3), the nearest pixel's."""
    x, y = points[:, :2].astype(int).T
    return image[y.clip(0, len(image) - 1), x.clip(0, image.shape[1] - 1)]
