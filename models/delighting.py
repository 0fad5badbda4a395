"""A network that takes the light out of an unwrapped photo: how a skin's own lightness varies over the face.

A photo that has been laid out on the face chart shows pigment, light, shade and what was missed of hair and frames,
all at once. The network has seen drawn faces under drawn light with their true maps, and answers with what it expects
of the skin: where the photo says nothing, that is the usual face. Knows nothing of how photos are unwrapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MissingError
from .checkpoint import ModelCard, assets_dir, load_checkpoint

SIDE = 256  # texels of the chart that holds the window
ROWS, COLUMNS = slice(16, 240), slice(48, 208)  # the face's window, the same from both sides
DARKEST = 0.02  # sRGB that logarithms still tell apart
ARCHITECTURE = "delighting-unet"
INPUTS = 7  # colours, shown, normal
GROUP = 8  # channels that are normalised together


@dataclass(frozen=True)
class DelightingConfig:
    """widths: channels from the window's size down to a sixteenth of it. place: of the learned place on the face."""

    widths: tuple[int, ...] = (16, 32, 48, 64, 96)
    place: int = 8


class _Block(nn.Sequential):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(width // GROUP, width), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(width // GROUP, width), nn.SiLU(),
        )  # fmt: skip


class DelightingNet(nn.Module):
    """A U-Net over the window that sees both sides of the face at once."""

    weight: Tensor
    mean: Tensor

    def __init__(self, config: DelightingConfig = DelightingConfig()) -> None:
        super().__init__()
        self.config = config
        height, width = window_size()
        below = 2 ** (len(config.widths) - 1)
        self.place = nn.Parameter(torch.zeros(1, config.place, 2 * height // below, 2 * width // below))
        channels, self.down = 2 * INPUTS + config.place, nn.ModuleList()
        for wide in config.widths:
            self.down.append(_Block(channels, wide))
            channels = wide
        self.up = nn.ModuleList()
        for wide in reversed(config.widths[:-1]):
            self.up.append(_Block(channels + wide, wide))
            channels = wide
        self.head = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("weight", torch.ones(1, 1, height, width))  # the bare skin of the face
        self.register_buffer("mean", torch.zeros(1, 1, height, width))  # lightness of the usual face

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 7, H, W) of `delighting_inputs`, a window -> (B, 1, H, W), its weighted mean 0.

        In logarithms of sRGB values: how much lighter each texel of the skin is than the face as a whole.
        """
        other = inputs.flip(-1)
        place = F.interpolate(self.place, inputs.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat([inputs, other, place.expand(len(inputs), -1, -1, -1)], 1)
        levels = []
        for block in self.down:
            if levels:
                x = F.avg_pool2d(x, 2)
            x = block(x)
            levels.append(x)
        for block, beside in zip(self.up, reversed(levels[:-1]), strict=True):
            x = F.interpolate(x, beside.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, beside], 1))
        return about_zero(self.head(x).float() + self.mean, self.weight)


def window_size() -> tuple[int, int]:
    """Rows and columns of the window."""
    return ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start


def about_zero(x: Tensor, weight: Tensor) -> Tensor:
    """(B, 1, H, W) without its weighted mean; weight: (1, 1, H, W)."""
    return x - (x * weight).sum((2, 3), keepdim=True) / weight.sum()


def delighting_inputs(colours: Tensor, shown: Tensor, normal: Tensor) -> Tensor:
    """What the network sees of an unwrapped photo (B, 7, H, W): how bright it is as a whole is left out.

    Args:
        colours: (B, 3, H, W) sRGB in [0, 1].
        shown: (B, 1, H, W) in [0, 1], how well the photo shows each texel as bare skin.
        normal: (B, 3, H, W) unit, view frame.
    """
    logs = colours.clamp_min(DARKEST).log()
    middle = (logs.mean(1, keepdim=True) * shown).sum((2, 3), keepdim=True)
    return torch.cat([(logs - middle / (shown.sum((2, 3), keepdim=True) + 1e-3)) * shown, shown, normal], 1)


def load_delighting(path: Path | None = None) -> tuple[DelightingNet, ModelCard]:
    """The network saved at `path` (no suffix), or the embedded one: frozen, in evaluation mode, on the CPU.

    Raises:
        MissingError: the files are absent, damaged, or of an architecture that this version cannot build.
    """
    path = path or assets_dir() / "delighting"
    checkpoint = load_checkpoint(path)
    config = dict(checkpoint.config)
    architecture = config.pop("architecture", None)
    if architecture != ARCHITECTURE:
        got = f"architecture {architecture!r}"
        raise MissingError(f"delighting network {path}", got, repr(ARCHITECTURE), "update fitdiff")
    network = DelightingNet(config_from_json(config))
    network.load_state_dict({name: value.float() for name, value in checkpoint.tensors.items()})
    return network.eval().requires_grad_(False), checkpoint.card


def config_from_json(values: Mapping[str, Any]) -> DelightingConfig:
    """The dataclass from its JSON form without the architecture's name; tuples are lists there."""
    return DelightingConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def json_from_config(config: DelightingConfig) -> dict[str, Any]:
    """What `load_delighting` reads back from a checkpoint's `config`."""
    return {"architecture": ARCHITECTURE, **asdict(config)}
