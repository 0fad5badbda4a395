"""Spatially adaptive normalisation (SPADE; Park et al. 2019, equation 1): the condition's way into the UNet.

Two halves, because the condition of a photo stays the same through all denoising steps: `ModulationHead`
computes gamma and beta once a photo, `SpadeNorm` applies them at every step.
Knows nothing of what the condition is made of, nor of the UNet around it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm with at most 32 groups of at least 4 channels each."""
    groups = next(g for g in range(min(32, max(1, channels // 4)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, affine=affine)


class SpadeNorm(nn.Module):
    """Normalise without own weights, then scale and shift each position by the photo's gamma and beta."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x (B, C, H, W), modulation (B, 2C, H, W) = gamma | beta -> norm(x) * (1 + gamma) + beta."""
        gamma, beta = modulation.chunk(2, dim=1)
        return torch.addcmul(beta, self.norm(x), 1 + gamma)


class ModulationHead(nn.Module):
    """One norm's gamma and beta from the shared condition map.

    A 1 x 1 convolution on the condition's own coarse grid, then resized to the block's resolution: averaged
    when the block is coarser, bilinear when it is finer. Starts at zero, so an untrained condition changes
    nothing.
    """

    def __init__(self, condition_channels: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        self.project = nn.Conv2d(condition_channels, 2 * channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, condition: Tensor) -> Tensor:
        """condition (B, C, h, w) -> gamma | beta (B, 2C, H, W)."""
        if condition.shape[-1] > self.size[1]:
            return self.project(F.adaptive_avg_pool2d(condition, self.size))
        modulation = self.project(condition)
        if condition.shape[-2:] == self.size:
            return modulation
        return F.interpolate(modulation, size=self.size, mode="bilinear", align_corners=False)
