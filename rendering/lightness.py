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


def lightness_spread(albedos: Tensor) -> Tensor:
    """How far faces depart from the one in their middle, texel by texel, in each band.

    The median of the departures over that of a normal distribution: beards of a few are no freedom for all.

    Args:
        albedos: (N, 3, S, S) sRGB in [0, 1].

    Returns:
        (3, S / 2, S / 2), logarithms of sRGB values.
    """
    values = torch.cat([lightness(albedo[None]) for albedo in albedos])
    values = values - values.mean((2, 3), keepdim=True)
    departures = values - values.median(0, keepdim=True).values
    bands = torch.cat([lightness_bands(one[None]) for one in departures])
    spread = bands.abs().median(0, keepdim=True).values / 0.6745
    return functional.avg_pool2d(blurred(spread, 2.0 * spread.shape[-1] / 256), 2)[0]
