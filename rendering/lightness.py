"""Lightness of skin in three bands of scale, in which departures from a face are measured. Knows no model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .blur import blurred
from .shader import linear_from_srgb, luminance

DISPLAY_GAMMA = 2.2  # linear light goes about with this power of sRGB values
DARKEST = 0.003  # linear luminance that logarithms still tell apart
EDGES = (1.5, 4.0)  # sigma in texels of 256, where one band ends and the next begins
BROADEST = 16.0  # what varies more broadly is in no band


def lightness(albedo: Tensor) -> Tensor:
    """(B, 3, H, W) sRGB in [0, 1] -> (B, 1, H, W): what the logarithm of all three channels would have to be."""
    return luminance(linear_from_srgb(albedo)).clamp_min(DARKEST).log() / DISPLAY_GAMMA


def lightness_bands(x: Tensor) -> Tensor:
    """(B, 1, S, S) -> (B, 3, S, S), fine, middle and coarse; their sum is x without what is broader than they are."""
    at = x.shape[-1] / 256
    fine, middle, broad = (blurred(x, sigma * at) for sigma in (*EDGES, BROADEST))
    return torch.cat([x - fine, fine - middle, middle - broad], 1)


def lightness_departures(albedos: Tensor) -> Tensor:
    """(N, 3, S, S) sRGB in [0, 1] -> (N, 3, S, S): how each face departs from the one in their middle, in bands.

    In logarithms of sRGB values; how light a face is as a whole does not count.
    """
    values = torch.cat([lightness(albedo[None]) for albedo in albedos])
    values = values - values.mean((2, 3), keepdim=True)
    departures = values - values.median(0, keepdim=True).values
    return torch.cat([lightness_bands(one[None]) for one in departures])


def lightness_spread(departures: Tensor) -> Tensor:
    """How far faces depart, texel by texel, in each band: (N, 3, S, S) -> (3, S / 2, S / 2).

    The median of the departures over that of a normal distribution: beards of a few are no freedom for all.
    """
    return _smoothed(departures.abs().median(0).values / 0.6745)


def lightness_depth(departures: Tensor) -> Tensor:
    """How much darker than usual one face in a hundred is, fine detail apart: (N, 3, S, S) -> (1, S / 2, S / 2).

    Brows and beards make it large where they are. Where it is small, what is dark is no skin.
    """
    broader = departures[:, 1:].sum(1)
    darkest = broader.kthvalue(max(1, round(len(broader) / 100)), 0).values
    return _smoothed(-darkest[None]).clamp_min(0)


def _smoothed(texels: Tensor) -> Tensor:
    """(C, S, S) -> (C, S / 2, S / 2)."""
    return functional.avg_pool2d(blurred(texels[None], 2.0 * texels.shape[-1] / 256), 2)[0]
