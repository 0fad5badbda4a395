"""Frames of glasses, found by what skin never has: a thin dark line across the bridge of the nose.

Only then are thin dark lines around the eyes taken for frames: without glasses they are lids, brows and wrinkles.
Rimless glasses are not found, and leave little to find.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE

UNIT = 64  # px of the levelled window that an eye distance has
WINDOW = (2.6, 1.7)  # eye distances, width and height
EYE_LEVEL = 0.6  # eye distances below the window's top
LINE = 11  # px of the levelled window: a frame is thinner than this
BRIDGE = (-0.28, 0.34)  # from the eyes' level down, eye distances, where the bridge of glasses sits
BRIDGE_HALF_WIDTH = 0.09
EVIDENCE = 0.16  # natural log of luminance by which a bridge is darker than the skin above and below it
FRAME = 0.15  # the same for the rest of the frame
FRAME_ROWS = (-0.42, 0.5)  # from the eyes' level down, eye distances, where a frame lies


def glasses_frames(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(S, S, 3) sRGB in [0, 1] and (468, 2 or 3) px -> (S, S) float32 in [0, 1]: 1 on frames, 0 without glasses."""
    points = landmarks[:, :2].astype(np.float64)
    size = image.shape[0]
    right, left = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
    distance = float(np.linalg.norm(left - right))
    if distance < 8:
        return np.zeros((size, size), np.float32)
    across = (left - right) / distance
    linear = np.stack([across, [-across[1], across[0]]], 1) * distance / UNIT  # window px -> crop px
    width, height = (round(extent * UNIT) for extent in WINDOW)
    offset = (right + left) / 2 - linear @ [width / 2, EYE_LEVEL * UNIT]
    window_to_crop = np.hstack([linear, offset[:, None]])
    smooth = np.maximum(cv2.GaussianBlur(image, (0, 0), 0.7), 0.03).astype(np.float64) ** 2.2
    luminance = np.log(smooth @ [0.2126, 0.7152, 0.0722]).astype(np.float32)
    level = cv2.warpAffine(
        luminance, window_to_crop, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    thin = cv2.morphologyEx(level, cv2.MORPH_CLOSE, _disc(LINE)) - level
    middle, eyes = width // 2, round(EYE_LEVEL * UNIT)
    rows = slice(eyes + round(BRIDGE[0] * UNIT), eyes + round(BRIDGE[1] * UNIT))
    columns = slice(middle - round(BRIDGE_HALF_WIDTH * UNIT), middle + round(BRIDGE_HALF_WIDTH * UNIT) + 1)
    if thin[rows, columns].min(1).max() < EVIDENCE:
        return np.zeros((size, size), np.float32)
    dark = (thin > FRAME).astype(np.uint8)
    dark[: eyes + round(FRAME_ROWS[0] * UNIT)] = 0
    dark[eyes + round(FRAME_ROWS[1] * UNIT) :] = 0
    parts = cv2.connectedComponents(cv2.dilate(dark, _disc(5)))[1]
    on_bridge = np.unique(parts[rows, columns])
    frame = np.isin(parts, on_bridge[on_bridge > 0]).astype(np.float32)  # wrinkles and hair hang on no bridge
    mask = cv2.warpAffine(frame, window_to_crop, (size, size), flags=cv2.INTER_LINEAR)
    for contour in (RIGHT_EYE, LEFT_EYE, RIGHT_BROW, LEFT_BROW):
        hull = cv2.convexHull(points[list(contour)].astype(np.float32)).astype(np.int32)
        cv2.fillConvexPoly(mask, hull, 0.0)
    return cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32)


def _disc(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
