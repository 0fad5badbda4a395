"""Poses that are followed while points move, against those that are looked for from scratch."""

import numpy as np
import pytest
import torch

from fitdiff.rendering.camera import Camera, project
from fitdiff.runtime.pose import Pose, solve_pose
from fitdiff.runtime.pose_tracking import PoseTracker, camera_from_poses

SIZE, FOCAL = 224, 560.0


@pytest.fixture(scope="module")
def head() -> torch.Tensor:
    """(3, 90, 3) metres: three different fronts of ellipsoids."""
    points = torch.randn(3, 90, 3, generator=torch.Generator().manual_seed(5))
    points = points / points.norm(dim=2, keepdim=True)
    points[..., 2] = points[..., 2].abs()
    return points * torch.tensor([[[0.075, 0.11, 0.09]], [[0.08, 0.1, 0.1]], [[0.07, 0.12, 0.08]]])


@pytest.fixture(scope="module")
def image(head: torch.Tensor) -> torch.Tensor:
    """(3, 90, 2) px: their projections in three poses, two pixels of noise on them."""
    turns = ([3.0, 0.1, 0.2], [3.1, -0.3, 0.1], [2.9, 0.4, -0.3])
    poses = [Pose(np.array(turn), np.array([0.01 * i, -0.02, 0.55 + 0.05 * i]), 0.0) for i, turn in enumerate(turns)]
    points = project(camera_from_poses(poses, FOCAL, SIZE), head)[..., :2]
    return points + 2 * torch.randn(points.shape, generator=torch.Generator().manual_seed(6))


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    found = torch.rand(3, 90, generator=torch.Generator().manual_seed(7))
    found[:, :5] = 0
    return found


def distance(camera: Camera, pose: Pose) -> float:
    """Between a camera and a pose: the largest difference of rotation and of translation in metres."""
    turned = np.abs(camera.rotation[0].numpy() - pose.rotation).max()
    return float(max(turned, np.abs(camera.translation[0].numpy() - pose.tvec).max()))


def row(camera: Camera, index: int) -> Camera:
    own = slice(index, index + 1)
    parts = (camera.focal[own], camera.principal[own], camera.rotation[own], camera.translation[own])
    return Camera(*parts, camera.height, camera.width)


def test_followed_poses_are_those_that_are_found_from_scratch(
    head: torch.Tensor, image: torch.Tensor, weights: torch.Tensor
) -> None:
    """While the shapes grow by a tenth, in steps as large as those of guidance's first, and larger."""
    tracker = PoseTracker(image, weights, FOCAL, SIZE)
    worst = 0.0
    for growth in (1.0, 1.01, 1.03, 1.06, 1.1):
        points = head * torch.tensor([growth, 1.0, 2 - growth])
        camera = tracker.camera(points)
        for index in range(3):
            expected = solve_pose(points[index].numpy(), image[index].numpy(), FOCAL, SIZE, weights[index].numpy())
            worst = max(worst, distance(row(camera, index), expected))
    print(f"largest difference {worst:.1e}")
    assert worst < 2e-6  # what the solver itself leaves


def test_a_batch_changes_nothing(head: torch.Tensor, image: torch.Tensor, weights: torch.Tensor) -> None:
    together = PoseTracker(image, weights, FOCAL, SIZE)
    together.camera(head)
    camera = together.camera(head)
    for index in range(3):
        own = slice(index, index + 1)
        tracker = PoseTracker(image[own], weights[own], FOCAL, SIZE)
        tracker.camera(head[own])
        alone = tracker.camera(head[own])
        assert torch.allclose(camera.rotation[own], alone.rotation, atol=1e-7)
        assert torch.allclose(camera.translation[own], alone.translation, atol=1e-7)


def test_solving_takes_the_last_pose_up_and_hands_its_own_on(
    head: torch.Tensor, image: torch.Tensor, weights: torch.Tensor
) -> None:
    tracker = PoseTracker(image, weights, FOCAL, SIZE)
    tracker.camera(head * 1.05)
    poses = tracker.solved(head)
    assert all(1.0 < pose.error < 4.0 for pose in poses)
    camera = tracker.camera(head)
    assert max(distance(row(camera, index), pose) for index, pose in enumerate(poses)) < 2e-6


def test_one_broken_head_keeps_its_pose_and_leaves_the_others_alone(
    head: torch.Tensor, image: torch.Tensor, weights: torch.Tensor
) -> None:
    tracker, other = PoseTracker(image, weights, FOCAL, SIZE), PoseTracker(image, weights, FOCAL, SIZE)
    before = tracker.camera(head)
    other.camera(head)
    moved = head * torch.tensor([1.05, 1.0, 0.95])
    broken = moved.clone()
    broken[1] = torch.nan
    found, expected = tracker.camera(broken), other.camera(moved)
    assert torch.equal(found.rotation[1], before.rotation[1]) and torch.isfinite(found.rotation).all()
    assert torch.allclose(found.rotation[::2], expected.rotation[::2], atol=1e-7)
    assert not torch.allclose(found.rotation[::2], before.rotation[::2], atol=1e-4)
