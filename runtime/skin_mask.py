"""Which pixels of a photo are the face's bare skin: what hair, glasses, hands or hats hide is not.

The occlusion network says how likely each pixel is hidden; a margin is taken off, for an occluder's edge mixes with the
skin beside it. Of a fringe it misses the tips and what is between the strands: where hair hangs into the forehead, less
of that is believed. Knows nothing of what is compared where.
"""

from __future__ import annotations

import cv2
import numpy as np

SURE = (0.2, 0.5)  # what the network says of bare and of hidden pixels
SURE_IN_FRINGE = (0.1, 0.3)  # the same on a forehead with a fringe
MARGIN = 3  # px, the diameter by which what hides skin is widened
MARGIN_OF_FRINGE = 7
STRANDS = 27  # px: bare skin of a smaller diameter is between strands of hair
FEATHER = 1.0  # px
FRINGE = (0.15, 0.3)  # hidden shares of a forehead: hair at its sides, and surely a fringe


def bare_skin(hidden: np.ndarray, forehead: np.ndarray | None = None) -> np.ndarray:
    """How likely each pixel is hidden -> how far the photo shows skin there.

    Args:
        hidden: (S, S) in [0, 1].
        forehead: (S, S) bool, see `FaceMasks`; None where it is not known.

    Returns:
        (S, S) float32 in [0, 1], 1 for bare skin.
    """
    bare = 1 - _widened(hidden, SURE, MARGIN)
    if forehead is None or not forehead.any():
        return bare
    covered = _widened(hidden, SURE_IN_FRINGE, MARGIN)[forehead].mean()
    has_fringe = np.clip((covered - FRINGE[0]) / (FRINGE[1] - FRINGE[0]), 0, 1)
    if not has_fringe:
        return bare
    clear = cv2.morphologyEx(1 - _widened(hidden, SURE_IN_FRINGE, MARGIN_OF_FRINGE), cv2.MORPH_OPEN, _disc(STRANDS))
    weight = has_fringe * cv2.GaussianBlur(forehead.astype(np.float32), (0, 0), FEATHER)
    return (bare + weight * (np.minimum(bare, clear) - bare)).astype(np.float32)


def _widened(hidden: np.ndarray, sure: tuple[float, float], margin: int) -> np.ndarray:
    certain = np.clip((hidden - sure[0]) / (sure[1] - sure[0]), 0, 1).astype(np.float32)
    return cv2.GaussianBlur(cv2.dilate(certain, _disc(margin)), (0, 0), FEATHER)


def _disc(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
