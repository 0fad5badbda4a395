"""The Gauss-Newton step on landmarks, and the prior's gain, against what they must give."""

import torch

from fitdiff.models.latent import LatentStatistics
from fitdiff.models.linear_prior import LinearDenoiser
from fitdiff.models.morphable import load_morphable
from fitdiff.rendering.camera import camera_front, project
from fitdiff.runtime.landmark_step import LandmarkStep

EYES = torch.tensor([60.0])  # px


def test_steps_find_the_shape_behind_landmarks() -> None:
    model, _ = load_morphable()
    step = LandmarkStep(model, LatentStatistics())
    truth = torch.zeros(1, 183)
    truth[0, [0, 3, 7, 160]] = torch.tensor([1.0, -0.8, 0.6, 0.5])
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 0.65, 560.0, 224, yaw=0.2)
    wanted = project(camera, model.landmarks(model(truth[:, :158], truth[:, 158:])))[..., :2]
    found, errors = torch.zeros(1, 183), []
    for _ in range(4):
        vertices = model(found[:, :158], found[:, 158:])
        points = project(camera, model.landmarks(vertices))[..., :2]
        errors.append(float((points - wanted).norm(dim=-1).mean()))
        found = found + step(torch.zeros(1, 183), model.landmarks(vertices), camera, wanted, EYES, torch.ones(1, 468))
    assert errors[0] > 1.0 and errors[-1] < 0.3 * errors[0]  # the rest is the pose's, which stands still here
    moved = model(found[:, :158], found[:, 158:]) - model.mean
    asked = model(truth[:, :158], truth[:, 158:]) - model.mean
    assert float((moved * asked).sum()) > 0


def test_where_landmarks_say_nothing_the_expected_shape_is_kept() -> None:
    model, _ = load_morphable()
    departure = torch.randn(1, 183, generator=torch.Generator().manual_seed(2))
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 0.65, 560.0, 224, yaw=0.2)
    points = model.landmarks(model(departure[:, :158], departure[:, 158:]))
    wanted = project(camera, points)[..., :2]
    unseen = LandmarkStep(model, LatentStatistics())(departure, points, camera, wanted, EYES, torch.zeros(1, 468))
    assert torch.allclose(unseen, -departure, atol=1e-5)
    kept = [
        float(LandmarkStep(model, LatentStatistics(), precision=precision)(
            departure, points, camera, wanted, EYES, torch.ones(1, 468)
        )[:, :158].norm())
        for precision in (0.3, 1.0, 3.0)
    ]  # fmt: skip
    assert kept[0] < kept[1] < kept[2] < float(departure[:, :158].norm())


def test_a_turned_head_is_no_other_shape() -> None:
    model, _ = load_morphable()
    step = LandmarkStep(model, LatentStatistics())
    straight, turned = (camera_front(torch.tensor([0.0, 0.0, 0.05]), 0.65, 560.0, 224, yaw=yaw) for yaw in (0.0, 0.03))
    vertices = model(torch.zeros(1, 158), torch.zeros(1, 25))
    wanted = project(turned, model.landmarks(vertices))[..., :2]
    moved = float((project(straight, model.landmarks(vertices))[..., :2] - wanted).norm(dim=-1).mean())
    assert moved > 0.5  # px: a shape step that ignored the pose would follow it
    change = step(torch.zeros(1, 183), model.landmarks(vertices), straight, wanted, EYES, torch.ones(1, 468))
    assert float(change.norm()) < 0.02


def test_points_are_those_of_the_surface_and_a_batch_changes_nothing() -> None:
    model, _ = load_morphable()
    statistics = LatentStatistics()
    generator = torch.Generator().manual_seed(0)
    statistics.std.uniform_(0.5, 1.5, generator=generator)
    statistics.mean.normal_(generator=generator).mul_(0.2)
    step = LandmarkStep(model, statistics)
    z = torch.randn(3, 183, generator=generator)
    flat = torch.zeros(3, 4288)
    flat[:, step.shape] = z
    raw = statistics.denormalise(flat.view(3, 1, 67, 64)).flatten(1)[:, step.shape]
    points = model.landmarks(model(raw[:, :158], raw[:, 158:]))
    assert torch.allclose(step.points(z), points, atol=1e-6)
    camera = camera_front(torch.tensor([[0.0, 0.0, 0.05]] * 3), 0.65, 560.0, 224, yaw=0.1)
    wanted = project(camera, points)[..., :2] + torch.randn(3, 468, 2, generator=generator)
    eyes, weights = torch.tensor([50.0, 60.0, 70.0]), torch.rand(3, 468, generator=generator)
    together = step(z, points, camera, wanted, eyes, weights)
    one = camera_front(torch.tensor([[0.0, 0.0, 0.05]]), 0.65, 560.0, 224, yaw=0.1)
    for row in range(3):
        own = slice(row, row + 1)
        alone = step(z[own], points[own], one, wanted[own], eyes[own], weights[own])
        assert torch.allclose(together[own], alone, atol=1e-5) and not torch.allclose(together.roll(1, 0)[own], alone)


def test_without_landmarks_the_prior_takes_the_shape_back() -> None:
    model, _ = load_morphable()
    step = LandmarkStep(model, LatentStatistics())
    z = torch.linspace(-2, 2, 183)[None]
    vertices = model(z[:, :158], z[:, 158:])
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 0.65, 560.0, 224)
    wanted = project(camera, model.landmarks(vertices))[..., :2]
    change = step(z, model.landmarks(vertices), camera, wanted, EYES, torch.full((1, 468), 1e-9))
    assert torch.allclose(z + change, torch.zeros(1, 183), atol=1e-3)


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


def test_a_wide_smile_is_followed_nearly_all_the_way() -> None:
    """An expression two deviations from the mean is found in full; the pull of an identity's prior would stop it."""
    model, _ = load_morphable()
    step = LandmarkStep(model, LatentStatistics())
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 0.65, 560.0, 224)
    lips = [13, 14]
    truth = torch.zeros(1, 183)
    gape = (step.points(torch.eye(183))[:, lips, 1] - step.points(truth)[:, lips, 1]).diff(dim=1)[158:, 0]
    truth[0, 158 + int(gape.abs().argmax())] = -2.0 * float(gape[gape.abs().argmax()].sign())
    wanted = project(camera, step.points(truth))[..., :2]
    found = torch.zeros(1, 183)
    for _ in range(6):
        found = found + step(found, step.points(found), camera, wanted, EYES, torch.ones(1, 468))
    opened = [float(step.points(z)[0, lips, 1].diff()) for z in (torch.zeros(1, 183), truth, found)]
    assert abs(opened[1] - opened[0]) > 0.004  # metres
    assert (opened[2] - opened[0]) / (opened[1] - opened[0]) > 0.85
