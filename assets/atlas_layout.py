"""Where everything lies in the 1024 x 1024 atlas that all parts of a head share.

The face chart is an affine crop of MakeHuman's head UV island, turned upright (forehead up, the character's left on
the image's right), and sits in the atlas as an exact block of 512 x 512 pixels: composing never resamples it.
The island's rest (scalp, ears, upper neck) continues around the block; the other islands fill the strip below.
"""

from __future__ import annotations

import numpy as np

ATLAS_SIZE = 1024
FACE_BLOCK = (256, 184, 512)  # x, y, size

# The face chart's corners in MakeHuman's layout, pixels of a 1024 image with v down.
_CHART_X = (748.0, 1019.0)  # becomes t, downwards
_CHART_Y = (340.0, 718.0)  # becomes s, turned over so that the character's left is on the right

EYE_EXPONENT = 0.6

# Rectangles (x, y, width, height) of the other islands, atlas pixels.
EYE_RECT = (8, 728, 256, 256)
MOUTH_RECT = (280, 716, 232, 176)
SOCKET_RECTS = {"right": (280, 904, 96, 112), "left": (392, 904, 96, 112)}
NECK_RECT = (528, 716, 448, 172)
TEETH_RECT = (528, 904, 160, 112)
ENAMEL_RECT = (584, 904, 48, 16)  # between the arms of the upper row's band: plain enamel, for teeth of other heads
TONGUE_RECT = (704, 904, 96, 112)
LASH_RECT = (816, 904, 160, 112)


def face_chart_from_makehuman(uv: np.ndarray) -> np.ndarray:
    """(..., 2) MakeHuman UV, v up -> (..., 2) face chart (s right, t down), [0, 1] inside the chart."""
    x, y = uv[..., 0] * 1024, (1 - uv[..., 1]) * 1024
    s = (_CHART_Y[1] - y) / (_CHART_Y[1] - _CHART_Y[0])
    t = (x - _CHART_X[0]) / (_CHART_X[1] - _CHART_X[0])
    return np.stack([s, t], -1)


def makehuman_from_face_chart(chart: np.ndarray) -> np.ndarray:
    """The inverse of `face_chart_from_makehuman`: (..., 2) -> (..., 2) MakeHuman UV, v up."""
    x = _CHART_X[0] + chart[..., 1] * (_CHART_X[1] - _CHART_X[0])
    y = _CHART_Y[1] - chart[..., 0] * (_CHART_Y[1] - _CHART_Y[0])
    return np.stack([x / 1024, 1 - y / 1024], -1)


def fit_to_rect(uv: np.ndarray, rect: tuple[int, int, int, int]) -> np.ndarray:
    """Stretch the bounding box of some UVs (v up) to a rectangle of the atlas, less a margin of 4 pixels."""
    low, high = uv.reshape(-1, 2).min(0), uv.reshape(-1, 2).max(0)
    unit = (uv - low) / (high - low)
    unit[..., 1] = 1 - unit[..., 1]
    x, y, width, height = rect
    return (np.array([x + 4, y + 4]) + unit * np.array([width - 8, height - 8])) / ATLAS_SIZE


def eye_uv(corners: np.ndarray) -> np.ndarray:
    """Azimuthal projection of an eyeball about its gaze (+Z): the pupil in the middle, the rear pole on the rim.

    corners: (F, 3, 3) positions. The radius is (angle / pi) ** EYE_EXPONENT, which gives the iris half the width.
    """
    points = corners.reshape(-1, 3)
    centre = (points.min(0) + points.max(0)) / 2
    direction = corners - centre
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    angle = np.arccos(np.clip(direction[..., 2], -1, 1)) / np.pi  # 0 at the pupil, 1 at the rear
    across = np.linalg.norm(direction[..., :2], axis=-1, keepdims=True)
    heading = direction[..., :2] / np.maximum(across, 1e-6) * (across > 1e-4)
    x, y, width, height = EYE_RECT
    disc = heading * angle[..., None] ** EYE_EXPONENT * np.array([1, -1]) * 0.5 + 0.5
    return (np.array([x + 4, y + 4]) + disc * np.array([width - 8, height - 8])) / ATLAS_SIZE


def atlas_uv(source: np.ndarray, triangle_part: np.ndarray, parts: tuple[str, ...], corners: np.ndarray) -> np.ndarray:
    """Atlas UVs of every triangle corner.

    source: (F, 3, 2) MakeHuman UVs, v up; corners: (F, 3, 3) positions of the base mesh.
    Returns (F, 3, 2) float32, v down, [0, 1].
    """
    part = {name: triangle_part == i for i, name in enumerate(parts)}
    centre = source.mean(1)
    socket = part["skin"] & (centre[:, 0] < 0.16) & (centre[:, 1] > 0.54) & (centre[:, 1] < 0.64)
    neck = part["skin"] & ~socket & (centre[:, 0] < 0.6)
    island = part["skin"] & ~socket & ~neck
    uv = np.zeros(source.shape, np.float64)
    x, y, size = FACE_BLOCK
    uv[island] = (np.array([x, y]) + face_chart_from_makehuman(source[island]) * size) / ATLAS_SIZE
    uv[neck] = fit_to_rect(source[neck], NECK_RECT)
    right = socket & (corners[..., 0].mean(1) < 0)
    uv[right] = fit_to_rect(source[right], SOCKET_RECTS["right"])
    left = socket & ~right
    uv[left] = fit_to_rect(source[left], SOCKET_RECTS["left"])
    uv[part["mouth"]] = fit_to_rect(source[part["mouth"]], MOUTH_RECT)
    uv[part["eye_left"]] = eye_uv(corners[part["eye_left"]])
    uv[part["eye_right"]] = eye_uv(corners[part["eye_right"]])
    uv[part["teeth"]] = fit_to_rect(source[part["teeth"]], TEETH_RECT)
    uv[part["tongue"]] = fit_to_rect(source[part["tongue"]], TONGUE_RECT)
    uv[part["lashes"]] = fit_to_rect(source[part["lashes"]], LASH_RECT)
    return uv.astype(np.float32)
