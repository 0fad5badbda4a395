"""A self-check of a GLB file before it is written: what the exporter could get wrong, read back.

It reads with its own small parser, so that a mistake of the writer is not repeated here. It is no full
validator: the Khronos one runs in the tests.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import FitDiffError

_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_UNIT_TOLERANCE, _BYTE_TOLERANCE = 1e-3, 0.02  # of floats, of vectors in signed bytes
_REMEDY = "nothing was written; report it with the avatar's report.json"


class InvalidGltfError(FitDiffError):
    """The file would not be valid glTF. The avatar holds bad numbers, or the exporter has a defect."""


def check_glb(data: bytes) -> None:
    """Check a GLB file: structure, ranges, finiteness, unit vectors, sparse order, bounds, image sizes.

    Raises:
        InvalidGltfError: names the first thing that is wrong.
    """
    document, binary = document_and_binary_from_glb(data)
    for number, view in enumerate(document["bufferViews"]):
        end = view["byteOffset"] + view["byteLength"]
        _expect(end <= len(binary), f"buffer view {number}", f"end {end}", f"at most {len(binary)}")
    arrays = [_array_from_accessor(document, binary, number) for number in range(len(document["accessors"]))]
    for number, accessor in enumerate(document["accessors"]):
        if "min" in accessor:
            bounds = [arrays[number].min(0).tolist(), arrays[number].max(0).tolist()]
            _expect(
                bounds == [accessor["min"], accessor["max"]],
                f"accessor {number}",
                "other bounds",
                str(bounds),
            )
    for mesh in document["meshes"]:
        names = mesh.get("extras", {}).get("targetNames", [])
        _expect(
            len(mesh.get("weights", [])) == len(names),
            "mesh weights",
            str(len(mesh.get("weights", []))),
            str(len(names)),
        )
        for primitive in mesh["primitives"]:
            material = document["materials"][primitive["material"]]["name"]
            _check_primitive(f"primitive of {material}", primitive, arrays, len(names))
    sizes = [_image_size(document, binary, number) for number in range(len(document.get("images", [])))]
    for number, (width, height) in enumerate(sizes):
        _expect(
            width == height and width & (width - 1) == 0,
            f"image {document['images'][number]['name']}",
            f"{width} x {height}",
            "a square with a power of two as its side",
        )
    try:
        json.dumps(document, allow_nan=False)
    except ValueError as error:
        raise InvalidGltfError("GLB document", "NaN or infinity", "finite numbers", _REMEDY) from error


def document_and_binary_from_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    """JSON document and binary chunk of a GLB file; InvalidGltfError where the container is broken."""
    _expect(len(data) >= 20 and data[:4] == b"glTF", "GLB header", repr(data[:4]), "b'glTF'")
    _, version, length = struct.unpack_from("<4sII", data)
    _expect(
        (version, length) == (2, len(data)),
        "GLB header",
        f"version {version}, {length} bytes",
        f"2, {len(data)} bytes",
    )
    chunks, offset = [], 12
    while offset < len(data):
        size, kind = struct.unpack_from("<I4s", data, offset)
        chunks.append((kind, data[offset + 8 : offset + 8 + size]))
        offset += 8 + size
    kinds = [kind for kind, _ in chunks]
    _expect(
        kinds == [b"JSON", b"BIN\0"] and offset == len(data),
        "GLB chunks",
        str(kinds),
        "JSON, then BIN, to the end",
    )
    return json.loads(chunks[0][1]), chunks[1][1]


def _array_from_accessor(document: dict[str, Any], binary: bytes, number: int) -> npt.NDArray:
    """(count, width) array with the sparse entries laid over it."""
    accessor = document["accessors"][number]
    thing, count, width = f"accessor {number}", accessor["count"], _WIDTHS[accessor["type"]]
    dtype = _DTYPES[accessor["componentType"]]
    array = np.zeros((count, width), dtype)
    if "bufferView" in accessor:
        stride = document["bufferViews"][accessor["bufferView"]].get("byteStride", array.itemsize * width)
        columns = stride // array.itemsize  # the rest of a row is padding
        array[:] = _read(document, binary, thing, accessor, dtype, count * columns).reshape(count, columns)[:, :width]
    if "sparse" in accessor:
        sparse = accessor["sparse"]
        keys = _read(
            document,
            binary,
            thing,
            sparse["indices"],
            _DTYPES[sparse["indices"]["componentType"]],
            sparse["count"],
        )
        keys = keys.astype(np.int64)
        in_order = 0 <= keys[0] and keys[-1] < count and bool((np.diff(keys) > 0).all())
        _expect(
            in_order,
            f"{thing}, sparse indices",
            f"{keys[0]}..{keys[-1]}",
            f"increasing numbers below {count}",
        )
        array[keys] = _read(document, binary, thing, sparse["values"], dtype, sparse["count"] * width).reshape(
            -1, width
        )
    _expect(bool(np.isfinite(array).all()), thing, "infinite numbers or NaN", "finite numbers")
    return array


def _read(
    document: dict[str, Any],
    binary: bytes,
    thing: str,
    place: dict[str, Any],
    dtype: type[np.generic],
    count: int,
) -> npt.NDArray:
    view = document["bufferViews"][place["bufferView"]]
    offset, size = place.get("byteOffset", 0), count * np.dtype(dtype).itemsize
    _expect(
        offset + size <= view["byteLength"],
        thing,
        f"end {offset + size} in its view",
        f"at most {view['byteLength']}",
    )
    return np.frombuffer(binary, dtype, count, view["byteOffset"] + offset)


def _check_primitive(thing: str, primitive: dict[str, Any], arrays: list[npt.NDArray], targets: int) -> None:
    attributes = {name: arrays[accessor] for name, accessor in primitive["attributes"].items()}
    count = len(attributes["POSITION"])
    lengths = {name: len(array) for name, array in attributes.items()}
    _expect(set(lengths.values()) == {count}, f"{thing}, attributes", str(lengths), "equal lengths")

    indices = arrays[primitive["indices"]].astype(np.int64)
    _expect(
        len(indices) % 3 == 0 and indices.max() < count,
        f"{thing}, indices",
        f"up to {indices.max()}",
        f"below {count}",
    )
    first, second, third = indices.reshape(-1, 3).T
    repeated = int(((first == second) | (second == third) | (third == first)).sum())
    _expect(repeated == 0, f"{thing}, triangles", f"{repeated} with a vertex twice", "three different vertices")

    normal = _numbers(attributes["NORMAL"])
    _expect_unit(f"{thing}, normals", normal)
    if "TANGENT" in attributes:
        tangent, tolerance = _numbers(attributes["TANGENT"]), _tolerance(normal)
        _expect_unit(f"{thing}, tangents", tangent[:, :3])
        _expect(bool((np.abs(tangent[:, 3]) == 1).all()), f"{thing}, tangents", "another handedness", "w = 1 or -1")
        slant = float(np.abs((normal * tangent[:, :3]).sum(1)).max())
        _expect(slant < tolerance, f"{thing}, tangents", f"cosine {slant:.4f} with the normal", "0")
    uv = _numbers(attributes.get("TEXCOORD_0", np.zeros((1, 2), np.float32)))
    _expect(
        bool(((uv >= 0) & (uv <= 1)).all()),
        f"{thing}, texture coordinates",
        f"{uv.min()}..{uv.max()}",
        "0..1",
    )
    shares = attributes["WEIGHTS_0"].sum(1)
    _expect(bool((shares == 255).all()), f"{thing}, weights", f"sums {shares.min()}..{shares.max()}", "255")

    morphs = primitive.get("targets", [])
    _expect(len(morphs) == targets, f"{thing}, morph targets", str(len(morphs)), str(targets))
    for number, target in enumerate(morphs):
        lengths = {name: len(arrays[accessor]) for name, accessor in target.items()}
        expected = {"POSITION": count, "NORMAL": count}
        _expect(lengths == expected, f"{thing}, morph target {number}", str(lengths), str(expected))


def _image_size(document: dict[str, Any], binary: bytes, number: int) -> tuple[int, int]:
    image = document["images"][number]
    view = document["bufferViews"][image["bufferView"]]
    data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    kind = image["mimeType"]
    signature = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8", "image/webp": b"RIFF", "image/ktx2": b"\xabKTX"}
    _expect(data.startswith(signature[kind]), f"image {number}", repr(data[:4]), f"the signature of {kind}")
    if kind == "image/png":
        return struct.unpack(">II", data[16:24])
    if kind == "image/ktx2":
        return struct.unpack("<II", data[20:28])
    with Image.open(io.BytesIO(data)) as opened:  # reads the header only
        return opened.size


def _numbers(array: npt.NDArray) -> npt.NDArray:
    """Normalized integers as what they stand for; floats as they are."""
    return array if array.dtype == np.float32 else array.astype(np.float32) / np.iinfo(array.dtype).max


def _tolerance(vectors: npt.NDArray) -> float:
    """Bytes turned into floats are multiples of 1/127."""
    steps = vectors * 127
    return _BYTE_TOLERANCE if bool((np.abs(steps - np.rint(steps)) < 1e-3).all()) else _UNIT_TOLERANCE


def _expect_unit(thing: str, vectors: npt.NDArray) -> None:
    worst = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
    _expect(worst < _tolerance(vectors), thing, f"a length off by {worst:.4f}", "length 1")


def _expect(condition: bool, thing: str, got: str, expected: str) -> None:
    if not condition:
        raise InvalidGltfError(thing, got, expected, _REMEDY)
