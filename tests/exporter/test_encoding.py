"""Image files for the inside of a GLB: what is kept, what is lost, what is refused."""

from __future__ import annotations

import io
import stat
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fitdiff.errors import MissingError
from fitdiff.exporter.textures.encoding import KTX_TOOL, encode_image, encode_png

RNG = np.random.default_rng(0)


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def chunks_of(data: bytes) -> set[bytes]:
    """Names of a PNG file's chunks."""
    names, offset = set(), 8
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        names.add(data[offset + 4 : offset + 8])
        offset += 12 + length
    return names


def skin(side: int = 64, channels: int = 3) -> np.ndarray:
    """A colour gradient with a sharp red border, as lips have."""
    y, x = np.mgrid[:side, :side] / side
    pixels = np.stack([190 + 20 * x, 150 + 20 * y, 130 + 0 * x, 255 + 0 * x], -1).round().astype(np.uint8)
    pixels[side // 2 :, side // 3 : side // 2, 1] = 80
    return np.ascontiguousarray(pixels[..., :channels])


@pytest.mark.parametrize("channels", [3, 4])
def test_png_is_lossless_in_order_and_untagged(channels: int) -> None:
    pixels = RNG.integers(0, 256, (4, 6, channels), np.uint8)
    data = encode_png(pixels)
    np.testing.assert_array_equal(decoded(data), pixels)
    assert not {b"sRGB", b"gAMA", b"iCCP", b"cHRM"} & chunks_of(data)


def test_sixteen_bits_stay() -> None:
    pixels = RNG.integers(0, 65536, (8, 8, 3), np.uint16)
    back = cv2.imdecode(np.frombuffer(encode_image(pixels, "data", "jpeg").data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert back is not None and back.dtype == np.uint16
    np.testing.assert_array_equal(back[..., ::-1], pixels)


@pytest.mark.parametrize(
    ("kind", "channels", "wanted", "gets"),
    [
        ("color", 3, "jpeg", "jpeg"),
        ("color", 4, "jpeg", "png"),
        ("data", 3, "jpeg", "png"),
        ("color", 3, "webp", "webp"),
        ("data", 3, "webp", "webp"),
        ("color", 3, "png", "png"),
    ],
)
def test_numbers_are_kept_and_colours_nearly(kind: str, channels: int, wanted: str, gets: str) -> None:
    pixels = skin(channels=channels)
    image = encode_image(pixels, kind, wanted)  # type: ignore[arg-type]
    assert image.format == gets
    difference = np.abs(decoded(image.data).astype(int) - pixels)
    if gets == "png" or kind == "data":
        assert not difference.any()
    else:
        print(f"{gets}: mean {difference.mean():.2f}, largest {difference.max()} of 255")
        assert difference.mean() < 1.5


def test_colours_under_transparency_stay() -> None:
    pixels = skin(channels=4)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(decoded(encode_image(pixels, "color", "webp").data), pixels)


def test_ktx2_without_a_tool_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="KTX-Software"):
        encode_image(skin(), "color", "ktx2")


@pytest.mark.parametrize(("kind", "transfer"), [("color", "srgb"), ("data", "linear")])
def test_ktx2_tool_hears_the_transfer_function(
    kind: str, transfer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the tool writes what it was told."""
    tool = tmp_path / KTX_TOOL
    tool.write_text(
        '#!/bin/sh\nfor last; do :; done\nout=$(eval echo \\${$(($#-1))})\necho "KTX $@" > "$out"\ntest -s "$last"\n'
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    image = encode_image(skin(), kind, "ktx2")  # type: ignore[arg-type]
    assert image.format == "ktx2"
    assert f"--assign_oetf {transfer}" in image.data.decode() and "--encode uastc" in image.data.decode()


def test_ktx2_tool_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / KTX_TOOL
    tool.write_text("#!/bin/sh\necho broken disk >&2\nexit 3\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MissingError, match="broken disk"):
        encode_image(skin(), "color", "ktx2")
