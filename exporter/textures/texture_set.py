"""The textures of one GLB file, and those that lie beside it for engines with a packing of their own.

Takes pixels, gives image files by role. It knows nothing of meshes and of how pixels were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..maps import png_from_pixels, srgb_from_linear
from ..options import ExportOptions
from .encoding import EncodedImage, Kind, encode_image
from .head_textures import HeadTextures
from .specular_bake import baked_color, baked_roughness

Bytes = npt.NDArray[np.uint8]
_SMALLEST_WINDOW = 64  # pixels


@dataclass(frozen=True)
class Window:
    """A square of the atlas, in texture coordinates."""

    u: float
    v: float
    size: float


WHOLE = Window(0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class TextureSet:
    """Image files by role: "base_color", "normal", "packed", "specular" (not where baked), "lashes" (where cut out).

    Attributes:
        window: what the lashes' image shows.
        lash_roughness, lash_specular: means over what is not cut out; the lashes need no maps of these.
    """

    images: Mapping[str, EncodedImage]
    window: Window
    lash_roughness: float
    lash_specular: float


def texture_set(textures: HeadTextures, options: ExportOptions, lash_uv: npt.NDArray[np.float32]) -> TextureSet:
    """Encode the textures as the options want them.

    The lashes are cut out by an image of their own, so that all else is opaque and may be a JPEG, which every engine
    reads, with colours of a third of a PNG's bytes.

    Args:
        lash_uv: (N, 2) texture coordinates of the lashes, N may be 0.
    """
    baked = options.engine.specular == "baked"
    base_color, roughness = _surface(textures, baked)
    jobs: dict[str, tuple[Callable[[], npt.NDArray], Kind]] = {
        "normal": (lambda: textures.normal, "data"),
        "base_color": (lambda: np.ascontiguousarray(base_color[..., :3]), "color"),
        "packed": (lambda: _packed(roughness), "data"),
    }
    if not baked:
        jobs["specular"] = (lambda: _grey(_encoded(textures.specular)), "color")
    window, cut = WHOLE, np.ones((1, 1, 4), np.uint8)
    if len(lash_uv):
        window, cut = _lash_window(textures.base_color, lash_uv)
        jobs["lashes"] = (lambda: cut, "color")
    with ThreadPoolExecutor() as pool:  # the encoders let go of the interpreter
        waiting = {
            role: pool.submit(lambda job=job: encode_image(job[0](), job[1], options.texture_format))
            for role, job in jobs.items()
        }
        images = {role: waiting[role].result() for role in sorted(waiting)}
    rows, columns = _slices(window, len(textures.roughness))
    opaque = cut[..., 3] > 127 if len(lash_uv) else np.zeros((0, 0), bool)
    return TextureSet(
        images,
        window,
        _mean(textures.roughness[rows, columns], opaque),
        _mean(textures.specular[rows, columns], opaque),
    )


def loose_textures(textures: HeadTextures, options: ExportOptions) -> dict[str, bytes]:
    """PNG files by name that lie beside the GLB in the target's own packing; empty where it has none.

    The normals' green channel points as the engine's own materials want it. "mask" is Unity HDRP's: red metallic,
    green occlusion, blue detail mask, alpha smoothness. "ORM" is occlusion, roughness, metallic. "folds" is for any
    material of the team's own: base colour times twice its value, by the weight of the photo's expression.
    """
    engine = options.engine
    if engine.loose == "none":
        return {}
    normal = textures.normal
    if engine.loose_normal < 0:
        normal = normal.copy()
        normal[..., 1] = np.iinfo(normal.dtype).max - normal[..., 1]
    baked = engine.specular == "baked"
    base_color, roughness = _surface(textures, baked)
    if engine.loose == "mask":
        packed = np.zeros((*roughness.shape, 4), np.uint8)
        packed[..., 1], packed[..., 3] = 255, 255 - roughness
    else:
        packed = _packed(roughness)
    named = {
        "base_color": lambda: png_from_pixels(base_color, "srgb"),
        "normal": lambda: encode_image(normal, "data", "png").data,
        "packed": lambda: encode_image(packed, "data", "png").data,
    }
    if not baked:
        named["specular"] = lambda: png_from_pixels(textures.specular, "linear")
    folds = textures.folds
    if folds is not None:
        named["folds"] = lambda: png_from_pixels(folds, "linear")
    names = engine.names
    with ThreadPoolExecutor() as pool:
        waiting = {role: pool.submit(make) for role, make in named.items()}
        return {f"{names.texture.format(map=names.maps[role])}.png": job.result() for role, job in waiting.items()}


def _surface(textures: HeadTextures, baked: bool) -> tuple[Bytes, Bytes]:
    """Base colour and roughness, with the specular map baked in where it is not written."""
    if not baked:
        return textures.base_color, textures.roughness
    return (
        baked_color(textures.base_color, textures.specular),
        baked_roughness(textures.roughness, textures.specular),
    )


def _packed(roughness: Bytes) -> Bytes:
    """Red occlusion (none), green roughness, blue metallic (none): glTF's packing, and Unreal's."""
    packed = np.zeros((*roughness.shape, 3), np.uint8)
    packed[..., 0], packed[..., 1] = 255, roughness
    return packed


def _encoded(linear: Bytes) -> Bytes:
    table = np.rint(srgb_from_linear(np.arange(256) / 255) * 255).astype(np.uint8)
    return table[linear]


def _grey(values: Bytes) -> Bytes:
    return np.repeat(values[..., None], 3, axis=2)


def _lash_window(base_color: Bytes, uv: npt.NDArray[np.float32]) -> tuple[Window, Bytes]:
    """The smallest square of a power of two, in whole texels, around the lashes; and its pixels (S, S, 4)."""
    texels = len(base_color)
    low, high = np.floor(uv.min(0) * texels).astype(int) - 1, np.ceil(uv.max(0) * texels).astype(int) + 1
    side = _SMALLEST_WINDOW
    while side < (high - low).max() and side < texels:
        side *= 2
    side = min(side, texels)
    u, v = (int(start) for start in np.clip((low + high - side) // 2, 0, texels - side))
    window = Window(u / texels, v / texels, side / texels)
    rows, columns = _slices(window, texels)
    return window, np.ascontiguousarray(base_color[rows, columns])


def _slices(window: Window, texels: int) -> tuple[slice, slice]:
    u, v, side = (round(value * texels) for value in (window.u, window.v, window.size))
    return slice(v, v + side), slice(u, u + side)


def _mean(values: Bytes, where: npt.NDArray[np.bool_]) -> float:
    return float(values[where].mean() / 255) if where.any() else 0.5
