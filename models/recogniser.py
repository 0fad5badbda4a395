"""Face recognisers: from an aligned face chip to the features that say whose face it is.

`Recogniser` is what conditioning, guidance and evaluation use; `DlibResNet` is the embedded one.
Finding the face and warping it to `chip_template` happen elsewhere.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MissingError
from .checkpoint import ModelCard, assets_dir, load_checkpoint


@dataclass(frozen=True)
class IdentityFeatures:
    """What a recogniser saw: three intermediate maps, shallow to deep, and the embedding."""

    maps: tuple[Tensor, ...]  # three of (B, C_i, H_i, W_i); the paper's C2, C3, C4
    embedding: Tensor  # (B, D), not normalised; the paper's V


class Recogniser(nn.Module, ABC):
    """A network from chips to `IdentityFeatures`, and the way to compare two embeddings.

    `centre` (D,) is subtracted from embeddings before they are compared. Zero, the default, gives the plain
    cosine. A recogniser whose embeddings share a large common part (dlib's do) has a compressed cosine; the
    mean embedding over many different faces takes that part out.
    """

    centre: Tensor

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(embedding_size))

    @property
    @abstractmethod
    def chip_size(self) -> int:
        """Width and height S of a chip in pixels."""

    @property
    @abstractmethod
    def chip_template(self) -> np.ndarray:
        """(5, 2) float32 px: right eye (image left), left eye, nose tip, right, left mouth corner."""

    @property
    @abstractmethod
    def feature_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of each map."""

    @property
    def embedding_size(self) -> int:
        return self.centre.shape[0]

    @abstractmethod
    def forward(self, chips: Tensor) -> IdentityFeatures:
        """`chips` (B, 3, S, S) sRGB-encoded in [0, 1]."""

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,) cosine of two embeddings (B, D) about `centre`, in [-1, 1]; differentiable in both."""
        return F.cosine_similarity(a - self.centre, b - self.centre, dim=-1)


@dataclass(frozen=True)
class DlibResNetConfig:
    """Shape of the residual network; the defaults are dlib's `dlib_face_recognition_resnet_model_v1`."""

    chip_size: int = 150
    # Means of the eye contours, nose tip and mouth corners of dlib's mean 68-point face, padded by a quarter.
    chip_template: tuple[tuple[float, float], ...] = (
        (47.549183, 46.599033),
        (100.476135, 46.599033),
        (74.012703, 76.562500),
        (50.414902, 103.023300),
        (97.610397, 103.023300),
    )
    mean_rgb: tuple[float, float, float] = (122.782, 117.001, 104.298)  # of 255
    stem_width: int = 32
    stage_widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    stage_depths: tuple[int, ...] = (3, 4, 3, 3, 1)
    # The last map of each of the widths 64, 128, 256, at 17, 8 and 4 pixels. The stage after is left out:
    # the mean of its 2 x 2 pixels, projected, is the embedding.
    map_stages: tuple[int, int, int] = (1, 2, 3)
    embedding_size: int = 128


class DlibResidualBlock(nn.Module):
    """Two 3x3 convolutions and an unlearnt shortcut; dlib's scale layers are folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        stride, padding = (2, 0) if halve else (1, 1)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(F.relu(self.conv1(x)))
        shortcut = F.avg_pool2d(x, 2) if self.halve else x
        # The unpadded strided convolution can come out one pixel smaller than the pooling; dlib's `add_prev`
        # takes the absent rows, columns and channels of either side for zeros.
        channels, height, width = (max(residual.shape[d], shortcut.shape[d]) for d in (1, 2, 3))
        residual = _zero_extended(residual, channels, height, width)
        return F.relu(residual + _zero_extended(shortcut, channels, height, width))


class DlibResNet(Recogniser):
    """dlib's face recogniser of 29 convolutions: 128 numbers a face; two faces are one person's below L2 0.6.

    Source: Davis King, dlib, `anet_type` in `examples/dnn_face_recognition_ex.cpp`.
    """

    mean: Tensor

    def __init__(self, config: DlibResNetConfig = DlibResNetConfig()) -> None:
        super().__init__(config.embedding_size)
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean_rgb).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Conv2d(3, config.stem_width, 7, stride=2)
        width = config.stem_width
        stages: list[nn.Module] = []
        for stage, (outputs, depth) in enumerate(zip(config.stage_widths, config.stage_depths, strict=True)):
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(DlibResidualBlock(width, outputs, halve=stage > 0 and index == 0))
                width = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.embed = nn.Linear(width, config.embedding_size, bias=False)

    @property
    def chip_size(self) -> int:
        return self.config.chip_size

    @property
    def chip_template(self) -> np.ndarray:
        return np.array(self.config.chip_template, dtype=np.float32)

    @property
    def feature_shapes(self) -> tuple[tuple[int, int, int], ...]:
        side = _strided(_strided(self.config.chip_size, 7), 3)  # stem, max pooling
        shapes: list[tuple[int, int, int]] = []
        for stage, channels in enumerate(self.config.stage_widths):
            side = side if stage == 0 else max(_strided(side, 3), side // 2)
            shapes.append((channels, side, side))
        return tuple(shapes[stage] for stage in self.config.map_stages)

    def forward(self, chips: Tensor) -> IdentityFeatures:
        """`chips` (B, 3, 150, 150) sRGB-encoded in [0, 1].

        Returns:
            maps (B, 64, 17, 17), (B, 128, 8, 8), (B, 256, 4, 4) and embedding (B, 128).
        """
        x = (chips * 255 - self.mean) / 256  # dlib's input layer: 8-bit values, and its own divisor
        x = F.max_pool2d(F.relu(self.stem(x)), 3, stride=2)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        chosen = tuple(maps[stage] for stage in self.config.map_stages)
        return IdentityFeatures(chosen, self.embed(x.mean((2, 3))))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(B,) plain cosine of raw embeddings (B, D)."""
    return F.cosine_similarity(a, b, dim=-1)


def load_recogniser(path: Path | None = None) -> tuple[Recogniser, ModelCard]:
    """The recogniser saved at `path` (no suffix), or the embedded one: frozen, for evaluation, on the CPU.

    Raises:
        MissingError: the files are absent, damaged, or of an architecture that this version cannot build.
    """
    path = path or assets_dir() / "recogniser"
    checkpoint = load_checkpoint(path)
    config = dict(checkpoint.config)
    architecture = config.pop("architecture", None)
    if architecture != "dlib-resnet":
        got = f"architecture {architecture!r}"
        raise MissingError(f"recogniser {path}", got, "'dlib-resnet'", "update fitdiff")
    recogniser = DlibResNet(_config_from_json(config))
    recogniser.load_state_dict(checkpoint.tensors)
    return recogniser.eval().requires_grad_(False), checkpoint.card


def json_from_config(config: DlibResNetConfig) -> dict[str, Any]:
    """What `load_recogniser` reads back from a checkpoint's `config`."""
    return {"architecture": "dlib-resnet", **asdict(config)}


def _config_from_json(config: dict[str, Any]) -> DlibResNetConfig:
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in config.items()}
    values["chip_template"] = tuple((float(x), float(y)) for x, y in config["chip_template"])
    return DlibResNetConfig(**values)


def _zero_extended(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    padding = (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1])
    return F.pad(x, padding) if any(padding) else x


def _strided(side: int, kernel: int) -> int:
    """Side of an unpadded convolution or pooling of stride 2."""
    return (side - kernel) // 2 + 1
