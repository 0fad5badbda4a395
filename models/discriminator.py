"""The patch discriminator in two branches, one for the albedos and one for the normals (paper, section 3.3).

Each branch is PatchGAN's (Isola et al. 2017): every output judges a patch of 70x70 pixels. Used in training
only.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .autoencoder import ALBEDO_CHANNELS, MAP_CHANNELS


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Width of each branch: channels after the strided layers, the last one kept for the unstrided layer."""

    channels: tuple[int, int, int] = (24, 48, 96)


class BranchedDiscriminator(nn.Module):
    """Maps (B, 9, H, W) in [0, 1] to two grids of logits, (B, 1, h, w) each: albedos, normals.

    Spectral normalisation instead of batch normalisation: crops of one batch come from different places on
    the face, and statistics over the batch would mix them.
    """

    def __init__(self, config: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or DiscriminatorConfig()
        self.albedo = _patch_branch(ALBEDO_CHANNELS, self.config.channels)
        self.normal = _patch_branch(MAP_CHANNELS - ALBEDO_CHANNELS, self.config.channels)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        signed = maps * 2.0 - 1.0
        return self.albedo(signed[:, :ALBEDO_CHANNELS]), self.normal(signed[:, ALBEDO_CHANNELS:])


def _patch_branch(inputs: int, channels: tuple[int, int, int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in channels:
        layers += [spectral_norm(nn.Conv2d(inputs, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        inputs = width
    layers += [spectral_norm(nn.Conv2d(inputs, inputs, 4, padding=1)), nn.LeakyReLU(0.2)]
    layers.append(spectral_norm(nn.Conv2d(inputs, 1, 4, padding=1)))
    return nn.Sequential(*layers)
