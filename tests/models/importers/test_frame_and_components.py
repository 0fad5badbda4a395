"""Units, axes and sizes of bases, without any file."""

from __future__ import annotations

import numpy as np
import pytest

from fitdiff.errors import UsageError
from fitdiff.models.importers.components import fit_components, principal_mixtures, projected
from fitdiff.models.importers.frame import UNITS, is_inside_out, unit_of, upright_turns
from fitdiff.models.importers.gaze import gaze_offsets
from fitdiff.models.morphable import load_morphable


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_is_told_by_the_head_s_size(unit: str) -> None:
    mean = load_morphable()[0].mean.numpy() / UNITS[unit]
    assert unit_of(mean) == unit
    face = mean[(mean[:, 2] * UNITS[unit] > 0.03) & (mean[:, 1] * UNITS[unit] > -0.1)]
    assert unit_of(face) == unit


def test_no_unit_makes_a_head_of_this() -> None:
    with pytest.raises(UsageError, match="--unit"):
        unit_of(np.array([[0, 0, 0], [1.0, 0, 0]]))


def test_the_turns_are_the_24_of_a_cube() -> None:
    turns = upright_turns()
    assert len({turn.astype(int).tobytes() for turn in turns}) == 24 and np.array_equal(turns[0], np.eye(3))
    assert all(np.linalg.det(turn) == pytest.approx(1) and np.allclose(turn @ turn.T, np.eye(3)) for turn in turns)


def test_winding_of_a_head_and_of_a_bare_face() -> None:
    model = load_morphable()[0]
    mean, triangles = model.mean.numpy(), model.triangles.numpy()[model.triangle_part.numpy() == 0]
    bare = triangles[(mean[triangles].mean(1)[:, 2] > 0.03)]
    for shown in (triangles, bare):
        for turn in upright_turns()[::5]:
            assert not is_inside_out(mean @ turn.T, shown) and is_inside_out(mean @ turn.T, shown[:, ::-1])


def test_too_few_components_are_padded_and_too_many_cut() -> None:
    rng = np.random.default_rng(0)
    basis = (rng.normal(size=(6, 20, 3)) * np.arange(6, 0, -1)[:, None, None]).astype(np.float32)
    padded, kept = fit_components(basis, 9)
    assert kept == 1 and np.array_equal(padded[:6], basis) and not padded[6:].any()
    cut, kept = fit_components(basis, 4)
    rows, whole = cut.reshape(4, -1), basis.reshape(6, -1)
    assert np.abs(rows @ rows.T - np.diag(np.diag(rows @ rows.T))).max() < 1e-3 * (rows @ rows.T).max()
    assert kept == pytest.approx((rows**2).sum() / (whole**2).sum(), rel=1e-4) and 0.8 < kept < 1
    # Nothing of the same size keeps more: the first four as they are keep less.
    assert kept > (whole[:4] ** 2).sum() / (whole**2).sum()
    assert projected(basis[:2], padded)[:, :2] == pytest.approx(np.eye(2), abs=1e-4)


def test_mixtures_follow_their_weights() -> None:
    shapes = np.zeros((3, 4, 3), np.float32)
    shapes[0, 0, 0], shapes[1, 1, 1], shapes[2, 2, 2] = 1, 1, 1
    rng = np.random.default_rng(1)
    weights = rng.random((500, 3)) * [3, 2, 0.1]
    found, kept = principal_mixtures(shapes, weights.T @ weights / 500, 2)
    mixed = (weights @ shapes.reshape(3, -1)) @ np.linalg.pinv(found.reshape(2, -1))
    assert (mixed**2).mean(0) == pytest.approx([1, 1], rel=1e-3) and kept > 0.99


def test_eyes_look_where_the_name_says() -> None:
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(50, 3))
    ball = np.concatenate([0.012 * ball / np.linalg.norm(ball, axis=1, keepdims=True), np.eye(3) * 0.012,
                           -np.eye(3) * 0.012])  # fmt: skip
    pupil = 52  # the tip at +Z
    found = gaze_offsets(np.concatenate([ball, ball]), {"Left": np.arange(56), "Right": np.arange(56, 112)})
    for side, at, outward in (("Left", pupil, 1), ("Right", pupil + 56, -1)):
        assert found[f"eyeLookUp{side}"][at, 1] > 0.003 and found[f"eyeLookDown{side}"][at, 1] < -0.003
        assert found[f"eyeLookOut{side}"][at, 0] * outward > 0.003 > found[f"eyeLookIn{side}"][at, 0] * outward
    assert not found["eyeLookUpLeft"][56:].any()
