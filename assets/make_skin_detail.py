"""Make `skin_detail.safetensors`: a tile of fine skin relief, for textures finer than the face maps.

    python -m fitdiff.assets.make_skin_detail --skins DIR

DIR holds CC0 skins in MakeHuman's UV layout (2048 x 2048). Patches of forehead and cheeks lose everything broader
than a few texels and are laid over one another on a torus, so that the tile repeats without a seam and shows nobody.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from ..models.checkpoint import assets_dir, save_checkpoint
from .atlas_layout import FACE_BLOCK
from .make_head_atlas import read_skin

SKINS = (
    "middleage_lightskinned_female_diffuse2.png",
    "middleage_lightskinned_male_diffuse.png",
    "young_lightskinned_male_diffuse2.png",
    "young_lightskinned_female_diffuse3.png",
)
TILE = 1024  # texels
PATCH = 96
HOP = 24  # texels between patches: every texel lies under sixteen of them
COARSEST = 5.0  # texels: sigma of what counts as broad
REGIONS = ((1565, 1690, 890, 1230), (1720, 1860, 860, 980), (1720, 1860, 1150, 1265))  # x0, x1, y0, y1 of a skin
LEVELS_PER_DEVIATION = 32  # of the eight bits
LICENCE = """CC0 1.0 Universal (public domain dedication), from skins of the MakeHuman core assets (September 2020):
https://creativecommons.org/publicdomain/zero/1.0/
"""


def fine_relief(skin: np.ndarray) -> np.ndarray:
    """(H, H, 3) sRGB-encoded skin -> (H, H) float32: relative lightness of what is finer than `COARSEST`."""
    light = np.log(np.maximum(skin.mean(2), 0.02))
    fine = light - cv2.GaussianBlur(light, (0, 0), COARSEST)
    spread = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 4 * COARSEST)) + 1e-4
    return np.clip(fine / spread, -3, 3).astype(np.float32)


def even_patches(skin: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """(PATCH, PATCH) pieces of the fine relief of bare skin, those with hairs, lips or folds left out."""
    relief = fine_relief(skin)
    light = np.log(np.maximum(skin.mean(2), 0.02))
    fine = light - cv2.GaussianBlur(light, (0, 0), COARSEST)
    found = []
    for _ in range(count * 6):
        x0, x1, y0, y1 = REGIONS[rng.integers(len(REGIONS))]
        x, y = int(rng.integers(x0, max(x0 + 1, x1 - PATCH))), int(rng.integers(y0, max(y0 + 1, y1 - PATCH)))
        window = (slice(y, y + PATCH), slice(x, x + PATCH))
        parts = [quarter.std() for half in np.array_split(fine[window], 2) for quarter in np.array_split(half, 2, 1)]
        found.append((max(parts) / min(parts), relief[window]))
    found.sort(key=lambda item: item[0])
    return [patch for _, patch in found[:count]]


def blended_tile(patches: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Patches, turned and mirrored at will, over a torus: (TILE, TILE), mean 0, deviation 1.

    Weights are divided by the root of their summed squares, which keeps the contrast of one patch where many overlap
    (Heitz and Neyret 2018).
    """
    ramp = np.hanning(PATCH + 2)[1:-1]
    weight = np.outer(ramp, ramp).astype(np.float32) ** 2
    total, squares = np.zeros((TILE, TILE), np.float32), np.zeros((TILE, TILE), np.float32)
    for top in range(0, TILE, HOP):
        for left in range(0, TILE, HOP):
            patch = np.rot90(patches[rng.integers(len(patches))], int(rng.integers(4)))
            patch = patch[:, ::-1] if rng.random() < 0.5 else patch
            rows = (np.arange(PATCH) + top + int(rng.integers(HOP)))[:, None] % TILE
            columns = (np.arange(PATCH) + left + int(rng.integers(HOP)))[None] % TILE
            total[rows, columns] += weight * patch
            squares[rows, columns] += weight * weight
    tile = total / np.sqrt(squares)
    # Nothing broad may be left: colours under the tile must not move.
    wrapped = np.pad(tile, 64, mode="wrap")
    tile = tile - cv2.GaussianBlur(wrapped, (0, 0), COARSEST)[64:-64, 64:-64]
    tile = np.clip(tile / tile.std(), -3.5, 3.5)
    return tile - tile.mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skins", type=Path, required=True, help="folder of skins in MakeHuman's layout")
    folder = parser.parse_args().skins
    rng = np.random.default_rng(0)
    patches = [patch for name in SKINS for patch in even_patches(read_skin(folder / name), 40, rng)]
    tile = np.round(blended_tile(patches, rng) * LEVELS_PER_DEVIATION).clip(-127, 127).astype(np.int8)
    card = {
        "role": "skin_detail", "name": "makehuman-skin-detail", "licence": "CC0-1.0", "commercial": True,
        "source": "fine relief of forehead and cheeks of " + ", ".join(SKINS) + ", MakeHuman core assets",
    }  # fmt: skip
    config = {"levels_per_deviation": LEVELS_PER_DEVIATION, "face_block": FACE_BLOCK}
    save_checkpoint(assets_dir() / "skin_detail", {"relief": torch.from_numpy(tile)}, config, card, LICENCE)


if __name__ == "__main__":
    main()
