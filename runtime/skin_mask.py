"""Which pixels of a photo are the face's bare skin: what hair, glasses, hands or hats hide is not.

The occlusion network says how likely each pixel is hidden; a margin is taken off, for an occluder's edge mixes with the
skin beside it. Knows nothing of landmarks' meaning and of what is compared where.
"""

from __future__ import annotations

import cv2
import numpy as np

SURELY_BARE, SURELY_HIDDEN = 0.2, 0.5  # what the network says
MARGIN = 5  # px, the diameter by which what hides skin is widened
FEATHER = 1.0  # px


def bare_skin(hidden: np.ndarray) -> np.ndarray:
    """(S, S) in [0, 1], how likely a pixel is hidden -> (S, S) float32 in [0, 1]: 1 where the photo shows skin."""
    certain = np.clip((hidden - SURELY_BARE) / (SURELY_HIDDEN - SURELY_BARE), 0, 1).astype(np.float32)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (MARGIN, MARGIN))
    return 1 - cv2.GaussianBlur(cv2.dilate(certain, disc), (0, 0), FEATHER)
