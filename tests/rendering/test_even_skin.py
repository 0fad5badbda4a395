"""Where a chart shows skin plainly, and what the rest of it takes from there."""

import pytest
import torch

from fitdiff.models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from fitdiff.models.morphable import load_morphable
from fitdiff.rendering.even_skin import OVAL, PLAIN_SKIN, evening, mean_of_plain_skin
from fitdiff.rendering.shader import luminance

FACE, PALE, STUBBLE = ((0.25, 0.14, 0.08), (0.36, 0.28, 0.22), (0.06, 0.05, 0.045))  # linear RGB


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    """(468, 2), shares of the chart's side."""
    return load_morphable()[0].landmarks_on_chart() / 512


def test_plain_skin_lies_on_forehead_and_cheeks(points: torch.Tensor) -> None:
    for (x, y, width, height), landmark in zip(PLAIN_SKIN, (151, 50, 280), strict=True):
        low, high = torch.tensor([x, y]) / 32, torch.tensor([x + width, y + height]) / 32
        assert bool(((points[landmark] > low) & (points[landmark] < high)).all())
        for other in (RIGHT_BROW, LEFT_BROW, RIGHT_EYE, LEFT_EYE, LIPS_OUTER):
            assert not ((points[list(other)] > low) & (points[list(other)] < high)).all(1).any()


def test_the_oval_holds_the_face(points: torch.Tensor) -> None:
    x, y, width, height = OVAL
    from_middle = ((points - torch.tensor([x, y])) / torch.tensor([width, height])).norm(dim=1)
    inner = [*RIGHT_BROW, *LEFT_BROW, *RIGHT_EYE, *LEFT_EYE, *LIPS_OUTER]
    assert from_middle[inner].max() < 1.05
    assert (
        from_middle[[10, 152]].max() < 1.2 and from_middle[[234, 454]].min() > 1.35
    )  # the mesh's ends are at the ears


def chart(side: int = 64) -> torch.Tensor:
    """(1, 3, S, S) logarithms: a face, paler round it, stubble above, grain everywhere."""
    at = (torch.arange(side) + 0.5) / side
    x, y, width, height = OVAL
    on_face = ((at - x) / width).square() + ((at[:, None] - y) / height).square() < 1
    linear = torch.where(on_face, torch.tensor(FACE).view(3, 1, 1), torch.tensor(PALE).view(3, 1, 1))
    linear = torch.where(at[:, None] < 0.1, torch.tensor(STUBBLE).view(3, 1, 1), linear)
    grain = 0.05 * torch.randn(1, side, side, generator=torch.Generator().manual_seed(0))
    return (linear.log() + grain)[None]


def hue(log: torch.Tensor) -> torch.Tensor:
    return log - log.mean(1, keepdim=True)


def test_what_surrounds_a_face_takes_its_colour_and_keeps_its_grain() -> None:
    before = chart()
    after = before + evening(before)
    face, beside = (..., slice(26, 38), slice(28, 36)), (..., slice(28, 40), slice(0, 8))
    assert torch.equal(after[face], before[face])
    asked = mean_of_plain_skin(before)[0]
    assert (before[beside].mean((0, 2, 3)) - asked).abs().max() > 0.3
    assert (after[beside].mean((0, 2, 3)) - asked).abs().max() < 0.03
    assert torch.allclose(after[beside].std((2, 3)), before[beside].std((2, 3)), rtol=0.3)


def test_stubble_stays_as_dark_as_it_was() -> None:
    before = chart()
    after = before + evening(before)
    scalp = (..., slice(0, 2), slice(None))
    light = lambda log: luminance(log.exp())[scalp].mean()  # noqa: E731
    assert float(light(after)) == pytest.approx(float(light(before)), rel=0.1)
    face = hue(torch.tensor(FACE).log().view(1, 3, 1, 1))
    assert (hue(after)[scalp] - face).abs().mean() < 0.3 * (hue(before)[scalp] - face).abs().mean()


def test_mean_of_plain_skin_leaves_the_rest_out() -> None:
    texels = torch.zeros(1, 1, 64, 64)
    for x, y, width, height in PLAIN_SKIN:
        texels[..., 2 * y : 2 * (y + height), 2 * x : 2 * (x + width)] = 1
    assert float(mean_of_plain_skin(texels)) == 1
    assert float(mean_of_plain_skin(1 - texels)) == 0
