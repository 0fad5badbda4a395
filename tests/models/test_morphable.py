"""The embedded head: shapes, units, frames, sides, and what the coefficients mean."""

import numpy as np
import pytest
import torch

from fitdiff.models.landmark_indices import CHIN, LANDMARK_68, LEFT_EYE, LIPS_OUTER, NOSE_TIP, RIGHT_EYE
from fitdiff.models.morphable import MorphableModel, load_morphable

ARKIT_SIDES = ("eyeBlink", "mouthSmile", "browDown", "cheekSquint", "eyeLookUp", "noseSneer")


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_morphable()[0]


def test_sizes_are_the_papers(model: MorphableModel) -> None:
    assert model.identity_basis.shape[0] == 158 and model.expression_basis.shape[0] == 25
    assert model.blendshapes.shape[0] == len(set(model.config.blendshape_names)) == 52
    assert model.triangles.max() < len(model.mean)
    vertices = model(torch.zeros(2, 158), torch.zeros(2, 25))
    assert torch.equal(vertices[0], model.mean) and torch.equal(vertices[0], vertices[1])


def test_head_is_life_sized_upright_and_faces_plus_z(model: MorphableModel) -> None:
    points = model.landmarks(model.mean[None])[0]
    right, left = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
    assert 0.055 < float((left - right).norm()) < 0.075  # metres between the pupils
    assert left[0] > 0 > right[0]  # +X is the character's left
    assert points[NOSE_TIP, 2] > points[list(LIPS_OUTER)].mean(0)[2] > 0  # the nose points to +Z
    assert points[CHIN, 1] < points[NOSE_TIP, 1] < left[1]  # +Y is up
    extent = model.mean.amax(0) - model.mean.amin(0)
    assert 0.2 < float(extent[1]) < 0.35


def test_landmarks_lie_on_the_skin_and_are_nearly_symmetric(model: MorphableModel) -> None:
    assert int(model.landmark_valid.sum()) >= 460
    assert model.landmark_valid[list(LANDMARK_68)].all()
    assert torch.allclose(model.landmark_barycentrics.sum(1), torch.ones(468), atol=1e-4)
    skin = model.config.part_names.index("skin")
    assert (model.triangle_part[model.landmark_triangles[model.landmark_valid]] == skin).all()
    points = model.landmarks(model.mean[None])[0]
    mirrored = points[list(LEFT_EYE)] * torch.tensor([-1.0, 1, 1])
    assert float((points[list(RIGHT_EYE)] - mirrored).norm(dim=1).max()) < 0.004


def test_blendshapes_move_the_named_side(model: MorphableModel) -> None:
    names = model.config.blendshape_names
    for stem in ARKIT_SIDES:
        for side, sign in (("Left", 1), ("Right", -1)):
            motion = model.blendshapes[names.index(stem + side)].norm(dim=1)
            assert float((motion * model.mean[:, 0]).sum()) * sign > 0, stem + side


def test_jaw_carries_the_lower_teeth_and_the_tongue(model: MorphableModel) -> None:
    jaw = model.blendshapes[model.config.blendshape_names.index("jawOpen")]
    for part in ("teeth", "tongue"):
        members = model.triangles[model.triangle_part == model.config.part_names.index(part)].unique()
        lowest = members[model.mean[members, 1].argsort()[: len(members) // 4]]
        assert float(jaw[lowest, 1].mean()) < -0.003, part


def test_identity_coefficients_have_unit_scale_and_make_plausible_heads(model: MorphableModel) -> None:
    generator = torch.Generator().manual_seed(0)
    heads = model(torch.randn(32, 158, generator=generator))
    distance = (heads - model.mean).norm(dim=2).mean() * 1000
    assert 2.0 < float(distance) < 12.0  # millimetres from the mean head
    male = model.attributes(torch.randn(400, 158, generator=generator))[:, 0]
    assert 0.25 < float(male.mean()) < 0.75 and float(male.std()) > 0.15


def test_expression_coefficients_reproduce_a_blendshape(model: MorphableModel) -> None:
    index = model.config.blendshape_names.index("jawOpen")
    neutral, opened = (
        model(torch.zeros(1, 158)),
        model(torch.zeros(1, 158), model.expression_of_blendshapes[index][None]),
    )
    wanted = model.blendshapes[index]
    error = (opened - neutral)[0] - wanted
    assert float(error.square().sum() / wanted.square().sum()) < 0.05


def test_uvs_lie_in_the_atlas_and_the_chart_is_not_mirrored(model: MorphableModel) -> None:
    assert float(model.corner_uv.min()) >= 0 and float(model.corner_uv.max()) <= 1
    x, y, size = model.config.face_block
    uv = (model.corner_uv[model.landmark_triangles] * model.landmark_barycentrics[..., None]).sum(1) * 1024
    inside = (uv >= torch.tensor([x, y])).all(1) & (uv <= torch.tensor([x + size, y + size])).all(1)
    assert inside[model.landmark_valid].float().mean() > 0.98
    points = model.landmarks(model.mean[None])[0]
    front = points[:, 2] > 0.06
    assert np.corrcoef(points[front, 0], uv[front, 0])[0, 1] > 0.9  # character's left is the chart's right
    assert np.corrcoef(points[front, 1], uv[front, 1])[0, 1] < -0.9  # v runs down


def test_gradient_reaches_both_coefficients(model: MorphableModel) -> None:
    identity, expression = torch.zeros(1, 158, requires_grad=True), torch.zeros(1, 25, requires_grad=True)
    model.landmarks(model(identity, expression)).square().sum().backward()
    assert identity.grad is not None and float(identity.grad.abs().sum()) > 0
    assert expression.grad is not None and float(expression.grad.abs().sum()) > 0
