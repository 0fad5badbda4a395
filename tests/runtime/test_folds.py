"""Folds of the photo's expression: where skin has less room, on both sides, and not what stays at rest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fitdiff.models.morphable import MorphableModel, load_morphable
from fitdiff.rendering.renderer import HeadRenderer
from fitdiff.rendering.shader import linear_from_srgb
from fitdiff.runtime.folds import area_ratio, expression_folds, fold_factors, without_folds

SIDE = 256
RIGHT_FOLD, LEFT_FOLD = 203, 423  # of the 468 landmarks, beside the nose on the fold of a smile; the character's sides
FOREHEAD = 9


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_morphable()[0]


@pytest.fixture(scope="module")
def renderer(model: MorphableModel) -> HeadRenderer:
    return HeadRenderer(model.triangles, model.corner_uv, model.triangle_part, model.config.part_names)


def smiling(model: MorphableModel, *sides: str) -> Tensor:
    topology = model.topology()
    offset = sum(
        topology.blendshapes[topology.blendshape_names.index(shape + side)]
        for side in sides
        for shape in ("mouthSmile", "cheekSquint")
    )
    return model.mean[None] + torch.as_tensor(offset)


def texel(model: MorphableModel, landmark: int) -> tuple[int, int]:
    """Row and column in a chart of SIDE."""
    scale = SIDE / model.config.face_block[2]
    x, y = (model.landmarks_on_chart()[landmark] * scale).round().int().tolist()
    return y, x


def plain() -> Tensor:
    return torch.full((1, 9, SIDE, SIDE), 0.6)


def marked(*places: tuple[int, int], by: float = 0.8) -> Tensor:
    maps = plain()
    for y, x in places:
        maps[:, :3, y - 4 : y + 5, x - 2 : x + 3] *= by
    return maps


def around(folds: Tensor, place: tuple[int, int]) -> float:
    y, x = place
    return float(folds[0, 0, y - 1 : y + 2, x - 1 : x + 2].mean())


def mirrored(place: tuple[int, int]) -> tuple[int, int]:
    return place[0], SIDE - 1 - place[1]


def test_area_of_a_head_that_grows_on_one_side(model: MorphableModel) -> None:
    neutral = model.mean[None]
    stretched = torch.where(neutral[..., :1] > 0, neutral * torch.tensor([1.2, 1.0, 1.0]), neutral)
    ratio = area_ratio(neutral, torch.cat([neutral * 1.1, stretched]), model.triangles)
    assert torch.allclose(ratio[0], torch.tensor(1.21), atol=1e-3)
    left, right = neutral[0, :, 0] > 0.02, neutral[0, :, 0] < -0.02
    assert ratio[1, left].mean() > 1.05 and torch.allclose(ratio[1, right], torch.tensor(1.0), atol=1e-4)


def test_a_smile_folds_the_cheeks_and_a_face_at_rest_nothing(model: MorphableModel, renderer: HeadRenderer) -> None:
    left, right, forehead = (texel(model, landmark) for landmark in (LEFT_FOLD, RIGHT_FOLD, FOREHEAD))
    dark = marked(left, right, mirrored(left), mirrored(right), forehead, mirrored(forehead))
    neutral = model.mean[None]
    assert not expression_folds(dark, plain(), neutral, neutral, model, renderer).any()
    folds = expression_folds(dark, plain(), neutral, smiling(model, "Left", "Right"), model, renderer)
    assert around(folds, left) < -0.04 and around(folds, right) < -0.04
    assert abs(around(folds, forehead)) < 0.005
    assert around(without_folds(dark, folds), left) > around(dark, left) + 0.02  # the rest of it is lighter at rest
    assert torch.equal(without_folds(dark, folds)[:, 3:], dark[:, 3:])


def test_half_a_smile_folds_half_a_face(model: MorphableModel, renderer: HeadRenderer) -> None:
    left, right = (texel(model, landmark) for landmark in (LEFT_FOLD, RIGHT_FOLD))
    dark = marked(left, right, mirrored(left), mirrored(right))
    folds = expression_folds(dark, plain(), model.mean[None], smiling(model, "Left"), model, renderer)
    assert around(folds, left) < -0.04
    assert abs(around(folds, right)) < 0.2 * abs(around(folds, left))


def test_a_mole_is_no_fold(model: MorphableModel, renderer: HeadRenderer) -> None:
    left = texel(model, LEFT_FOLD)
    neutral, smile = model.mean[None], smiling(model, "Left", "Right")
    alone = expression_folds(marked(left, by=0.6), plain(), neutral, smile, model, renderer)
    both = expression_folds(marked(left, mirrored(left), by=0.6), plain(), neutral, smile, model, renderer)
    assert around(both, left) < -0.1
    assert abs(around(alone, left)) < 0.1 * abs(around(both, left))


def test_a_crease_beside_the_pressed_skin_goes_and_a_moustache_stays(
    model: MorphableModel, renderer: HeadRenderer
) -> None:
    neutral, smile = model.mean[None], smiling(model, "Left", "Right")
    corner, above = texel(model, 291), texel(model, 164)  # of the mouth; the lip below the nose
    crease = corner[0] - 2, corner[1] + 6
    shaven = expression_folds(marked(crease, mirrored(crease)), plain(), neutral, smile, model, renderer)
    assert around(shaven, crease) < -0.04
    hairy = marked(crease, mirrored(crease))
    hairy[:, :3, above[0] - 8 : above[0] + 6, SIDE - corner[1] : corner[1]] *= 0.7
    hairs = expression_folds(hairy, plain(), neutral, smile, model, renderer)
    assert abs(around(hairs, crease)) < 0.6 * abs(around(shaven, crease))  # it may be hair, too
    assert abs(around(hairs, above)) < 0.2 * abs(float(torch.tensor(0.7).log()))


def test_lashes_are_no_crease(model: MorphableModel, renderer: HeadRenderer) -> None:
    upper_lid = texel(model, 386)
    dark = marked(upper_lid, mirrored(upper_lid), by=0.6)
    folds = expression_folds(dark, plain(), model.mean[None], smiling(model, "Left", "Right"), model, renderer)
    assert abs(around(folds, upper_lid)) < 0.25 * abs(float(torch.tensor(0.6).log()))


def test_each_head_of_a_batch_has_its_own_folds(model: MorphableModel, renderer: HeadRenderer) -> None:
    left = texel(model, LEFT_FOLD)
    dark, neutral, smile = marked(left, mirrored(left)), model.mean[None], smiling(model, "Left", "Right")
    together = expression_folds(
        torch.cat([dark, dark]), plain().expand(2, -1, -1, -1), neutral.expand(2, -1, -1),
        torch.cat([neutral, smile]), model, renderer,
    )  # fmt: skip
    alone = expression_folds(dark, plain(), neutral, smile, model, renderer)
    assert not together[:1].any() and torch.allclose(together[1:], alone, atol=1e-6)


def test_factors_give_back_the_face_as_it_was_seen(model: MorphableModel) -> None:
    folds = torch.linspace(-0.3, 0.2, SIDE).expand(1, 1, SIDE, SIDE)
    seen = plain()
    at_rest = without_folds(seen, folds)
    again = linear_from_srgb(at_rest[:, :3]) * fold_factors(folds, SIDE)
    assert torch.allclose(again, linear_from_srgb(seen[:, :3]), rtol=0.08)
    assert float(fold_factors(torch.full((1, 1, 4, 4), 9.0), 8).max()) < 2
    assert torch.equal(fold_factors(torch.zeros(1, 1, 4, 4), 8), torch.ones(1, 1, 8, 8))
