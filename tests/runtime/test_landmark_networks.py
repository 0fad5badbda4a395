"""Guidance by a landmark network of other points than the face mesh's: 68 of them, in another crop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fitdiff.models.landmark_indices import LANDMARK_68
from fitdiff.models.landmark_network import LandmarkNetwork
from fitdiff.models.landmarks import FaceMesh
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.guidance_models import GuidanceModels
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import landmark_region, photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline

JAW = slice(0, 17)


class MeshAs68(LandmarkNetwork):
    """The face mesh's points in FAN's order, found in a larger crop of another place; none of the others."""

    def __init__(self, mesh: FaceMesh) -> None:
        super().__init__()
        self.mesh = mesh

    @property
    def input_size(self) -> int:
        return 256

    @property
    def mesh_indices(self) -> tuple[int, ...]:
        return LANDMARK_68

    @property
    def sliding(self) -> tuple[int, ...]:
        return tuple(range(17))

    def region(self, width: float, height: float) -> tuple[float, float]:
        return 1.6 * max(width, height), 0.05 * height

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = self.mesh.input_size
        points, logit = self.mesh(nn.functional.interpolate(x, size, mode="bilinear", antialias=True))
        return points[:, list(LANDMARK_68)] * (self.input_size / size), logit


@pytest.fixture(scope="module")
def crop(small_pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), small_pipeline.detector, small_pipeline.models.face_mesh)


@pytest.fixture(scope="module")
def models(small_pipeline: FitDiffPipeline) -> GuidanceModels:
    return replace(small_pipeline.models, landmarks=MeshAs68(small_pipeline.models.face_mesh))


def test_the_target_is_the_networks_own_points(models: GuidanceModels, crop: FaceCrop) -> None:
    target = photo_target(crop, models)
    assert target.landmarks.shape == (1, 68, 2) and target.mesh_landmarks.shape == (1, 68, 3)
    expected = crop.landmarks[list(LANDMARK_68), :2]
    error = np.linalg.norm(target.landmarks[0].numpy() - expected, axis=1)
    print(f"68 points by another crop: {error.mean():.2f} px, largest {error.max():.2f}")
    assert error.mean() < 2.0  # of 224, wherever the network looked: it answers a little otherwise in another crop
    weights = target.landmark_weights[0]
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[JAW].max()) < 0.3 * float(weights[36:48].min())  # it slides; the eyes do not


def test_the_square_is_the_one_that_the_network_wants() -> None:
    """A face of 100 x 120 px about (100, 120) with its eyes level, then the same on its side."""
    landmarks = np.array([[50.0, 60.0], [150.0, 180.0], [90.0, 130.0]])
    eyes = np.array([[80.0, 100.0], [120.0, 100.0], [100.0, 120.0], [90.0, 150.0], [110.0, 150.0]])
    side, raised = 1.6 * 120.0, 0.05 * 120.0
    for turn in (np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]])):
        middle = turn @ [100.0, 120.0]
        region = landmark_region(landmarks @ turn.T, eyes @ turn.T, MeshAs68(FaceMesh()))[0].double().numpy()
        assert np.allclose(region[:, :2] @ (middle + turn @ [0.0, -raised]) + region[:, 2], 128, atol=1e-3)
        corner = middle + turn @ [-side / 2, -side / 2 - raised]
        assert np.allclose(region[:, :2] @ corner + region[:, 2], 0, atol=1e-3)


def test_surface_points_are_the_meshs(models: GuidanceModels) -> None:
    vertices = models.morphable.mean[None]
    points, mesh = models.surface_points(vertices), models.morphable.landmarks(vertices)
    assert torch.equal(points, mesh[:, list(LANDMARK_68)]) and bool(models.surface_valid.all())
    right_eye, left_eye, chin = points[0, 36], points[0, 45], points[0, 8]
    assert right_eye[0] < 0 < left_eye[0] and chin[1] < right_eye[1]  # +X is the character's left


def test_the_mesh_alone_guides_as_before(small_pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    target = photo_target(crop, small_pipeline.models)
    assert np.array_equal(target.landmarks[0].numpy(), crop.landmarks[:, :2])
    assert small_pipeline.models.landmark_network is small_pipeline.models.face_mesh


def test_an_avatar_fits_68_points_as_it_fits_468(
    small_pipeline: FitDiffPipeline, models: GuidanceModels, crop: FaceCrop
) -> None:
    options = AvatarOptions(steps=4, guidance="latent")
    by_mesh = small_pipeline.avatar(crop, options)
    by_68 = replace(small_pipeline, models=models).avatar(crop, options)
    errors = by_mesh.report.landmark_error, by_68.report.landmark_error
    print(f"landmark error by 468 points {errors[0]:.4f}, by 68 {errors[1]:.4f}")
    assert errors[1] is not None and errors[0] is not None and errors[1] < 1.5 * errors[0]
    mesh_pose, pose = by_mesh.report.pose, by_68.report.pose
    assert mesh_pose is not None and pose is not None
    assert abs(mesh_pose["yaw_degrees"] - pose["yaw_degrees"]) < 5
    assert not np.array_equal(by_mesh.avatar.vertices, by_68.avatar.vertices)
