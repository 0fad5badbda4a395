"""The Gauss-Newton step on landmarks, and the prior's gain, against what they must give."""

import torch

from fitdiff.models.latent import LatentStatistics
from fitdiff.models.linear_prior import LinearDenoiser
from fitdiff.models.morphable import load_morphable
from fitdiff.rendering.camera import camera_front, project
from fitdiff.runtime.landmark_step import LandmarkStep


def test_steps_find_the_shape_behind_landmarks() -> None:
    model, _ = load_morphable()
    step = LandmarkStep(model, LatentStatistics())
    truth = torch.zeros(183)
    truth[[0, 3, 7, 160]] = torch.tensor([1.0, -0.8, 0.6, 0.5])
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 0.65, 560.0, 224, yaw=0.2)
    wanted = project(camera, model.landmarks(model(truth[None, :158], truth[None, 158:])))[..., :2]
    found, errors = torch.zeros(183), []
    for _ in range(4):
        vertices = model(found[None, :158], found[None, 158:])
        points = project(camera, model.landmarks(vertices))[..., :2]
        errors.append(float((points - wanted).norm(dim=-1).mean()))
        found = found + step(vertices, camera, wanted, 60.0, torch.ones(468))
    assert errors[0] > 1.0 and errors[1] < 0.3 * errors[0] and errors[-1] < 0.15 * errors[0]
    moved = model(found[None, :158], found[None, 158:]) - model.mean
    asked = model(truth[None, :158], truth[None, 158:]) - model.mean
    assert float((moved * asked).sum()) > 0


def test_gain_is_the_dense_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(12, 4, generator=generator)).Q.T
    denoiser = LinearDenoiser(4, 12)
    denoiser.basis.copy_(basis)
    variances = torch.tensor([[9.0, 4.0, 1.0, 0.5, 0.2]])
    sigma = basis.T @ torch.diag(variances[0, :4]) @ basis + 0.2 * (torch.eye(12) - basis.T @ basis)
    direction, alpha_bar = torch.randn(1, 12, generator=generator), torch.tensor([[0.3]])
    expected = direction @ sigma @ torch.linalg.inv(sigma + 0.7 / 0.3 * torch.eye(12))
    assert torch.allclose(denoiser.gain(direction, alpha_bar, variances), expected, atol=1e-5)
