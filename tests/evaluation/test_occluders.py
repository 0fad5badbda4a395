"""Occluders: they cover what they should, follow the head, and leave the rest of the photo alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fitdiff.evaluation.occluders import OCCLUDERS, toned_like
from fitdiff.models.checkpoint import assets_dir
from fitdiff.models.landmark_indices import CHIN, LEFT_EYE, NOSE_TIP, RIGHT_EYE
from fitdiff.models.landmarks import load_face_mesh
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.face_detector import FaceDetector
from fitdiff.runtime.photo import is_monochrome, load_photo


@pytest.fixture(scope="module")
def crop(astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), FaceDetector(), load_face_mesh(assets_dir() / "landmarks")[0])


def at(mask: np.ndarray, point: np.ndarray) -> float:
    return float(mask[int(point[1]), int(point[0])])


@pytest.mark.parametrize("name", OCCLUDERS)
def test_only_the_masked_pixels_change(crop: FaceCrop, name: str) -> None:
    before = crop.image.copy()
    image, mask = OCCLUDERS[name](crop.image, crop.landmarks, np.random.default_rng(0))
    assert (crop.image == before).all()
    assert image.shape == before.shape and image.dtype == mask.dtype == np.float32
    assert mask.shape == before.shape[:2] and 0 <= mask.min() and mask.max() <= 1
    assert image.min() >= 0 and image.max() <= 1
    np.testing.assert_array_equal(image[mask == 0], before[mask == 0])
    assert np.abs(image - before)[mask > 0.9].mean() > 0.1
    assert ((mask > 0.05) & (mask < 0.95)).sum() > 50, "no soft edges"
    again = OCCLUDERS[name](crop.image, crop.landmarks, np.random.default_rng(0))
    np.testing.assert_array_equal(again[0], image)


def test_glasses_go_round_the_eyes(crop: FaceCrop) -> None:
    image, mask = OCCLUDERS["glasses"](crop.image, crop.landmarks, np.random.default_rng(0))
    points = crop.landmarks[:, :2]
    for eye in (RIGHT_EYE, LEFT_EYE):
        middle = points[list(eye)].mean(0)
        assert at(mask, middle) == 0, "the lens is clear"
        column = mask[:, int(middle[0])]
        assert column[: int(middle[1])].max() > 0.9 and column[int(middle[1]) :].max() > 0.9
    between = (points[list(RIGHT_EYE)].mean(0) + points[list(LEFT_EYE)].mean(0)) / 2
    assert mask[int(between[1]) - 25 : int(between[1]) + 5, int(between[0])].max() > 0.9, "no bridge"
    assert at(mask, points[CHIN] - [0, 3]) == 0
    assert image[mask > 0.99].mean() < 0.25


def test_a_fringe_hangs_over_the_forehead(crop: FaceCrop) -> None:
    _, mask = OCCLUDERS["fringe"](crop.image, crop.landmarks, np.random.default_rng(1))
    points = crop.landmarks[:, :2]
    forehead = (points[10] + points[9]) / 2
    x, y = forehead.astype(int)
    assert mask[y - 5 : y + 5, x - 20 : x + 20].mean() > 0.7
    assert at(mask, points[NOSE_TIP]) == 0
    assert max(at(mask, points[list(eye)].mean(0)) for eye in (RIGHT_EYE, LEFT_EYE)) == 0


def test_a_hand_covers_one_cheek_and_its_corner_of_the_mouth(crop: FaceCrop) -> None:
    points, sides = crop.landmarks[:, :2], set()
    for seed in range(6):
        _, mask = OCCLUDERS["hand"](crop.image, crop.landmarks, np.random.default_rng(seed))
        middle = int(points[NOSE_TIP, 0])
        halves = mask[:, :middle].sum(), mask[:, middle:].sum()
        side = int(halves[1] > halves[0])
        sides.add(side)
        assert min(halves) < 0.12 * max(halves)
        x, y = points[(61, 291)[side]].astype(int)
        assert mask[y - 6 : y + 6, x - 6 : x + 6].max() > 0.9
        assert at(mask, points[(61, 291)[1 - side]]) == 0
    assert sides == {0, 1}


def test_occluders_follow_size_and_place_of_the_face() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(80, 150, (468, 2))
    points[list(RIGHT_EYE)], points[list(LEFT_EYE)] = [95, 100], [135, 100]
    points[list(RIGHT_EYE)[0], 0], points[list(LEFT_EYE)[0], 0] = 83, 147
    photo = np.full((240, 240, 3), 0.5, np.float32)
    small = OCCLUDERS["glasses"](photo, points, np.random.default_rng(0))[1]
    moved = OCCLUDERS["glasses"](photo, points + [20, 8], np.random.default_rng(0))[1]
    np.testing.assert_allclose(moved[8:, 20:], small[:-8, :-20], atol=0.02)
    large = OCCLUDERS["glasses"](np.full((480, 480, 3), 0.5, np.float32), points * 2, np.random.default_rng(0))[1]
    assert large.sum() == pytest.approx(4 * small.sum(), rel=0.05)


def test_a_face_at_the_edge_of_the_photo(crop: FaceCrop) -> None:
    window = crop.image[60:170, 70:160]
    for draw in OCCLUDERS.values():
        image, mask = draw(window, crop.landmarks[:, :2] - [70, 60], np.random.default_rng(0))
        assert image.shape == window.shape and mask.max() > 0.5


def test_an_occluder_takes_the_tone_of_a_monochrome_photo(crop: FaceCrop) -> None:
    grey = crop.image @ np.array([0.299, 0.587, 0.114], np.float32)
    for tint in ([1.0, 1.0, 1.0], [1.1, 1.0, 0.8]):
        photo = (grey[..., None] * 0.9 * np.array(tint, np.float32)).astype(np.float32)
        painted, mask = OCCLUDERS["hand"](photo, crop.landmarks, np.random.default_rng(0))
        assert not is_monochrome((painted * 255).astype(np.uint8))
        toned = np.where(mask[..., None] > 0, toned_like(painted, photo), photo)
        assert is_monochrome((toned * 255).astype(np.uint8))
        assert np.abs(toned - photo)[mask > 0.9].mean() > 0.05
