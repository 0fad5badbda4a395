"""A perceptual distance between images from the first stages of EfficientNet-Lite0.

Like LPIPS (Zhang et al. 2018) without its learnt channel weights: features are scaled to unit length over
channels at each pixel, and their squared differences averaged. It takes any image, and knows nothing
of faces.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MissingError
from .checkpoint import ModelCard, assets_dir, load_checkpoint


class PerceptualNetwork(nn.Module, ABC):
    """From pictures to features, shallow to deep, and the way to compare those of two pictures."""

    @abstractmethod
    def feature_shapes(self, size: int) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of each feature for pictures of `size` pixels a side."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`x` (B, 3, H, W) sRGB-encoded in [0, 1] -> one (B, C_i, H_i, W_i) a stage."""

    @abstractmethod
    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """(B,) distance of features that `forward` answered, 0 for equal ones, within `mask` (B, 1, H, W)."""


@dataclass(frozen=True)
class StageConfig:
    depth: int
    kernel: int
    stride: int
    expansion: int
    width: int


@dataclass(frozen=True)
class EfficientNetLite0Config:
    """The stem and the first five of EfficientNet-Lite0's seven stages (Tan and Le 2019, table 1)."""

    mean: float = 0.498  # of all three channels, as are the numbers below
    deviation: float = 0.502
    stem_width: int = 32
    stages: tuple[StageConfig, ...] = (
        StageConfig(depth=1, kernel=3, stride=1, expansion=1, width=16),
        StageConfig(depth=2, kernel=3, stride=2, expansion=6, width=24),
        StageConfig(depth=2, kernel=5, stride=2, expansion=6, width=40),
        StageConfig(depth=3, kernel=3, stride=2, expansion=6, width=80),
        StageConfig(depth=3, kernel=5, stride=1, expansion=6, width=112),
    )


class SamePaddedConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: any odd pixel goes to the bottom and right."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = input.shape[2:]
        total_y, total_x = (_same_padding(side, kernel, stride) for side in (height, width))
        padding = (total_x // 2, total_x - total_x // 2, total_y // 2, total_y - total_y // 2)
        return super().forward(F.pad(input, padding))


class InvertedResidual(nn.Module):
    """Widen by a 1x1, filter by a depthwise, narrow by a 1x1; batch norms are folded into these."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.has_shortcut = stride == 1 and inputs == outputs
        self.expand = nn.Conv2d(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = SamePaddedConv2d(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.has_shortcut else y


class EfficientNetLite0Features(PerceptualNetwork):
    """The outputs of the first stages, shallow to deep, at 1/2, 1/4, 1/8, 1/16 and 1/16 of the input."""

    def __init__(self, config: EfficientNetLite0Config = EfficientNetLite0Config()) -> None:
        super().__init__()
        self.config = config
        self.stem = SamePaddedConv2d(3, config.stem_width, 3, stride=2)
        width = config.stem_width
        stages: list[nn.Module] = []
        for stage in config.stages:
            blocks: list[nn.Module] = []
            for index in range(stage.depth):
                stride = stage.stride if index == 0 else 1
                blocks.append(InvertedResidual(width, stage.width, stage.kernel, stride, stage.expansion))
                width = stage.width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`x` (B, 3, H, W) sRGB-encoded in [0, 1] -> one (B, C_i, H_i, W_i) a stage."""
        x = F.relu6(self.stem((x - self.config.mean) / self.config.deviation))
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)

    def feature_shapes(self, size: int) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of each stage for pictures of `size` pixels a side."""
        side = math.ceil(size / 2)
        shapes: list[tuple[int, int, int]] = []
        for stage in self.config.stages:
            side = math.ceil(side / stage.stride)
            shapes.append((stage.width, side, side))
        return tuple(shapes)

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """See `feature_distance`."""
        return feature_distance(a, b, mask)


def perceptual_distance(network: PerceptualNetwork, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B,) distance of images `a`, `b` (B, 3, H, W) sRGB in [0, 1], within `mask` (B, 1, H, W).

    0 for equal images. When `b` stays the same over many calls, keep `network(b)` and use `network.distance`.
    """
    return network.distance(network(a), network(b), mask)


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """(B,) sum over stages of the mean over pixels of |unit(a) - unit(b)|^2; each stage lies in [0, 4].

    `mask` (B, 1, H, W) weighs pixels; it is averaged down to each stage's size. An empty mask gives 0.
    """
    unit = [(_unit(x) - _unit(y)).square().sum(1, keepdim=True) for x, y in zip(a, b, strict=True)]
    return weighted_means(unit, mask)


def weighted_means(differences: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """(B,) sum over stages of the mean of (B, 1, H_i, W_i), weighted by `mask` (B, 1, H, W) averaged to that size."""
    total = differences[0].new_zeros(len(differences[0]))
    for difference in differences:
        if mask is None:
            total = total + difference.mean((1, 2, 3))
        else:
            height, width = difference.shape[2:]
            weight = F.adaptive_avg_pool2d(mask.to(difference.dtype), (height, width))
            total = total + (difference * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1e-6)
    return total


def load_perceptual(path: Path | None = None) -> tuple[EfficientNetLite0Features, ModelCard]:
    """The network saved at `path` (no suffix), or the embedded one: frozen, in evaluation mode, on the CPU.

    Raises:
        MissingError: the files are absent, damaged, or of an architecture that this version cannot build.
    """
    path = path or assets_dir() / "perceptual"
    checkpoint = load_checkpoint(path)
    config = dict(checkpoint.config)
    architecture = config.pop("architecture", None)
    if architecture != "efficientnet-lite0":
        got, expected = f"architecture {architecture!r}", "'efficientnet-lite0'"
        raise MissingError(f"perceptual network {path}", got, expected, "update fitdiff")
    config["stages"] = tuple(StageConfig(**stage) for stage in config["stages"])
    network = EfficientNetLite0Features(EfficientNetLite0Config(**config))
    network.load_state_dict(checkpoint.tensors)
    return network.eval().requires_grad_(False), checkpoint.card


def json_from_config(config: EfficientNetLite0Config) -> dict[str, Any]:
    """What `load_perceptual` reads back from a checkpoint's `config`."""
    return {"architecture": "efficientnet-lite0", **asdict(config)}


def _same_padding(side: int, kernel: int, stride: int) -> int:
    """Pixels to add to `side` for an output of ceil(side / stride)."""
    return max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)


def _unit(features: Tensor) -> Tensor:
    # Inside the root, because the gradient of a norm is not finite at zero.
    return features * torch.rsqrt(features.square().sum(1, keepdim=True) + 1e-8)
