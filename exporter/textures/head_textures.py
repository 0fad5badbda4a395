"""The avatar's textures as pixels: the whole head at any size, eyes of the person, mip-safe borders.

Colours come from the avatar's atlas, whose face block holds the face maps texel for texel. Knows nothing of file
formats, of engines and of how several maps are packed into one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from ..maps import NO_FOLD, pixels_from_folds, srgb_from_linear
from .enlarging import FloatArray, resized
from .eye_texture import eye_pictures
from .padding import island_mask, pad, padding_source
from .skin_detail import pore_relief, slopes_of_relief
from .skin_tone import evenly_toned

SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
PADDING = 48  # texels of a texture of 2048 beyond every island: what its fourth mip level looks at
_STEEPEST = 4.0  # slope of a normal
_EDGE = 2  # texels of the avatar's atlas at an island's border that its background has tinted


@dataclass(frozen=True, eq=False)
class HeadTextures:
    """Pixels of the textures that all parts of the head share, rows from the top.

    Attributes:
        base_color: (T, T, 4) uint8 sRGB; alpha cuts out the lashes.
        normal: (T, T, 3) uint8 or uint16, linear, tangent space, +Y up; z points out of the skin.
        roughness: (T, T) uint8 linear.
        specular: (T, T) uint8 linear, F0 / 0.08.
        folds: (T, T) uint8 linear: 128 times what the linear base colour is times with the photo's expression; None
            for an avatar without folds.
    """

    base_color: npt.NDArray[np.uint8]
    normal: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    roughness: npt.NDArray[np.uint8]
    specular: npt.NDArray[np.uint8]
    folds: npt.NDArray[np.uint8] | None = None


def head_textures(avatar: Avatar, size: int = 2048, normal_bits: Literal[8, 16] = 8) -> HeadTextures:
    """Textures of the whole head.

    Shrunk to the avatar's own size the face is the avatar's face maps again: what is added when enlarging is finer
    than they are. Islands go on beyond their borders by `PADDING` texels at 2048, and in proportion at other sizes.

    Args:
        size: texels a side, one of `SIZES`.
        normal_bits: depth of the normal map; with 16 its values are not those of 8 bits enlarged.

    Raises:
        ValueError: another size or depth.
    """
    if size not in SIZES:
        raise ValueError(f"texture size: got {size}; expected one of {SIZES}")
    if normal_bits not in (8, 16):
        raise ValueError(f"normal_bits: got {normal_bits}; expected 8 or 16")
    maps, topology = avatar.head_maps, avatar.topology
    skin_triangles = topology.triangles_of("skin")
    color = _resized_color(evenly_toned(avatar), size)
    slope_x, slope_y = (_resized_slope(maps.normal, axis, size) for axis in (0, 1))
    roughness, specular = resized(maps.roughness, size), resized(maps.specular, size)
    skin = island_mask(topology.corner_uv, size, skin_triangles)
    islands = skin | island_mask(topology.corner_uv, size, ~skin_triangles)

    relief = pore_relief(avatar, size)
    if relief is not None:
        relief *= skin
        color[..., :3] *= (1 + relief)[..., None]
        # Two height fields on one another: their slopes add up.
        right, up = slopes_of_relief(relief)
        slope_x -= right
        slope_y -= up
    for eye in eye_pictures(avatar, size):
        color[eye.rows, eye.columns, :3] = eye.color
        roughness[eye.rows, eye.columns] = eye.roughness
        slope_x[eye.rows, eye.columns] = slope_y[eye.rows, eye.columns] = 0

    textures = HeadTextures(
        base_color=_bytes(color),
        normal=_normal_from_slopes(slope_x, slope_y, np.uint8 if normal_bits == 8 else np.uint16),
        roughness=_bytes(roughness),
        specular=_bytes(specular),
        folds=None if avatar.folds is None else _folds(avatar.folds, topology.face_block, size),
    )
    source = padding_source(_trusted(islands, skin, avatar, size), max(2, PADDING * size // 2048))
    for image in (textures.base_color, textures.normal, textures.roughness, textures.specular):
        pad(image, source)
    return textures


def _resized_color(color: FloatArray, size: int) -> FloatArray:
    """sRGB-encoded with alpha: enlarged as it is, where equal steps look equal; shrunk in linear light."""
    if size >= len(color):
        return resized(color, size)
    encoded = color[..., :3]
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    small = resized(np.concatenate([linear, color[..., 3:]], axis=2, dtype=np.float32), size)
    small[..., :3] = srgb_from_linear(small[..., :3])
    return small


def _resized_slope(normal: FloatArray, axis: int, size: int) -> FloatArray:
    """(size, size) x or y over z of unit normals: negative slope of the surface to the right, or up."""
    return resized(np.clip(normal[..., axis] / np.maximum(normal[..., 2], 1e-3), -_STEEPEST, _STEEPEST), size)


def _normal_from_slopes(x: FloatArray, y: FloatArray, dtype: type[np.uint8] | type[np.uint16]) -> npt.NDArray:
    """Unit normals of the slopes as (n + 1) / 2 of the whole range."""
    top = np.float32(np.iinfo(dtype).max)
    half = np.float32(0.5) * top
    length = half / np.sqrt(x * x + y * y + 1)
    shifted = half + np.float32(0.5)  # the half is for rounding
    normal = np.empty((*x.shape, 3), dtype)
    normal[..., 0] = x * length + shifted
    normal[..., 1] = y * length + shifted
    normal[..., 2] = np.minimum(length + shifted, top)
    return normal


def _folds(folds: FloatArray, face_block: tuple[int, int, int], size: int) -> npt.NDArray[np.uint8]:
    x, y, side = (round(value * size / 1024) for value in face_block)
    whole = np.full((size, size), NO_FOLD, np.uint8)
    whole[y : y + side, x : x + side] = pixels_from_folds(resized(folds, side))
    return whole


def _bytes(values: FloatArray) -> np.ndarray:
    """Nearest bytes (uint8) of values in [0, 1]."""
    return cv2.convertScaleAbs(values, alpha=255)


def _trusted(
    islands: npt.NDArray[np.bool_], skin: npt.NDArray[np.bool_], avatar: Avatar, size: int
) -> npt.NDArray[np.bool_]:
    """Texels whose colour is an island's own: all, but for the seam of the skin outside the face maps."""
    margin = max(1, round(_EDGE * size / len(avatar.head_maps.base_color)))
    inner = cv2.erode(skin.astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8)).astype(bool)
    x, y, side = (round(value * size / 1024) for value in avatar.topology.face_block)
    inner[y : y + side, x : x + side] |= skin[y : y + side, x : x + side]
    return inner | (islands & ~skin)
