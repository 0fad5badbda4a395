"""Which pixels of a face are bare skin, by colour: hair over the forehead, glasses and hands are not.

Cheeks and nose say what the person's skin looks like in this light; a plane through their log luminance allows for
light that falls from one side. Brows, eyes and lips differ from skin by nature and are left to the caller.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from .glasses import glasses_frames

REFERENCE = ((117, 118, 101, 205, 207), (346, 347, 330, 425, 427), (168, 198, 5, 420))  # cheeks, nose
DARKER, BRIGHTER = 0.9, 1.1  # natural log of luminance that shading and highlights may differ by
CHROMA = 0.2  # distance of chromaticity (r, g) that blood and light may make
FEATURE_MARGIN = 0.10  # of the eye distance around eyes and lips
BROW_MARGIN = 0.02  # around brows: hair that touches them is near
FEATHER = 1.2  # px


def skin_likelihood(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(S, S, 3) sRGB in [0, 1] and (468, 2 or 3) px -> (S, S) float32 in [0, 1]: 1 on skin, brows, eyes and lips."""
    size = image.shape[0]
    points = landmarks[:, :2].astype(np.float64)
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float64)
    linear = np.maximum(smooth, 0.02) ** 2.2
    luminance = np.log(linear @ [0.2126, 0.7152, 0.0722])
    chroma = linear[..., :2] / linear.sum(2, keepdims=True)
    reference = np.zeros((size, size), np.uint8)
    for indices in REFERENCE:
        cv2.fillConvexPoly(reference, cv2.convexHull(points[list(indices)].astype(np.float32)).astype(np.int32), 1)
    y, x = np.nonzero(reference)
    if len(x) < 20:
        return 1 - glasses_frames(image, landmarks)
    plane = _robust_plane(x, y, luminance[y, x])
    yy, xx = np.mgrid[0:size, 0:size]
    middle, width = points[[117, 346]].mean(0), float(np.ptp(points[:, 0])) + 1e-6
    # Beyond the reference the plane levels out: it must not extrapolate a shadow to the other ear.
    away = np.tanh((xx - middle[0]) / width * 2) * width / 2, np.tanh((yy - middle[1]) / width * 2) * width / 2
    expected = plane[0] + plane[1] * (middle[0] + away[0]) + plane[2] * (middle[1] + away[1])
    difference = luminance - expected
    tint = np.linalg.norm(chroma - np.median(chroma[y, x], 0), axis=2)
    alien = (difference < -DARKER) | (difference > BRIGHTER) | (tint > CHROMA)
    alien = cv2.morphologyEx(alien.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    alien = cv2.dilate(alien, np.ones((9, 9), np.uint8)).astype(np.float32)
    likelihood = 1 - cv2.GaussianBlur(alien, (0, 0), FEATHER)
    bare = np.maximum(likelihood, _features(points, size))
    return (bare * (1 - glasses_frames(image, landmarks))).astype(np.float32)


def _robust_plane(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(offset, slope x, slope y) by least squares, twice, the second time without the fifth that fits worst."""
    design = np.stack([np.ones_like(x), x, y], 1).astype(np.float64)
    plane = np.linalg.lstsq(design, values, rcond=None)[0]
    residual = np.abs(values - design @ plane)
    good = residual <= np.quantile(residual, 0.8)
    return np.linalg.lstsq(design[good], values[good], rcond=None)[0]


def _features(points: np.ndarray, size: int) -> np.ndarray:
    """(size, size) in [0, 1]: brows, eyes and lips with a margin."""
    eyes = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
    distance = float(np.linalg.norm(eyes[0] - eyes[1]))
    area = np.zeros((size, size), np.uint8)
    for contours, share in (
        ((RIGHT_EYE, LEFT_EYE, LIPS_OUTER), FEATURE_MARGIN),
        ((RIGHT_BROW, LEFT_BROW), BROW_MARGIN),
    ):
        drawn = np.zeros_like(area)
        for indices in contours:
            cv2.fillConvexPoly(drawn, cv2.convexHull(points[list(indices)].astype(np.float32)).astype(np.int32), 1)
        margin = max(1, round(share * distance))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
        area = np.maximum(area, cv2.dilate(drawn, kernel))
    return cv2.GaussianBlur(area.astype(np.float32), (0, 0), FEATHER)
