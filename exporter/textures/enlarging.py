"""Images at another size: enlarged so that shrinking gives the original back, without ringing.

Works on channels of any meaning. It knows nothing of textures' layouts.
"""

from __future__ import annotations

import cv2
import numpy as np

FloatArray = np.ndarray  # of float32: what OpenCV returns is annotated without a type

_SHARPENINGS = 2


def resized(image: FloatArray, size: int) -> FloatArray:
    """A square image (S, S) or (S, S, C), S a power of two, at `size`: area means when smaller, `enlarged` when larger.

    Values are averaged as they are: hand over colours that are to shrink in linear light.
    """
    side = len(image)
    if size == side:
        return image.copy()
    if size < side:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return enlarged(image, size)


def enlarged(image: FloatArray, size: int) -> FloatArray:
    """Cubic, after sharpening by what the way there and back by area means would lose.

    No value leaves the range of the texel that it lies in and of that one's eight neighbours.
    """
    sharpened = image
    kernel = _round_trip_kernel(size // len(image))
    for _ in range(_SHARPENINGS):
        # Van Cittert's iteration; at the original's size it costs little.
        blurred = cv2.sepFilter2D(sharpened, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
        sharpened = sharpened + (image - blurred)
    target = (size, size)
    result = cv2.resize(sharpened, target, interpolation=cv2.INTER_CUBIC)
    around = np.ones((3, 3), np.uint8)
    np.maximum(result, cv2.resize(cv2.erode(image, around), target, interpolation=cv2.INTER_NEAREST), out=result)
    np.minimum(result, cv2.resize(cv2.dilate(image, around), target, interpolation=cv2.INTER_NEAREST), out=result)
    return result


def _round_trip_kernel(factor: int) -> FloatArray:
    """(7,) what a row's single bright texel becomes when enlarged and shrunk again by `factor`."""
    impulse = np.zeros((1, 15), np.float32)
    impulse[0, 7] = 1
    there = cv2.resize(impulse, (15 * factor, 1), interpolation=cv2.INTER_CUBIC)
    return there.reshape(15, factor).mean(1)[4:11].astype(np.float32)
