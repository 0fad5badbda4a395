"""The maps of an avatar as an exporter takes them, from tensors as networks and renderer have them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..rendering.renderer import HeadMapsTensor
from ..rendering.shader import F0_MAX, srgb_from_linear
from .avatar import HeadMaps, ReflectanceMaps
from .devices import array_from_tensor


def reflectance_maps(maps: Tensor) -> ReflectanceMaps:
    """(1, 9, S, S) in [0, 1], on any device -> numpy maps."""
    specular = maps[:, 3:6].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return ReflectanceMaps(_pixels(maps[:, :3]), _pixels(specular), _pixels(_unit(maps[:, 6:9] * 2 - 1)))


def head_maps_from_tensors(head: HeadMapsTensor) -> HeadMaps:
    """The renderer's maps (1, C, T, T), linear, on any device -> numpy maps."""
    assert head.specular is not None and head.normal is not None
    assert head.roughness is not None and head.alpha is not None
    return HeadMaps(
        _pixels(torch.cat([srgb_from_linear(head.albedo), head.alpha], 1).clamp(0, 1)),
        _pixels((head.specular / F0_MAX).clamp(0, 1))[..., 0],
        _pixels(_unit(head.normal)),
        _pixels(head.roughness)[..., 0],
    )


def _pixels(maps: Tensor) -> np.ndarray:
    """(1, C, S, S) -> (S, S, C)."""
    return array_from_tensor(maps[0].permute(1, 2, 0).contiguous())


def _unit(vectors: Tensor) -> Tensor:
    """(1, 3, S, S), each of unit length; zero stays zero."""
    return vectors / vectors.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6)
