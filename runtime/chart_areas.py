"""Areas of the face chart between landmarks of the mesh. Knows nothing of what they are for."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..models.morphable import MorphableModel


def landmarks_on_chart(model: MorphableModel, landmarks: Sequence[int], side: int) -> np.ndarray:
    """(N, 2) x and y, in texels of a chart of this side, of some of the 468 landmarks."""
    points = model.landmarks_on_chart()[list(landmarks)].cpu().numpy()
    return points * side / model.config.face_block[2]


def hull_on_chart(model: MorphableModel, landmarks: Sequence[int], side: int) -> np.ndarray:
    """(side, side) uint8, 1 within the convex hull of some of the 468 landmarks."""
    points = landmarks_on_chart(model, landmarks, side).astype(np.int32)
    return cv2.fillConvexPoly(np.zeros((side, side), np.uint8), cv2.convexHull(points), 1)
