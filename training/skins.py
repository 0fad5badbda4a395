"""Photographic skins as parts that can be recombined: de-lit colour, detail, and where it was taken from.

Reads skins in MakeHuman's UV layout (the CC0 skins of the MakeHuman core assets, or a studio's own in that layout)
into the face chart. Knows nothing of networks. Colour is handled as log of linear albedo, where pigments add.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..assets.atlas_layout import FACE_BLOCK
from ..assets.make_head_atlas import fill_outside, island_mask, read_skin, skin_in_atlas
from ..errors import UsageError
from ..models.morphable import MorphableModel

CHART = FACE_BLOCK[2]
LOW_SIGMA = 14.0  # texels: what is smoother than this is pigment and leftover light; what is finer is detail
LIGHT_KEPT = 0.45  # share of a skin's own low-frequency luminance variation that survives de-lighting
MIN_RESOLUTION = 1500  # pixels a side; smaller skins give colour but no detail


@dataclass(frozen=True)
class Skin:
    """One skin over the face chart.

    name: file stem; source: the photographed person that it comes from, as far as the name tells;
    tone: (3,) mean log albedo of the face; low: (512, 512, 3) log albedo less the tone, de-lit, smooth;
    detail: (512, 512, 3) log albedo above LOW_SIGMA, or None for a small file.
    """

    name: str
    source: str
    tone: np.ndarray
    low: np.ndarray
    detail: np.ndarray | None


def source_of(name: str) -> str:
    """The person behind a MakeHuman skin: tone and sex name the photographed source, the age is painted over it."""
    age, *rest = name.split("_")
    key = "_".join(rest).removesuffix("_diffuse").rstrip("0123456789").removesuffix("_diffuse")
    return f"{'older' if age == 'old' and 'light' in key else 'adult'}_{key}"


def linear_from_srgb(image: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1 decoding of (..., 3) values in [0, 1]."""
    return np.where(image > 0.04045, ((image + 0.055) / 1.055) ** 2.4, image / 12.92)


def face_weight(model: MorphableModel) -> np.ndarray:
    """(512, 512) in [0, 1]: the bare skin of the face, without scalp, ears and the chart's corners."""
    x, y = np.meshgrid(np.arange(CHART) / CHART, np.arange(CHART) / CHART)
    ellipse = ((x - 0.5) / 0.24) ** 2 + ((y - 0.50) / 0.36) ** 2
    return (1 / (1 + np.exp((ellipse - 1) * 8))).astype(np.float32) * chart_mask(model)


def chart_mask(model: MorphableModel) -> np.ndarray:
    """(512, 512) bool: texels of the face chart that the skin uses."""
    x, y, size = FACE_BLOCK
    return island_mask(model, ("skin",))[y : y + size, x : x + size]


def load_skins(folder: Path, model: MorphableModel) -> list[Skin]:
    """All skins of a folder, sorted by name.

    Raises:
        UsageError: the folder holds none.
    """
    files = sorted(p for p in folder.glob("*diffuse*") if p.suffix in (".png", ".jpg") and "skinned" in p.name)
    if not files:
        raise UsageError(
            f"skins folder {folder}",
            "no *skinned*_diffuse.png or .jpg",
            "skins in MakeHuman's UV layout",
            "see docs/training.md for where to find them",
        )
    mask, weight = chart_mask(model), face_weight(model)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((7, 7))).astype(bool)
    return [_skin_from_file(path, inner, weight) for path in files]


def _skin_from_file(path: Path, mask: np.ndarray, weight: np.ndarray) -> Skin:
    image = read_skin(path)
    x, y, size = FACE_BLOCK
    chart = fill_outside(skin_in_atlas(image)[y : y + size, x : x + size], mask)
    log = np.log(np.maximum(linear_from_srgb(chart), 2e-3)).astype(np.float32)
    tone = (log * weight[..., None]).sum((0, 1)) / weight.sum()
    low = cv2.GaussianBlur(log, (0, 0), LOW_SIGMA)
    detail = log - low if len(image) >= MIN_RESOLUTION else None
    # Light that was baked in is grey in log space: the mean over the channels. Pigment differs between them.
    grey = (low - tone).mean(2, keepdims=True)
    broad = cv2.GaussianBlur(grey, (0, 0), 3 * LOW_SIGMA)[..., None]
    return Skin(path.stem, source_of(path.stem), tone, low - tone - (1 - LIGHT_KEPT) * broad, detail)
