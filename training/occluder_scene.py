"""A face photo on which layers are laid: the picture, the share of each pixel that is covered, textures for the layers.

Lengths are eye distances from the middle between the eyes, x to the character's left, y down the face, so that
everything follows the head's size and roll. Knows nothing of what the layers show.
"""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np

from ..models.landmark_indices import FACE_OVAL, LEFT_EYE, RIGHT_EYE
from .occluder_canvas import SHIFT, Frame, sampled

FINE = 2  # canvas pixels a photo pixel, along a side
CHEEKS = (50, 280)  # of the mesh, right and left
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Scene:
    """picture (S, S, 3) float32 sRGB in [0, 1] and coverage (S, S) float32 in [0, 1], both painted on in place.

    Args:
        image: (S, S, 3) float32 sRGB in [0, 1]; copied.
        landmarks: (468, 2) px of the image, pixel centres at +0.5.
        effects: False leaves every pixel that nothing covers as it was: `shade` and `tint` do nothing.
    """

    def __init__(self, image: np.ndarray, landmarks: np.ndarray, *, effects: bool = True) -> None:
        self.size, self.effects = len(image), effects
        self.picture = image.astype(np.float32).copy()
        self.coverage = np.zeros(image.shape[:2], np.float32)
        points = landmarks[:, :2].astype(np.float64)
        right, left = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
        self.photo_frame = Frame(points, (right + left) / 2, left - right, self.size)
        self.frame = Frame(points * FINE, (right + left) / 2 * FINE, (left - right) * FINE, self.size * FINE)
        self.points = self.photo_frame.units(points)  # (468, 2) eye distances
        self.unit = self.photo_frame.unit  # px
        px = np.arange(self.size, dtype=np.float32) + 0.5
        u, v = ((px - at) / np.float32(self.unit**2) for at in self.photo_frame.origin.astype(np.float32))
        across, down = (axis.astype(np.float32) for axis in (self.photo_frame.across, self.photo_frame.down))
        self.x = u[None] * across[0] + v[:, None] * across[1]  # (S, S)
        self.y = u[None] * down[0] + v[:, None] * down[1]
        self.hull = self.polygon(self.points[list(FACE_OVAL)])
        self.skin = np.median(sampled(image, points[[50, 280, 151, 205, 425, 4]]), 0)  # (3,) sRGB in [0, 1]
        pair = sampled(image, points[list(CHEEKS)]) @ LUMA + 0.02
        self.side_light = float(np.clip(np.log(pair[1] / pair[0]), -0.8, 0.8))  # > 0: from the character's left

    def polygon(self, outline: np.ndarray) -> np.ndarray:
        """(N, 2) -> (S, S) float32, 1 inside."""
        mask = np.zeros((self.size * FINE,) * 2, np.uint8)
        pixels = np.round((self.frame.pixels(outline) - 0.5) * 2**SHIFT).astype(np.int32)
        cv2.fillPoly(mask, [pixels], 255, cv2.LINE_AA, SHIFT)
        return self.smaller(mask)

    def canvas(self) -> np.ndarray:
        """An empty layer for `occluder_canvas`'s tools, with `frame` for coordinates: sRGB times coverage, coverage."""
        return np.zeros((self.size * FINE, self.size * FINE, 4), np.uint8)

    def smaller(self, canvas: np.ndarray) -> np.ndarray:
        """Canvas pixels, uint8 -> photo pixels, float32 in [0, 1]."""
        return cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255

    def lay(self, colour: np.ndarray, alpha: np.ndarray) -> None:
        """Cover with colour (3,) or (S, S, 3) where alpha (S, S) is 1."""
        self._blend(colour, alpha)
        self.coverage += alpha * (1 - self.coverage)

    def tint(self, colour: np.ndarray, alpha: np.ndarray) -> None:
        """`lay` that covers nothing: colour on the skin itself, or behind the face."""
        if self.effects:
            self._blend(colour, alpha)

    def shade(self, factor: np.ndarray) -> None:
        """Light and shadow: multiply by (S, S)."""
        if self.effects:
            self.picture = (self.picture * factor[..., None].astype(np.float32)).clip(0, 1)

    def cast_shadow(self, alpha: np.ndarray, rng: np.random.Generator, reach: float = 0.06) -> None:
        """The soft shadow beside a thing that is about to be laid with this alpha."""
        if not self.effects:
            return
        offset = self.photo_frame.pixels(np.array(rng.uniform([-reach, 0], [reach, 1.6 * reach]))[None])[0]
        dx, dy = offset - self.photo_frame.origin
        moved = cv2.warpAffine(alpha, np.array([[1, 0, dx], [0, 1, dy]]), alpha.shape[::-1])
        soft = blurred(moved, float(rng.uniform(0.3, 1.2)) * reach * self.unit)
        self.shade(1 - float(rng.uniform(0.1, 0.55)) * soft)

    def _blend(self, colour: np.ndarray, alpha: np.ndarray) -> None:
        rows, columns = alpha.any(1).nonzero()[0], alpha.any(0).nonzero()[0]
        if not len(rows):
            return
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        here = self.picture[window]
        there = np.clip(colour[window] if colour.ndim == 3 else colour, 0, 1).astype(np.float32)
        here += alpha[window][..., None].astype(np.float32) * (there - here)

    def rounded(self, alpha: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
        """(S, S) light on a swollen thing of this outline; depth: eye distances that its edge is rounded over."""
        soft = blurred(alpha, depth * self.unit)
        light = np.array([self.side_light + rng.normal(0, 0.3), -rng.uniform(0.1, 0.8)])
        slope = cv2.Sobel(soft, cv2.CV_32F, 1, 0) * float(light[0]) + cv2.Sobel(soft, cv2.CV_32F, 0, 1) * float(
            light[1]
        )
        return (1 - slope * np.float32(depth * self.unit * 0.35)) * (0.62 + 0.38 * soft)


def sigmoid(field: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(field, -30, 30)))


def blurred(field: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(field, (0, 0), max(sigma, 0.3))


def smooth_noise(rng: np.random.Generator, size: int, cells: int | tuple[int, int]) -> np.ndarray:
    """(size, size) float32 of deviation near 1, with this many bumps along a side (rows, columns)."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    coarse = rng.standard_normal((rows + 2, columns + 2), np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def any_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) sRGB in [0, 1]: black, white, grey, muted or vivid."""
    kind = rng.random()
    if kind < 0.3:
        return np.clip(rng.beta(0.6, 0.6) + rng.normal(0, 0.02, 3), 0.02, 0.98)
    most = 0.4 if kind < 0.7 else 1.0
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, most), rng.uniform(0.1, 1.0)))


SKINS = np.array([(0.93, 0.76, 0.66), (0.87, 0.67, 0.55), (0.76, 0.56, 0.43), (0.6, 0.42, 0.32), (0.42, 0.28, 0.21),
                  (0.27, 0.18, 0.14)])  # sRGB  # fmt: skip


def skin_colour(scene: Scene, rng: np.random.Generator, same: float = 0.65) -> np.ndarray:
    """(3,) sRGB in [0, 1]: the face's own, a little off, with this probability; or somebody else's."""
    if rng.random() < same:
        return np.clip(scene.skin * np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.025, 3)), 0.02, 0.98)
    return np.clip(SKINS[rng.integers(len(SKINS))] * np.exp(rng.normal(-0.05, 0.15) + rng.normal(0, 0.03, 3)), 0, 1)


def fabric(scene: Scene, rng: np.random.Generator, colour: np.ndarray | None = None) -> np.ndarray:
    """(S, S, 3) sRGB: plain, striped, chequered, dotted, knitted or mottled cloth, or paper, plastic, skin-like."""
    size = scene.size
    base = any_colour(rng) if colour is None else np.asarray(colour)
    other = any_colour(rng) if rng.random() < 0.5 else np.clip(base * rng.uniform(0.5, 1.6), 0, 1)
    angle, pitch = float(rng.uniform(0, np.pi)), float(rng.uniform(0.03, 0.4))
    across, along, bend = math.cos(angle) / pitch, math.sin(angle) / pitch, 0.03 / pitch
    u = scene.x * across + scene.y * along + bend * smooth_noise(rng, size, 5)
    v = scene.y * across - scene.x * along + bend * smooth_noise(rng, size, 5)
    kind = rng.choice(["plain", "stripes", "checks", "dots", "knit", "mottled"], p=[0.42, 0.14, 0.1, 0.08, 0.12, 0.14])
    share: np.ndarray
    if kind == "plain":
        share = np.zeros((size, size), np.float32)
    elif kind == "stripes":
        share = sigmoid(float(rng.uniform(4, 20)) * np.cos(2 * np.pi * u))
    elif kind == "checks":
        share = np.float32(0.5) * (np.cos(2 * np.pi * u) > 0) + np.float32(0.5) * (np.cos(2 * np.pi * v) > 0)
    elif kind == "dots":
        share = np.clip(4 * (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v) - 1.1), 0, 1)
    elif kind == "knit":
        share = 0.35 * (1 + np.cos(2 * np.pi * u * 3) * np.cos(2 * np.pi * (v * 2 + 0.3 * np.abs(np.sin(u * 9)))))
    else:
        share = np.clip(0.5 + float(rng.uniform(0.4, 2)) * smooth_noise(rng, size, int(rng.integers(4, 40))), 0, 1)
    cloth = base.astype(np.float32) + share[..., None] * (other - base).astype(np.float32)
    folds = smooth_noise(rng, size, (int(rng.integers(2, 9)), int(rng.integers(2, 9))))
    grain = rng.standard_normal((size, size), np.float32)
    light = 1 + float(rng.uniform(0, 0.22)) * folds + float(rng.uniform(0, 0.06)) * grain
    light *= np.exp(0.25 * scene.side_light * scene.x)
    return (cloth * light[..., None]).clip(0, 1)
