"""The layout of the latent z, and its normalisation.

z = {z_tex | z_shp | z_ill} (paper, section 3.1): a 64 x 64 texture latent, 158 identity and 25 expression
coefficients, 9 light numbers; 4288 numbers in all, which is exactly a (1, 67, 64) image. Rows 0..63 are the
texture; the last three rows, read row by row, are identity | expression | light.

Knows the order and the statistics of the numbers; knows nothing of what a decoder makes of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LatentParts:
    """The four parts of a batch of latents, each in the space (raw or normalised) that z was in."""

    texture: Tensor  # (B, 1, 64, 64)
    identity: Tensor  # (B, 158)
    expression: Tensor  # (B, 25)
    light: Tensor  # (B, 9) log ambient RGB | log directional RGB | direction


@dataclass(frozen=True)
class LatentLayout:
    """Where each part of z lies. The defaults are the paper's sizes."""

    texture_size: int = 64
    identity: int = 158
    expression: int = 25
    light: int = 9

    def __post_init__(self) -> None:
        if self.vector % self.texture_size:
            raise ValueError(
                f"latent layout: got {self.vector} shape and light numbers; expected a multiple of the "
                f"texture size {self.texture_size}; choose sizes that fill whole rows"
            )

    @property
    def vector(self) -> int:
        """Count of shape and light numbers (192)."""
        return self.identity + self.expression + self.light

    @property
    def texture(self) -> int:
        """Count of texture numbers (4096)."""
        return self.texture_size**2

    @property
    def size(self) -> int:
        """Count of all numbers (4288)."""
        return self.texture + self.vector

    @property
    def shape(self) -> tuple[int, int, int]:
        """The latent as an image (1, 67, 64)."""
        return (1, self.texture_size + self.vector // self.texture_size, self.texture_size)

    def split(self, z: Tensor) -> LatentParts:
        """z (B, 1, 67, 64) -> its parts, as views where the memory allows."""
        if tuple(z.shape[1:]) != self.shape:
            raise ValueError(f"latent: got {tuple(z.shape)}; expected (B, {', '.join(map(str, self.shape))})")
        vector = z[:, 0, self.texture_size :].flatten(1)  # (B, 192)
        identity, expression, light = vector.split([self.identity, self.expression, self.light], dim=1)
        return LatentParts(z[:, :, : self.texture_size], identity, expression, light)

    def join(self, parts: LatentParts) -> Tensor:
        """The inverse of `split`: (B, 1, 67, 64)."""
        vector = torch.cat([parts.identity, parts.expression, parts.light], dim=1)
        rows = vector.reshape(vector.shape[0], 1, -1, self.texture_size)
        return torch.cat([parts.texture, rows.to(parts.texture)], dim=2)


class LatentStatistics(nn.Module):
    """Mean and standard deviation of each of the 4288 numbers; they travel in the denoiser's checkpoint."""

    mean: Tensor  # (4288,)
    std: Tensor  # (4288,)

    def __init__(self, layout: LatentLayout | None = None) -> None:
        super().__init__()
        self.layout = layout or LatentLayout()
        self.register_buffer("mean", torch.zeros(self.layout.size))
        self.register_buffer("std", torch.ones(self.layout.size))

    def normalise(self, z: Tensor) -> Tensor:
        """Raw latent (B, 1, 67, 64) -> zero mean, unit variance per element."""
        return (z - self.mean.view(self.layout.shape)) / self.std.view(self.layout.shape)

    def denormalise(self, z: Tensor) -> Tensor:
        """The inverse of `normalise`; differentiable."""
        return z * self.std.view(self.layout.shape) + self.mean.view(self.layout.shape)

    @torch.no_grad()
    def set_from_moments(self, mean: Tensor, std: Tensor, floor: float = 0.1) -> None:
        """Take the measured moments (4288,), with a floor under the deviations of each part.

        An element that hardly moves in the training set (a texel outside the face chart) would otherwise be
        blown up to unit variance. The floor is a share of the root mean square deviation of its own part.
        """
        parts = [self.layout.texture, self.layout.identity, self.layout.expression, self.layout.light]
        floored = [s.clamp(min=max(floor * float(s.square().mean().sqrt()), 1e-6)) for s in std.split(parts)]
        self.mean.copy_(mean)
        self.std.copy_(torch.cat(floored))
