"""Mip-safe textures: the colours at the borders of UV islands go on outwards, so that no background bleeds in.

Works on masks and pixels in [0, 1] or of any other range. It knows nothing of avatars and of what a texture means.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SUPERSAMPLING_BITS = 4  # fixed-point bits of OpenCV's polygon corners


def island_mask(
    corner_uv: npt.NDArray[np.floating], size: int, chosen: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.bool_]:
    """(size, size) bool: texels that a triangle touches.

    Args:
        corner_uv: (F, 3, 2) u right, v down, in [0, 1].
        chosen: (F,) bool, the triangles that count; None for all.
    """
    uv = corner_uv if chosen is None else corner_uv[chosen]
    corners = np.round((uv * size - 0.5) * 2**SUPERSAMPLING_BITS).astype(np.int32)
    mask = np.zeros((size, size), np.uint8)
    for triangle in corners:
        cv2.fillConvexPoly(mask, triangle, 1, shift=SUPERSAMPLING_BITS)
    return mask.astype(bool)


def padding_source(mask: npt.NDArray[np.bool_], reach: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Which texel each texel within `reach` of an island takes its colour from.

    Returns:
        Flat indices of the texels outside the mask that are filled, and of the nearest texel inside for each. With
        it any number of maps over one layout are padded alike.
    """
    distance, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    inside = np.flatnonzero(mask)
    if not len(inside):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    label = labels.astype(np.int32, copy=False)
    texel_of_label = np.zeros(int(label.max()) + 1, np.intp)
    texel_of_label[label.ravel()[inside]] = inside
    filled = np.flatnonzero((~mask & (distance <= reach)).ravel())
    return filled, texel_of_label[label.ravel()[filled]]


def pad(image: npt.NDArray, source: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]) -> None:
    """Fill a C-contiguous image (H, W) or (H, W, C) in place by what `padding_source` found."""
    filled, nearest = source
    flat = image.reshape(image.shape[0] * image.shape[1], -1)
    flat[filled] = flat[nearest]
