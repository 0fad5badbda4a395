"""The self-check finds each kind of damage."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fitdiff.exporter.validate import InvalidGltfError, check_glb, document_and_binary_from_glb


def repacked(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def place(document: dict[str, Any], accessor: dict[str, Any]) -> int:
    return document["bufferViews"][accessor["bufferView"]]["byteOffset"] + accessor["byteOffset"]


def attribute(document: dict[str, Any], name: str) -> dict[str, Any]:
    return document["accessors"][document["meshes"][0]["primitives"][0]["attributes"][name]]


def overwrite(name: str, values: np.ndarray) -> Callable[[dict[str, Any], bytearray], None]:
    def damage(document: dict[str, Any], binary: bytearray) -> None:
        start = place(document, attribute(document, name))
        binary[start : start + values.nbytes] = values.tobytes()

    return damage


def index_too_large(document: dict[str, Any], binary: bytearray) -> None:
    start = place(document, document["accessors"][document["meshes"][0]["primitives"][0]["indices"]])
    binary[start : start + 2] = np.uint16(60000).tobytes()


def triangle_collapsed(document: dict[str, Any], binary: bytearray) -> None:
    start = place(document, document["accessors"][document["meshes"][0]["primitives"][0]["indices"]])
    binary[start : start + 2] = binary[start + 2 : start + 4]


def sparse_out_of_order(document: dict[str, Any], binary: bytearray) -> None:
    sparse = next(accessor["sparse"] for accessor in document["accessors"] if "sparse" in accessor)
    start = place(document, sparse["indices"])
    binary[start : start + 4] = binary[start + 2 : start + 4] + binary[start : start + 2]


def target_lost(document: dict[str, Any], binary: bytearray) -> None:
    del document["meshes"][0]["primitives"][1]["targets"][0]


def bounds_wrong(document: dict[str, Any], binary: bytearray) -> None:
    attribute(document, "POSITION")["max"][0] += 1


def view_past_the_end(document: dict[str, Any], binary: bytearray) -> None:
    document["bufferViews"][-1]["byteLength"] += 1000


def image_not_square(document: dict[str, Any], binary: bytearray) -> None:
    (image,) = [image for image in document["images"] if image["name"] == "FitDiff_Normal"]
    start = document["bufferViews"][image["bufferView"]]["byteOffset"]
    binary[start + 16 : start + 20] = struct.pack(">I", 300)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (index_too_large, "indices"),
        (triangle_collapsed, "vertex twice"),
        (sparse_out_of_order, "sparse indices"),
        (target_lost, "morph targets"),
        (bounds_wrong, "other bounds"),
        (view_past_the_end, "buffer view"),
        (image_not_square, "300 x 2048"),
        (overwrite("TEXCOORD_0", np.array([np.nan], np.float32)), "NaN"),
        (overwrite("TEXCOORD_0", np.array([1.5], np.float32)), "texture coordinates"),
        (overwrite("NORMAL", np.array([0, 0.5, 0], np.float32)), "normals"),
        (overwrite("TANGENT", np.array([2, 0, 0, 1], np.float32)), "tangents"),
        (overwrite("TANGENT", np.array([1, 0, 0, 0.5], np.float32)), "handedness"),
        (overwrite("TANGENT", np.array([0, 1, 0, 1], np.float32)), "cosine"),
        (overwrite("WEIGHTS_0", np.array([255, 3, 0, 0], np.uint8)), "weights"),
    ],
)
def test_damage_is_named(
    glb: SimpleNamespace, damage: Callable[[dict[str, Any], bytearray], None], message: str
) -> None:
    document, binary = document_and_binary_from_glb(glb.path.read_bytes())
    check_glb(repacked(document, binary))
    changed = bytearray(binary)
    damage(document, changed)
    with pytest.raises(InvalidGltfError, match=message) as caught:
        check_glb(repacked(document, bytes(changed)))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("size", [0, 10, 100, -4])
def test_truncated_container(glb: SimpleNamespace, size: int) -> None:
    with pytest.raises(InvalidGltfError, match="GLB"):
        check_glb(glb.path.read_bytes()[:size])
