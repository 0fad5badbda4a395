"""The head that pictures show: the exported mesh with the exported textures, ready for the renderer.

The corneas are drawn as opaque domes that carry the eye's own picture, which is how a clear one looks without
refraction: the highlight lies where the engines put it. It knows nothing of cameras, lights and sheets.
"""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..rendering.renderer import HeadMapsTensor, HeadRenderer
from ..rendering.shader import F0_MAX, linear_from_srgb
from ..runtime.avatar import Avatar
from .anatomy.head import finished_head
from .maps import NO_FOLD
from .textures.eye_texture import eye_pictures
from .textures.head_textures import HeadTextures, head_textures

_SIZE = 1024  # texels: as sharp as pictures of this size can show
_WET = 0.09  # roughness of a cornea
_CLAY, _CLAY_ROUGHNESS = 0.32, 0.5  # linear albedo


@dataclass(frozen=True, eq=False)
class PictureHead:
    """A head as `HeadRenderer` takes it.

    neutral, expressive: (1, V, 3) metres, without and with the photo's expression.
    maps, expressive_maps: of the face at rest, and with the folds of that expression.
    """

    renderer: HeadRenderer
    neutral: Tensor
    expressive: Tensor
    maps: HeadMapsTensor
    expressive_maps: HeadMapsTensor

    @property
    def clay(self) -> HeadMapsTensor:
        """Maps that show nothing but the shape of the mesh; the lashes are cut away."""
        one = torch.ones(1, 1, 8, 8)
        return HeadMapsTensor(
            (one * _CLAY).expand(-1, 3, -1, -1), one * F0_MAX / 2, None, one * _CLAY_ROUGHNESS, one * 0
        )


_HEADS: weakref.WeakKeyDictionary[Avatar, PictureHead] = weakref.WeakKeyDictionary()


def picture_head(avatar: Avatar, renderer: HeadRenderer) -> PictureHead:
    """The finished head of an avatar; it is made once and lives as long as the avatar.

    Args:
        renderer: of any head; its rasteriser is used.
    """
    if avatar not in _HEADS:
        head = finished_head(avatar)
        topology = head.topology
        own = HeadRenderer(
            torch.from_numpy(topology.triangles),
            torch.from_numpy(topology.corner_uv),
            torch.from_numpy(topology.triangle_part.astype(np.int64)),
            topology.part_names,
            rasteriser=renderer.rasteriser,
        )
        neutral = torch.from_numpy(head.vertices)[None]
        textures = _wet(head)
        maps = maps_from_textures(textures)
        expressive = neutral + torch.from_numpy(head.expression_offset)[None]
        _HEADS[avatar] = PictureHead(own, neutral, expressive, maps, _folded(maps, textures))
    return _HEADS[avatar]


def _wet(head: Avatar) -> HeadTextures:
    textures = head_textures(head, _SIZE)
    roughness = textures.roughness.copy()
    for eye in eye_pictures(head, _SIZE):
        roughness[eye.rows, eye.columns] = round(_WET * 255)
    return dataclasses.replace(textures, roughness=roughness)


def _folded(maps: HeadMapsTensor, textures: HeadTextures) -> HeadMapsTensor:
    """The maps as an engine would show them with the weight of the photo's expression at 1."""
    if textures.folds is None:
        return maps
    factor = torch.from_numpy(textures.folds.astype(np.float32) / NO_FOLD)
    return dataclasses.replace(maps, albedo=(maps.albedo * factor).clamp(0, 1))


def maps_from_textures(textures: HeadTextures) -> HeadMapsTensor:
    """Textures as an engine reads them, as the renderer's maps (1, C, T, T)."""

    def planes(pixels: np.ndarray) -> Tensor:
        rows = torch.from_numpy(pixels.astype(np.float32)) / float(np.iinfo(pixels.dtype).max)
        return (rows if rows.ndim == 3 else rows[..., None]).permute(2, 0, 1)[None].contiguous()

    color = planes(textures.base_color)
    return HeadMapsTensor(
        albedo=linear_from_srgb(color[:, :3]),
        specular=planes(textures.specular) * F0_MAX,
        normal=planes(textures.normal) * 2 - 1,
        roughness=planes(textures.roughness),
        alpha=color[:, 3:],
    )
