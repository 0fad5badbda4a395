"""FAN, the face alignment network of `face-alignment`: 68 points by heat maps, here with gradients to the pixels.

Source: Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment problem?" (2017): four stacked
hourglasses (Newell et al. 2016) of hierarchical, parallel and multi-scale blocks (Bulat and Tzimiropoulos 2017). Names
of weights are those of the package's files, which it downloads; nothing of them is in this package.

In place of the heat maps' highest pixel stands the centre of what lies around it, which moves with the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoint import ModelCard
from .fan_depth import DepthNetwork, depth_maps
from .landmark_indices import LANDMARK_68
from .landmark_network import LandmarkNetwork
from .torch_files import load_weights, read_state

JAW = 17  # the first points of the 68
LICENCE = "LicenseRef-FAN-weights-research (code BSD-3-Clause; weights learnt on 300-W-LP)"
REFERENCE = 200 / 195  # side of the package's crop over width plus height of the face's box
RAISED = 0.12  # of the box's height
WINDOW = 4  # heat map pixels on each side of the highest one; its targets are Gaussians of deviation 1 to 1.75
LEAST_HEAT = 1e-4


@dataclass(frozen=True)
class FANConfig:
    """Shape of the network; the defaults are the package's."""

    hourglasses: int = 4
    depth: int = 4  # halvings in an hourglass
    features: int = 256
    input_size: int = 256
    follows_contour: bool = True  # 2D: the jaw's points are where its outline is seen; 3D: where the jaw is


class PyramidBlock(nn.Module):
    """Three 3x3 convolutions in a row, half, a quarter and a quarter of the channels, side by side, pre-activated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = (outputs // 2, outputs // 4, outputs // 4)
        for index, (before, after) in enumerate(zip((inputs, *widths), widths, strict=False), 1):
            self.add_module(f"bn{index}", nn.BatchNorm2d(before))
            self.add_module(f"conv{index}", nn.Conv2d(before, after, 3, padding=1, bias=False))
        self.downsample = None
        if inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), convolution)

    def forward(self, x: Tensor) -> Tensor:
        y, parts = x, []
        for index in (1, 2, 3):
            y = self.get_submodule(f"conv{index}")(F.relu(self.get_submodule(f"bn{index}")(y)))
            parts.append(y)
        return torch.cat(parts, 1) + (x if self.downsample is None else self.downsample(x))


class Hourglass(nn.Module):
    """Down to the smallest map and up again, with a branch beside each size. Level 1 is the smallest."""

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(depth, 0, -1):
            for name in ("b1", "b2", "b3"):
                self.add_module(f"{name}_{level}", PyramidBlock(features, features))
        self.b2_plus_1 = PyramidBlock(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return self._level(self.depth, x)

    def _level(self, level: int, x: Tensor) -> Tensor:
        beside = self.get_submodule(f"b1_{level}")(x)
        small = self.get_submodule(f"b2_{level}")(F.avg_pool2d(x, 2))
        small = self._level(level - 1, small) if level > 1 else self.b2_plus_1(small)
        small = self.get_submodule(f"b3_{level}")(small)
        return beside + F.interpolate(small, scale_factor=2.0, mode="nearest")


class FAN(LandmarkNetwork):
    """68 points of a face in a crop of 256 pixels, in the order of the iBUG mark-up."""

    def __init__(self, config: FANConfig = FANConfig(), depth: DepthNetwork | None = None) -> None:
        super().__init__()
        self.config, features = config, config.features
        self.conv1 = nn.Conv2d(3, features // 4, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(features // 4)
        self.conv2 = PyramidBlock(features // 4, features // 2)
        self.conv3 = PyramidBlock(features // 2, features // 2)
        self.conv4 = PyramidBlock(features // 2, features)
        points = len(LANDMARK_68)
        for index in range(config.hourglasses):
            self.add_module(f"m{index}", Hourglass(features, config.depth))
            self.add_module(f"top_m_{index}", PyramidBlock(features, features))
            self.add_module(f"conv_last{index}", nn.Conv2d(features, features, 1))
            self.add_module(f"bn_end{index}", nn.BatchNorm2d(features))
            self.add_module(f"l{index}", nn.Conv2d(features, points, 1))
            if index < config.hourglasses - 1:
                self.add_module(f"bl{index}", nn.Conv2d(features, features, 1))
                self.add_module(f"al{index}", nn.Conv2d(points, features, 1))
        self.depth = depth

    @property
    def input_size(self) -> int:
        return self.config.input_size

    @property
    def mesh_indices(self) -> tuple[int, ...]:
        return LANDMARK_68

    @property
    def sliding(self) -> tuple[int, ...]:
        return tuple(range(JAW)) if self.config.follows_contour else ()

    def region(self, width: float, height: float) -> tuple[float, float]:
        """The package's square about a detector's box, which spans what the face mesh does."""
        return REFERENCE * (width + height), RAISED * height

    def heat_maps(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 256) sRGB-encoded in [0, 1] -> (B, 68, 64, 64) of the last hourglass; near 1 where a point is."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.avg_pool2d(self.conv2(x), 2)
        x = self.conv4(self.conv3(x))
        heat = x
        for index in range(self.config.hourglasses):
            y = self.get_submodule(f"top_m_{index}")(self.get_submodule(f"m{index}")(x))
            y = F.relu(self.get_submodule(f"bn_end{index}")(self.get_submodule(f"conv_last{index}")(y)))
            heat = self.get_submodule(f"l{index}")(y)
            if index < self.config.hourglasses - 1:
                x = x + self.get_submodule(f"bl{index}")(y) + self.get_submodule(f"al{index}")(heat)
        return heat

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `LandmarkNetwork.forward`, S = 256 and N = 68; z is 0 without a depth network."""
        heat = self.heat_maps(x)
        points = centres(heat) * (self.config.input_size / heat.shape[-1])
        peak = heat.flatten(2).amax(2).mean(1).clamp(LEAST_HEAT, 1 - LEAST_HEAT)
        if self.depth is None:
            z = torch.zeros_like(points[..., :1])
        else:  # the network's own axis points at the camera
            z = -self.depth(torch.cat([x, depth_maps(points, x.shape[-1])], 1))[..., None]
        return torch.cat([points, z], 2), torch.logit(peak)


def centres(heat: Tensor) -> Tensor:
    """(B, N, H, W) heat maps -> (B, N, 2) x, y in their pixels, whose centres are at +0.5; differentiable.

    The mean place of the positive heat within WINDOW of the highest pixel: what is far away does not pull.
    """
    height, width = heat.shape[-2:]
    highest = heat.detach().flatten(2).argmax(2)  # (B, N)
    columns, rows = (torch.arange(n, device=heat.device, dtype=heat.dtype) for n in (width, height))
    near_x = (columns - (highest % width)[..., None]).abs() <= WINDOW  # (B, N, W)
    near_y = (rows - (highest // width)[..., None]).abs() <= WINDOW
    weight = F.relu(heat) * (near_y[..., :, None] & near_x[..., None, :]) + LEAST_HEAT * _at(highest, heat)
    total = weight.sum((2, 3))
    x = (weight.sum(2) * (columns + 0.5)).sum(2) / total
    y = (weight.sum(3) * (rows + 0.5)).sum(2) / total
    return torch.stack([x, y], 2)


def _at(highest: Tensor, heat: Tensor) -> Tensor:
    """1 at the highest pixel of each map: it is the centre where a map is nowhere positive."""
    return F.one_hot(highest, heat.shape[-2] * heat.shape[-1]).view_as(heat).to(heat.dtype)


def load_fan(path: Path, depth: Path | None = None) -> tuple[FAN, ModelCard]:
    """The network in a file of `face-alignment`, `2DFAN4-*` or `3DFAN4-*`: frozen, for evaluation, on the CPU.

    Args:
        path: a state dictionary (.pth.tar) or a TorchScript archive (.zip); "3D" at the name's beginning says which.
        depth: `depth-*`, for z.

    Raises:
        MissingError: a file is absent, damaged, or of another network.
    """
    weights, sha256 = read_state(path, "landmark network")
    stacked = 1 + max((int(name[1]) for name in weights if name[:1] == "m" and name[1:2].isdigit()), default=3)
    features = len(weights["conv_last0.weight"]) if "conv_last0.weight" in weights else FANConfig.features
    network = FAN(FANConfig(stacked, features=features, follows_contour=not path.name.upper().startswith("3D")))
    load_weights(network, weights, f"landmark network {path}")
    name, source = f"fan-{path.name.split('.')[0]}", f"{path.name} of face-alignment, from the user's own copy"
    if depth is not None:
        depth_weights, depth_sha256 = read_state(depth, "depth network")
        network.depth = DepthNetwork()
        load_weights(network.depth, depth_weights, f"depth network {depth}")
        source += f", with {depth.name} (SHA-256 {depth_sha256})"
    return network, ModelCard("landmarks", name, source, LICENCE, False, sha256)
