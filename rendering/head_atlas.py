"""Compose the whole head's textures from the face maps: the same function for guidance, pictures and export.

The face maps are an exact block of the atlas; around it lie a neutral scalp, ears and neck, whose colour is carried
over from the face's border near it and from its forehead and cheeks farther away, and the other parts (eyes, mouth,
teeth, tongue, lashes), which stay as they are.
Knows nothing of networks, of meshes or of files of users.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..models.checkpoint import ModelCard, assets_dir, load_checkpoint
from .drawn_eye import drawn_eye
from .even_skin import mean_of_plain_skin
from .renderer import HeadMapsTensor
from .shader import F0_MAX, linear_from_srgb, srgb_from_linear

CELL = 16  # texels of the 1024 atlas that share one value of the tone field
FADE = 90.0  # texels over which the border's tone gives way to that of forehead and cheeks
PADDING = 7  # texels of the 1024 atlas beyond an island's edge that have its tone, for filters and smaller mip levels
NECK_FADE = (470.0, 600.0)  # rows of the 1024 atlas over which it does so towards the neck, whose island lies elsewhere


@dataclass(frozen=True)
class HeadAtlasConfig:
    """Rectangles are (x, y, width, height) in texels of a 1024 x 1024 atlas."""

    face_block: tuple[int, int, int]
    eye_rect: tuple[int, int, int, int]
    neck_rect: tuple[int, int, int, int]


class HeadAtlas(nn.Module):
    """The neutral atlas at one resolution (1024, or 512 for guidance) and the way face maps are put into it."""

    albedo: Tensor  # (1, 3, T, T) linear RGB
    alpha: Tensor  # (1, 1, T, T)
    specular: Tensor  # (1, 1, T, T) linear F0 / 0.08
    roughness: Tensor  # (1, 1, T, T)
    normal: Tensor  # (1, 3, T, T) in [-1, 1]
    unit_normal: Tensor  # the same, of unit length
    blend: Tensor  # (1, 1, T, T): 1 where the face maps rule
    skin: Tensor  # (1, 1, T, T): 1 where tone is carried over
    border: Tensor  # (32, 32) bool: cells of the face block in which the blend takes place
    border_cells: Tensor  # their places in the flat block: a mask's size would have to be waited for on a GPU
    spread: Tensor  # (4096, border cells): weights of the tone field, rows sum to `local`
    eye: Tensor  # (1, 3, E, E) linear RGB: eye white and pupil
    iris: Tensor  # (1, 1, E, E): what an iris adds, times its colour
    local: Tensor  # (4096, 1): share of local tone in a cell, the rest being that of forehead and cheeks

    def __init__(self, config: HeadAtlasConfig, tensors: dict[str, Tensor], size: int = 1024) -> None:
        super().__init__()
        self.config, self.size = config, size
        maps = {name: tensor.float()[None] / 255 for name, tensor in tensors.items()}
        maps["albedo"] = linear_from_srgb(maps["albedo"])
        maps["normal"] = maps["normal"] * 2 - 1
        maps["skin"] = functional.max_pool2d(maps["skin"], 2 * PADDING + 1, 1, PADDING)
        factor = maps["albedo"].shape[-1] // size
        x, y, side = config.face_block
        weight = functional.avg_pool2d(maps["blend"], CELL)[0, 0]
        rows, columns = slice(y // CELL, (y + side) // CELL), slice(x // CELL, (x + side) // CELL)
        inner = weight[rows, columns]
        border = (inner > 0.15) & (inner < 0.97)
        yy, xx = torch.meshgrid(*[torch.arange(n) + 0.5 for n in weight.shape], indexing="ij")
        centres = torch.stack([xx, yy], -1) * CELL
        distance = torch.cdist(centres.flatten(0, 1), centres[rows, columns][border])  # (4096, cells)
        inverse = (distance + 12).pow(-3)
        local = (-distance.min(1, keepdim=True).values / FADE).exp()
        top, bottom = NECK_FADE
        local = local * ((bottom - yy.flatten() * CELL) / (bottom - top)).clamp(0, 1)[:, None]
        for name, tensor in maps.items():
            self.register_buffer(name, functional.avg_pool2d(tensor, factor) if factor > 1 else tensor)
        eye, iris = drawn_eye(config.eye_rect[2] * size // 1024, size)
        self.register_buffer("eye", eye, persistent=False)
        self.register_buffer("iris", iris, persistent=False)
        self.register_buffer("unit_normal", _unit(self.normal), persistent=False)
        self.register_buffer("border", border)
        self.register_buffer("border_cells", border.flatten().nonzero().squeeze(1), persistent=False)
        self.register_buffer("spread", inverse / inverse.sum(1, keepdim=True))
        self.register_buffer("local", local)

    def compose(self, face_maps: Tensor, irises: Tensor | None = None) -> HeadMapsTensor:
        """(B, 9, S, S) maps in [0, 1] as the autoencoder has them, S = half of the atlas -> linear head maps.

        Args:
            irises: (B, 3) linear RGB, of eyes as a photo shows them; None leaves the atlas' own.

        Raises:
            ValueError: the face maps' size is not that of the face block at this atlas size.
        """
        x, y, side = (value * self.size // 1024 for value in self.config.face_block)
        if face_maps.shape[1:] != (9, side, side):
            raise ValueError(
                f"face maps: got {tuple(face_maps.shape)}; expected (B, 9, {side}, {side}) in an atlas of {self.size}"
            )
        face_albedo = linear_from_srgb(face_maps[:, :3])
        cell = CELL * self.size // 1024
        base = self.albedo[:, :, y : y + side, x : x + side]
        ratio = (functional.avg_pool2d(face_albedo, cell).clamp_min(1e-3).log()
                 - functional.avg_pool2d(base, cell).clamp_min(1e-3).log())  # fmt: skip
        whole = mean_of_plain_skin(ratio.detach())[..., None]  # what surrounds a face asks nothing of it
        ratio = ratio.flatten(2)[:, :, self.border_cells]  # (B, 3, cells)
        field = whole + self.local.T * (functional.linear(ratio, self.spread) - whole)  # (B, 3, 4096)
        field = functional.interpolate(field.unflatten(2, (1024 // CELL, 1024 // CELL)), self.size, mode="bilinear")
        toned = self.albedo * (field * self.skin).exp()

        if irises is not None:
            left, top, width, height = (value * self.size // 1024 for value in self.config.eye_rect)
            eyes = (..., slice(top, top + height), slice(left, left + width))
            toned = _placed(self.eye + self.iris * irises[..., None, None], toned, eyes)

        block = (..., slice(y, y + side), slice(x, x + side))  # the blend is zero outside it
        weight = self.blend[block]
        specular = torch.lerp(self.specular[block], face_maps[:, 3:6].mean(1, keepdim=True), weight)
        normal = torch.lerp(self.normal[block], face_maps[:, 6:9] * 2 - 1, weight)
        return HeadMapsTensor(
            albedo=_placed(torch.lerp(toned[block], face_albedo, weight), toned, block).clamp(0, 1),
            specular=_placed(specular, self.specular, block) * F0_MAX,
            normal=_placed(_unit(normal), self.unit_normal, block),
            roughness=self.roughness,
            alpha=self.alpha,
        )

    def neutral_face(self) -> Tensor:
        """The face block of the atlas itself as face maps: (1, 9, S, S) in [0, 1]."""
        x, y, side = (value * self.size // 1024 for value in self.config.face_block)
        window = (..., slice(y, y + side), slice(x, x + side))
        albedo = srgb_from_linear(self.albedo[window])
        return torch.cat([albedo, self.specular[window].expand(-1, 3, -1, -1), self.normal[window] * 0.5 + 0.5], 1)


def _placed(block: Tensor, around: Tensor, where: tuple[object, ...]) -> Tensor:
    """`around` (B or 1, C, T, T) with `block` (B, C, S, S) in it."""
    whole = around.expand(len(block), -1, -1, -1).clone()
    whole[where] = block
    return whole


def _unit(vectors: Tensor) -> Tensor:
    """(B, 3, H, W), each of unit length. PyTorch's own norm over a strided axis takes twenty times as long on a CPU."""
    return vectors * vectors.square().sum(1, keepdim=True).clamp_min(1e-8).rsqrt()


def load_head_atlas(path: Path | None = None, size: int = 1024) -> tuple[HeadAtlas, ModelCard]:
    """The head atlas at `path`, or the embedded default, at 1024 or 512 texels a side."""
    checkpoint = load_checkpoint(path or assets_dir() / "head_atlas.safetensors")
    config = HeadAtlasConfig(**{name: tuple(value) for name, value in checkpoint.config.items()})
    return HeadAtlas(config, checkpoint.tensors, size).eval(), checkpoint.card
