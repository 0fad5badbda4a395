"""Networks with random weights in the form of the files that the paper preset reads, for tests of several folders.

Written from the published descriptions; the names of their weights are those of the real files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

Exporter = Literal["torchscript", "dynamo"]


class IResNetUnit(nn.Module):
    """InsightFace's residual unit, with all its batch norms."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class ReferenceIResNet(nn.Module):
    """(B, 3, S, S) in [-1, 1] -> the maps of the last three stages, and the embedding."""

    def __init__(
        self,
        depths: tuple[int, ...] = (1, 1, 1, 1),
        widths: tuple[int, ...] = (8, 12, 16, 20),
        embedding: int = 24,
        side: int = 112,
        normalises: bool = False,
    ) -> None:
        super().__init__()
        self.normalises = normalises
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        stages: list[nn.Module] = []
        width = widths[0]
        for outputs, depth in zip(widths, depths, strict=True):
            units = [IResNetUnit(width if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(depth)]
            stages.append(nn.Sequential(*units))
            width = outputs
        self.layers = nn.ModuleList(stages)
        self.bn2, self.dropout = nn.BatchNorm2d(width), nn.Dropout(0.4)
        self.fc = nn.Linear(width * (side // 16) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.normalises:  # as networks of MXNet do: they take pixels of 255
            x = (x - 127.5) * 0.0078125
        x = self.prelu(self.bn1(self.conv1(x)))
        maps: list[Tensor] = []
        for stage in self.layers:
            x = stage(x)
            maps.append(x)
        return *maps[1:], self.features(self.fc(self.dropout(torch.flatten(self.bn2(x), 1))))


class EmbeddingAlone(nn.Module):
    """What the packs' files answer."""

    def __init__(self, network: ReferenceIResNet) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)  # which an exporter gives back to all inside

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[-1]


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random weights that keep numbers of ordinary size, random batch norm statistics too."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
                module.bias.copy_(uniform(module.bias, -0.3, 0.3))
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(uniform(module.running_var, 0.5, 2.0))
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(uniform(module.weight, -0.2, 0.5))
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                inputs = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (1.2 / inputs) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(uniform(module.bias, -0.1, 0.1))
        for module in network.modules():  # or the sum of many residuals would grow without bound
            if isinstance(module, IResNetUnit):
                module.bn3.weight.mul_(0.3)
    return network.eval()


def write_onnx(
    network: nn.Module, path: Path, exporter: Exporter = "torchscript", opset: int = 11, folded: bool = True,
    side: int = 112,
) -> Path:  # fmt: skip
    """The network as an ONNX file with a batch of any size, as `torch.onnx.export` writes it.

    folded: batch norms after convolutions are taken into them.
    """
    example = torch.rand(2, 3, side, side)
    if exporter == "dynamo":
        batch = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            network, (example,), str(path), dynamo=True, opset_version=opset, dynamic_shapes=batch, external_data=False,
            optimize=folded, verbose=False,
        )  # fmt: skip
        return path
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(
        network, (example,), str(path), dynamo=False, opset_version=opset, input_names=["input.1"],
        dynamic_axes={"input.1": {0: "None"}}, do_constant_folding=folded, training=mode,
    )  # fmt: skip
    return path


# Outputs and inputs of torchvision's VGG-16, by the place of the convolution in `features`.
VGG_CONVOLUTIONS = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
    17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip
VGG_LAST_OF_STAGE = (2, 7, 14, 21, 28)


def write_lpips(vgg: Path, linear: Path, shrink: int = 8) -> None:
    """Random weights in the form of torchvision's and lpips' files, of widths `shrink` times as small."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {"classifier.0.weight": torch.zeros(2, 2)}
    for index, (outputs, inputs) in VGG_CONVOLUTIONS.items():
        shape = (outputs // shrink, inputs if inputs == 3 else inputs // shrink, 3, 3)
        scale = (2 / (shape[1] * 9)) ** 0.5
        weights[f"features.{index}.weight"] = torch.randn(shape, generator=generator) * scale
        weights[f"features.{index}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    widths = [VGG_CONVOLUTIONS[index][0] // shrink for index in VGG_LAST_OF_STAGE]
    channels = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=generator) for i, w in enumerate(widths)}
    torch.save(weights, vgg)
    torch.save(channels, linear)
