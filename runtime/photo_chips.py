"""The chips of a batch of photos, each cut by its own map, worked out once for many images of the same frames.

A photo's chip averages as many samples a pixel as its own map asks for, whatever its neighbours' ask. Knows nothing of
which network reads the chips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .face_chip import ChipGrid, chip_grid


class PhotoChips:
    """Callable: images (B, C, H, W) -> chips (B, C, S, S), as `face_chip.warp_chip`; differentiable in the images."""

    def __init__(self, image: Tensor, chip_from_crop: Tensor, size: int) -> None:
        """`image`: any (B, C, H, W) like those to come; `chip_from_crop`: (B, 2, 3), on the CPU."""
        grids = [chip_grid(image[:1], transform, size) for transform in chip_from_crop.split(1)]
        counts = sorted({grid.samples for grid in grids})
        rows = [[index for index, grid in enumerate(grids) if grid.samples == count] for count in counts]
        self._grids = [
            ChipGrid(torch.cat([grids[index].grid for index in group]), count)
            for group, count in zip(rows, counts, strict=True)
        ]
        order = torch.tensor([index for group in rows for index in group])
        self._rows = [torch.tensor(group).to(image.device) for group in rows]
        self._back = order.argsort().to(image.device)

    def __call__(self, image: Tensor) -> Tensor:
        if len(self._grids) == 1:
            return self._grids[0].chips(image)
        parts = [grid.chips(image[rows]) for grid, rows in zip(self._grids, self._rows, strict=True)]
        return torch.cat(parts)[self._back]
