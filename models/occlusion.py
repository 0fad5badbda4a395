"""A small network that sees what hides a face: hair, glasses, hands, hats, masks.

It reads the first stages of the perceptual network, which know hair, cloth and glass from photographs of everything,
beside the picture and outlines drawn from the landmarks, and says for each pixel how likely it is not the face's own
skin. Knows nothing of what is done with such pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MissingError
from .checkpoint import ModelCard, assets_dir, load_checkpoint
from .landmark_indices import FACE_OVAL, LEFT_BROW, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE

GUIDES = ((FACE_OVAL,), (RIGHT_EYE, LEFT_EYE), (RIGHT_BROW, LEFT_BROW), (LIPS_OUTER,), (LIPS_INNER,))
SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class OcclusionConfig:
    """Widths of the features that come in and of the decoder at the same scales, both from 1/2 to 1/16."""

    image_size: int = 224
    feature_channels: tuple[int, ...] = (16, 24, 40, 80, 112)  # the last two are of one size
    widths: tuple[int, ...] = (24, 32, 48, 64)


class _Merge(nn.Module):
    """What comes from below, doubled, beside this scale's features; two convolutions."""

    def __init__(self, below: int, features: int, width: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(features, affine=False)  # the features' sizes differ by orders of magnitude
        self.enter = nn.Conv2d(below + features, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, below: Tensor | None, features: Tensor) -> Tensor:
        x = self.scale(features)
        if below is not None:
            up = F.interpolate(below, x.shape[-2:], mode="bilinear", align_corners=False)
            x = torch.cat([up, x], 1)
        return F.relu(self.norm(self.mix(F.relu(self.enter(x)))))


class OcclusionNet(nn.Module):
    """Logits of being hidden at half the picture's size."""

    def __init__(self, config: OcclusionConfig = OcclusionConfig()) -> None:
        super().__init__()
        self.config = config
        *channels, before_last, last = config.feature_channels
        channels.append(before_last + last)
        extra = 3 + len(GUIDES)
        self.merges = nn.ModuleList()
        below = 0
        for features, width in zip(reversed(channels), reversed(config.widths), strict=True):
            self.merges.append(_Merge(below, features + extra, width))
            below = width
        self.head = nn.Conv2d(below, 1, 1)

    def forward(self, image: Tensor, features: tuple[Tensor, ...], guides: Tensor) -> Tensor:
        """Logits (B, 1, S/2, S/2), above 0 where something hides the skin.

        Args:
            image: (B, 3, S, S) sRGB-encoded in [0, 1].
            features: of the perceptual network for `image`.
            guides: (B, 5, S, S) of `occlusion_guides`.
        """
        beside = torch.cat([image, guides], 1)
        levels = [*features[:-2], torch.cat(features[-2:], 1)]
        x = None
        for merge, level in zip(self.merges, reversed(levels), strict=True):
            small = F.adaptive_avg_pool2d(beside, level.shape[-2:])
            x = merge(x, torch.cat([level, small], 1))
        return self.head(x)

    def hidden(self, image: Tensor, features: tuple[Tensor, ...], guides: Tensor) -> Tensor:
        """(B, 1, S, S) in [0, 1]: how likely each pixel is not the face's own skin; arguments as `forward`."""
        logits = self(image, features, guides)
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False).sigmoid()


def occlusion_guides(landmarks: np.ndarray, size: int) -> np.ndarray:
    """(468, 2 or 3) px of a square picture -> (5, size, size) float32 of 0 and 1: oval, eyes, brows, lips, mouth."""
    points = np.round((landmarks[:, :2].astype(np.float64) - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    drawn = np.zeros((len(GUIDES), size, size), np.float32)
    for canvas, contours in zip(drawn, GUIDES, strict=True):
        for contour in contours:
            cv2.fillPoly(canvas, [points[list(contour)]], 1.0, lineType=cv2.LINE_8, shift=SUBPIXEL_BITS)
    return drawn


def load_occlusion(path: Path | None = None) -> tuple[OcclusionNet, ModelCard]:
    """The network saved at `path` (no suffix), or the embedded one: frozen, in evaluation mode, on the CPU.

    Raises:
        MissingError: the files are absent, damaged, or of an architecture that this version cannot build.
    """
    path = path or assets_dir() / "occlusion"
    checkpoint = load_checkpoint(path)
    config = dict(checkpoint.config)
    architecture = config.pop("architecture", None)
    if architecture != "occlusion-head":
        got = f"architecture {architecture!r}"
        raise MissingError(f"occlusion network {path}", got, "'occlusion-head'", "update fitdiff")
    network = OcclusionNet(config_from_json(config))
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in checkpoint.tensors.items()})
    return network.eval().requires_grad_(False), checkpoint.card


def config_from_json(values: Mapping[str, Any]) -> OcclusionConfig:
    """The dataclass from its JSON form without the architecture's name; tuples are lists there."""
    return OcclusionConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def json_from_config(config: OcclusionConfig) -> dict[str, Any]:
    """What `load_occlusion` reads back from a checkpoint's `config`."""
    return {"architecture": "occlusion-head", **asdict(config)}
