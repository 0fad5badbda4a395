"""ArcFace recognisers: InsightFace's iresnets, rebuilt from their ONNX files as differentiable networks.

An iresnet (He et al. 2016, "Identity mappings"; Deng et al. 2019, ArcFace, section 3.1) is a row of residual blocks:
batch norm, convolution, PReLU, convolution of the stride. Exporters fold some batch norms into convolutions and
leave others; here every one is folded, or is a scale and a shift where zero padding forbids that, so that one module
stands for all. How many blocks a stage has is found from the file.

The weights of InsightFace's packs are for non-commercial research; nothing of them is in this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoint import ModelCard
from .iresnet_reader import IResNetWeights, read_iresnet
from .recogniser import IdentityFeatures, Recogniser

# InsightFace's five points for a chip of 112 pixels.
CHIP_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
DEPTHS: dict[tuple[int, ...], str] = {
    (2, 2, 2, 2): "r18",
    (3, 4, 6, 3): "r34",
    (3, 4, 14, 3): "r50",
    (3, 13, 30, 3): "r100",
}
LICENCE = "LicenseRef-InsightFace-non-commercial"
FIRST_MAP = 1  # the stage of C2; C3 and C4 are those after it


@dataclass(frozen=True)
class IResNetConfig:
    """Shape of an iresnet; the defaults are r50 for chips of 112 pixels."""

    depths: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64
    embedding_size: int = 512
    chip_size: int = 112

    @property
    def name(self) -> str:
        """r50 and the like; depths that have no name are spelt out."""
        return DEPTHS.get(self.depths, "iresnet-" + "-".join(map(str, self.depths)))


class IResNetBlock(nn.Module):
    """Scale and shift, 3x3, PReLU, 3x3 with the stride; the shortcut is a 1x1 where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(inputs, 1, 1)), nn.Parameter(torch.zeros(inputs, 1, 1))
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.activation = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(self.activation(self.conv1(x * self.scale + self.shift)))
        return residual + (x if self.shortcut is None else self.shortcut(x))


class ArcFace(Recogniser):
    """An iresnet as recogniser: the paper's C2, C3, C4 and V. Embeddings are compared by their plain cosine."""

    input_scale: Tensor
    input_shift: Tensor

    def __init__(self, config: IResNetConfig = IResNetConfig()) -> None:
        super().__init__(config.embedding_size)
        self.config = config
        # On chips in [0, 1]; a network whose file holds its own normalisation brings others.
        self.register_buffer("input_scale", torch.full((3, 1, 1), 2.0))
        self.register_buffer("input_shift", torch.full((3, 1, 1), -1.0))
        self.stem = nn.Conv2d(3, config.stem_width, 3, padding=1)
        self.activation = nn.PReLU(config.stem_width)
        width = config.stem_width
        stages: list[nn.Module] = []
        for outputs, depth in zip(config.widths, config.depths, strict=True):
            blocks = [IResNetBlock(width if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(depth)]
            stages.append(nn.Sequential(*blocks))
            width = outputs
        self.stages = nn.ModuleList(stages)
        side = config.chip_size >> len(config.widths)
        self.embed = nn.Linear(width * side * side, config.embedding_size)

    @property
    def chip_size(self) -> int:
        return self.config.chip_size

    @property
    def chip_template(self) -> np.ndarray:
        return np.array(CHIP_TEMPLATE, np.float32) * np.float32(self.config.chip_size / 112)

    @property
    def feature_shapes(self) -> tuple[tuple[int, int, int], ...]:
        sides = [self.config.chip_size >> (stage + 1) for stage in range(len(self.config.widths))]
        shapes = zip(self.config.widths, sides, sides, strict=True)
        return tuple(shapes)[FIRST_MAP:]

    def forward(self, chips: Tensor) -> IdentityFeatures:
        """`chips` (B, 3, 112, 112) sRGB-encoded in [0, 1].

        Returns:
            maps (B, 128, 28, 28), (B, 256, 14, 14), (B, 512, 7, 7) and embedding (B, 512).
        """
        x = self.activation(self.stem(chips * self.input_scale + self.input_shift))
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return IdentityFeatures(tuple(maps[FIRST_MAP:]), self.embed(x.flatten(1)))


def load_arcface(path: Path) -> tuple[ArcFace, ModelCard]:
    """The iresnet in an ONNX file, such as `w600k_r50.onnx` of buffalo_l or `glintr100.onnx` of antelopev2: frozen,
    for evaluation, on the CPU.

    Raises:
        MissingError: the file is absent or damaged, holds another kind of network, or `onnx` is not installed.
    """
    weights, sha256 = read_iresnet(path)
    network = arcface_from_weights(weights)
    name = f"arcface-{network.config.name}-{path.stem}"
    source = f"{path.name} of InsightFace's pack {path.parent.name}, from the user's own copy"
    return network, ModelCard("recogniser", name, source, LICENCE, False, sha256)


def arcface_from_weights(weights: IResNetWeights) -> ArcFace:
    """The network with these weights: frozen, for evaluation."""
    stages = weights.stages
    side = round((weights.embed[0].shape[1] / stages[-1][0].conv2.weight.shape[0]) ** 0.5)
    config = IResNetConfig(
        depths=tuple(len(stage) for stage in stages),
        widths=tuple(stage[0].conv2.weight.shape[0] for stage in stages),
        stem_width=weights.stem.weight.shape[0],
        embedding_size=weights.embed[0].shape[0],
        chip_size=side << len(stages),
    )
    network = ArcFace(config)
    state: dict[str, np.ndarray] = {"centre": np.zeros(config.embedding_size)}
    if weights.input is None:
        state |= {"input_scale": np.full((3, 1, 1), 2.0), "input_shift": np.full((3, 1, 1), -1.0)}
    else:  # it takes pixels of 255
        scale, shift = (np.broadcast_to(value, 3).reshape(3, 1, 1) for value in weights.input)
        state |= {"input_scale": scale * 255, "input_shift": shift}
    state |= {"stem.weight": weights.stem.weight, "stem.bias": weights.stem.bias}
    state |= {"activation.weight": weights.slope, "embed.weight": weights.embed[0], "embed.bias": weights.embed[1]}
    for stage, blocks in enumerate(stages):
        for index, block in enumerate(blocks):
            prefix = f"stages.{stage}.{index}."
            convolutions = {"conv1": block.conv1, "conv2": block.conv2, "shortcut": block.shortcut}
            for name, convolution in convolutions.items():
                if convolution is not None:
                    state |= {f"{prefix}{name}.weight": convolution.weight, f"{prefix}{name}.bias": convolution.bias}
            state[prefix + "scale"], state[prefix + "shift"] = (v.reshape(-1, 1, 1) for v in block.entry)
            state[prefix + "activation.weight"] = block.slope
    network.load_state_dict({name: torch.from_numpy(np.array(value)).float() for name, value in state.items()})
    return network.eval().requires_grad_(False)
