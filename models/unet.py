"""The UNet body that works on the latent image, with SPADE normalisation in every residual block.

Paper, sections 3.1 and 3.2. The image (1, 67, 64) is padded below to a multiple of the down-sampling. The
shape and light numbers in its last three rows have no place in space, so a small vector branch adds to them.
Knows nothing of where the modulations come from (`conditioner.py`), nor of what its output means
(`denoiser.py`).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .latent import LatentLayout
from .spade import SpadeNorm, group_norm

INPUT_CHANNELS = 2  # z_t and the linear prior's estimate of z_0


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the body and of its condition."""

    base_channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 6)
    blocks_per_level: int = 1
    attention_levels: tuple[int, ...] = (2, 3)
    head_channels: int = 32
    condition_maps: tuple[int, ...] = (64, 128, 256)  # channels of the recogniser's maps C2, C3, C4
    condition_embedding: int = 128
    condition_channels: int = 128  # of the trunk that all modulation heads share
    condition_grid: tuple[int, int] = (18, 16)
    vector_channels: int = 256  # hidden width of the vector branch

    def padded_size(self, layout: LatentLayout) -> tuple[int, int]:
        """Height and width that the body works on: (72, 64) for the paper's latent."""
        step = 2 ** (len(self.multipliers) - 1)
        return math.ceil(layout.shape[1] / step) * step, math.ceil(layout.shape[2] / step) * step

    def level_channels(self) -> tuple[int, ...]:
        return tuple(self.base_channels * m for m in self.multipliers)


@dataclass(frozen=True)
class NormSite:
    """One SPADE norm of the body: what its modulation head has to deliver."""

    channels: int
    height: int
    width: int


class ResidualBlock(nn.Module):
    """SPADE, SiLU, 3 x 3 convolution, twice; the time scales and shifts in between."""

    def __init__(self, inputs: int, outputs: int, time_channels: int) -> None:
        super().__init__()
        self.norm1 = SpadeNorm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_channels, 2 * outputs)
        self.norm2 = SpadeNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor, modulation1: Tensor, modulation2: Tensor) -> Tensor:
        """x (B, C_in, H, W), time (B, T) -> (B, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x, modulation1)))
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(torch.addcmul(shift, h, 1 + scale), modulation2))
        return self.skip(x) + self.conv2(h)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the positions of a feature map."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H W, C / heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(attended.transpose(-1, -2).reshape(batch, channels, height, width))


class VectorBranch(nn.Module):
    """A multi-layer perceptron's addition to the rows of shape and light."""

    def __init__(self, layout: LatentLayout, bottleneck: int, time_channels: int, config: UNetConfig) -> None:
        super().__init__()
        width = config.vector_channels
        inputs = INPUT_CHANNELS * layout.vector + bottleneck + time_channels + config.condition_channels
        self.enter = nn.Linear(inputs, width)
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU())
        self.back = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, layout.vector)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, vectors: Tensor, bottleneck: Tensor, time: Tensor, identity: Tensor) -> Tensor:
        """vectors (B, 2 * 192), pooled bottleneck, time and projected embedding (B, .) -> (B, 192)."""
        h = self.enter(torch.cat([vectors, bottleneck, time, identity], dim=1))
        return self.out(F.silu(h + self.back(self.hidden(h))))


def time_features(t: Tensor, channels: int) -> Tensor:
    """Sinusoids of the time step t (B,) (Ho et al. 2020): (B, channels) float32."""
    half = channels // 2
    index = torch.arange(half, device=t.device, dtype=torch.float32)
    frequency = torch.exp(index * (-math.log(10000) / half))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class UNet(nn.Module):
    """The body. `norm_sites` lists its SPADE norms in the order in which forward takes their modulations."""

    def __init__(self, config: UNetConfig, layout: LatentLayout | None = None) -> None:
        super().__init__()
        self.config = config
        self.layout = layout or LatentLayout()
        self.padded = config.padded_size(self.layout)
        channels = config.level_channels()
        time_channels = 4 * config.base_channels
        self.time = nn.Sequential(
            nn.Linear(config.base_channels, time_channels),
            nn.SiLU(),
            nn.Linear(time_channels, time_channels),
            nn.SiLU(),
        )
        self.enter = nn.Conv2d(INPUT_CHANNELS, channels[0], 3, padding=1)
        # The chart is aligned: a position always shows the same place of a face, and the network may know.
        self.position = nn.Parameter(torch.zeros(1, channels[0], *self.padded))
        sites: list[NormSite] = []

        def block(inputs: int, outputs: int, level: int) -> ResidualBlock:
            height, width = (size >> level for size in self.padded)
            sites.extend([NormSite(inputs, height, width), NormSite(outputs, height, width)])
            return ResidualBlock(inputs, outputs, time_channels)

        def attention(level: int) -> nn.Module:
            attends = level in config.attention_levels
            return SelfAttention(channels[level], config.head_channels) if attends else nn.Identity()

        self.down = nn.ModuleList()
        self.down_attention = nn.ModuleList()
        self.shrink = nn.ModuleList()
        for level, width in enumerate(channels):
            for _ in range(config.blocks_per_level):
                self.down.append(block(width, width, level))
                self.down_attention.append(attention(level))
            if level + 1 < len(channels):
                self.shrink.append(nn.Conv2d(width, channels[level + 1], 3, stride=2, padding=1))
        last = len(channels) - 1
        self.middle1 = block(channels[last], channels[last], last)
        self.middle_attention = SelfAttention(channels[last], config.head_channels)
        self.middle2 = block(channels[last], channels[last], last)
        self.up = nn.ModuleList()
        self.up_attention = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level in range(last, -1, -1):
            for _ in range(config.blocks_per_level):
                self.up.append(block(2 * channels[level], channels[level], level))
                self.up_attention.append(attention(level))
            if level:  # convolved before it is enlarged: a quarter of the work
                self.grow.append(nn.Conv2d(channels[level], channels[level - 1], 3, padding=1))
        self.norm_sites = tuple(sites)
        self.leave_norm = group_norm(channels[0])
        self.leave = nn.Conv2d(channels[0], 1, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        self.vector = VectorBranch(self.layout, channels[last], time_channels, config)

    def forward(self, x: Tensor, t: Tensor, modulations: list[Tensor], identity: Tensor) -> Tensor:
        """x (B, 2, 67, 64), t (B,), gamma | beta of each norm site, identity (B, C) -> (B, 1, 67, 64)."""
        height, width = x.shape[-2:]
        texture_rows, per_level = self.layout.texture_size, self.config.blocks_per_level
        time = self.time(time_features(t, self.config.base_channels).to(x.dtype))
        sites = iter(modulations)
        h = self.enter(F.pad(x, (0, self.padded[1] - width, 0, self.padded[0] - height))) + self.position
        skips: list[Tensor] = []
        for index, (block, attention) in enumerate(zip(self.down, self.down_attention, strict=True)):
            if index and index % per_level == 0:
                h = self.shrink[index // per_level - 1](h)
            h = attention(block(h, time, next(sites), next(sites)))
            skips.append(h)
        h = self.middle_attention(self.middle1(h, time, next(sites), next(sites)))
        h = self.middle2(h, time, next(sites), next(sites))
        bottleneck = h.mean((2, 3))
        for index, (block, attention) in enumerate(zip(self.up, self.up_attention, strict=True)):
            if index and index % per_level == 0:
                h = F.interpolate(self.grow[index // per_level - 1](h), scale_factor=2.0, mode="nearest")
            h = attention(block(torch.cat([h, skips.pop()], dim=1), time, next(sites), next(sites)))
        out = self.leave(F.silu(self.leave_norm(h)))[:, :, :height, :width]
        added = self.vector(x[:, :, texture_rows:].flatten(1), bottleneck, time, identity)
        rows = out[:, :, texture_rows:] + added.view(out.shape[0], 1, -1, width)
        return torch.cat([out[:, :, :texture_rows], rows], dim=2)
