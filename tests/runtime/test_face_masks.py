import numpy as np

from fitdiff.models.landmark_indices import (
    FACE_OVAL,
    LANDMARK_COUNT,
    LEFT_BROW,
    LEFT_EYE,
    LIPS_INNER,
    RIGHT_BROW,
    RIGHT_EYE,
)
from fitdiff.runtime.face_masks import face_masks


def _ring(centre: tuple[float, float], radius: tuple[float, float], count: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([centre[0] + radius[0] * np.cos(angle), centre[1] + radius[1] * np.sin(angle)], 1)


def _face() -> np.ndarray:
    points = np.tile([[50.0, 50.0]], (LANDMARK_COUNT, 1))
    points[list(FACE_OVAL)] = _ring((50, 50), (30, 40), len(FACE_OVAL))
    points[list(RIGHT_EYE)] = _ring((38, 40), (6, 3), len(RIGHT_EYE))
    points[list(LEFT_EYE)] = _ring((62, 40), (6, 3), len(LEFT_EYE))
    points[list(LIPS_INNER)] = _ring((50, 70), (9, 4), len(LIPS_INNER))
    return points


def test_areas_and_places() -> None:
    masks = face_masks(_face(), 100)
    assert masks.skin_hull.shape == (100, 100)
    assert abs(masks.skin_hull.sum() / (np.pi * 30 * 40) - 1) < 0.02
    assert abs(masks.eyes.sum() / (2 * np.pi * 6 * 3) - 1) < 0.08
    assert abs(masks.inner_mouth.sum() / (np.pi * 9 * 4) - 1) < 0.08
    assert masks.eyes[40, 38] and masks.eyes[40, 62] and not masks.eyes[40, 50]
    assert masks.inner_mouth[70, 50]
    assert not (masks.eyes & ~masks.skin_hull).any()
    assert not (masks.eyes & masks.inner_mouth).any()


def test_pixel_centres_decide() -> None:
    points = _face()
    points[:] = [10.0, 10.0]
    corners = np.array([[10.0, 10.0], [20.0, 10.0], [20.0, 30.0], [10.0, 30.0]])
    points[list(FACE_OVAL[:4])] = corners
    mask = face_masks(points, 40).skin_hull
    expected = np.zeros((40, 40), bool)
    expected[10:30, 10:20] = True
    assert (mask == expected).all()


def test_landmarks_outside_the_crop() -> None:
    masks = face_masks(_face() - [40, 0], 100)
    assert masks.skin_hull[50, 0] and not masks.skin_hull[50, 60]
    assert not face_masks(_face() + 500, 100).skin_hull.any()


def test_the_forehead_is_above_the_brows_and_reaches_beyond_the_hull() -> None:
    points = _face()
    points[list(FACE_OVAL)] = np.roll(_ring((50, 50), (30, 40), len(FACE_OVAL)), -27, 0)  # from the top clockwise
    for brow, outer, inner in ((RIGHT_BROW, 28.0, 46.0), (LEFT_BROW, 72.0, 54.0)):
        upper, height = np.linspace(outer, inner, 5), 30.0 if brow is RIGHT_BROW else 26.0  # the left one is raised
        points[list(brow[:5])] = np.stack([upper, np.full(5, height)], 1)
        points[list(brow[5:])] = np.stack([upper[::-1], np.full(5, height + 3)], 1)
    masks = face_masks(points, 100)
    assert masks.forehead[20, 50] and masks.forehead[9, 50] and not masks.skin_hull[9, 50]
    assert masks.forehead[28, 36] and not masks.forehead[28, 64]
    assert not masks.forehead[34:].any()
