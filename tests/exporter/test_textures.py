"""Textures of the whole head: true to the face maps, evenly sharp, eyes of the person, normals that add up."""

from __future__ import annotations

import time
from dataclasses import replace
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from fitdiff.exporter.anatomy.eyeball import find_eyeball, fit_eye_chart
from fitdiff.exporter.textures.enlarging import resized
from fitdiff.exporter.textures.eye_texture import MEASURED_RING, eye_pictures
from fitdiff.exporter.textures.head_textures import head_textures
from fitdiff.exporter.textures.padding import island_mask
from fitdiff.exporter.textures.skin_detail import pore_relief, slopes_of_relief
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.runtime.avatar import Avatar, Iris, ReflectanceMaps
from fitdiff.runtime.avatar_maps import head_maps_from_tensors

BLUE = Iris((0.40, 0.52, 0.62), 0.0108, 1.0)


@pytest.fixture(scope="module")
def head(importers: ModuleType) -> Avatar:
    """The mean head with a face that is lighter on its left half, smooth in the middle, blue-eyed."""
    atlas, _ = load_head_atlas()
    maps = atlas.neutral_face().clone()
    maps[:, :3, :, 256:] *= 1.06
    maps[:, :3] = (maps[:, :3] * 0.9).clamp(0, 1)
    maps[:, :3, 120:180, 200:312] = torch.tensor([0.62, 0.47, 0.40])[None, :, None, None]
    avatar = importers.average_head()
    rows = maps[0].permute(1, 2, 0).numpy()
    face = ReflectanceMaps(
        np.ascontiguousarray(rows[..., :3]),
        np.repeat(rows[..., 3:6].mean(-1, keepdims=True), 3, -1),
        np.ascontiguousarray(avatar.face_maps.normal),
    )
    return replace(avatar, face_maps=face, head_maps=head_maps_from_tensors(atlas.compose(maps)), iris=BLUE)


def linear(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)


def shrunk_face(pixels: np.ndarray, avatar: Avatar) -> np.ndarray:
    """(512, 512, 3): the face block of 2048, averaged in linear light, sRGB-encoded."""
    x, y, side = (2 * value for value in avatar.topology.face_block)
    block = linear(pixels[y : y + side, x : x + side, :3] / 255.0)
    mean = block.reshape(side // 2, 2, side // 2, 2, 3).mean((1, 3))
    return np.where(mean <= 0.0031308, mean * 12.92, 1.055 * mean ** (1 / 2.4) - 0.055)


def test_shrunk_it_is_the_face_again(head: Avatar) -> None:
    shrunk = shrunk_face(head_textures(head, 2048).base_color, head)
    inner = (slice(130, 420), slice(150, 360))  # the blend rules there wholly
    skin = island_mask(head.topology.corner_uv, 1024, head.topology.triangles_of("skin"))
    x, y, side = head.topology.face_block
    seen = skin[y : y + side, x : x + side][inner]
    off = np.abs(shrunk - head.face_maps.diffuse_albedo)[inner][seen] * 255
    shift = (shrunk - head.face_maps.diffuse_albedo)[inner][seen].mean(0) * 255
    print(f"levels of 255: mean {off.mean():.2f}, 99% {np.quantile(off, 0.99):.2f}, largest {off.max():.2f}")
    assert off.mean() < 1.2 and np.quantile(off, 0.99) < 4.5 and off.max() < 10
    assert np.abs(shift).max() < 0.3  # no broad colour moves


def test_the_face_lies_where_it_belongs(head: Avatar) -> None:
    """The lighter half is the character's left, right of the middle of the image."""
    shrunk = shrunk_face(head_textures(head, 2048).base_color, head)
    left, right = shrunk[200:300, 300:350].mean(), shrunk[200:300, 160:210].mean()
    wanted = head.face_maps.diffuse_albedo
    assert left / right == pytest.approx(wanted[200:300, 300:350].mean() / wanted[200:300, 160:210].mean(), abs=0.005)
    assert left > right * 1.02


def test_smooth_skin_is_as_sharp_as_the_neck(head: Avatar) -> None:
    """The contrast of what is finer than a millimetre, on a flat patch of the forehead and on the neck."""

    def contrast(color: np.ndarray, rows: slice, columns: slice) -> float:
        light = color[..., :3].astype(np.float32).mean(2)
        return float(((light - cv2.GaussianBlur(light, (0, 0), 1.5)) / light)[rows, columns].std())

    textures, plain = head_textures(head, 2048).base_color, resized(head.head_maps.base_color, 2048)
    x, y, _ = (2 * value for value in head.topology.face_block)
    patch, neck = (slice(y + 250, y + 350), slice(x + 410, x + 610)), (slice(1600, 1700), slice(1350, 1650))
    flat, around = contrast(textures, *patch), contrast(textures, *neck)
    print(f"forehead {flat:.4f} (without pores {contrast(plain, *patch):.4f}), neck {around:.4f}")
    assert contrast(plain, *patch) < 1e-5
    assert 0.5 < flat / around < 2


def test_no_border_around_the_face_block(head: Avatar) -> None:
    """Across the block's edge the picture is as smooth as it is beside it."""
    color = head_textures(head, 2048).base_color[..., :3].astype(np.float32)
    x, y, side = (2 * value for value in head.topology.face_block)
    rows = slice(y + 350, y + 600)
    for edge in (x, x + side):
        profile = color[rows, edge - 16 : edge + 16].mean((0, 2))
        steps = np.abs(np.diff(profile))
        assert steps[15] < 3 * np.median(steps) + 0.5


def test_enlarging_gives_back_and_does_not_ring() -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.random((64, 64, 3)).astype(np.float32), (0, 0), 1.0)
    image[:, 32:] += 1.0
    large = resized(image, 128)
    back = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
    print(f"there and back: largest {np.abs(back - image).max():.4f}, mean {np.abs(back - image).mean():.5f}")
    assert np.abs(back - image).mean() < 0.004
    assert large.min() >= image.min() - 1e-6 and large.max() <= image.max() + 1e-6
    step = np.zeros((32, 32), np.float32)
    step[:, 16:] = 1
    edge = resized(step, 64)[32]
    assert edge.min() == 0 and edge.max() == 1 and (np.diff(edge) >= -1e-6).all()


def test_normals_of_two_reliefs_add_up(head: Avatar) -> None:
    """Slopes add: the relief of pores on a tilted normal keeps the tilt and the pores, at length one."""
    tilted = head.head_maps.normal.copy()
    tilted[:] = np.array([0.6, 0.0, 0.8], np.float32)
    avatar = replace(head, head_maps=replace(head.head_maps, normal=tilted))
    pixels = head_textures(avatar, 2048, normal_bits=16).normal.astype(np.float64) / 65535 * 2 - 1
    assert np.abs(np.linalg.norm(pixels, axis=2) - 1).max() < 1e-4
    skin = island_mask(head.topology.corner_uv, 2048, head.topology.triangles_of("skin"))
    relief = pore_relief(avatar, 2048)
    assert relief is not None
    right, up = slopes_of_relief(relief * skin)
    inner = cv2.erode(skin.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
    assert np.abs(pixels[..., 0] / pixels[..., 2] - (0.75 - right))[inner].max() < 1e-3
    assert np.abs(pixels[..., 1] / pixels[..., 2] + up)[inner].max() < 1e-3


def test_relief_rises_to_the_light() -> None:
    """A light bump: on its right side the surface falls, so the normal leans right; above it leans up."""
    bump = cv2.GaussianBlur(np.pad(np.ones((9, 9), np.float32), 20), (0, 0), 3)
    right, up = slopes_of_relief(bump)
    assert right[24, 31] < 0 < right[24, 17]  # normal x = -slope
    assert up[17, 24] < 0 < up[31, 24]  # row 17 lies above the middle


def test_sixteen_bits_hold_more(head: Avatar) -> None:
    fine, coarse = head_textures(head, 2048, normal_bits=16).normal, head_textures(head, 2048).normal
    assert fine.dtype == np.uint16 and coarse.dtype == np.uint8
    assert len(np.unique(fine[..., 0])) > 1000
    assert np.abs(fine / 257.0 - coarse).max() <= 0.51  # the same normals
    assert (fine % 257 != 0).mean() > 0.5  # and no enlarged bytes


def test_the_iris_is_as_wide_as_the_avatar_says(head: Avatar) -> None:
    """Texels that are blue, carried to the eyeball, span the iris' diameter; their mean is its colour."""
    eye = find_eyeball(head, "left")
    assert eye is not None
    chart = fit_eye_chart(head, eye)
    (picture,) = eye_pictures(head, 2048)
    x = (np.arange(picture.columns.start, picture.columns.stop) + 0.5) / 2048
    y = (np.arange(picture.rows.start, picture.rows.stop) + 0.5) / 2048
    across, up = np.meshgrid((x - chart.centre[0]) / chart.scale[0], (y - chart.centre[1]) / chart.scale[1])
    metres = np.sin(np.minimum(np.pi * np.hypot(across, up) ** (1 / chart.power), np.pi / 2)) * eye.radius
    blue = picture.color[..., 2] > picture.color[..., 0] * 1.12
    assert 2 * np.quantile(metres[blue], 0.99) == pytest.approx(BLUE.diameter, rel=0.08)
    half = BLUE.diameter / 2
    ring = (metres > MEASURED_RING[0] * half) & (metres < MEASURED_RING[1] * half)
    mean = linear(picture.color[ring].astype(np.float64)).mean(0)
    assert mean == pytest.approx(linear(np.array(BLUE.color)), rel=0.15)
    assert picture.color[metres < 0.25 * half].max() < 0.1  # the pupil


def test_lids_shade_the_eye_and_the_upper_one_more(head: Avatar) -> None:
    eye = find_eyeball(head, "left")
    assert eye is not None
    chart = fit_eye_chart(head, eye)
    (picture,) = eye_pictures(head, 2048)

    def white_at(across: float, up: float) -> float:
        """Luminance beside the iris, degrees from the gaze."""
        direction = np.array([[np.sin(np.radians(across)), np.sin(np.radians(up)), 0.0]])
        direction[0, 2] = np.sqrt(1 - (direction**2).sum())
        u, v = chart.uv(direction)[0] * 2048
        row, column = int(v) - picture.rows.start, int(u) - picture.columns.start
        return float(linear(picture.color[row - 6 : row + 7, column - 6 : column + 7].astype(np.float64)).mean())

    middle, above, below = white_at(32, 0), white_at(32, 20), white_at(32, -20)
    assert above < 0.6 * middle and above < 0.8 * below < 0.8 * middle
    assert white_at(50, 0) < 0.75 * middle  # towards the corners


def test_textures_show_that_eye(head: Avatar) -> None:
    textures = head_textures(head, 2048)
    (picture,) = eye_pictures(head, 2048)
    assert np.abs(textures.base_color[picture.rows, picture.columns, :3] / 255.0 - picture.color).mean() < 0.02
    brown = head_textures(replace(head, iris=Iris()), 2048)
    changed = np.argwhere((brown.base_color != textures.base_color).any(2))
    assert changed.min(0)[0] >= picture.rows.start - 32 and changed.max(0)[1] <= picture.columns.stop + 32


def test_every_size_and_what_is_refused(head: Avatar) -> None:
    for size in (256, 512):
        textures = head_textures(head, size)
        shapes = {name: getattr(textures, name).shape for name in ("base_color", "normal", "roughness", "specular")}
        assert shapes == {
            "base_color": (size, size, 4),
            "normal": (size, size, 3),
            "roughness": (size, size),
            "specular": (size, size),
        }
    with pytest.raises(ValueError, match="texture size"):
        head_textures(head, 1000)
    with pytest.raises(ValueError, match="normal_bits"):
        head_textures(head, 512, normal_bits=12)  # type: ignore[arg-type]


def test_a_foreign_layout_is_left_alone(avatar: Avatar) -> None:
    """The marked head of the exporter's tests: no pores, no eyes painted over its own, colours to the byte."""
    assert pore_relief(avatar, 2048) is None and eye_pictures(avatar, 1024) == []
    textures = head_textures(avatar, 256)
    islands = island_mask(avatar.topology.corner_uv, 256, ~avatar.topology.triangles_of("skin"))
    wanted = np.rint(avatar.head_maps.base_color * 255)
    assert np.abs(textures.base_color[islands].astype(int) - wanted[islands]).max() <= 1


def test_the_same_head_gives_the_same_bytes_soon(head: Avatar) -> None:
    first = head_textures(head, 2048)
    start = time.process_time()
    second = head_textures(head, 2048)
    seconds = time.process_time() - start
    print(f"{seconds:.2f} s of processor time")
    assert (first.base_color == second.base_color).all() and (first.normal == second.normal).all()
    assert seconds < 5  # about 0.6 on an idle core


def test_the_relief_moves_no_broad_colour(head: Avatar) -> None:
    relief = pore_relief(head, 2048)
    assert relief is not None
    assert abs(float(relief.mean())) < 1e-5
    assert np.abs(cv2.resize(relief, (64, 64), interpolation=cv2.INTER_AREA)).max() < 0.002  # half a level of 255
