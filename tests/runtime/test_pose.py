import cv2
import numpy as np
import pytest
import torch

from fitdiff.rendering.camera import camera_from_pose, project
from fitdiff.runtime.pose import Pose, solve_pose

SIZE, FOCAL = 224, 560.0
FACING = np.diag([1.0, -1.0, -1.0])  # camera axes from those of a head that looks into it
NOSE, LEFT_EAR, CHIN = 0, 1, 2


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """(80, 3) metres: the front of an ellipsoid; its nose tip, left ear and chin first."""
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(80, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:, 2] = np.abs(directions[:, 2])
    directions[:3] = [[0, 0, 1.3], [1, 0, 0], [0, -1, 0.4]]
    return directions * [0.075, 0.11, 0.09]


def _pose(yaw: float, pitch: float, roll: float) -> Pose:
    """Turn a head that looks into the camera: to its left, up, and clockwise in the image."""

    def about(axis: int, degrees: float) -> np.ndarray:
        return cv2.Rodrigues(np.eye(3)[axis] * np.radians(degrees))[0]

    rotation = FACING @ about(2, -roll) @ about(1, yaw) @ about(0, -pitch)
    return Pose(cv2.Rodrigues(rotation)[0].ravel(), np.array([0.01, -0.02, 0.55]), 0.0)


def _project(points: np.ndarray, pose: Pose) -> np.ndarray:
    camera = camera_from_pose(torch.from_numpy(pose.rvec)[None], torch.from_numpy(pose.tvec)[None], FOCAL, SIZE)
    return project(camera, torch.from_numpy(points)[None])[0, :, :2].numpy()


def _degrees_apart(a: Pose, b: Pose) -> float:
    cosine = (np.trace(a.rotation.T @ b.rotation) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@pytest.mark.parametrize("yaw", [-40, -15, 0, 15, 40])
@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 0), (-20, 30), (0, -45)])
def test_known_poses(head: np.ndarray, yaw: float, pitch: float, roll: float) -> None:
    truth = _pose(yaw, pitch, roll)
    found = solve_pose(head, _project(head, truth), FOCAL, SIZE)
    assert _degrees_apart(found, truth) < 1e-3
    assert np.allclose(found.tvec, truth.tvec, atol=1e-6)
    assert found.error < 1e-4
    assert found.yaw_pitch_roll == pytest.approx((yaw, pitch, roll), abs=1e-2)


def test_left_right_up_and_down(head: np.ndarray) -> None:
    frontal = _project(head, _pose(0, 0, 0))
    assert frontal[LEFT_EAR, 0] > frontal[NOSE, 0] + 10  # the character's left is on the image's right
    assert frontal[CHIN, 1] > frontal[NOSE, 1] + 10
    left = solve_pose(head, _project(head, _pose(30, 0, 0)), FOCAL, SIZE)
    assert _project(head, left)[NOSE, 0] > frontal[NOSE, 0] + 10
    up = solve_pose(head, _project(head, _pose(0, 20, 0)), FOCAL, SIZE)
    assert _project(head, up)[NOSE, 1] < frontal[NOSE, 1] - 5
    tilted = _project(head, solve_pose(head, _project(head, _pose(0, 0, 20)), FOCAL, SIZE))
    assert tilted[CHIN, 0] < tilted[NOSE, 0] - 5  # clockwise: the chin swings to the image's left


@pytest.mark.parametrize("yaw", [-40, 0, 40])
def test_noise_costs_little(head: np.ndarray, yaw: float) -> None:
    truth = _pose(yaw, 5, 5)
    noise = np.random.default_rng(0).normal(0, 1, (len(head), 2))
    found = solve_pose(head, _project(head, truth) + noise, FOCAL, SIZE)
    assert _degrees_apart(found, truth) < 2
    assert found.error == pytest.approx(np.sqrt(2), rel=0.15)


@pytest.mark.parametrize(
    "initial",
    [
        Pose(np.zeros(3), np.array([0.0, 0.0, 0.5]), 0.0),  # looks away
        Pose(np.array([0.0, np.pi, 0.0]), np.array([0.0, 0.0, 0.5]), 0.0),  # stands on its head
        Pose(np.array([np.pi, 0.0, 0.0]), np.array([0.0, 0.0, -0.5]), 0.0),  # behind the camera
        Pose(np.full(3, np.nan), np.full(3, np.nan), 0.0),
    ],
)
def test_bad_initial_poses_do_no_harm(head: np.ndarray, initial: Pose) -> None:
    truth = _pose(25, -10, 8)
    found = solve_pose(head, _project(head, truth), FOCAL, SIZE, initial=initial)
    assert _degrees_apart(found, truth) < 1e-3


def test_weights(head: np.ndarray) -> None:
    truth = _pose(10, 0, 0)
    image = _project(head, truth)
    image[10:20] += 60
    weights = np.ones(len(head))
    weights[10:20] = 0
    found = solve_pose(head, image, FOCAL, SIZE, weights)
    assert _degrees_apart(found, truth) < 1e-3
    assert found.error < 1e-4
    weights[10:20] = 1e-4
    assert _degrees_apart(solve_pose(head, image, FOCAL, SIZE, weights), truth) < 0.2
    assert _degrees_apart(solve_pose(head, image, FOCAL, SIZE), truth) > 1


def test_size_of_a_rectangle(head: np.ndarray) -> None:
    truth = _pose(10, 0, 0)
    shifted = _project(head, truth) + [100, -12]  # the middle of 200 rows and 424 columns
    found = solve_pose(head, shifted, FOCAL, (200, 424))
    assert np.allclose(found.tvec, truth.tvec, atol=1e-6)


def test_unusable_points_are_refused(head: np.ndarray) -> None:
    image = _project(head, _pose(0, 0, 0))
    with pytest.raises(ValueError, match="at least 4"):
        solve_pose(head[:3], image[:3], FOCAL, SIZE)
    with pytest.raises(ValueError, match="all finite"):
        solve_pose(head, np.where(image > 0, np.nan, image), FOCAL, SIZE)
    with pytest.raises(ValueError, match="expected"):
        solve_pose(head, image[:-1], FOCAL, SIZE)
    with pytest.raises(ValueError, match="none negative"):
        solve_pose(head, image, FOCAL, SIZE, np.full(len(head), -1.0))
