"""Pixels as image files for the inside of a glTF file: PNG, JPEG, WebP, KTX2.

Images in glTF carry no colour-space tags: the material says how to read them. It knows nothing of materials.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import MissingError
from ..targets import TextureFormat

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Kind = Literal["color", "data"]  # data: normals and packed channels, whose numbers must stay what they are

JPEG_QUALITY = 92  # mean error of skin below one step of 255; 4:4:4, because lips lose their border otherwise
WEBP_QUALITY = 90
PNG_LEVEL = 3  # a third of level 6's time for a fifth more bytes
KTX_TOOL = "toktx"
MIME = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "ktx2": "image/ktx2"}
# The extension through which a texture of that format is named; PNG and JPEG need none.
EXTENSIONS = {"webp": "EXT_texture_webp", "ktx2": "KHR_texture_basisu"}


@dataclass(frozen=True)
class EncodedImage:
    """An image file and its format."""

    format: TextureFormat
    data: bytes


def encode_image(pixels: Pixels, kind: Kind, wanted: TextureFormat) -> EncodedImage:
    """Pixels (H, W, 3 or 4) as a file in the wanted format.

    "jpeg" and "webp" lose a little of colours without alpha and nothing else: data and colours with alpha become PNG
    files, or lossless WebP. "ktx2" is UASTC with mipmaps.

    Raises:
        MissingError: "ktx2" and no encoder on the path.
    """
    has_alpha = pixels.shape[2] == 4
    if wanted == "ktx2":
        return EncodedImage("ktx2", _ktx2(pixels, srgb=kind == "color"))
    if wanted == "webp":
        lossless = kind == "data" or has_alpha
        return EncodedImage("webp", _webp(pixels, lossless=lossless))
    if wanted == "jpeg" and kind == "color" and not has_alpha:
        return EncodedImage("jpeg", _jpeg(pixels))
    return EncodedImage("png", encode_png(pixels))


def encode_png(pixels: Pixels) -> bytes:
    """Pixels (H, W, 3 or 4) of 8 or 16 bits as an untagged PNG file."""
    order = [2, 1, 0, 3][: pixels.shape[2]]
    written, data = cv2.imencode(
        ".png", np.ascontiguousarray(pixels[..., order]), [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL]
    )
    assert written
    return data.tobytes()


def _jpeg(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def _webp(pixels: Pixels, *, lossless: bool) -> bytes:
    stream = io.BytesIO()
    # `exact` keeps colours under alpha 0: mipmaps mix them in. For lossless files, quality is effort.
    quality = 40 if lossless else WEBP_QUALITY
    Image.fromarray(pixels).save(stream, "WEBP", lossless=lossless, quality=quality, method=2, exact=True)
    return stream.getvalue()


def _ktx2(pixels: Pixels, *, srgb: bool) -> bytes:
    tool = shutil.which(KTX_TOOL)
    if tool is None:
        remedy = "install KTX-Software 4 (github.com/KhronosGroup/KTX-Software), or choose another --texture-format"
        raise MissingError("KTX2 encoder", f"no {KTX_TOOL} on the path", KTX_TOOL, remedy)
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "image.png", Path(folder) / "image.ktx2"
        source.write_bytes(encode_png(pixels))
        transfer = "srgb" if srgb else "linear"
        options = ["--t2", "--encode", "uastc", "--uastc_quality", "2", "--zcmp", "18", "--genmipmap"]
        command = [tool, *options, "--assign_oetf", transfer, str(result), str(source)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode or not result.is_file():
            got = f"exit code {run.returncode}: {run.stderr.strip()[-300:]}"
            raise MissingError(f"KTX2 encoder {tool}", got, "a KTX2 file", "choose another --texture-format")
        return result.read_bytes()
