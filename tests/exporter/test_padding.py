"""Padding: colours go on beyond islands, and no mip level shows the background inside one."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import cv2
import numpy as np
import pytest

from fitdiff.exporter.textures.head_textures import head_textures
from fitdiff.exporter.textures.padding import island_mask, pad, padding_source
from fitdiff.runtime.avatar import Avatar

SIZE = 256
BACKGROUND = 255


@pytest.fixture(scope="module")
def whole_head(importers: ModuleType) -> Avatar:
    return importers.average_head()


def two_islands() -> tuple[np.ndarray, np.ndarray]:
    """An image of two islands, left dark and right light, on a bright background, and their mask."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[64:192, 40:100] = mask[64:192, 160:220] = True
    mask[64:96, 40:60] = False  # a notch, for corners that lie inwards
    image = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    image[mask] = 10
    image[:, 128:][mask[:, 128:]] = 120
    return image, mask


def test_the_nearest_island_goes_on() -> None:
    image, mask = two_islands()
    before = image.copy()
    pad(image, padding_source(mask, 16))
    assert (image[mask] == before[mask]).all()
    assert (image[70:180, 100:116] == 10).all() and (image[70:180, 144:160] == 120).all()
    assert (image[100, 120:140] == BACKGROUND).all()  # further than 16 texels from both
    assert (image[66:90, 45:58] == 10).all()


def test_every_map_is_padded_alike() -> None:
    _, mask = two_islands()
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.uint16)
    places = np.stack([rows, columns], axis=2)
    source = padding_source(mask, 20)
    pad(places, source)
    twice = rows.copy()
    pad(twice, source)
    assert (places[..., 0] == twice).all()
    taken = places[50, 70]
    assert mask[tuple(taken)] and np.hypot(*(taken.astype(int) - (50, 70))) <= 14.5


def test_nothing_to_pad() -> None:
    image = np.full((16, 16, 3), 7, np.uint8)
    pad(image, padding_source(np.zeros((16, 16), bool), 4))
    pad(image, padding_source(np.ones((16, 16), bool), 4))
    assert (image == 7).all()


def test_mask_covers_the_triangle_and_nothing_far() -> None:
    corner_uv = np.array([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75]], [[0.9, 0.9], [0.95, 0.9], [0.9, 0.95]]])
    mask = island_mask(corner_uv, 64, np.array([True, False]))
    assert mask[17, 17] and mask[17, 46] and mask[46, 17]
    assert not mask[46, 46] and not mask[58, 58] and not mask[10, 10]
    assert abs(int(mask.sum()) - 32 * 32 / 2) < 80


@pytest.mark.parametrize(("size", "least"), [(1024, 8), (2048, 16)])
def test_the_head_is_padded_that_far(whole_head: Avatar, size: int, least: int) -> None:
    """Within `least` texels of an island no texel of the atlas' own background is left: it was painted magenta."""
    textures = head_textures(magenta_around(whole_head), size)
    islands = island_mask(whole_head.topology.corner_uv, size)
    near = cv2.dilate(islands.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * least + 1,) * 2)) > 0
    assert magenta(textures.base_color[..., :3])[near].mean() < 1e-4
    assert magenta(textures.base_color[..., :3])[~near].any()  # the paint was there at all


def test_mips_show_no_background(whole_head: Avatar) -> None:
    """Sixteen texels of 1024 become one, four levels down; no island has a tinge of the background."""
    color = head_textures(magenta_around(whole_head), 1024).base_color[..., :3].astype(np.float32)
    islands = island_mask(whole_head.topology.corner_uv, 1024)
    for level in (1, 2, 3, 4):
        side = 1024 >> level
        mip = cv2.resize(color, (side, side), interpolation=cv2.INTER_AREA)
        touched = cv2.resize(islands.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) > 0
        tinge = (np.minimum(mip[..., 0], mip[..., 2]) - mip[..., 1])[touched]
        print(f"level {level}: largest tinge {tinge.max():.1f}, mean {tinge.mean():.2f}")
        assert tinge.max() < 40  # unpadded: above 150


def magenta(color: np.ndarray) -> np.ndarray:
    return (color[..., 0] > 200) & (color[..., 1] < 60) & (color[..., 2] > 200)


def magenta_around(avatar: Avatar) -> Avatar:
    """The avatar with magenta wherever its atlas holds no island; islands keep the margin that interpolation blurs."""
    color = avatar.head_maps.base_color.copy()
    islands = island_mask(avatar.topology.corner_uv, len(color)).astype(np.uint8)
    color[cv2.dilate(islands, np.ones((3, 3), np.uint8)) == 0] = (1, 0, 1, 1)
    return replace(avatar, head_maps=replace(avatar.head_maps, base_color=color))
