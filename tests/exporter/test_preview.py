"""The sheet and its pictures: layout, left and right, agreement with the photo's frame."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from fitdiff.exporter.picture_head import picture_head
from fitdiff.exporter.preview import (
    TURNTABLE_SIZE,
    backdrop,
    contact_sheet,
    picture_in_photo,
    portrait,
    preview_sheet,
)
from fitdiff.exporter.sheet import CAPTION_HEIGHT, GAP, PAPER, Tile, sheet_from_rows
from fitdiff.rendering.pictures import picture_of_head
from fitdiff.runtime.avatar import Avatar, Iris
from fitdiff.runtime.avatar_result import AvatarOptions, AvatarResult
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.pipeline import FitDiffPipeline


@pytest.fixture(scope="module")
def crop(small_pipeline: FitDiffPipeline, astronaut) -> FaceCrop:
    return crop_face(load_photo(astronaut), small_pipeline.detector, small_pipeline.models.face_mesh)


@pytest.fixture(scope="module")
def result(small_pipeline: FitDiffPipeline, crop: FaceCrop) -> AvatarResult:
    return small_pipeline.avatar(crop, AvatarOptions(steps=1, guidance="none"))


def flat(height: int, width: int, level: int) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_rows_fill_the_width() -> None:
    rows = [[Tile(flat(50, 100, 10), "a"), Tile(flat(200, 400, 20), "b")], [Tile(flat(10, 10, 30), "c")]]
    sheet = sheet_from_rows(rows, 400)
    side = (400 - 3 * GAP) // 2
    assert sheet.shape[1] == 400
    assert sheet.shape[0] == 3 * GAP + 2 * CAPTION_HEIGHT + side // 2 + 400 - 2 * GAP
    assert (sheet[GAP : GAP + side // 2, GAP : GAP + side] == 10).all()
    assert (sheet[GAP : GAP + side // 2, 2 * GAP + side : 2 * GAP + 2 * side] == 20).all()
    caption = sheet[GAP + side // 2 : GAP + side // 2 + CAPTION_HEIGHT]
    assert caption.max() > PAPER + 100 and (caption == PAPER).mean() > 0.9  # a letter, not a block
    assert contact_sheet([Tile(flat(10, 10, 0), "")] * 7).shape[1] == 1600


def test_preview_has_all_rows(result: AvatarResult, small_pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    with_photo = preview_sheet(result, small_pipeline.renderer, crop)
    without = preview_sheet(result, small_pipeline.renderer, None)
    assert with_photo.shape[1] == without.shape[1] == 1600
    row = with_photo.shape[0] - without.shape[0]
    assert row == 512 + CAPTION_HEIGHT + GAP
    assert (with_photo[row + GAP :] == without[GAP:]).all()
    shown = cv2.resize(with_photo[GAP : GAP + 512, GAP : GAP + 512], (224, 224), interpolation=cv2.INTER_AREA)
    difference = np.abs(shown.astype(float) - crop.image * 255)
    assert difference.mean() < 4  # the photo's tile shows what the networks saw


def test_turntable_turns_the_right_way(result: AvatarResult, small_pipeline: FitDiffPipeline) -> None:
    """Positive yaw shows the character's left cheek, and there the nose points to the image's left."""
    marked = replace(result, avatar=_left_cheek_red(result.avatar))
    pictures = {yaw: portrait(marked, small_pipeline.renderer, yaw).astype(int) for yaw in (-70, 0, 70)}
    red = {yaw: (p[..., 0] > 2 * p[..., 1] + 30) for yaw, p in pictures.items()}
    assert all(p.shape[:2] == TURNTABLE_SIZE for p in pictures.values())
    assert red[70].sum() > 3 * red[-70].sum() + 100
    columns = np.nonzero(red[0])[1]
    assert len(columns) > 100 and columns.mean() > TURNTABLE_SIZE[1] / 2


def _left_cheek_red(avatar: Avatar) -> Avatar:
    """Red where the skin's texels lie on the character's left half of the face block."""
    color = avatar.head_maps.base_color.copy()
    x, y, side = avatar.topology.face_block
    color[y + side // 2 : y + side * 3 // 4, x + side * 5 // 8 : x + side * 3 // 4, :3] = (0.9, 0.1, 0.1)
    return replace(avatar, head_maps=replace(avatar.head_maps, base_color=color))


def test_picture_in_photo_agrees_with_the_crop(
    result: AvatarResult, small_pipeline: FitDiffPipeline, crop: FaceCrop
) -> None:
    picture = picture_in_photo(result, small_pipeline.renderer, crop)
    assert picture.shape == (*crop.photo.shape[:2], 4)
    assert result.camera is not None
    factor = 1 / crop.crop_from_photo[0, 0]
    head = picture_head(result.avatar, small_pipeline.renderer)
    in_crop = picture_of_head(
        head.renderer, head.expressive, head.expressive_maps, result.camera.scaled(factor), result.light
    )
    left, top = (round(float(v)) for v in -crop.crop_from_photo[:, 2] * factor)
    side = len(in_crop)
    y0, y1 = max(0, top), min(picture.shape[0], top + side)
    window = picture[y0:y1, left : left + side].astype(int)
    difference = np.abs(window - in_crop[y0 - top : y1 - top])
    assert difference.mean() < 1.0
    print(f"largest {difference.max()}, mean {difference.mean():.3f}")


def test_picture_of_a_turned_photo(result: AvatarResult, small_pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """A photo that was turned for the networks gets its picture in its own frame."""
    upright = picture_in_photo(result, small_pipeline.renderer, crop)
    turned = picture_in_photo(result, small_pipeline.renderer, replace(crop, quarter_turns=1))
    assert (np.rot90(turned, 1) == upright).all()
    with pytest.raises(ValueError, match="no camera"):
        picture_in_photo(replace(result, camera=None), small_pipeline.renderer, crop)


def test_the_picture_shows_the_exported_eye(result: AvatarResult, small_pipeline: FitDiffPipeline) -> None:
    """Blue irises on the pictures of a blue-eyed avatar, and nothing else that changes."""
    faces = [
        portrait(replace(result, avatar=replace(result.avatar, iris=iris)), small_pipeline.renderer).astype(int)
        for iris in (Iris((0.35, 0.5, 0.7)), Iris((0.4, 0.25, 0.12)))
    ]
    rows, columns = np.nonzero((faces[0] - faces[1])[..., 2] > 25)
    assert len(rows) > 20 and np.ptp(rows) < 20
    middle = TURNTABLE_SIZE[1] / 2
    assert (columns < middle).sum() > 5 and (columns > middle).sum() > 5
    assert np.abs(faces[0] - faces[1]).max(-1).astype(bool).mean() < 0.02


def test_the_corneas_mirror_the_light(result: AvatarResult, small_pipeline: FitDiffPipeline) -> None:
    """A highlight brighter than the eye white beside it, in both dark eyes."""
    face = portrait(
        replace(result, avatar=replace(result.avatar, iris=Iris((0.1, 0.06, 0.04)))), small_pipeline.renderer
    )
    dark = portrait(replace(result, avatar=replace(result.avatar, iris=Iris((0.4, 0.5, 0.6)))), small_pipeline.renderer)
    rows, columns = np.nonzero(np.abs(face.astype(int) - dark).max(-1) > 15)
    for side in (columns < TURNTABLE_SIZE[1] // 2, columns > TURNTABLE_SIZE[1] // 2):
        low, high = (rows[side].min(), columns[side].min()), (rows[side].max() + 1, columns[side].max() + 1)
        assert face[low[0] : high[0], low[1] : high[1]].max() > 140


def test_the_backdrop_is_neutral_and_lighter_behind_the_head() -> None:
    pixels = backdrop(120, 100).astype(int)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert pixels[50:60, 45:55].mean() > pixels[:5, :5].mean() + 30
