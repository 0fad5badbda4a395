"""The depth network of `face-alignment`: from a crop and its 68 points, drawn into maps, to how far each is away.

Source: Bulat and Tzimiropoulos (2017), section 6.1: a residual network of 152 layers (He et al. 2016). Names of weights
are those of the package's file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POINTS = 68
SPREAD = 3.25  # px, deviation of a drawn point
REACH = 6.5  # px, where it is cut off
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 of the stride, 1x1, batch norms after each; a 1x1 shortcut where shapes differ."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        outputs = width * EXPANSION
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class DepthNetwork(nn.Module):
    """(B, 3 + 68, 256, 256) crop and drawn points -> (B, 68) pixels of the crop, more is nearer."""

    def __init__(self, depths: tuple[int, ...] = (3, 8, 36, 3)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3 + POINTS, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(depths):
            width, blocks = 64 << stage, []
            for index in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if stage and not index else 1))
                inputs = width * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.fc = nn.Linear(inputs, POINTS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.fc(F.avg_pool2d(x, 7).flatten(1))


def depth_maps(points: Tensor, size: int) -> Tensor:
    """(B, 68, 2) pixels -> (B, 68, size, size), a blob of height 1 at each point, where the network learnt to see it:
    the package counts its pixels from 1."""
    index = torch.arange(size, device=points.device, dtype=points.dtype)
    offsets = index - (points[..., None] - 1)  # (B, 68, 2, size)
    blob = torch.exp(-0.5 * (offsets / SPREAD).square()) * (offsets.abs() <= REACH)
    return blob[:, :, 1, :, None] * blob[:, :, 0, None, :]
