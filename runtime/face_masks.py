"""Which pixels of a crop are face, eyes and mouth, by the landmarks alone.

This file knows nothing of the head's geometry: what the rasteriser sees is another mask, and they are
combined by whoever compares a rendering with a photo.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_INNER, RIGHT_BROW, RIGHT_EYE

FOREHEAD = (284, 332, 297, 338, 10, 109, 67, 103, 54)  # of the face oval, from the left temple to the right one
BEYOND = 1.3  # times as far from the brows: the forehead's mask ends nowhere within the hull


@dataclass(frozen=True, eq=False)
class FaceMasks:
    """(S, S) bool masks over a crop.

    `skin_hull` is the convex hull of all landmarks, eyes and mouth included: from the front that is the face
    oval, in half profile it keeps the nose. `eyes` and `inner_mouth` are the openings between lids and lips.
    `forehead` is what is above the brows, to beyond the hull.
    """

    skin_hull: np.ndarray
    eyes: np.ndarray
    inner_mouth: np.ndarray
    forehead: np.ndarray


def face_masks(landmarks: np.ndarray, size: int) -> FaceMasks:
    """(468, 2 or 3) landmarks in the pixels of a square crop of side `size` -> masks, by pixel centres."""
    points = np.ascontiguousarray(landmarks[:, :2], np.float32)
    hull = cv2.convexHull(points)[:, 0]
    eyes = _inside(points[list(RIGHT_EYE)], size) | _inside(points[list(LEFT_EYE)], size)
    brows = points[[*RIGHT_BROW[:5], *LEFT_BROW[4::-1]]]
    middle = brows.mean(0)
    forehead = np.concatenate([brows, middle + BEYOND * (points[list(FOREHEAD)] - middle)])
    return FaceMasks(_inside(hull, size), eyes, _inside(points[list(LIPS_INNER)], size), _inside(forehead, size))


def _inside(polygon: np.ndarray, size: int) -> np.ndarray:
    """Closed polygon (N, 2) px -> (size, size) bool by the even-odd rule at pixel centres."""
    centres = np.arange(size) + 0.5
    inside = np.zeros((size, size), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        rows = np.flatnonzero((y0 > centres) != (y1 > centres))  # those that this edge crosses
        x = x0 + (centres[rows] - y0) / (y1 - y0 if y1 != y0 else 1) * (x1 - x0)
        inside[rows] ^= centres < x[:, None]
    return inside
