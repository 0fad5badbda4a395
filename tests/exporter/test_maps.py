"""PNG files: bytes, colour-space chunks and what other readers see."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fitdiff.exporter.maps import (
    pixels_from_normals,
    pixels_from_unit,
    srgb_from_linear,
    write_atomically,
    write_face_maps,
)
from fitdiff.runtime.avatar import Avatar


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    """Chunks of a PNG file before its pixels."""
    chunks, offset = {}, 8
    while (kind := data[offset + 4 : offset + 8]) != b"IDAT":
        (length,) = struct.unpack_from(">I", data, offset)
        chunks[kind] = data[offset + 8 : offset + 8 + length]
        offset += 12 + length
    return chunks


def test_face_maps_say_how_they_are_encoded(avatar: Avatar, tmp_path: Path) -> None:
    albedo, specular, normal = write_face_maps(avatar.face_maps, tmp_path / "maps")
    assert [path.name for path in (albedo, specular, normal)] == [
        "diffuse_albedo.png",
        "specular_albedo.png",
        "normal.png",
    ]
    assert chunks_of(albedo.read_bytes())[b"sRGB"] == b"\0"
    for path in (specular, normal):
        chunks = chunks_of(path.read_bytes())
        assert b"sRGB" not in chunks
        assert struct.unpack(">I", chunks[b"gAMA"]) == (100000,)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == sorted(
        path.name for path in (albedo, specular, normal)
    )


def test_folds_lie_beside_the_maps(avatar: Avatar, tmp_path: Path) -> None:
    side = len(avatar.face_maps.diffuse_albedo)
    folds = np.ones((side, side), np.float32)
    folds[0, :2] = 0.5, 5.0
    *_, path = write_face_maps(avatar.face_maps, tmp_path / "maps", folds)
    assert path.name == "folds.png" and b"sRGB" not in chunks_of(path.read_bytes())
    assert np.asarray(Image.open(path))[0, :3].tolist() == [64, 255, 128]


def test_readers_see_the_values_that_went_in(avatar: Avatar, tmp_path: Path) -> None:
    maps = avatar.face_maps
    for path, values in zip(
        write_face_maps(maps, tmp_path),
        (maps.diffuse_albedo, maps.specular_albedo, maps.normal * 0.5 + 0.5),
        strict=True,
    ):
        by_pillow = np.asarray(Image.open(path))
        decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert decoded is not None
        by_opencv = decoded[..., ::-1]
        np.testing.assert_array_equal(by_pillow, by_opencv)
        assert np.abs(by_pillow / 255 - values).max() <= 0.5 / 255 + 1e-6


def test_pixels_round_to_the_nearest_byte_and_clip() -> None:
    assert pixels_from_unit(np.array([-0.2, 0, 0.4 / 255, 0.6 / 255, 1, 1.3])).tolist() == [
        0,
        0,
        0,
        1,
        255,
        255,
    ]
    assert pixels_from_normals(np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])).tolist() == [
        [128, 128, 255],
        [128, 255, 128],
        [0, 128, 128],
    ]


def test_srgb_transfer_function() -> None:
    np.testing.assert_allclose(srgb_from_linear(np.array([0, 0.0031308, 0.214041, 1])), [0, 0.04045, 0.5, 1], atol=1e-5)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.png"
    write_atomically(path, b"old")

    def full(source: object, target: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("map.png", b"old")]
