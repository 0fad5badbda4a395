"""Occluders for training: repeatable, exactly masked, all of them drawn; what is only lit or painted is not covered."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fitdiff.models.landmark_indices import LEFT_EYE, LIPS_OUTER, RIGHT_EYE
from fitdiff.models.morphable import load_morphable
from fitdiff.training.occluder_hard_negatives import paint_harmless, repaint_background
from fitdiff.training.occluder_painting import (
    CLEAR,
    FAMILIES,
    choose_families,
    is_grey,
    paint_occluders,
    painted,
    photographed,
)
from fitdiff.training.occluder_scene import Scene
from fitdiff.training.occluder_wear import face_cover

SIZE = 224


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    """A skin-coloured head with a little noise before a grey wall, and its landmarks."""
    model = load_morphable()[0]
    with torch.no_grad():
        points = model.landmarks(model(torch.zeros(1, 158), torch.zeros(1, 25)))[0, :, :2].numpy() * [1, -1]
    points = (points - (points.max(0) + points.min(0)) / 2) / np.ptp(points, axis=0).max() * 150 + SIZE / 2
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    hull = Scene(image, points).hull
    skin = np.array([0.8, 0.6, 0.5], np.float32) + np.random.default_rng(0).normal(0, 0.01, image.shape)
    return (image + hull[..., None] * (skin - image)).astype(np.float32), points.astype(np.float32)


def test_one_generator_one_picture(face: tuple[np.ndarray, np.ndarray]) -> None:
    before = face[0].copy()
    first, again, other = (paint_occluders(*face, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(face[0], before)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.abs(first[0] - other[0]).mean() > 0.01


def test_pictures_and_coverage_are_in_range(face: tuple[np.ndarray, np.ndarray]) -> None:
    for seed in range(25):
        picture, coverage = paint_occluders(*face, np.random.default_rng(seed))
        assert picture.shape == (SIZE, SIZE, 3) and coverage.shape == (SIZE, SIZE)
        assert picture.dtype == coverage.dtype == np.float32
        assert 0 <= picture.min() and picture.max() <= 1 and picture.std() > 0.01
        assert 0 <= coverage.min() and coverage.max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_without_effects_only_covered_pixels_change(face: tuple[np.ndarray, np.ndarray], family: str) -> None:
    hull, hidden = Scene(*face).hull, 0
    for seed in range(6):
        picture, coverage = painted(*face, np.random.default_rng(seed), (family,), effects=False)
        np.testing.assert_array_equal(picture[coverage == 0], face[0][coverage == 0])
        assert np.abs(picture - face[0]).max(-1)[coverage > 0.99].mean() > 0.05
        hidden += (coverage * hull).sum() > 0.004 * hull.sum()
    assert hidden >= 3, "hardly ever hides anything of the face"


def test_every_family_is_drawn_and_a_fifth_of_the_faces_is_clear() -> None:
    drawn = [choose_families(np.random.default_rng(seed)) for seed in range(600)]
    assert {name for names in drawn for name in names} == set(FAMILIES)
    assert sum(not names for names in drawn) / 600 == pytest.approx(CLEAR, abs=0.05)
    assert {len(names) for names in drawn} == {0, 1, 2, 3}
    order = list(FAMILIES)
    assert all([order.index(name) for name in names] == sorted(order.index(name) for name in names) for names in drawn)


def test_light_make_up_and_places_cover_nothing(face: tuple[np.ndarray, np.ndarray]) -> None:
    changed = 0
    for seed in range(20):
        rng, scene = np.random.default_rng(seed), Scene(*face)
        paint_harmless(scene, rng)
        inside = scene.hull > 0.99
        changed += np.abs(scene.picture - face[0])[inside].mean() > 0.005
        skin = scene.picture.copy()
        repaint_background(scene, rng)
        np.testing.assert_array_equal(scene.picture[scene.hull == 1], skin[scene.hull == 1])
        assert scene.coverage.max() == 0
        plain = Scene(*face, effects=False)
        paint_harmless(plain, rng)
        repaint_background(plain, rng)
        np.testing.assert_array_equal(plain.picture, face[0])
    assert changed >= 8


def test_a_clear_face_shows_its_eyes_and_mouth(face: tuple[np.ndarray, np.ndarray]) -> None:
    around = 0
    for seed in range(25):
        _, coverage = painted(*face, np.random.default_rng(seed), ())
        for part in (RIGHT_EYE, LEFT_EYE, LIPS_OUTER):
            x, y = face[1][list(part)].mean(0).astype(int)
            assert coverage[y, x] == 0
        around += coverage[: int(face[1][10, 1]) - 4].mean() > 0.1
    assert around >= 15, "most faces have hair round them"


def test_a_mask_covers_the_mouth_and_follows_the_face(face: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = face
    x, y = points[13].astype(int)
    covered = []
    for seed in range(12):
        here, moved = Scene(image, points, effects=False), Scene(image, points + [12, -9], effects=False)
        face_cover(here, np.random.default_rng(seed))
        face_cover(moved, np.random.default_rng(seed))
        covered.append(here.coverage[y, x] == 1)
        np.testing.assert_allclose(moved.coverage[10:-30, 30:-20], here.coverage[19:-21, 18:-32], atol=0.03)
    assert sum(covered) >= 7


def test_grey_photos_stay_grey(face: tuple[np.ndarray, np.ndarray]) -> None:
    grey = np.repeat(face[0].mean(-1, keepdims=True), 3, 2)
    assert is_grey(grey) and not is_grey(face[0])
    patches = np.random.default_rng(0).uniform(0.1, 0.9, (8, 8, 3)).astype(np.float32)
    vivid = cv2.resize(patches, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)

    def colourfulness(picture: np.ndarray) -> float:
        """How far the colours are from being a function of the brightness."""
        level = picture.mean(-1).ravel() - picture.mean()
        return max(float(np.std(c - np.polyval(np.polyfit(level, c, 3), level))) for c in picture.reshape(-1, 3).T)

    assert colourfulness(vivid) > 0.1
    for seed in range(12):
        assert colourfulness(photographed(vivid, np.random.default_rng(seed), monochrome=True)) < 0.06
    kept = [colourfulness(photographed(vivid, np.random.default_rng(seed))) > 0.06 for seed in range(40)]
    assert 14 <= sum(kept) <= 34
