"""Aligned random crops of the reflectance charts in a training folder, and the statistics of those charts.

Knows the folder's layout (`maps.npy` of uint8, `index.json` with the held-out maps) and nothing of networks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..rendering.lightness import lightness_departures, lightness_depth, lightness_spread
from .data_folder import INDEX, MAPS, check_data_folder
from .devices import Workers

MIRRORED_CHANNEL = 6  # x of the normal changes sign when the chart is mirrored
CELL = 8


@dataclass(frozen=True)
class CropBatch:
    """Maps (B, 9, S, S) float32 in [0, 1], and where each begins: (B, 2) row, column in latent cells.

    The maps are on the device asked for; the places stay on the CPU, where crops are cut.
    """

    maps: Tensor
    origin: Tensor


class ChartFolder:
    """The maps of a training folder, read as they are needed.

    Raises as `check_data_folder` does.
    """

    def __init__(self, folder: Path) -> None:
        check_data_folder(folder, photos=False)
        self.maps = np.load(folder / MAPS, mmap_mode="r")  # (N, 9, S, S) uint8
        held_out = json.loads((folder / INDEX).read_text())["held_out"]
        self.held_out = np.unique(np.array(held_out, dtype=np.int64))
        self.training = np.setdiff1d(np.arange(len(self.maps)), self.held_out)

    @property
    def size(self) -> int:
        """Side of a chart in pixels."""
        return int(self.maps.shape[2])

    def chart(self, index: int) -> Tensor:
        """A whole chart, (9, S, S) float32 in [0, 1]."""
        return torch.from_numpy(np.array(self.maps[index])).float() / 255.0

    def statistics(self, mirror: bool, limit: int = 400) -> tuple[Tensor, Tensor]:
        """Mean chart (9, S, S) and spread about it (9, 1, 1), over at most `limit` evenly picked maps.

        The spread is shared by the three channels of a map and at least 0.02. With `mirror` the mean is that
        of the maps and their mirror images.
        """
        picks = self._evenly(limit)
        total = torch.zeros(9, self.size, self.size)
        squares = torch.zeros(9)
        for index in picks:
            chart = self.chart(int(index))
            total += 0.5 * (chart + mirrored(chart)) if mirror else chart
            squares += (chart * chart).mean((1, 2))
        mean = total / len(picks)
        variance = (squares / len(picks) - (mean * mean).mean((1, 2))).clamp(min=0).view(3, 3).mean(1)
        return mean, variance.sqrt().clamp(min=0.02).repeat_interleave(3).view(9, 1, 1)

    def lightness_measures(self, mirror: bool, limit: int = 600) -> tuple[Tensor, Tensor]:
        """`lightness_spread` (3, S / 4, S / 4) and `lightness_depth` (1, S / 4, S / 4) of `rendering.lightness`.

        Over at most `limit` evenly picked maps; with `mirror` the mean of each and its mirror image.
        """
        picks = [functional.avg_pool2d(self.chart(int(index))[:3], 2) for index in self._evenly(limit)]
        departures = lightness_departures(torch.stack(picks))
        spread, depth = lightness_spread(departures), lightness_depth(departures)
        return (0.5 * (spread + spread.flip(-1)), 0.5 * (depth + depth.flip(-1))) if mirror else (spread, depth)

    def _evenly(self, limit: int) -> np.ndarray:
        count = min(limit, len(self.training))
        return self.training[np.linspace(0, len(self.training) - 1, count).astype(int)]

    def crops(
        self, batch: int, side: int, mirror: bool, generator: torch.Generator, workers: Workers | None = None
    ) -> CropBatch:
        """`batch` crops of `side` pixels from random training maps, beginning at random latent cells.

        They travel to the device of `workers` as bytes.
        """
        span = (self.size - side) // CELL + 1
        maps = np.empty((batch, 9, side, side), np.uint8)
        picks = torch.randint(len(self.training), (batch,), generator=generator).tolist()
        origin = torch.randint(span, (batch, 2), generator=generator)
        flips = (torch.rand(batch, generator=generator) < 0.5).tolist() if mirror else [False] * batch
        for slot, (pick, (row, column), flip) in enumerate(zip(picks, origin.tolist(), flips, strict=True)):
            top = row * CELL
            left = self.size - side - column * CELL if flip else column * CELL
            crop = self.maps[self.training[pick], :, top : top + side, left : left + side]
            maps[slot] = _mirrored_bytes(crop) if flip else crop
        return CropBatch((workers or Workers()).moved(torch.from_numpy(maps)).float() / 255.0, origin)


def mirrored(maps: Tensor) -> Tensor:
    """The chart (..., 9, H, W) of the mirrored face: left and right change places, normal x changes sign."""
    flipped = maps.flip(-1).clone()
    flipped[..., MIRRORED_CHANNEL, :, :] = 1.0 - flipped[..., MIRRORED_CHANNEL, :, :]
    return flipped


def _mirrored_bytes(crop: np.ndarray) -> np.ndarray:
    flipped = crop[:, :, ::-1].copy()
    flipped[MIRRORED_CHANNEL] = 255 - flipped[MIRRORED_CHANNEL]
    return flipped
