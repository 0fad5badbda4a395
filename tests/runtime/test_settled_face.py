"""A sampled face's tone: what the prior says of a skin, and what the light is left with."""

import math
from dataclasses import replace

import pytest
import torch

from fitdiff.rendering.shader import linear_from_srgb, luminance
from fitdiff.runtime.detail import DetailConfig, with_detail
from fitdiff.runtime.face_crop import FaceCrop
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.runtime.residual import HAIR
from fitdiff.runtime.settled_face import (
    BRIGHTEST_LIGHT,
    MAGENTA,
    PORTRAITS,
    YELLOW,
    brightness,
    calmed_chroma,
    calmed_lightness,
    expected_tone,
    with_photographed_hue,
    without_hair,
)

from .conftest import guide_of

COLOUR = torch.zeros(1, 1, 1, 1, dtype=torch.bool)


def albedo_alone(residual: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(residual, (0, 0, 0, 0, 0, 1))


def test_blotches_of_colour_are_calmed_and_lightness_stays() -> None:
    expected = torch.full((1, 9, 64, 64), 0.5)
    expected[:, 0] = 0.6
    blotched = expected.clone()
    blotched[:, :3, 20:40] *= 0.7  # darker: stays
    blotched[:, 2, 30:34, 30:34] *= 1.4  # a blue blotch: goes
    calmed = with_detail(blotched, albedo_alone(calmed_chroma(blotched, expected, COLOUR)))
    log = lambda maps: maps[:, :3].log()  # noqa: E731
    hue = lambda maps: log(maps) - log(maps).mean(1, keepdim=True)  # noqa: E731
    assert (hue(calmed) - hue(expected)).abs().max() < 0.2 * (hue(blotched) - hue(expected)).abs().max()
    assert torch.allclose(log(calmed).mean(1), log(blotched).mean(1), atol=1e-5)
    reddish = expected.clone()
    reddish[:, 0] *= 1.3  # the whole face: stays on a photo in colour, goes on a grey one
    assert torch.allclose(
        with_detail(reddish, albedo_alone(calmed_chroma(reddish, expected, COLOUR))), reddish, atol=1e-5
    )
    grey = with_detail(reddish, albedo_alone(calmed_chroma(reddish, expected, ~COLOUR)))
    assert torch.allclose(hue(grey), hue(expected), atol=1e-5)


def test_light_that_nobody_exposes_for_is_a_lighter_skin() -> None:
    """And what is not shown tells nothing of a skin."""
    shown = torch.zeros(2, 1, 16, 16)
    shown[:, :, :12] = 1
    ours = torch.full((2, 9, 16, 16), 0.6)
    theirs = ours * 0.6
    theirs[:, :3, 12:] = 0.9
    config = DetailConfig(hue=0.0, overexposed=0.5)
    tone, level = expected_tone(ours, theirs, shown, config)
    assert not tone.any() and not level.any()
    darker = float(
        (luminance(linear_from_srgb(theirs[:, :3, :12])) / luminance(linear_from_srgb(ours[:, :3, :12]))).mean()
    )
    usual = 0.9 * BRIGHTEST_LIGHT * darker  # below the limit once the skin is as expected
    _, level = expected_tone(ours, theirs, shown, config, torch.tensor([[usual], [4 * usual]]))
    assert float(level[0]) == pytest.approx(0, abs=1e-6)  # an ordinary photo: the prior is believed
    assert float(2.2 * level[1]) == pytest.approx(0.5 * math.log(3.6), rel=0.01)  # half of what is too much


def test_brightness_is_that_of_the_photo_and_not_of_the_skin(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    guide, z = guide_of(pipeline, crop), torch.zeros(1, 1, 67, 64)
    parts = guide.layout.split(guide.statistics.denormalise(z))
    face = guide.models.face_maps(parts.texture)
    level = float(brightness(guide, face, parts))
    darker = torch.cat([face[:, :3] * 0.5, face[:, 3:]], 1)
    assert float(brightness(guide, darker, parts)) == pytest.approx(level, rel=1e-4)
    twice = replace(parts, light=parts.light + torch.tensor([math.log(2.0)] * 6 + [0.0] * 3))
    assert float(brightness(guide, face, twice)) == pytest.approx(2 * level, rel=1e-4)


def chroma(maps: torch.Tensor) -> tuple[float, float]:
    """Of a plain face: how yellow, and how magenta, in logarithms of linear RGB."""
    log = linear_from_srgb(maps[0, :3, 0, 0]).log()
    return float(log[0] - log[2]) / 2**0.5, float(log @ torch.tensor(MAGENTA))


def test_yellow_is_the_prior_s_and_magenta_the_photo_s() -> None:
    """Half of the way to a yellower skin, a tenth of that to a more magenta one; luminance stays."""
    ours, shown = torch.full((1, 9, 16, 16), 0.5), torch.ones(1, 1, 16, 16)
    theirs = ours.clone()
    theirs[:, 0], theirs[:, 1], theirs[:, 2] = 0.6, 0.42, 0.35
    moved = with_detail(ours, expected_tone(ours, theirs, shown, DetailConfig(hue=0.5, magenta=0.1))[0])
    (yellow, magenta), (wanted_yellow, wanted_magenta) = chroma(moved), chroma(theirs)
    assert wanted_yellow > 0.5 and wanted_magenta > 0.05
    assert yellow == pytest.approx(0.5 * wanted_yellow, rel=0.05)
    assert magenta == pytest.approx(0.1 * wanted_magenta, abs=0.01)
    light = [float(luminance(linear_from_srgb(maps[:, :3])).mean()) for maps in (ours, moved)]
    assert light[1] == pytest.approx(light[0], rel=0.05)


def test_photographed_skins_have_the_hue_that_portraits_say_and_are_as_light() -> None:
    """A plain dark face, drawn orange: less yellow and less magenta."""
    drawn = torch.full((1, 9, 256, 256), 0.2)
    drawn[:, :3] = torch.tensor([0.45, 0.25, 0.16])[:, None, None]
    found = with_photographed_hue(drawn)
    before, after = chroma(drawn), chroma(found)
    for value, old, (constant, times) in zip(after, before, PORTRAITS, strict=True):
        assert value == pytest.approx(constant + times * old, abs=1e-3) and value < old - 0.01
    assert torch.equal(found[:, 3:], drawn[:, 3:])
    light = [luminance(linear_from_srgb(maps[:, :3])) for maps in (drawn, found)]
    assert torch.allclose(light[0], light[1], atol=1e-4)


def test_a_mark_keeps_its_hue_beside_the_skin_s() -> None:
    """The whole face moves by one factor, found within the window of the face: a blue collar tells nothing."""
    drawn = torch.full((1, 9, 256, 256), 0.2)
    drawn[:, :3] = torch.tensor([0.6, 0.45, 0.35])[:, None, None]
    drawn[:, :3, 100:110, 100:110] = torch.tensor([0.7, 0.3, 0.3])[:, None, None]
    collar = drawn.clone()
    collar[:, 2, 245:] = 0.9
    one, other = with_photographed_hue(drawn), with_photographed_hue(collar)
    assert torch.equal(one[:, :, :240], other[:, :, :240])
    log = lambda maps: linear_from_srgb(maps[0, :3]).log()  # noqa: E731
    axes = torch.tensor([YELLOW, MAGENTA])
    apart = [axes @ (log(maps)[:, 105, 105] - log(maps)[:, 50, 50]) for maps in (drawn, one)]
    assert torch.allclose(apart[0], apart[1], atol=2e-3)


def test_lightness_varies_as_on_faces_and_marks_stay() -> None:
    expected = torch.full((1, 9, 256, 256), 0.5)
    ramp = torch.linspace(0.7, 1.4, 256)
    shaded = expected.clone()
    shaded[:, :3] *= ramp  # a dark right side, as a light from the left leaves it
    for column in (60, 192):  # a freckle on both sides: what one side alone has is the photo's to tell
        shaded[:, :3, 100:104, column : column + 4] *= 0.95
    shaded[:, :3, 150:174, 100:124] *= 0.6  # a blotch such as no face has
    for column in (100, 132):  # the same on both sides, where faces have brows
        shaded[:, :3, 68:72, column : column + 24] *= 0.6
    shown = torch.zeros(1, 1, 256, 256)
    shown[..., 40:200, 40:200] = 1.0
    kept = torch.full((1, 2, 256, 256), 0.05)
    kept[:, :, 50:94, 90:166] = 1.0
    found = calmed_lightness(shaded, expected, shown, kept)
    assert torch.equal(found[:, 0], found[:, 2]) and not found[:, 3].any()
    lighter = calmed_lightness(1.3 * shaded, expected, shown, kept, torch.full((1, 1, 1, 1), 0.1))
    whole = [float(with_detail(maps, change)[0, 1, 100:140, 20:40].mean())
             for maps, change in ((shaded, found), (1.3 * shaded, lighter))]  # fmt: skip
    assert whole[0] == pytest.approx(0.5, abs=0.005)  # the expected face's, whatever is shown and however light it was
    assert whole[1] == pytest.approx(0.5 * math.exp(0.1), abs=0.005)
    before, after = shaded[0, 1], with_detail(shaded, found)[0, 1]
    across = lambda maps: float(maps[150:180, 200:230].mean() / maps[150:180, 30:60].mean())  # noqa: E731
    assert across(before) > 1.3 and across(after) == pytest.approx(1.0, abs=0.05)
    freckle = lambda maps: float(maps[100:104, 60:64].mean() / maps[108:112, 60:64].mean())  # noqa: E731
    assert freckle(after) == pytest.approx(freckle(before), abs=0.02)
    dark = lambda maps, top: float(maps[top + 8 : top + 16, 108:116].mean() / maps[top + 8 : top + 16, 76:84].mean())  # noqa: E731
    assert torch.allclose(after, after.flip(-1), atol=0.03)
    assert dark(before, 150) < 0.7 and dark(after, 150) > 0.85
    brow = lambda maps: float(maps[69:71, 108:116].mean() / maps[69:71, 76:84].mean())  # noqa: E731
    assert brow(before) < 0.7 and brow(after) < 0.8


def test_no_delit_face_is_darker_than_a_forehead_can_be() -> None:
    """A fringe on a forehead becomes as dark as a rare face is there; brows, and what is lighter, stay."""
    expected, depth = torch.full((1, 9, 64, 64), 0.6), torch.full((1, 1, 64, 64), 0.1)
    depth[..., 32:, :] = torch.inf
    delit = expected.clone()
    delit[:, :3, 8:16, 8:16] = 0.3  # hair
    delit[:, :3, 8:16, 40:48] = 0.57  # a fold
    delit[:, :3, 20:24] = 0.7
    delit[:, :3, 40:48, 8:16] = 0.3  # a brow
    found = without_hair(delit, expected, depth)
    changed = (found != delit).any(1)[0]
    assert changed[8:16, 8:16].all() and int(changed.sum()) == 64
    assert found[0, 0, 10, 10] == pytest.approx(0.6 * math.exp(-HAIR * 0.1), rel=0.03)
    assert torch.equal(found[:, 3:], delit[:, 3:])
