"""Cameras: axes, pixel convention, poses as OpenCV has them."""

import math

import cv2
import numpy as np
import pytest
import torch

from fitdiff.rendering.camera import camera_from_pose, camera_front, project, rotation_from_rodrigues


def test_front_camera_axes() -> None:
    """+X (the character's left) lands right, +Y up, +Z nearer."""
    camera = camera_front(torch.zeros(3), 0.5, 500.0, 224)
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.05, 0.0, 0.0], [0.0, 0.05, 0.0], [0.0, 0.0, 0.05]]])
    centre, left, up, near = project(camera, points)[0]
    torch.testing.assert_close(centre, torch.tensor([112.0, 112.0, 0.5]))
    torch.testing.assert_close(left, torch.tensor([162.0, 112.0, 0.5]))
    torch.testing.assert_close(up, torch.tensor([112.0, 62.0, 0.5]))
    assert near[2] < centre[2]


@pytest.mark.parametrize(("yaw", "pitch"), [(0.4, 0.0), (0.0, 0.3), (-0.7, -0.2), (math.pi / 2, 0.0)])
def test_front_camera_walks_round_its_centre(yaw: float, pitch: float) -> None:
    centre = torch.tensor([0.01, 1.6, 0.03])
    camera = camera_front(centre, 0.6, 500.0, (200, 240), yaw=yaw, pitch=pitch)
    eye = -(camera.rotation.transpose(1, 2) @ camera.translation[:, :, None])[0, :, 0] - centre
    assert torch.sign(eye[0].round(decimals=5)) == np.sign(yaw)
    assert torch.sign(eye[1].round(decimals=5)) == np.sign(pitch)
    torch.testing.assert_close(torch.linalg.det(camera.rotation), torch.ones(1))
    torch.testing.assert_close(project(camera, centre[None, None])[0, 0], torch.tensor([120.0, 100.0, 0.6]))
    above = project(camera, (centre + torch.tensor([0.0, 0.05, 0.0]))[None, None])[0, 0]
    torch.testing.assert_close(above[0], torch.tensor(120.0))  # upright
    assert above[1] < 100


def test_pose_camera_agrees_with_opencv() -> None:
    rng = np.random.default_rng(0)
    rvec, tvec = np.array([3.0, 0.1, -0.2]), np.array([0.02, -0.03, 0.7])
    points = rng.normal(0, 0.1, (20, 3))
    matrix = np.array([[560.0, 0, 112], [0, 560, 112], [0, 0, 1]])
    expected = cv2.projectPoints(points, rvec, tvec, matrix, None)[0][:, 0]
    camera = camera_from_pose(torch.tensor(rvec)[None], torch.tensor(tvec)[None], 560.0, 224)
    got = project(camera, torch.tensor(points)[None])[0, :, :2].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 0.7])
def test_rodrigues_is_differentiable_everywhere(scale: float) -> None:
    rvec = (torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64) * scale).requires_grad_()
    np.testing.assert_allclose(
        rotation_from_rodrigues(rvec)[0].detach().numpy(),
        cv2.Rodrigues(rvec[0].detach().numpy())[0],
        atol=1e-9,
    )
    assert torch.autograd.gradcheck(rotation_from_rodrigues, (rvec,), atol=1e-5)


def test_scaled_and_cropped_follow_pixel_coordinates() -> None:
    camera = camera_front(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]]), 0.5, 500.0, 224, yaw=0.2)
    points = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0)) * 0.05
    pixels = project(camera, points)[..., :2]
    torch.testing.assert_close(project(camera.scaled(0.5), points)[..., :2], pixels * 0.5)
    crop = torch.tensor([[1.7, 0.0, -30.0], [0.0, 1.7, 12.0]])
    moved = camera.cropped(crop, 300, 400)
    assert (moved.height, moved.width) == (300, 400)
    torch.testing.assert_close(project(moved, points)[..., :2], pixels * 1.7 + torch.tensor([-30.0, 12.0]))


def test_camera_errors() -> None:
    camera = camera_front(torch.zeros(3), 0.5, 500.0, 224)
    with pytest.raises(ValueError, match="one scale and a translation"):
        camera.cropped(torch.tensor([[1.0, 0.1, 0.0], [-0.1, 1.0, 0.0]]), 10, 10)
    with pytest.raises(ValueError, match="camera translation: got shape"):
        type(camera)(camera.focal, camera.principal, camera.rotation, torch.zeros(2, 3), 10, 10)
