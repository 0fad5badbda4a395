"""PNG files of the face maps, tagged with their colour space, and how numbers become pixels.

It knows the encodings (sRGB, linear, normals) and nothing of meshes.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..runtime.avatar import ReflectanceMaps

Pixels = npt.NDArray[np.uint8]
ColorSpace = Literal["srgb", "linear"]

# PNG specification, 11.3.2: gAMA holds 100000 times the exponent; sRGB holds the rendering intent, here 0,
# perceptual. An sRGB chunk should come with the gAMA that old readers understand.
_CHUNKS: dict[ColorSpace, tuple[tuple[bytes, bytes], ...]] = {
    "srgb": ((b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0")),
    "linear": ((b"gAMA", struct.pack(">I", 100000)),),
}


NO_FOLD = 128  # the byte of a factor of 1


def png_from_pixels(pixels: Pixels, color_space: ColorSpace) -> bytes:
    """A PNG file from pixels (H, W), (H, W, 3) or (H, W, 4), tagged with the colour space.

    Textures inside a glTF file are untagged: there the material says how to read them, see `encoding`.
    """
    info = PngInfo()
    for chunk, payload in _CHUNKS[color_space]:
        info.add(chunk, payload)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=info, compress_level=6)
    return stream.getvalue()


def write_face_maps(
    maps: ReflectanceMaps, directory: Path, folds: npt.NDArray[np.floating] | None = None
) -> tuple[Path, ...]:
    """Write the three face maps as PNG files into the directory, and the folds of the photo's expression.

    They are diffuse_albedo.png (sRGB), specular_albedo.png (linear F0 / 0.08), normal.png (linear, y up) and, where
    there are any, folds.png (linear, see `pixels_from_folds`). Each file appears whole or not at all. Returns their
    paths in that order.
    """
    directory.mkdir(parents=True, exist_ok=True)
    images = {
        "diffuse_albedo.png": png_from_pixels(pixels_from_unit(maps.diffuse_albedo), "srgb"),
        "specular_albedo.png": png_from_pixels(pixels_from_unit(maps.specular_albedo), "linear"),
        "normal.png": png_from_pixels(pixels_from_normals(maps.normal), "linear"),
    }
    if folds is not None:
        images["folds.png"] = png_from_pixels(pixels_from_folds(folds), "linear")
    for name, data in images.items():
        write_atomically(directory / name, data)
    return tuple(directory / name for name in images)


def pixels_from_unit(values: npt.NDArray[np.floating]) -> Pixels:
    """Nearest bytes of values in [0, 1]; what lies outside is clipped."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def pixels_from_folds(folds: npt.NDArray[np.floating]) -> Pixels:
    """Factors of the linear base colour in [0, 2) as bytes: 128 is 1, no fold."""
    return pixels_from_unit(folds * (NO_FOLD / 255))


def pixels_from_normals(normals: npt.NDArray[np.floating]) -> Pixels:
    """(n + 1) / 2 of unit vectors as bytes; a flat normal is (128, 128, 255)."""
    return pixels_from_unit(normals * 0.5 + 0.5)


def srgb_from_linear(linear: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The transfer function of IEC 61966-2-1 for values in [0, 1]."""
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
