"""The views of a face that the recogniser is shown: its chip shifted, zoomed, turned, and mirrored every other time.

A network that sees one chip only can be fooled at it, and its gradient is rough there. Photo and rendering are seen in
the same views, a few a gradient in turn, so nothing is drawn at random. Half of the views show the rendering behind
what hides the photo's face (glasses, a fringe, a hand), half without: the first alone ask for a face that is too
little of the person once it is bare, the second alone for skin that imitates frames. Knows nothing of losses and of
renderings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..models.recogniser import IdentityFeatures, Recogniser
from .photo_chips import PhotoChips

COUNT = 16
SHIFT = 4.0 / 150  # of the chip's side, at most
ZOOM = 0.05
TURN = 0.05  # radians


class IdentityViews:
    """One or more views at a time, always in the same order."""

    @torch.no_grad()
    def __init__(self, image: Tensor, chip_from_crop: Tensor, recogniser: Recogniser) -> None:
        """image: (B, 3, H, W) sRGB of the photos; chip_from_crop: (B, 2, 3), on the CPU."""
        self._views: list[tuple[PhotoChips, IdentityFeatures]] = []
        for move in view_moves(recogniser.chip_size):
            chips = PhotoChips(image, moved_transforms(move, chip_from_crop), recogniser.chip_size)
            self._views.append((chips, recogniser(chips(image))))
        self._first, self._count = -1, 1  # the last one, until somebody goes on to the first

    @property
    def count(self) -> int:
        """Views V that are on now."""
        return self._count

    def chips(self, bare: Tensor, hidden: Tensor) -> Tensor:
        """Two pictures of the same faces (B, 3, H, W) -> (V B, 3, S, S), view by view; differentiable in both.

        hidden: behind what hides the faces in the photos; `is_hidden` says which views are of these.
        """
        first = self._first
        return torch.cat([
            chips(hidden if is_hidden(first + number) else bare) for number, (chips, _) in enumerate(self._shown)
        ])  # fmt: skip

    @property
    def wanted(self) -> IdentityFeatures:
        """What the photos show in these views, in the order of `chips`."""
        features = [seen for _, seen in self._shown]
        maps = tuple(torch.cat(found) for found in zip(*(seen.maps for seen in features), strict=True))
        return IdentityFeatures(maps, torch.cat([seen.embedding for seen in features]))

    @property
    def steady(self) -> IdentityFeatures:
        """Of each photo, the mean of what all views show: it moves less with the crop than one view's."""
        return mean_features([seen for _, seen in self._views])

    @property
    def _shown(self) -> list[tuple[PhotoChips, IdentityFeatures]]:
        return [self._views[(self._first + index) % COUNT] for index in range(self._count)]

    def advance(self, count: int) -> None:
        """On to the `count` views that come next."""
        self._first, self._count = self._first + self._count, count


def is_hidden(view: int) -> bool:
    """Whether a view shows the rendering behind what hides the photo's face: half of the mirrored, half of others."""
    return (view + view // 2) % 2 == 0


def mean_features(features: Sequence[IdentityFeatures]) -> IdentityFeatures:
    """Of several views of the same faces, photo by photo."""
    maps = tuple(torch.stack(found).mean(0) for found in zip(*(seen.maps for seen in features), strict=True))
    return IdentityFeatures(maps, torch.stack([seen.embedding for seen in features]).mean(0))


def moved_transforms(move: Tensor, chip_from_crop: Tensor) -> Tensor:
    """(B, 2, 3): what makes chips, followed by a map (2, 3) of chips onto themselves."""
    linear, offset = move.split([2, 1], 1)
    moved = linear @ chip_from_crop
    moved[:, :, 2:] += offset
    return moved


def view_moves(size: int) -> Tensor:
    """(COUNT, 2, 3): maps of a chip of `size` px onto itself, always the same ones; the odd ones mirror it."""
    rng, middle = np.random.default_rng(0), np.full(2, size / 2)
    moves = []
    for index in range(COUNT):
        x, y, zoom, turn = rng.uniform(-1, 1, 4)
        cos, sin = np.cos(TURN * turn), np.sin(TURN * turn)
        linear = (1 + ZOOM * zoom) * np.array([[cos, -sin], [sin, cos]])
        if index % 2:
            linear = np.diag([-1.0, 1.0]) @ linear
        offset = middle - linear @ middle + SHIFT * size * np.array([x, y])
        moves.append(np.hstack([linear, offset[:, None]]))
    return torch.from_numpy(np.stack(moves)).float()
