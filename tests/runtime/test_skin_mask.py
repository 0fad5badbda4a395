"""Which pixels are bare skin, on a photograph: her own, and with things painted over her face."""

import cv2
import numpy as np
import pytest
import torch

from fitdiff.evaluation.occluders import OCCLUDERS
from fitdiff.models.landmarks import load_face_mesh
from fitdiff.models.occlusion import load_occlusion, occlusion_guides
from fitdiff.models.perceptual import load_perceptual
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.face_detector import FaceDetector
from fitdiff.runtime.face_masks import face_masks
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.skin_mask import bare_skin


@pytest.fixture(scope="module")
def face(astronaut):  # noqa: ANN001, ANN201
    return crop_face(load_photo(astronaut), FaceDetector(), load_face_mesh()[0])


def skin_of(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(224, 224), by the embedded network."""
    picture = torch.from_numpy(image).float().permute(2, 0, 1)[None]
    guides = torch.from_numpy(occlusion_guides(landmarks, 224))[None]
    with torch.no_grad():
        features = load_perceptual()[0](picture)
        return bare_skin(load_occlusion()[0].hidden(picture, features, guides)[0, 0].numpy())


def test_cheeks_brows_and_lips_stay_the_fringe_goes(face) -> None:  # noqa: ANN001
    skin = skin_of(face.image, face.landmarks)
    at = lambda i: skin[int(face.landmarks[i, 1]), int(face.landmarks[i, 0])]  # noqa: E731
    assert min(at(i) for i in (50, 280, 13, 0, 105, 295, 4)) > 0.8
    top = face.landmarks[[109, 10, 338], :2].astype(int)
    assert max(skin[y, x] for x, y in top) < 0.3  # the astronaut's hair lies over her forehead


@pytest.mark.parametrize("name", OCCLUDERS)
@pytest.mark.parametrize("is_grey", [False, True])
def test_what_is_painted_over_the_face_goes_the_rest_stays(face, name: str, is_grey: bool) -> None:  # noqa: ANN001
    image, coverage = OCCLUDERS[name](face.image, face.landmarks, np.random.default_rng(3))
    before = face.image
    if is_grey:
        image, before = (np.repeat(x.mean(-1, keepdims=True), 3, -1) for x in (image, before))
    hull = face_masks(face.landmarks, 224).skin_hull
    skin, own = skin_of(image, face.landmarks), skin_of(before, face.landmarks)
    hidden = (coverage > 0.7) & hull
    away = (cv2.dilate(coverage, np.ones((13, 13))) == 0) & hull & (own > 0.9)
    print(f"{name}: {skin[hidden].mean():.3f} of the hidden taken for skin, {skin[away].mean():.3f} of the bare")
    assert skin[hidden].mean() < (0.2 if name == "glasses" else 0.1)
    assert skin[away].mean() > 0.95


def test_light_from_one_side_is_no_reason(face) -> None:  # noqa: ANN001
    ramp = np.linspace(1.0, 0.55, 224, dtype=np.float32)[None, :, None]
    hull = cv2.fillConvexPoly(
        np.zeros((224, 224), np.uint8), cv2.convexHull(face.landmarks[[117, 346, 205, 425, 5], :2].astype(np.int32)), 1
    )
    assert skin_of(face.image * ramp, face.landmarks)[hull > 0].mean() > 0.97


def test_a_margin_is_taken_off_around_what_hides() -> None:
    hidden = np.zeros((40, 40), np.float32)
    hidden[10:20, 10:20] = 1.0
    skin = bare_skin(hidden)
    assert skin[15, 15] < 0.01 and skin[15, 20] < 0.4 and skin[15, 24] > 0.99  # .69 without a margin
    assert bare_skin(np.full((8, 8), 0.1)).min() == 1.0


def test_between_strands_of_a_fringe_is_no_skin_and_hair_beside_a_forehead_is_no_fringe() -> None:
    forehead = np.zeros((120, 120), bool)
    forehead[20:60, 20:100] = True
    strands = np.zeros((120, 120), np.float32)
    strands[:20] = 1.0
    for left in (20, 34, 48):  # strands of 8 px with 6 px between them, on the picture's left
        strands[20:50, left : left + 8] = 0.4
    strands[20:50, 62:66] = 0.25  # and one that the network hardly sees
    plain, found = bare_skin(strands), bare_skin(strands, forehead)
    assert plain[40, 45] > 0.9 and found[40, 45] < 0.2 and found[40, 59] < 0.3
    assert plain[40, 64] > 0.8 and found[40, 64] < 0.4
    assert found[40, 90] > 0.95 and found[57, 45] > 0.9 * plain[57, 45]  # beside and below them
    assert np.array_equal(found[75:], plain[75:])
    sides = np.zeros((120, 120), np.float32)
    sides[:, :24] = 1.0
    assert np.array_equal(bare_skin(sides, forehead), bare_skin(sides))
