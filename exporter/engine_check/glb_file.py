"""A GLB file opened for reading: its document, its arrays, its images. For files of any maker.

It decodes what glTF 2.0 itself has (strides, sparse entries, normalised integers) and no compression. It judges
nothing: `validate` and `engine_profile` do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..validate import document_and_binary_from_glb

_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_PNG, _JPEG, _KTX2 = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xabKTX 20\xbb\r\n\x1a\n"


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image say: "png", "jpeg", "webp", "ktx2" or "unknown"; size and bits a channel."""

    format: str
    width: int = 0
    height: int = 0
    bits: int = 8


@dataclass(frozen=True, eq=False)
class GlbFile:
    """The two chunks of a GLB file."""

    document: dict[str, Any]
    binary: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> GlbFile:
        """Split the container; InvalidGltfError where it is broken."""
        return cls(*document_and_binary_from_glb(data))

    def items(self, name: str) -> list[Any]:
        """A list of the document, such as "meshes" or "extensionsUsed"; empty where there is none."""
        return self.document.get(name, [])

    def array(self, accessor: int) -> npt.NDArray:
        """(count, width) numbers of an accessor; normalised integers become float32 in [-1, 1].

        Raises:
            ValueError: its data is compressed, lies in another file or ends too soon.
        """
        about = self.document["accessors"][accessor]
        count, width, dtype = about["count"], _WIDTHS[about["type"]], np.dtype(_DTYPES[about["componentType"]])
        values = np.zeros((count, width), dtype)
        if "bufferView" in about:
            values[:] = self._read(about["bufferView"], about.get("byteOffset", 0), count, width, dtype)
        if "sparse" in about:
            entries, keys, data = about["sparse"]["count"], about["sparse"]["indices"], about["sparse"]["values"]
            kind = np.dtype(_DTYPES[keys["componentType"]])
            index = self._read(keys["bufferView"], keys.get("byteOffset", 0), entries, 1, kind)[:, 0]
            values[index] = self._read(data["bufferView"], data.get("byteOffset", 0), entries, width, dtype)
        if about.get("normalized"):
            return np.maximum(values.astype(np.float32) / np.iinfo(dtype).max, -1)
        return values

    def image_bytes(self, image: int) -> bytes | None:
        """The encoded image, None where it lies outside the file."""
        about = self.document["images"][image]
        if "bufferView" not in about:
            return None
        view = self.document["bufferViews"][about["bufferView"]]
        start = view.get("byteOffset", 0)
        return self.binary[start : start + view["byteLength"]]

    def _read(self, view: int, offset: int, count: int, width: int, dtype: np.dtype) -> npt.NDArray:
        about = self.document["bufferViews"][view]
        if about.get("buffer", 0) != 0 or "EXT_meshopt_compression" in about.get("extensions", {}):
            raise ValueError(f"buffer view {view}: compressed, or in another file")
        start = about.get("byteOffset", 0) + offset
        stride = about.get("byteStride", dtype.itemsize * width)
        if count and start + (count - 1) * stride + dtype.itemsize * width > len(self.binary):
            raise ValueError(f"buffer view {view}: ends after the file")
        return np.ndarray((count, width), dtype, self.binary, start, (stride, dtype.itemsize))


def image_header(data: bytes) -> ImageHeader:
    """Format, size and bits of an encoded image, without decoding it."""
    if data.startswith(_PNG):
        width, height, bits = struct.unpack_from(">IIB", data, 16)
        return ImageHeader("png", width, height, bits)
    if data.startswith(_KTX2):
        return ImageHeader("ktx2", *struct.unpack_from("<II", data, 20))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageHeader("webp", *_size_of_webp(data))
    if data.startswith(_JPEG):
        return ImageHeader("jpeg", *_size_of_jpeg(data))
    return ImageHeader("unknown")


def _size_of_webp(data: bytes) -> tuple[int, int]:
    """RFC 9649: extended, lossless or simple."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _size_of_jpeg(data: bytes) -> tuple[int, int]:
    """From the frame header, which stands behind other segments (ITU T.81, B.2.2)."""
    place = 2
    while place + 9 < len(data):
        marker, length = struct.unpack_from(">HH", data, place)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + length
    return 0, 0
