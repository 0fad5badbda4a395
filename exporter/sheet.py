"""Pictures with captions laid out in rows on one sheet. Knows nothing of what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH = 1600  # px
GAP = 16
TEXT_SIZE = 18
CAPTION_HEIGHT = 30
PAPER, INK = 30, 205  # sRGB grey levels: dark, so that skin is judged against neither white nor black


@dataclass(frozen=True, eq=False)
class Tile:
    """(H, W, 3) uint8 sRGB and the line below it."""

    pixels: np.ndarray
    caption: str


def sheet_from_rows(rows: Sequence[Sequence[Tile]], width: int = WIDTH) -> np.ndarray:
    """(H, `width`, 3) uint8: every row fills the width; its tiles are equally wide, captions below."""
    bands = [_band(row, width) for row in rows]
    gap = np.full((GAP, width, 3), PAPER, np.uint8)
    return np.concatenate([gap] + [part for band in bands for part in (band, gap)])


def _band(row: Sequence[Tile], width: int) -> np.ndarray:
    side = (width - GAP * (len(row) + 1)) // len(row)
    images = [_as_wide_as(tile.pixels, side) for tile in row]
    height = max(len(image) for image in images)
    band = np.full((height + CAPTION_HEIGHT, width, 3), PAPER, np.uint8)
    lefts = [GAP + index * (side + GAP) for index in range(len(row))]
    for image, left in zip(images, lefts, strict=True):
        band[: len(image), left : left + side] = image
    canvas = Image.fromarray(band)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TEXT_SIZE)
    for tile, left in zip(row, lefts, strict=True):
        draw.text((left, height + 4), tile.caption, fill=(INK,) * 3, font=font)
    return np.asarray(canvas)


def _as_wide_as(pixels: np.ndarray, width: int) -> np.ndarray:
    if pixels.shape[1] == width:
        return pixels
    height = max(1, round(len(pixels) * width / pixels.shape[1]))
    method = cv2.INTER_AREA if pixels.shape[1] > width else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=method)
