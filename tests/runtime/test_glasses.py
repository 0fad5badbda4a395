"""Frames of glasses: drawn ones are found, a bare face has none."""

import cv2
import numpy as np
import pytest

from fitdiff.models.landmark_indices import LEFT_EYE, RIGHT_EYE
from fitdiff.models.landmarks import load_face_mesh
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.face_detector import FaceDetector
from fitdiff.runtime.glasses import glasses_frames
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.skin_mask import skin_likelihood


@pytest.fixture(scope="module")
def face(astronaut):  # noqa: ANN001, ANN201
    return crop_face(load_photo(astronaut), FaceDetector(), load_face_mesh()[0])


def with_glasses(image: np.ndarray, landmarks: np.ndarray, bridge: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The picture with two round frames, joined by a bridge or not, and where they were drawn."""
    drawn = np.zeros(image.shape[:2], np.float32)
    centres = [landmarks[list(eye), :2].mean(0) for eye in (RIGHT_EYE, LEFT_EYE)]
    distance = np.linalg.norm(centres[1] - centres[0])
    for centre in centres:
        cv2.circle(drawn, (centre + [0, 0.06 * distance]).astype(int), int(0.36 * distance), 1.0, 2, cv2.LINE_AA)
    if bridge:
        inner = [(c + s * np.array([0.36, 0.0]) * distance).astype(int) for c, s in zip(centres, (1, -1), strict=True)]
        cv2.line(drawn, inner[0], inner[1], 1.0, 3, cv2.LINE_AA)
    return image * (1 - 0.85 * drawn[..., None]), drawn > 0.5


def test_a_bare_face_has_no_frames(face) -> None:  # noqa: ANN001
    assert glasses_frames(face.image, face.landmarks).max() == 0


def test_drawn_frames_are_found_and_the_cheeks_are_not(face) -> None:  # noqa: ANN001
    image, drawn = with_glasses(face.image, face.landmarks)
    frames = glasses_frames(image, face.landmarks)
    assert frames[drawn].mean() > 0.75
    for index in (205, 425, 152, 4):
        x, y = face.landmarks[index, :2].astype(int)
        assert frames[y, x] < 0.1
    assert skin_likelihood(image, face.landmarks)[drawn].mean() < 0.3


def test_circles_without_a_bridge_are_no_glasses(face) -> None:  # noqa: ANN001
    image, _ = with_glasses(face.image, face.landmarks, bridge=False)
    assert glasses_frames(image, face.landmarks).max() == 0
