"""What is covered is the same of every face, and what lies under it changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fitdiff.evaluation.occluders import glasses
from fitdiff.models.landmark_indices import CHIN, LEFT_BROW, LEFT_EYE, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from fitdiff.models.landmarks import load_face_mesh
from fitdiff.models.linear_prior import pooled_inputs
from fitdiff.models.recogniser import Recogniser, load_recogniser
from fitdiff.runtime.covered_views import COVERS, covered_features, covers
from fitdiff.runtime.face_chip import chip_transform
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.face_detector import FaceDetector
from fitdiff.runtime.identity_views import IdentityViews
from fitdiff.runtime.photo import load_photo

EYES, ABOVE, BOTH = 1, 2, 3


@pytest.fixture(scope="module")
def crop(astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), FaceDetector(), load_face_mesh()[0])


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return load_recogniser()[0]


def at(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    columns, rows = points[..., :2].astype(int).T
    return mask[rows, columns]


def seen(image: np.ndarray, crop: FaceCrop, recogniser: Recogniser) -> torch.Tensor:
    """(576,) of one picture with the landmarks of `crop`."""
    picture, transform = tensors(image, crop, recogniser)
    return pooled_inputs(covered_features(picture, [crop.landmarks], transform, recogniser), 1)[0]


def tensors(image: np.ndarray, crop: FaceCrop, recogniser: Recogniser) -> tuple[torch.Tensor, torch.Tensor]:
    transform = torch.from_numpy(chip_transform(crop.five_points, recogniser.chip_template)).float()[None]
    return torch.from_numpy(image).permute(2, 0, 1)[None].float(), transform


@pytest.mark.parametrize("roll", [0.0, 0.5])  # radians
def test_the_band_follows_the_eyes_and_leaves_the_mouth(crop: FaceCrop, roll: float) -> None:
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    points = (crop.landmarks[:, :2] - 112) @ turn.T + 112
    masks = covers(points, 224)
    assert masks.shape == (COVERS, 224, 224) and masks.dtype == np.float32
    assert not masks[0].any() and (masks[BOTH] >= np.maximum(masks[EYES], masks[ABOVE]) - 1e-6).all()
    eyes, brows = points[list(RIGHT_EYE + LEFT_EYE)], points[list(RIGHT_BROW + LEFT_BROW)]
    below = points[[*LIPS_OUTER, CHIN, 2]]  # and under the nose
    assert (at(masks[EYES], eyes) > 0.99).all() and (at(masks[ABOVE], brows) > 0.5).all()
    assert (at(masks[ABOVE], eyes) < 0.01).all()
    assert not at(masks[BOTH], below).any()
    assert masks[ABOVE][0, 112] > 0.99 or roll  # all that is above, hair and background too
    assert masks[EYES][0].max() == 0


def test_what_is_under_a_cover_changes_little(crop: FaceCrop, recogniser: Recogniser) -> None:
    """Glasses move the features of the whole face several times as far as those of the covered ones."""
    worn = glasses(crop.image.astype(np.float32), crop.landmarks, np.random.default_rng(0))[0]
    covered = (seen(worn, crop, recogniser) - seen(crop.image, crop, recogniser)).norm()
    plain = [pooled_inputs(IdentityViews(*tensors(image, crop, recogniser), recogniser).steady, 1)[0]
             for image in (worn, crop.image)]  # fmt: skip
    assert float(covered) < 0.5 * float((plain[0] - plain[1]).norm())


def test_a_cover_has_the_colour_of_the_skin_beside_it(crop: FaceCrop, recogniser: Recogniser) -> None:
    """A red spot under the band of the eyes is in the pictures without it, and in none of those with it."""
    image = np.full_like(crop.image, 0.5, np.float32)
    x, y = crop.landmarks[list(RIGHT_EYE), :2].mean(0).astype(int)
    image[y - 4 : y + 5, x - 4 : x + 5] = [1, 0, 0]
    shown: list[torch.Tensor] = []
    hook = recogniser.register_forward_pre_hook(lambda _, chips: shown.append(chips[0]))
    seen(image, crop, recogniser)
    hook.remove()
    reddest = [float((chips[:, 0] - chips[:, 1]).max()) for chips in shown]
    views = len(shown) // COVERS
    assert len(shown) == COVERS * views and views > 1
    covered = [max(reddest[number * views : (number + 1) * views]) for number in range(COVERS)]
    assert min(covered[0], covered[ABOVE]) > 0.9 and max(covered[EYES], covered[BOTH]) < 0.01


def test_photos_of_a_batch_stay_apart(crop: FaceCrop, recogniser: Recogniser) -> None:
    picture, transform = tensors(crop.image, crop, recogniser)
    moved = crop.landmarks + [9.0, -4.0, 0.0]
    both = covered_features(
        torch.cat([picture, 0.5 * picture]), [crop.landmarks, moved], transform.expand(2, -1, -1), recogniser
    )
    alone = covered_features(0.5 * picture, [moved], transform, recogniser)
    torch.testing.assert_close(both.embedding[1:], alone.embedding, atol=1e-5, rtol=1e-4)


def test_a_face_that_is_nowhere_is_grey(crop: FaceCrop, recogniser: Recogniser) -> None:
    """Landmarks outside the picture: no skin to take the colour of, and still numbers."""
    picture, transform = tensors(crop.image, crop, recogniser)
    found = covered_features(picture, [crop.landmarks + [0.0, -400.0, 0.0]], transform, recogniser)
    assert found.embedding.isfinite().all()
