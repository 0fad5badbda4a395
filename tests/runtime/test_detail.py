"""The detail residual: held to bare skin, grey where the photo is, and nearer to the photo."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fitdiff.models.autoencoder import load_autoencoder
from fitdiff.rendering.blur import blurred
from fitdiff.rendering.shader import linear_from_srgb, luminance
from fitdiff.runtime import pipeline as pipeline_module
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.detail import (
    BRIGHTEST_LIGHT,
    HAIR,
    LEAST_SPREAD,
    NEVER_DARK,
    DetailConfig,
    Residual,
    brightness,
    calmed_chroma,
    calmed_lightness,
    depth_of_faces,
    expected_tone,
    refine_detail,
    texels_shown,
    with_detail,
    without_hair,
)
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.guidance import GuidanceConfig, PhotoGuidance
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline

FEW = DetailConfig(steps=4)
COLOUR = torch.zeros(1, 1, 1, 1, dtype=torch.bool)


@pytest.fixture(scope="module")
def pipeline(small_assets: Path) -> FitDiffPipeline:
    return load_pipeline(small_assets)


@pytest.fixture(scope="module")
def crop(pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), pipeline.detector, pipeline.models.face_mesh)


def guide_of(pipeline: FitDiffPipeline, crop: FaceCrop) -> PhotoGuidance:
    target = photo_target(crop, pipeline.models)
    return PhotoGuidance(pipeline.models, pipeline.denoiser.statistics, target, GuidanceConfig())


def shown_of(guide: PhotoGuidance, z: torch.Tensor) -> torch.Tensor:
    parts = guide.layout.split(guide.statistics.denormalise(z))
    return texels_shown(guide, guide.models.face_maps(parts.texture), parts)


def albedo_alone(residual: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(residual, (0, 0, 0, 0, 0, 1))


def test_residual_scales_diffuse_and_shifts_specular_albedo() -> None:
    maps = torch.rand(1, 9, 32, 32) * 0.5
    assert torch.equal(with_detail(maps, torch.zeros(1, 4, 16, 16)), maps)
    doubled = with_detail(maps, torch.tensor([2.0, 2.0, 2.0, 1.0]).log().view(1, 4, 1, 1).expand(-1, -1, 16, 16))
    assert torch.allclose(doubled[:, :3], 2 * maps[:, :3], atol=1e-5) and torch.equal(doubled[:, 3:], maps[:, 3:])
    shinier = with_detail(maps, torch.tensor([0.0, 0.0, 0.0, 0.1]).view(1, 4, 1, 1))
    assert torch.allclose(shinier[:, 3:6], maps[:, 3:6] + 0.1) and torch.equal(shinier[:, 6:], maps[:, 6:])


def test_blur_keeps_the_mean_and_spreads_a_point() -> None:
    point = torch.zeros(1, 2, 41, 41)
    point[:, 1, 20, 20] = 1.0
    soft = blurred(point, 2.0)
    assert soft[:, 0].abs().max() == 0 and soft[0, 1].sum() == pytest.approx(1.0, abs=1e-4)
    variance = (soft[0, 1].sum(0) * (torch.arange(41) - 20).square()).sum()
    assert variance == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("sigma", [0.9, 6.0, 16.0])
def test_blur_is_the_convolution_with_repeated_borders(sigma: float) -> None:
    x = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    reach = int(np.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2
    padded = torch.nn.functional.pad(x.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    expected = torch.nn.functional.conv2d(padded, kernel).view_as(x)
    assert torch.allclose(blurred(x, sigma), expected, atol=1e-5)


def test_texels_shown_follow_the_mask_and_not_its_mirror(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    guide = guide_of(pipeline, crop)
    z = torch.zeros(1, 1, 67, 64)
    whole = shown_of(guide, z)
    half = guide.target.skin.clone()
    half[..., : int(crop.landmarks[4, 0])] = 0  # the character's right half hidden: left in the picture and the chart
    guide.target = replace(guide.target, skin=half)
    covered = shown_of(guide, z)
    right, left = slice(40, 110), slice(146, 216)
    assert covered[..., 90:200, right].mean() < 0.1 * whole[..., 90:200, right].mean()
    assert covered[..., 90:200, left].mean() > 0.8 * whole[..., 90:200, left].mean()


def test_detail_brings_the_photo_nearer_where_it_is_shown(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    guide = guide_of(pipeline, crop)
    z = torch.zeros(1, 1, 67, 64)
    residual = refine_detail(guide, z, DetailConfig(steps=8)).residual
    losses = [row["total"] for row in guide.histories[0]]
    assert losses[-1] < 0.8 * losses[0] and len(losses) == 8
    shown = shown_of(guide, z)
    hidden = (shown == 0) & (shown.flip(-1) == 0)
    assert hidden.any() and not residual[hidden.expand_as(residual)].any()
    assert float(residual.abs().max()) > 0.02
    assert torch.equal(residual[:, 0], residual[:, 2])  # lightness alone
    either = shown.maximum(shown.flip(-1))
    broad = blurred(residual[:, :1], 16.0) / blurred(either, 16.0).clamp_min(1e-3)
    assert (broad * either).abs().max() < 0.1 * residual.abs().max()  # the face is no mask
    top = DetailConfig().brightest * sum(LEAST_SPREAD)
    assert residual.max() < 1.5 * top < -residual.min()  # shine is held back; 1.5: what the broad part gives back


def test_lambda_1_is_the_stage_s_own(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    rows = []
    for weight in (0.0, 5.0):
        guide = guide_of(pipeline, crop)
        refine_detail(guide, torch.zeros(1, 1, 67, 64), DetailConfig(steps=1, identity_perceptual=weight))
        rows.append(guide.histories[0][-1])
    term = rows[0]["identity_perceptual"]
    assert term > 0.01 and rows[1]["total"] - rows[0]["total"] == pytest.approx(5 * term, rel=1e-3)


def test_a_colour_cast_goes_into_the_light(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    reds = []
    for red in (1.0, 1.12):
        image = crop.image.copy()
        image[..., 0] = np.clip(image[..., 0] * red, 0, 1)
        guide = guide_of(pipeline, replace(crop, image=image))
        z = refine_detail(guide, torch.zeros(1, 1, 67, 64), DetailConfig(steps=12)).z
        light = guide.layout.split(guide.statistics.denormalise(z)).light
        reds.append(float(light[0, [0, 3]].mean() - light[0, [1, 2, 4, 5]].mean()))
    assert reds[1] - reds[0] > 0.03


def test_the_exported_maps_carry_it(pipeline: FitDiffPipeline, crop: FaceCrop, monkeypatch: pytest.MonkeyPatch) -> None:
    presets = {"full": GuidanceConfig(detail=FEW), "latent": GuidanceConfig(detail=DetailConfig(steps=0))}
    monkeypatch.setattr(pipeline_module, "GUIDANCE_PRESETS", presets)
    full, latent = (pipeline.avatar(crop, AvatarOptions(steps=2, guidance=name)) for name in ("full", "latent"))
    assert [s.name for s in full.report.stages] == ["condition", "sample", "detail", "decode"]
    assert len(full.report.guidance) == len(latent.report.guidance) + 4
    change = np.abs(full.avatar.face_maps.diffuse_albedo - latent.avatar.face_maps.diffuse_albedo)
    assert change.max() > 0.01
    assert np.array_equal(full.avatar.face_maps.normal, latent.avatar.face_maps.normal)


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


def test_hue_goes_to_the_expected_one_and_lightness_stays() -> None:
    ours, shown = torch.full((1, 9, 16, 16), 0.5), torch.ones(1, 1, 16, 16)
    theirs = ours.clone()
    theirs[:, 0], theirs[:, 2] = 0.6, 0.35
    moved = with_detail(ours, expected_tone(ours, theirs, shown, DetailConfig(hue=1.0))[0])
    ratio = lambda maps: maps[0, 0, 0, 0] / maps[0, 2, 0, 0]  # noqa: E731
    assert float(ratio(moved)) == pytest.approx(0.6 / 0.35, rel=0.05)
    light = [float(luminance(linear_from_srgb(maps[:, :3])).mean()) for maps in (ours, moved)]
    assert light[1] == pytest.approx(light[0], rel=0.05)


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


def test_the_residual_is_free_where_faces_differ(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """The same photo: little where all faces are alike, and more where the spread says that they are not."""
    sizes = []
    network = pipeline.models.autoencoder
    plain = network.lightness_spread.clone()
    for side in (0, 1):
        network.lightness_spread.copy_(plain)
        half = network.lightness_spread.shape[2] // 2
        network.lightness_spread[:, :, side * half : (side + 1) * half] = 0.2
        residual = refine_detail(guide_of(pipeline, crop), torch.zeros(1, 1, 67, 64), DetailConfig(steps=8)).residual
        sizes.append([float(part.abs().mean()) for part in residual[:, :1].chunk(2, 3)])
    network.lightness_spread.copy_(plain)
    assert sizes[0][0] > 2 * sizes[1][0] and sizes[1][1] > 2 * sizes[0][1]


def test_the_spread_of_the_embedded_model_knows_brows_and_cheeks() -> None:
    spread = load_autoencoder().lightness_spread
    assert spread.shape == (3, 128, 128)
    assert torch.allclose(spread, spread.flip(-1), atol=1e-3)  # fp16
    brow, cheek = spread[:, 40:46, 44:56].amax((1, 2)), spread[:, 64:76, 40:48].mean((1, 2))
    assert (brow > 4 * cheek).all()


def test_hair_on_the_forehead_is_left_out_and_folds_are_not(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """The same dark bar where no face is ever dark, on one side, between brows and mouth, and where beards grow."""
    guide = guide_of(pipeline, crop)
    network = pipeline.models.autoencoder
    plain = network.lightness_depth.clone()
    network.lightness_depth.fill_(0.03)
    network.lightness_depth[:, 96:] = 0.3  # chin
    depth = depth_of_faces(guide, 256)
    network.lightness_depth.zero_()
    unknown = depth_of_faces(guide, 256)
    network.lightness_depth.copy_(plain)
    assert torch.isinf(unknown).all()
    assert torch.isinf(depth[0, 0, 128, 128]) and torch.isfinite(depth[0, 0, 60, [90, 166]]).all()
    residual = Residual(torch.ones(1, 1, 256, 256), torch.full((1, 2, 256, 256), 0.05), depth, DetailConfig())
    free = torch.zeros(1, 2, 256, 256)
    bars = {"forehead": (56, 90), "nose": (124, 128), "chin": (210, 128)}
    for row, column in bars.values():
        free[:, 1:, row : row + 8, column - 12 : column + 12] = -4.0
    before = residual(free)[0][0, 0]
    residual.leave_out_hair(free)
    after = residual(free)[0][0, 0]
    share = {
        n: float(after[r + 2 : r + 6, c - 8 : c + 8].mean() / before[r + 2 : r + 6, c - 8 : c + 8].mean())
        for n, (r, c) in bars.items()
    }
    assert share["forehead"] < 0.1 and share["nose"] > 0.9 and share["chin"] > 0.9
    assert residual.shown[0, 0, 60, 166] == 1  # the other side of the forehead
    light = Residual(torch.ones(1, 1, 256, 256), torch.full((1, 2, 256, 256), 0.05), depth, DetailConfig())
    light.leave_out_hair(-free)
    assert light.shown.min() > 0.9  # but for the dark rim that a light bar has


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


def test_one_side_tells_the_other_and_hair_does_not() -> None:
    """A mark on a side that shows is taken over to one that does not; between sides that show it is dear."""
    spread, depth = torch.full((1, 2, 256, 256), 0.05), torch.full((1, 1, 256, 256), torch.inf)
    free = torch.zeros(1, 2, 256, 256)
    free[:, 1:, 120:128, 60:68] = -3.0  # on the chart's left
    mark, mirrored = (..., slice(122, 126), slice(62, 66)), (..., slice(122, 126), slice(190, 194))
    whole = torch.ones(1, 1, 256, 256)
    left, right = whole.clone(), whole.clone()
    left[..., 128:], right[..., :128] = 0.0, 0.0
    config = DetailConfig()
    both = Residual(whole, spread, depth, config)
    change, penalty = both(free)
    assert change[mark].mean() < -0.05 and abs(float(change[mirrored].mean())) < 0.1 * abs(float(change[mark].mean()))
    alike = free + free.flip(-1)
    assert float(penalty) > 2 * float(both(alike)[1])  # the same mark twice is cheaper than once
    change = Residual(left, spread, depth, config)(free)[0]
    assert float(change[mirrored].mean()) == pytest.approx(float(change[mark].mean()), rel=0.1)
    change = Residual(right, spread, depth, config)(free)[0]
    assert change.abs().max() < 0.1 * abs(float(both(free)[0][mark].mean()))  # what is not seen says nothing


def test_the_depth_of_the_embedded_model_knows_foreheads_and_beards() -> None:
    depth = load_autoencoder().lightness_depth
    assert depth.shape == (1, 128, 128)
    assert torch.allclose(depth, depth.flip(-1), atol=1e-3)
    forehead, jaw = depth[0, 24:30, 56:72], depth[0, 93:97, 38:42]
    assert forehead.max() < NEVER_DARK < jaw.min()


def test_the_light_gives_back_what_the_skin_takes(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """A face expected twice as light: its skin is lighter, its picture is not."""
    guide, z = guide_of(pipeline, crop), torch.zeros(1, 1, 67, 64)
    parts = guide.layout.split(guide.statistics.denormalise(z))
    face = guide.models.face_maps(parts.texture)
    expected = torch.cat([(face[:, :3] * 1.3).clamp(0, 1), face[:, 3:6] * 0.5, face[:, 6:]], 1)
    nothing = DetailConfig(steps=1, rate=0.0, coefficients_rate=0.0, hue=1.0, specular=0.25)
    found = refine_detail(guide, z, nothing, expected)
    residual = found.residual
    light = guide.layout.split(guide.statistics.denormalise(found.z))
    assert torch.allclose(found.face_maps, with_detail(face, residual), atol=1e-6)
    lit = guide.estimate(with_detail(face, residual), light).image
    plain = guide.estimate(face, parts).image
    assert float(residual[:, :3].mean()) > 0.15
    specular = with_detail(face, residual)[:, 3:6].mean(1)
    mean = torch.nn.functional.avg_pool2d(pipeline.models.autoencoder.chart_mean[None, 3:6], 2).mean(1)
    assert torch.allclose(specular, torch.lerp(mean, expected[:, 3:6].mean(1), 0.25), atol=1e-6)
    assert (lit - plain).abs().mean() < 0.02
    assert (guide.estimate(with_detail(face, residual), parts).image - plain).abs().mean() > 0.03


def test_the_light_of_a_monochrome_photo_is_white_and_as_bright(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """And that of a colour photo keeps its colour."""
    nothing = DetailConfig(steps=1, rate=0.0, coefficients_rate=0.0)
    z = torch.randn(1, 1, 67, 64, generator=torch.Generator().manual_seed(0)) * 0.3
    guide = guide_of(pipeline, replace(crop, is_monochrome=True))
    moved = refine_detail(guide, z, DetailConfig(steps=4, coefficients_rate=0.2)).z
    lamps = guide.layout.split(guide.statistics.denormalise(moved)).light[0, :6].view(2, 3)
    assert (lamps - lamps.mean(1, keepdim=True)).abs().max() < 1e-5  # after steps that move light, too
    for is_grey in (True, False):
        guide = guide_of(pipeline, replace(crop, is_monochrome=is_grey))
        parts = guide.layout.split(guide.statistics.denormalise(z))
        face = guide.models.face_maps(parts.texture)
        expected = torch.cat([(face[:, :3] * torch.tensor([1.2, 1.0, 0.8])[:, None, None]).clamp(0, 1), face[:, 3:]], 1)
        found = refine_detail(guide, z, nothing, expected)
        settled = guide.layout.split(guide.statistics.denormalise(found.z))
        lamps = settled.light[0, :6].view(2, 3)
        apart = (lamps - lamps.mean(1, keepdim=True)).abs().max()
        assert apart < 1e-5 if is_grey else apart > 0.05
        before, after = guide.estimate(face, parts), guide.estimate(found.face_maps, settled)
        skin = guide.target.skin * (before.rendering.part == 0)[:, None]
        levels = [(luminance(seen.image) * skin).sum() / skin.sum() for seen in (before, after)]
        assert float(levels[1] / levels[0]) == pytest.approx(1, abs=0.06)
