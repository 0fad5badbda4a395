"""The branched VQGAN that turns the three reflectance charts of a face into one 64x64 latent and back.

Paper, sections 3.1 and 3.3: nine channels (diffuse albedo | specular albedo | normal) at 512x512, one
encoder, one latent at f = 8, a decoder whose trunk forks into an albedo branch and a normal branch.

Every operation is local and knows where on the chart it is (a learned position embedding, cropped by
`origin`), so a network trained on aligned crops is the same network on the full chart: there is no
normalisation over space and no attention. Knows nothing of training, of users' files, or of what the charts
are draped on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoint import assets_dir, load_checkpoint
from .quantiser import VectorQuantizer

MAP_CHANNELS = 9
ALBEDO_CHANNELS = 6  # diffuse (3), specular (3); the normal follows
LATENT_STRIDE = 8
# Position must not drown the latent at first, or the decoder learns a face that ignores it and stays there
# for hundreds of steps: the embedding begins small, the latent's weights large.
POSITION_AMPLITUDE = 0.3
LATENT_GAIN = 4.0


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of a `BranchedAutoencoder`; saved as JSON beside its weights."""

    chart_size: int = 512
    decoder_channels: tuple[int, int, int, int] = (128, 96, 48, 16)  # at 64, 128; a branch's at 256, 512
    decoder_blocks: tuple[int, int, int] = (3, 2, 1)  # residual blocks at 64, 128; a branch's at 256
    encoder_channels: tuple[int, int, int, int] = (16, 32, 64, 96)  # at 512, 256, 128, 64
    encoder_blocks: int = 2  # residual blocks at 64; there is one at 128
    position_channels: int = 16
    codes: int = 1024
    latent_limit: float = 4.0  # the latent is softly held in (-limit, limit); training aims at unit variance
    norm: bool = True


class PixelNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each pixel; sees no neighbour."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-4) * self.gain)


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(norm x)))); starts as the identity."""

    def __init__(self, channels: int, norm: bool) -> None:
        super().__init__()
        self.norm = PixelNorm(channels) if norm else nn.Identity()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class Encoder(nn.Module):
    """(B, 9, H, W) centred charts and (B, P, H/8, W/8) positions to (B, 1, H/8, W/8)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c512, c256, c128, c64 = config.encoder_channels
        self.stem = nn.Conv2d(MAP_CHANNELS, c512, 3, padding=1)
        self.down256 = nn.Conv2d(c512, c256, 4, stride=2, padding=1)
        self.down128 = nn.Conv2d(c256, c128, 4, stride=2, padding=1)
        self.block128 = ResBlock(c128, config.norm)
        self.down64 = nn.Conv2d(c128, c64, 4, stride=2, padding=1)
        self.place = nn.Conv2d(c64 + config.position_channels, c64, 1)
        self.blocks64 = nn.Sequential(*(ResBlock(c64, config.norm) for _ in range(config.encoder_blocks)))
        self.head = nn.Conv2d(c64, 1, 3, padding=1)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = F.silu(self.down256(F.silu(self.stem(x))))
        x = self.block128(self.down128(x))
        x = self.down64(F.silu(x))
        x = self.place(torch.cat((x, position), 1))
        return self.head(F.silu(self.blocks64(x)))


class Branch(nn.Module):
    """From the trunk at 128 to one group of maps at 256, and by a light head on to 512."""

    def __init__(self, config: AutoencoderConfig, channels: int) -> None:
        super().__init__()
        _, c128, c256, c512 = config.decoder_channels
        self.enter256 = nn.Conv2d(c128, c256, 1)
        self.blocks256 = nn.Sequential(*(ResBlock(c256, False) for _ in range(config.decoder_blocks[2])))
        self.head256 = nn.Conv2d(c256, channels, 3, padding=1)
        self.enter512 = nn.Conv2d(c256, c512, 1)
        self.mix512 = nn.Conv2d(c512, c512, 3, padding=1)
        self.head512 = nn.Conv2d(c512, channels, 3, padding=1)
        nn.init.zeros_(self.head512.weight)
        nn.init.zeros_(self.head512.bias)  # type: ignore[arg-type]

    def forward(self, trunk: Tensor, fine: bool) -> tuple[Tensor, Tensor | None]:
        """The group's residual at 256 and, if `fine`, at 512."""
        x = self.blocks256(_doubled(self.enter256(trunk)))
        x = F.silu(x)
        coarse = self.head256(x)
        if not fine:
            return coarse, None
        detail = self.head512(F.silu(self.mix512(F.silu(_doubled(self.enter512(x))))))
        return coarse, _doubled(coarse) + detail


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """(B, 1, h, w) latent and (B, P, h, w) positions to residuals at 4h (and 8h)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c64, c128, _, _ = config.decoder_channels
        n64, n128, _ = config.decoder_blocks
        self.stem = nn.Conv2d(1 + config.position_channels, c64, 3, padding=1)
        with torch.no_grad():
            self.stem.weight[:, :1] *= LATENT_GAIN
        self.blocks64 = nn.Sequential(*(ResBlock(c64, config.norm) for _ in range(n64)))
        self.enter128 = nn.Conv2d(c64, c128, 1)
        self.blocks128 = nn.Sequential(*(ResBlock(c128, config.norm) for _ in range(n128)))
        self.albedo = Branch(config, ALBEDO_CHANNELS)
        self.normal = Branch(config, MAP_CHANNELS - ALBEDO_CHANNELS)

    def forward(self, z: Tensor, position: Tensor, fine: bool) -> tuple[Tensor, Tensor | None]:
        x = self.blocks64(self.stem(torch.cat((z, position), 1)))
        x = self.blocks128(_doubled(self.enter128(F.silu(x))))
        x = F.silu(x)
        albedo, albedo_fine = self.albedo(x, fine)
        normal, normal_fine = self.normal(x, fine)
        coarse = torch.cat((albedo, normal), 1)
        if albedo_fine is None or normal_fine is None:
            return coarse, None
        return coarse, torch.cat((albedo_fine, normal_fine), 1)


Origin = tuple[int, int] | Tensor
"""(row, column) of a crop in latent cells, one for the batch or an integer tensor (B, 2)."""


class BranchedAutoencoder(nn.Module):
    """Charts in [0, 1] to a latent of about unit variance and back.

    Maps are (B, 9, H, W): diffuse albedo (sRGB-encoded), specular albedo (F0 / 0.08, linear), tangent-space
    normal ((n + 1) / 2). H and W are the chart's, or a multiple of 8 for a crop that begins at `origin`.
    """

    chart_mean: Tensor  # (9, chart, chart) in [0, 1], mean of the training charts
    chart_spread: Tensor  # (9, 1, 1) standard deviation of the training charts about that mean
    lightness_spread: Tensor  # (3, 128, 128) how far their lightness departs from it; see `rendering.lightness`
    lightness_depth: Tensor  # (1, 128, 128) how dark one face in a hundred is there

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or AutoencoderConfig()
        size = self.config.chart_size
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.quantiser = VectorQuantizer(self.config.codes, self.config.latent_limit)
        cells = size // LATENT_STRIDE
        self.position = nn.Parameter(_waves(self.config.position_channels, cells))
        self.register_buffer("chart_mean", torch.full((MAP_CHANNELS, size, size), 0.5))
        self.register_buffer("chart_spread", torch.full((MAP_CHANNELS, 1, 1), 0.15))
        self.register_buffer("lightness_spread", torch.zeros(3, size // 4, size // 4))
        self.register_buffer("lightness_depth", torch.zeros(1, size // 4, size // 4))
        self.register_load_state_dict_pre_hook(_without_lightness)

    @property
    def latent_size(self) -> int:
        """Cells along a side of the full chart's latent (64 for a chart of 512)."""
        return self.config.chart_size // LATENT_STRIDE

    def encode(self, maps: Tensor, origin: Origin = (0, 0)) -> Tensor:
        """Continuous latent (B, 1, H/8, W/8) of maps (B, 9, H, W); `quantise` it for the codebook's version.

        Raises:
            ValueError: channels other than 9, sides not multiples of 8, or a crop that leaves the chart.
        """
        if maps.shape[1] != MAP_CHANNELS or maps.shape[2] % LATENT_STRIDE or maps.shape[3] % LATENT_STRIDE:
            raise ValueError(f"maps: got shape {tuple(maps.shape)}; expected (B, 9, H, W) with H and W multiples of 8")
        height, width = maps.shape[2] // LATENT_STRIDE, maps.shape[3] // LATENT_STRIDE
        centred = (maps - self._mean(origin, height, width)) / self.chart_spread
        z = self.encoder(centred, self._position(origin, height, width, maps.shape[0])).float()
        return self.config.latent_limit * torch.tanh(z / self.config.latent_limit)

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest codes (straight-through gradient), commitment loss (scalar), code indices (z's shape)."""
        return self.quantiser(z)

    def decode(self, z: Tensor, resolution: int | None = None, origin: Origin = (0, 0)) -> Tensor:
        """Maps in [0, 1] of a latent (B, 1, h, w); normals have unit length.

        Args:
            z: the full latent or a crop of it.
            resolution: side of the full chart that is wanted: the chart's own (512, the default), or half of
                it, which stops the network there (for guidance) and equals the full pass's coarse output.
            origin: where the crop begins.

        Raises:
            ValueError: another resolution, or a crop that leaves the chart.
        """
        size = self.config.chart_size
        if resolution not in (None, size, size // 2):
            raise ValueError(f"resolution: got {resolution}; expected {size} or {size // 2}")
        coarse, fine = self.decode_pyramid(z, origin, fine=resolution != size // 2)
        maps = coarse if fine is None else fine
        return maps.clamp(0.0, 1.0)

    def decode_pyramid(self, z: Tensor, origin: Origin = (0, 0), fine: bool = True) -> tuple[Tensor, Tensor | None]:
        """Coarse (B, 9, 4h, 4w) and fine (B, 9, 8h, 8w; None unless `fine`) maps, albedos not clamped."""
        height, width = z.shape[-2:]
        mean = self._mean(origin, height, width)
        position = self._position(origin, height, width, z.shape[0])
        coarse, detail = self.decoder(z, position, fine)
        scale = self.chart_spread
        half = F.avg_pool2d(mean, 2)
        out = _with_unit_normals(half + scale * coarse.float())
        return out, None if detail is None else _with_unit_normals(mean + scale * detail.float())

    def _position(self, origin: Origin, height: int, width: int, batch: int) -> Tensor:
        crop = _crop(self.position[0], origin, height, width, 1)
        return crop.expand(batch, -1, -1, -1)

    def _mean(self, origin: Origin, height: int, width: int) -> Tensor:
        return _crop(self.chart_mean, origin, height, width, LATENT_STRIDE)


def _without_lightness(model: nn.Module, values: dict[str, Any], prefix: str, *_: Any) -> None:
    """Checkpoints of before have no spread or depth. All zeros says that they are not known."""
    for name in ("lightness_spread", "lightness_depth"):
        values.setdefault(prefix + name, model.get_buffer(name))


def _crop(chart: Tensor, origin: Origin, height: int, width: int, stride: int) -> Tensor:
    """(1 or B, C, height * stride, width * stride) of `chart` (C, S, S); sizes are in latent cells."""
    origins = origin.tolist() if isinstance(origin, Tensor) else [origin]
    crops = []
    for row, column in origins:
        crop = chart[:, row * stride : (row + height) * stride, column * stride : (column + width) * stride]
        if min(row, column) < 0 or crop.shape[1] != height * stride or crop.shape[2] != width * stride:
            raise ValueError(
                f"origin: got {(row, column)} for a crop of {height}x{width} latent cells; "
                f"expected it to lie within {chart.shape[1] // stride}x{chart.shape[2] // stride}"
            )
        crops.append(crop)
    return torch.stack(crops)


def _with_unit_normals(maps: Tensor) -> Tensor:
    normal = maps[:, ALBEDO_CHANNELS:] * 2.0 - 1.0
    length = torch.sqrt((normal * normal).sum(1, keepdim=True) + 1e-8)
    return torch.cat((maps[:, :ALBEDO_CHANNELS], normal / length * 0.5 + 0.5), 1)


def _waves(channels: int, cells: int) -> Tensor:
    """(1, channels, cells, cells): sines and cosines down and across by octaves; where learning begins."""
    axis = (torch.arange(cells) + 0.5) / cells
    waves = []
    for index in range(channels):
        octave, kind = divmod(index, 4)
        phase = math.pi * 2.0**octave * axis
        wave = torch.sin(phase) if kind % 2 else torch.cos(phase)
        waves.append(wave[:, None].expand(cells, cells) if kind < 2 else wave[None, :].expand(cells, cells))
    return POSITION_AMPLITUDE * torch.stack(waves)[None]


def load_autoencoder(path: Path | None = None) -> BranchedAutoencoder:
    """The trained autoencoder, in evaluation mode and float32; the embedded one when `path` is None.

    Raises:
        MissingError: no checkpoint there.
    """
    checkpoint = load_checkpoint(path or assets_dir() / "autoencoder")
    model = BranchedAutoencoder(config_from_json(checkpoint.config))
    model.load_state_dict({name: tensor.float() for name, tensor in checkpoint.tensors.items()})
    return model.eval()


def config_from_json(values: dict[str, Any]) -> AutoencoderConfig:
    """The dataclass from its JSON form, where tuples are lists."""
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return AutoencoderConfig(**arguments)


def json_from_config(config: AutoencoderConfig) -> dict[str, Any]:
    """The JSON form of the configuration, as checkpoints hold it."""
    return asdict(config)
