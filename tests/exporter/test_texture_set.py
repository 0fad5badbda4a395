"""The textures of a file: which there are, and the lashes' own piece of the atlas."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.textures.head_textures import HeadTextures
from fitdiff.exporter.textures.texture_set import WHOLE, TextureSet, texture_set

SIDE = 512
LASH_UV = np.array([[0.61, 0.72], [0.70, 0.76], [0.65, 0.74]], np.float32)


@pytest.fixture(scope="module")
def pixels() -> HeadTextures:
    rng = np.random.default_rng(1)
    base = rng.integers(40, 220, (SIDE, SIDE, 4), np.uint8)
    base[..., 3] = 255
    base[370:380, 310:360, 3] = 0  # within the lashes
    values = rng.integers(60, 200, (2, SIDE, SIDE), np.uint8)
    return HeadTextures(base, rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), values[0], values[1])


def decoded(textures: TextureSet, role: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(textures.images[role].data)))


def test_only_the_lashes_have_alpha(pixels: HeadTextures) -> None:
    textures = texture_set(pixels, ExportOptions(texture_size=SIDE), LASH_UV)
    assert set(textures.images) == {"base_color", "normal", "packed", "specular", "lashes"}
    assert {role: image.format for role, image in textures.images.items()} == {
        "base_color": "jpeg", "specular": "jpeg", "normal": "png", "packed": "png", "lashes": "png",
    }  # fmt: skip
    channels = {role: decoded(textures, role).shape[2] for role in textures.images}
    assert channels.pop("lashes") == 4 and set(channels.values()) == {3}


def test_window_shows_the_same_texels(pixels: HeadTextures) -> None:
    textures = texture_set(pixels, ExportOptions(texture_size=SIDE), LASH_UV)
    window, picture = textures.window, decoded(textures, "lashes")
    side = len(picture)
    assert side & (side - 1) == 0 and side == round(window.size * SIDE) == 64
    assert (LASH_UV >= [window.u, window.v]).all() and (LASH_UV <= np.add([window.u, window.v], window.size)).all()
    for u, v in LASH_UV.tolist():
        inside = picture[int((v - window.v) / window.size * side), int((u - window.u) / window.size * side)]
        np.testing.assert_array_equal(inside, pixels.base_color[int(v * SIDE), int(u * SIDE)])


def test_lashes_at_the_atlas_border_keep_their_window_inside(pixels: HeadTextures) -> None:
    uv = np.array([[0.97, 0.0], [1.0, 0.02]], np.float32)
    window = texture_set(pixels, ExportOptions(texture_size=SIDE), uv).window
    assert window.u + window.size <= 1 and window.v >= 0


def test_head_without_lashes_has_no_such_image(pixels: HeadTextures) -> None:
    textures = texture_set(pixels, ExportOptions(texture_size=SIDE), np.zeros((0, 2), np.float32))
    assert "lashes" not in textures.images and textures.window == WHOLE


def test_baked_target_has_no_specular_image(pixels: HeadTextures) -> None:
    options = ExportOptions(target="godot", texture_size=SIDE, texture_format="png")
    textures = texture_set(pixels, options, LASH_UV)
    assert "specular" not in textures.images
    assert (decoded(textures, "packed")[..., 1] != pixels.roughness).mean() > 0.5
    assert (decoded(textures, "packed")[..., 0] == 255).all() and not decoded(textures, "packed")[..., 2].any()
    assert (decoded(textures, "base_color") != pixels.base_color[..., :3]).mean() > 0.3
