"""Where a photo shows a face's texels as bare skin, and what may depart there: a residual of the albedo's lightness.

It is measured in what faces differ by, place by place, in the fine and the middle band of `rendering.lightness`: a brow
is free, a blotch on a cheek is not, and what varies more broadly is light. Knows nothing of what asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from ..models.latent import LatentParts
from ..rendering.blur import blurred
from ..rendering.lightness import BROADEST, EDGES
from .chart_areas import hull_on_chart

if TYPE_CHECKING:
    from .detail import DetailConfig
    from .guidance import PhotoGuidance

OPENING = 25  # texels of 256: eyes and an open mouth are no larger
LEAST_SPREAD = (0.008, 0.006)  # of the fine and the middle band: faces that were drawn have few wrinkles
ON_LIPS = 0.4  # times the spread: what guidance sees there is mostly teeth and the shade between lips
STRANDS, NEAR_FRINGE = 8.0, 4.0  # texels of 256 that a fringe's strands reach beyond what is seen of it, and how surely
LASHES = 9  # texels of 256, about the lids' rims
DARKEST_RIM = 0.35  # log sRGB: lashes darken a rim no more; what is darker is an iris that the fitted lid covers
BLURS = (0.7, EDGES[0])  # texels of 256: what is finer in a band is speckle, or another band's
NEVER_DARK = 0.1  # log sRGB: where one face in a hundred is no darker than that, what is dark is hair
HAIR, LEAST_HAIR = 1.2, 0.06  # times that face's darkness, and at least so much
SEEN_AT_LEAST = 0.05  # of a side that does not show, beside one that does
OFTEN = 2.0  # spreads: what departs by more costs no more than in proportion


def spread_of_faces(guide: PhotoGuidance, size: int) -> Tensor:
    """(1, 2, size, size): how far the lightness of faces departs from the usual in the fine and the middle band."""
    known = guide.models.autoencoder.lightness_spread[None, : len(LEAST_SPREAD)]
    least = known.new_tensor(LEAST_SPREAD)[None, :, None, None]
    return functional.interpolate(known, size, mode="bilinear", align_corners=False).maximum(least)


def spread_of_residual(guide: PhotoGuidance, size: int) -> Tensor:
    """The same, less on the lips."""
    spread = spread_of_faces(guide, size)
    lips = torch.from_numpy(hull_on_chart(guide.models.morphable, LIPS_OUTER, size)).to(spread)[None, None]
    return spread * torch.lerp(torch.ones_like(lips), torch.full_like(lips, ON_LIPS), blurred(lips, 1.5))


def depth_of_faces(guide: PhotoGuidance, size: int) -> Tensor:
    """(1, 1, size, size): how much darker than usual one face in a hundred is.

    Infinite between brows and mouth, where hair does not hang and a nose has shade, and where nothing is known.
    """
    known = guide.models.autoencoder.lightness_depth[None]
    known = functional.interpolate(known, size, mode="bilinear", align_corners=False)
    known = torch.where(known.amax() > 0, known, torch.inf)
    inside = torch.from_numpy(hull_on_chart(guide.models.morphable, LEFT_BROW + RIGHT_BROW + LIPS_OUTER, size))
    return known.masked_fill(inside.bool().to(known.device), torch.inf)


def like_hair(depth: Tensor) -> Tensor:
    """Change of log sRGB below which a texel is darker than skin is there; depth: see `depth_of_faces`."""
    return -(HAIR * depth).clamp_min(LEAST_HAIR)


def texels_shown(guide: PhotoGuidance, face_maps: Tensor, parts: LatentParts) -> tuple[Tensor, Tensor]:
    """How well the photo shows each texel of the face as bare skin, and how well as the lids' rims.

    The renderer's own gradient says which texels a pixel is made of. An eye that something hides has no rims.

    Returns:
        (B, 1, 256, 256) in [0, 1] each; together no more than 1.
    """
    maps = face_maps.clone().requires_grad_()
    with torch.enable_grad():
        estimate = guide.estimate(maps, parts)
        on_skin = estimate.image * (estimate.rendering.part == 0)[:, None]
        (bare,) = torch.autograd.grad((on_skin * guide.target.skin).sum(), maps, retain_graph=True)
        (worn,) = torch.autograd.grad((on_skin * guide.target.worn).sum(), maps, retain_graph=True)
        (all_skin,) = torch.autograd.grad(on_skin.sum(), maps)
    bare, worn, all_skin = (blurred(g[:, :3].sum(1, keepdim=True).clamp_min(0), 2.0) for g in (bare, worn, all_skin))
    above_mean = all_skin > all_skin.mean((1, 2, 3), keepdim=True)
    typical = all_skin.masked_fill(~above_mean, torch.nan).flatten(1).nanmedian(1).values[:, None, None, None]
    dense = (2 * all_skin / typical - 0.2).clamp(0, 1)  # grazing views show little
    share = bare / (all_skin + 1e-6) * dense
    inside = (1.5 * blurred(share, 3.0) - 0.5).clamp(0, 1)  # fades out inside the border
    # Where the face ends, in hair or at its outline, it fades out more slowly: eyes and mouth are no such end.
    whole = -functional.max_pool2d(-functional.max_pool2d(share, OPENING, 1, OPENING // 2), OPENING, 1, OPENING // 2)
    within = (3.0 * blurred(whole, 6.0) - 2.0).clamp(0, 1)
    eyes = hull_on_chart(guide.models.morphable, LEFT_EYE, maps.shape[-1]) | hull_on_chart(
        guide.models.morphable, RIGHT_EYE, maps.shape[-1]
    )
    eyes = torch.from_numpy(cv2.dilate(eyes, np.ones((LASHES, LASHES)))).to(maps)[None, None]
    brows = hull_on_chart(guide.models.morphable, LEFT_BROW, maps.shape[-1]) | hull_on_chart(
        guide.models.morphable, RIGHT_BROW, maps.shape[-1]
    )
    above_brows = torch.arange(maps.shape[-1], device=maps.device)[:, None] <= int(np.flatnonzero(brows.any(1))[-1])
    fringe = worn / (all_skin + 1e-6) * dense * above_brows
    beside_brows = 1 - blurred(torch.from_numpy(brows).to(maps)[None, None], 1.5)  # brows are worth some hair
    clear = (1 - NEAR_FRINGE * blurred(fringe, STRANDS) * beside_brows).clamp(0, 1)
    return clear * inside * within, (1 - inside) * within * blurred(eyes, 1.5)


class Residual:
    """What is free, in spreads of each band, as a residual where the photo shows skin.

    Faces are nearly alike on both sides, and what light, shade, hair and frames do to them is not: what differs between
    the sides is dear, and what one side alone shows is taken over to the other. The lids' rims may get darker, by
    lashes: eye white is not.
    """

    def __init__(self, shown: Tensor, rims: Tensor, spread: Tensor, depth: Tensor, config: DetailConfig) -> None:
        """shown, rims: see `texels_shown`; spread, depth: see `spread_of_residual` and `depth_of_faces`."""
        self.rims = rims.maximum(rims.flip(-1))
        self.spread, self.depth, self.config = spread, depth, config
        self._show(shown)

    def _show(self, shown: Tensor) -> None:
        self.shown, self.either, self.both = shown, shown.maximum(shown.flip(-1)), shown.minimum(shown.flip(-1))
        self.around = blurred(self.either, BROADEST).clamp_min(1e-3)

    def leave_out_hair(self, free: Tensor) -> None:
        """Show no longer what would be darker than skin is there: a fringe that the occlusion network did not find."""
        bands = _bands(free)
        broader = torch.cat([torch.zeros_like(bands[:, :1]), bands[:, 1:]], 1)
        hair = self._change(*self._sides(broader)) < like_hair(self.depth)
        hair = hair & (self.depth < NEVER_DARK)
        around = blurred(functional.max_pool2d(hair.to(free.dtype), 9, 1, 4), 3.0)
        self._show(self.shown * (1 - around))

    def _change(self, both: Tensor, apart: Tensor) -> Tensor:
        """(B, 2, S, S) in spreads, see `_sides` -> (B, 1, S, S) log sRGB, without what is broader than the bands."""
        change = both * self.either + apart * self.both
        change = (change * self.spread).sum(1, keepdim=True)
        return change - blurred(change, BROADEST) / self.around * self.either

    def _sides(self, bands: Tensor) -> tuple[Tensor, Tensor]:
        """What both sides have in common, and what each has besides."""
        both = alike(bands, self.shown)
        return both, bands - both

    def __call__(self, free: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2, 256, 256) -> (B, 4, 256, 256), the same for all of the albedo, and its penalty (B,).

        Without what is broader than the bands: the face would be a mask, lighter or darker than what does not show.
        """
        bright = self.config.brightest
        bands = _bands(free)
        bands = torch.where(bands > 0, bright * (bands / bright).tanh(), bands)
        both, apart = self._sides(bands)
        change = self._change(both, apart)
        rim = (both * self.spread).sum(1, keepdim=True).clamp_max(0)
        change = change + self.rims * DARKEST_RIM * (rim / DARKEST_RIM).tanh()
        residual = torch.cat([change.expand(-1, 3, -1, -1), torch.zeros_like(change)], 1)
        rare = _rare(both) + self.config.asymmetric * _rare(apart)
        return residual, self.config.size * rare.mean((2, 3)).sum(1)


def alike(bands: Tensor, shown: Tensor) -> Tensor:
    """(B, C, S, S): the mean of both sides of a face, by how well each is shown (B, 1, S, S)."""
    weight = shown + SEEN_AT_LEAST
    weighted = bands * weight
    return (weighted + weighted.flip(-1)) / (weight + weight.flip(-1))


def _rare(bands: Tensor) -> Tensor:
    """Squares of spreads, but beyond `OFTEN` no more than in proportion."""
    return OFTEN**2 * 2 * ((1 + (bands / OFTEN).square()).sqrt() - 1)


def _bands(free: Tensor) -> Tensor:
    """(B, 2, S, S): each number spread over the finest that its band holds."""
    return torch.cat([blurred(one, sigma) for one, sigma in zip(free.split(1, 1), BLURS, strict=True)], 1)
