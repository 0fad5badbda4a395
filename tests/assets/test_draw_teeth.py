"""Teeth and gums in the atlas: where they are on the head, alike on both sides, darker towards the rear."""

from __future__ import annotations

import numpy as np
import pytest

from fitdiff.assets.atlas_layout import ATLAS_SIZE, TEETH_RECT
from fitdiff.assets.draw_teeth import DrawnTeeth
from fitdiff.assets.make_head_atlas import connected_pieces, teeth_in_rect
from fitdiff.models.morphable import MorphableModel, load_morphable

SUPERSAMPLE = 4


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_morphable()[0]


@pytest.fixture(scope="module")
def drawn(model: MorphableModel) -> DrawnTeeth:
    return teeth_in_rect(model, SUPERSAMPLE)


def texel_at(model: MorphableModel, upper: bool, across: float, up: float) -> tuple[int, int]:
    """Row and column of the rectangle that shows the front of a row of teeth at a place in mm.

    across: from the middle, the character's left positive; up: from the biting edge towards the gum.
    """
    chosen = model.triangle_part.numpy() == model.config.part_names.index("teeth")
    triangles, uv = model.triangles.numpy()[chosen], model.corner_uv.numpy()[chosen]
    vertices = model.mean.numpy() * 1000
    rows = sorted(connected_pieces(triangles), key=lambda row: -vertices[row, 1].mean())
    own = np.isin(triangles, rows[0 if upper else 1]).all(1)
    edge = vertices[rows[0 if upper else 1]]
    edge = edge[(np.abs(edge[:, 0]) < 2) & (edge[:, 2] > edge[:, 2].max() - 3)]
    level = edge[:, 1].min() + up if upper else edge[:, 1].max() - up
    best = (np.inf, 0, 0)
    for corners, flat in zip(vertices[triangles[own]], uv[own], strict=True):
        if np.cross(corners[1] - corners[0], corners[2] - corners[0])[2] <= 0:
            continue
        weights = np.random.default_rng(0).dirichlet(np.ones(3), 400)
        points = weights @ corners
        off = np.hypot(points[:, 0] - across, points[:, 1] - level)
        if off.min() < best[0]:
            u, v = weights[off.argmin()] @ flat * ATLAS_SIZE - TEETH_RECT[:2]
            best = (float(off.min()), int(v), int(u))
    assert best[0] < 1.0
    return best[1], best[2]


@pytest.mark.parametrize("upper", [True, False])
def test_enamel_below_gum_above_and_a_gap_between(model: MorphableModel, drawn: DrawnTeeth, upper: bool) -> None:
    tooth = 5.0 if upper else 3.0  # mm from the middle: the first tooth's own middle
    enamel = drawn.albedo[texel_at(model, upper, tooth, 4.0)]
    gum = drawn.albedo[texel_at(model, upper, tooth, 15.0)]
    assert enamel.min() > 0.3 and enamel[0] / enamel[2] < 1.5  # nearly white
    assert gum[0] / gum[2] > 2 and gum.mean() < 0.6 * enamel.mean()
    wet = [drawn.wet[texel_at(model, upper, tooth, height)] for height in (4.0, 15.0)]
    assert wet[0] < 0.1 < 0.9 < wet[1]


def test_sides_are_alike_and_the_rear_is_dark(model: MorphableModel, drawn: DrawnTeeth) -> None:
    front = drawn.albedo[texel_at(model, True, 5.0, 4.0)]
    for across in (5.0, 14.0, 22.0):
        left, right = (drawn.albedo[texel_at(model, True, side * across, 4.0)] for side in (1, -1))
        assert np.allclose(left, right, atol=0.12)
    assert drawn.albedo[texel_at(model, True, 28.0, 8.0)].mean() < 0.5 * front.mean()


def test_crowns_bulge(model: MorphableModel, drawn: DrawnTeeth) -> None:
    """The surface rises towards the first tooth's middle from both its sides."""
    rising, falling = (drawn.slope[texel_at(model, True, across, 5.0)][0] for across in (2.0, 8.0))
    right = texel_at(model, True, 8.0, 5.0)[1] - texel_at(model, True, 2.0, 5.0)[1]
    assert rising * np.sign(right) > 0.02 and falling * np.sign(right) < -0.02
