"""LPIPS on VGG-16: a perceptual distance whose channel weights were learnt from people's judgements.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), equation 1, in
version 0.1 of the package `lpips`, whose file of channel weights it reads; the network's own come from torchvision's
file. Neither package is needed. Knows nothing of faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import MissingError
from .checkpoint import ModelCard
from .perceptual import PerceptualNetwork, weighted_means
from .torch_files import load_weights, read_state

# Of pixels in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
LICENCE = "BSD-3-Clause (torchvision's VGG-16), BSD-2-Clause (LPIPS)"
STAGES = 5


@dataclass(frozen=True)
class VGGConfig:
    """Convolutions 3x3 of each stage; the defaults are VGG-16's. Stages after the first begin with max pooling."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)


class LPIPS(PerceptualNetwork):
    """The last ReLU of each stage, of unit length at every pixel and scaled by the roots of the channels' weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: VGGConfig = VGGConfig()) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = []
        self.taken: list[int] = []  # layers whose output counts
        width = 3
        for stage, (outputs, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(depth):
                layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU()]
                width = outputs
            self.taken.append(len(layers) - 1)
            self.register_buffer(f"lin{stage}", torch.full((1, outputs, 1, 1), 1.0))
        self.features = nn.Sequential(*layers)

    def feature_shapes(self, size: int) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of each stage for pictures of `size` pixels a side."""
        return tuple((width, size >> stage, size >> stage) for stage, width in enumerate(self.config.widths))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`x` (B, 3, H, W) sRGB-encoded in [0, 1] -> one (B, C_i, H_i, W_i) a stage, ready for `distance`."""
        x = (2 * x - 1 - self.shift) / self.scale
        found: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taken:
                # The floor inside the root keeps gradients finite where nothing fires.
                unit = x * torch.rsqrt((x * x).sum(1, keepdim=True) + 1e-10)
                found.append(unit * self.get_buffer(f"lin{len(found)}").sqrt())
        return tuple(found)

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """(B,) LPIPS of two pictures' features; `mask` (B, 1, H, W) weighs pixels, an empty one gives 0."""
        return weighted_means([(x - y).square().sum(1, keepdim=True) for x, y in zip(a, b, strict=True)], mask)


def load_lpips(vgg: Path, linear: Path) -> tuple[LPIPS, ModelCard]:
    """The network of torchvision's `vgg16-397923af.pth` with the channel weights of lpips' `weights/v0.1/vgg.pth`:
    frozen, for evaluation, on the CPU.

    Raises:
        MissingError: a file is absent, damaged, or of another network.
    """
    weights, sha256 = read_state(vgg, "perceptual network")
    channels, channels_sha256 = read_state(linear, "LPIPS channel weights")
    given = {name: value for name, value in weights.items() if name.startswith("features.")}
    widths = tuple(len(channels.get(f"lin{i}.model.1.weight", torch.empty(1, 0))[0]) for i in range(STAGES))
    network = LPIPS(VGGConfig(widths)) if all(widths) else LPIPS()
    names = {f"lin{stage}": f"lin{stage}.model.1.weight" for stage in range(STAGES)}
    given |= {own: channels[theirs] for own, theirs in names.items() if theirs in channels}
    load_weights(network, given, f"perceptual network {vgg} with {linear}")
    negative = [name for name in names if bool((network.get_buffer(name) < 0).any())]
    if negative:
        got = f"channel weights below 0 in {', '.join(negative)}"
        raise MissingError(f"LPIPS channel weights {linear}", got, "none", "give weights/v0.1/vgg.pth of lpips")
    source = (
        f"{vgg.name} of torchvision, {linear.name} of lpips (SHA-256 {channels_sha256}), from the user's own copies"
    )
    return network, ModelCard("perceptual", "lpips-vgg16", source, LICENCE, True, sha256)
