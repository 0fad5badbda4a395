"""Which pixels are bare skin, on a drawn face."""

import cv2
import numpy as np
import pytest

from fitdiff.models.landmarks import load_face_mesh
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.face_detector import FaceDetector
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.skin_mask import skin_likelihood


@pytest.fixture(scope="module")
def face(astronaut):  # noqa: ANN001, ANN201
    return crop_face(load_photo(astronaut), FaceDetector(), load_face_mesh()[0])


def test_cheeks_and_lips_stay_the_fringe_goes(face) -> None:  # noqa: ANN001
    likelihood = skin_likelihood(face.image, face.landmarks)
    at = lambda i: likelihood[int(face.landmarks[i, 1]), int(face.landmarks[i, 0])]  # noqa: E731
    assert min(at(i) for i in (50, 280, 13, 0, 105, 334)) > 0.8
    top = face.landmarks[[109, 10, 338], :2].astype(int)
    assert max(likelihood[y + 4, x] for x, y in top) < 0.3  # the astronaut's hair lies over her forehead


def test_a_hand_over_the_cheek_is_left_out(face) -> None:  # noqa: ANN001
    image = face.image.copy()
    x, y = face.landmarks[280, :2].astype(int)
    cv2.circle(image, (int(x) + 14, int(y) + 14), 10, (0.1, 0.35, 0.15), -1)
    likelihood = skin_likelihood(image, face.landmarks)
    assert likelihood[y + 14, x + 14] < 0.1
    right_x, right_y = face.landmarks[50, :2].astype(int)
    assert likelihood[right_y, right_x] > 0.9


def test_light_from_one_side_is_no_reason(face) -> None:  # noqa: ANN001
    ramp = np.linspace(1.0, 0.55, 224, dtype=np.float32)[None, :, None]
    hull = cv2.fillConvexPoly(
        np.zeros((224, 224), np.uint8), cv2.convexHull(face.landmarks[[117, 346, 205, 425, 5], :2].astype(np.int32)), 1
    )
    likelihood = skin_likelihood(face.image * ramp, face.landmarks)
    assert likelihood[hull > 0].mean() > 0.93
