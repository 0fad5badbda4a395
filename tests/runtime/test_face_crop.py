import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch import Tensor

from fitdiff.errors import MissingError, NoFaceError
from fitdiff.models.landmark_indices import CHIN, FACE_OVAL, LANDMARK_COUNT
from fitdiff.models.landmarks import FaceMesh, load_face_mesh
from fitdiff.runtime.face_crop import CROP_SIZE, FaceCrop, crop_face, framing_transform
from fitdiff.runtime.face_detector import FaceDetector
from fitdiff.runtime.face_masks import face_masks
from fitdiff.runtime.photo import Photo, load_photo

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
FACE = (178, 63, 90, 113)  # x, y, width, height in the example


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def network() -> FaceMesh:
    return load_face_mesh()[0]


@pytest.fixture(scope="module")
def photo() -> Photo:
    return load_photo(EXAMPLE)


@pytest.fixture(scope="module")
def crop(photo: Photo, detector: FaceDetector, network: FaceMesh) -> FaceCrop:
    return crop_face(photo, detector, network)


def _with_pixels(photo: Photo, pixels: np.ndarray) -> Photo:
    return dataclasses.replace(photo, pixels=np.ascontiguousarray(pixels))


def _photo_points(crop: FaceCrop) -> np.ndarray:
    return (crop.five_points - crop.crop_from_photo[:, 2]) / crop.crop_from_photo[0, 0]


def test_example_face(crop: FaceCrop, photo: Photo) -> None:
    assert np.abs(crop.box - FACE).max() < 3
    assert crop.image.shape == (CROP_SIZE, CROP_SIZE, 3)
    assert crop.image.dtype == np.float32
    assert 0 <= crop.image.min() < 0.1 and 0.9 < crop.image.max() <= 1
    assert crop.landmarks.shape == (LANDMARK_COUNT, 3)
    assert crop.photo_sha256 == photo.sha256
    assert (crop.face_index, len(crop.faces), crop.quarter_turns, crop.notes) == (0, 1, 0, ())
    assert crop.inside_photo.all()


def test_five_points_lie_as_in_a_face(crop: FaceCrop) -> None:
    right_eye, left_eye, nose, right_mouth, left_mouth = crop.five_points
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    detected = crop.faces[0].five_points @ crop.crop_from_photo[:, :2].T + crop.crop_from_photo[:, 2]
    apart = np.linalg.norm(left_eye - right_eye)
    assert np.linalg.norm(detected - crop.five_points, axis=1).max() < 0.2 * apart


def test_depth_points_away_from_the_camera(crop: FaceCrop) -> None:
    nose, oval = crop.landmarks[4, 2], crop.landmarks[list(FACE_OVAL), 2]
    assert nose < oval.min()
    assert 30 < oval.mean() - nose < 120  # px, of a face some 100 px wide


def test_the_frame_holds_the_whole_face(crop: FaceCrop) -> None:
    flat = crop.landmarks[:, :2]
    assert flat.min() > 0.1 * CROP_SIZE and flat.max() < 0.9 * CROP_SIZE
    assert crop.landmarks[CHIN, 1] < 0.85 * CROP_SIZE
    linear = crop.crop_from_photo[:, :2]
    assert linear[0, 0] == linear[1, 1] and linear[0, 1] == linear[1, 0] == 0


def test_the_image_is_where_the_transform_says(crop: FaceCrop) -> None:
    half = crop.crop_from_photo.copy()
    half[:, 2] += half[:, :2] @ [0.5, 0.5] - 0.5
    expected = cv2.warpAffine(crop.photo, half, (CROP_SIZE,) * 2, flags=cv2.INTER_CUBIC) / 255.0
    assert np.abs(crop.image - expected).mean() < 2e-3


def test_the_same_square_at_other_resolutions(crop: FaceCrop) -> None:
    assert np.array_equal(crop.image_of(CROP_SIZE), crop.image)
    double = crop.image_of(2 * CROP_SIZE)
    halved = double.reshape(CROP_SIZE, 2, CROP_SIZE, 2, 3).mean((1, 3))
    assert np.abs(halved - crop.image).mean() < 0.01  # upright, not mirrored, not shifted
    assert np.abs(np.roll(halved, 2, 1) - crop.image).mean() > 0.02


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_resolution_of_the_photo_matters_little(
    crop: FaceCrop, photo: Photo, detector: FaceDetector, network: FaceMesh, scale: float
) -> None:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(photo.pixels, None, fx=scale, fy=scale, interpolation=method)
    other = crop_face(_with_pixels(photo, resized), detector, network)
    apart = np.linalg.norm(crop.five_points[1] - crop.five_points[0]) / crop.crop_from_photo[0, 0]
    distance = np.linalg.norm(_photo_points(other) / scale - _photo_points(crop), axis=1)
    print(f"largest {distance.max() / apart:.3f} of the eyes' distance")
    assert distance.max() < 0.04 * apart


def test_mirrored_photo_exchanges_left_and_right(
    crop: FaceCrop, photo: Photo, detector: FaceDetector, network: FaceMesh
) -> None:
    mirrored = crop_face(_with_pixels(photo, photo.pixels[:, ::-1]), detector, network)
    expected = _photo_points(crop)[[1, 0, 2, 4, 3]] * [-1, 1] + [photo.pixels.shape[1], 0]
    apart = np.linalg.norm(expected[1] - expected[0])
    assert np.linalg.norm(_photo_points(mirrored) - expected, axis=1).max() < 0.1 * apart


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_photos_on_their_side_or_head(
    crop: FaceCrop, photo: Photo, detector: FaceDetector, network: FaceMesh, turns: int
) -> None:
    lying = _with_pixels(photo, np.rot90(photo.pixels, turns))
    found = crop_face(lying, detector, network)
    assert (found.quarter_turns + turns) % 4 == 0
    assert (found.photo == photo.pixels).all()
    assert np.abs(found.five_points - crop.five_points).max() < 1
    assert "turned by" in found.notes[-1]


def test_rolled_head(photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    centre = (FACE[0] + FACE[2] / 2, FACE[1] + FACE[3] / 2)
    rolled = cv2.warpAffine(
        photo.pixels, cv2.getRotationMatrix2D(centre, 30, 1), (512, 512), borderMode=cv2.BORDER_REFLECT
    )
    x, y = np.diff(crop_face(_with_pixels(photo, rolled), detector, network).five_points[:2], axis=0)[0]
    assert np.degrees(np.arctan2(-y, x)) == pytest.approx(30, abs=6)  # OpenCV's angle is anticlockwise


def test_face_that_touches_the_frame(photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    tight = photo.pixels[66:178, 178:266]
    for enlarged in (tight, cv2.resize(tight, None, fx=9, fy=9, interpolation=cv2.INTER_CUBIC)):
        found = crop_face(_with_pixels(photo, enlarged), detector, network)
        inside = found.inside_photo
        assert 0.2 < inside.mean() < 0.7
        assert inside[CROP_SIZE // 2, CROP_SIZE // 2]
        assert not inside[0].any() and not inside[:, -1].any()


def _two_faces(photo: Photo) -> Photo:
    small = cv2.resize(photo.pixels, (330, 330), interpolation=cv2.INTER_AREA)
    return _with_pixels(photo, np.hstack([np.pad(small, ((0, 182), (0, 0), (0, 0))), photo.pixels]))


def test_several_faces(photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    both = _two_faces(photo)
    largest = crop_face(both, detector, network)
    assert largest.face_index == 0 and largest.box[0] > 330
    assert "2 faces in the photo" in largest.notes[0]
    smaller = crop_face(both, detector, network, face=1)
    assert smaller.face_index == 1 and smaller.box[0] < 330
    assert smaller.faces[0].area > smaller.faces[1].area
    assert smaller.notes == ()


@pytest.mark.parametrize("face", [2, -1])
def test_a_face_that_is_not_there(photo: Photo, detector: FaceDetector, network: FaceMesh, face: int) -> None:
    both = _two_faces(photo)
    boxes = [str(found) for found in detector.detect(both.pixels)]
    with pytest.raises(NoFaceError) as caught:
        crop_face(both, detector, network, face=face)
    message = str(caught.value)
    assert message.startswith(f"--face: got {face}; expected 2 faces in the photo: 0: {boxes[0]}, 1: {boxes[1]}")
    assert caught.value.exit_code == 4


def test_no_face(photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    ramp = np.tile(np.linspace(0, 255, 300).astype(np.uint8)[:, None, None], (1, 200, 3))
    with pytest.raises(NoFaceError, match="no face that the detector finds.*use another photo"):
        crop_face(_with_pixels(photo, ramp), detector, network)


def test_landmark_network_has_a_veto(photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    def blind(x: Tensor) -> tuple[Tensor, Tensor]:
        points, logit = network(x)
        return points, logit - 1000

    with pytest.raises(NoFaceError, match="landmark network sees no face"):
        crop_face(photo, detector, blind)


def test_small_face_is_noted(photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    small = cv2.resize(photo.pixels, (150, 150), interpolation=cv2.INTER_AREA)
    assert "the face is only" in crop_face(_with_pixels(photo, small), detector, network).notes[0]


def test_small_face_in_a_large_photo(photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    wide = np.full((2000, 3000, 3), 90, np.uint8)
    wide[700:1212, 1600:2112] = photo.pixels
    found = crop_face(_with_pixels(photo, wide), detector, network)
    assert np.abs(found.box - [1600 + FACE[0], 700 + FACE[1], *FACE[2:]]).max() < 25
    assert found.photo.shape == wide.shape  # the crop is cut from full resolution
    assert found.crop_from_photo[0, 0] > 1


def test_shrinking_averages_light_not_code_values(
    crop: FaceCrop, photo: Photo, detector: FaceDetector, network: FaceMesh
) -> None:
    """A board of black and white pixels has half the light of white: sRGB 188 of 255."""
    wide = cv2.resize(photo.pixels, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    left, top = (-5 * crop.crop_from_photo[:, 2] / crop.crop_from_photo[0, 0]).astype(int)
    board = (np.indices((240, 240)).sum(0) % 2 * 255).astype(np.uint8)
    wide[top - 60 : top + 180, left - 60 : left + 180] = board[..., None]
    found = crop_face(_with_pixels(photo, wide), detector, network)
    assert found.crop_from_photo[0, 0] < 0.4
    assert np.abs(found.image[2:30, 2:30] - 188 / 255).max() < 0.05


def test_framing_transform() -> None:
    landmarks = np.array([[100.2, 50.1], [180.4, 150.3]])
    transform = framing_transform(landmarks, 300)
    assert transform[0, 0] == pytest.approx(2)  # a square of 150 px for an extent of 100.2
    middle = landmarks.mean(0) @ transform[:, :2].T + transform[:, 2]
    assert np.abs(middle - 150).max() <= 2  # whole photo pixels
    corner = -transform[:, 2] / transform[0, 0]
    assert np.allclose(corner, corner.round())


def test_masks_of_the_example(crop: FaceCrop) -> None:
    masks = face_masks(crop.landmarks, CROP_SIZE)
    assert 0.2 < masks.skin_hull.mean() < 0.5
    assert not (masks.eyes & ~masks.skin_hull).any() and masks.eyes.sum() > 100
    teeth = crop.image[masks.inner_mouth].mean(0)
    assert teeth.min() > 0.5  # a smile


def test_same_photo_same_crop(crop: FaceCrop, photo: Photo, detector: FaceDetector, network: FaceMesh) -> None:
    again = crop_face(photo, detector, network)
    assert (again.image == crop.image).all() and (again.landmarks == crop.landmarks).all()


def test_absent_detector(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        FaceDetector(tmp_path / "detector")
    assert caught.value.exit_code == 5
