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
LIGHT_KEPT = 0.25  # share of a skin's own broad luminance variation that survives de-lighting
SHEEN_KEPT = 0.35  # share of what is locally lighter than that without being redder: highlights of nose and forehead
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
    """The photographed person behind a skin file, as `darkskinned_male`, `older_lightskinned`.

    The rule for MakeHuman's skins: tone and sex name the person; age and number are painted or graded over the same
    photographs; only the unnumbered old pale skins were photographed anew. Found by correlating the finest detail
    (log albedo less its blur by 2 texels, forehead and cheeks, 2048-pixel files): .34 to 1.0 within a source, under
    .05 between young skins of two. The middle-aged and old skins of all sources share overlays of wrinkles (to .75
    across sources), so only the young ones are wholly independent: see `independent_skins`.
    """
    age, _, key = name.removesuffix(".png").partition("_")
    key, _, number = key.partition("_diffuse")
    return f"older_{key.split('_')[0]}" if age == "old" and "light" in key and not number else key


def default_held_out_source(skins: list[Skin]) -> str:
    """The source with the fewest skins that have detail, but one at least; of equals the one of middling tone.

    Raises:
        UsageError: all detail comes from one source, so that holding it out leaves none to train on.
    """
    detailed = [skin for skin in skins if skin.detail is not None]
    counts = {source: sum(skin.source == source for skin in detailed) for source in (skin.source for skin in detailed)}
    middle = float(np.mean([skin.tone.mean() for skin in detailed]))

    def rank(source: str) -> tuple[int, float, str]:
        tone = float(np.mean([skin.tone.mean() for skin in detailed if skin.source == source]))
        return counts[source], abs(tone - middle), source

    _needs_another(set(counts), "")
    return min(counts, key=rank)


def split_by_source(skins: list[Skin], held_out: str | None) -> tuple[str, list[Skin], list[Skin]]:
    """(the held-out source, skins for training, skins for held-out faces); no source is in both.

    Raises:
        UsageError: the source has no skin with detail, or no other has.
    """
    name = default_held_out_source(skins) if held_out is None else held_out
    sources = {skin.source for skin in skins if skin.detail is not None}
    if name not in sources:
        raise UsageError(
            f"held-out source {name}",
            "no skin with fine detail from it",
            f"one of {', '.join(sorted(sources))}",
            "leave --held-out-source out for the default",
        )
    _needs_another(sources, f" besides {name}")
    own = [skin for skin in skins if skin.source == name]
    return name, [skin for skin in skins if skin.source != name], independent_skins(own)


def independent_skins(skins: list[Skin]) -> list[Skin]:
    """Those without an overlay of wrinkles that other sources share, or all if none of these has detail."""
    young = [skin for skin in skins if skin.name.startswith("young_")]
    return young if any(skin.detail is not None for skin in young) else skins


def _needs_another(sources: set[str], besides: str) -> None:
    if len(sources) < 2:
        raise UsageError(
            "skins",
            f"fine detail from {len(sources)} photographed source{'' if len(sources) == 1 else 's'}",
            f"another{besides}, to hold one out",
            f"add skins of {MIN_RESOLUTION} pixels or more of another person",
        )


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
    grey = (low - tone).mean(2)
    broad = cv2.GaussianBlur(grey, (0, 0), 3 * LOW_SIGMA)
    low = low - tone - ((1 - LIGHT_KEPT) * broad + (1 - SHEEN_KEPT) * np.maximum(grey - broad, 0))[..., None]
    if detail is not None:
        bright = cv2.GaussianBlur(detail.mean(2), (0, 0), 4)
        detail = detail - ((1 - SHEEN_KEPT) * np.maximum(bright, 0))[..., None]
    return Skin(path.stem, source_of(path.stem), tone, low, detail)
