"""The detail stage: the photo comes nearer, the maps carry it, and the light gives back what the skin takes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitdiff.rendering.blur import blurred
from fitdiff.rendering.shader import luminance
from fitdiff.runtime import pipeline as pipeline_module
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.detail import DetailConfig, refine_detail, with_detail
from fitdiff.runtime.face_crop import FaceCrop
from fitdiff.runtime.guidance import GuidanceConfig
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.runtime.residual import LEAST_SPREAD, texels_shown

from .conftest import guide_of

FEW = DetailConfig(steps=4)


def test_residual_scales_diffuse_and_shifts_specular_albedo() -> None:
    maps = torch.rand(1, 9, 32, 32) * 0.5
    assert torch.equal(with_detail(maps, torch.zeros(1, 4, 16, 16)), maps)
    doubled = with_detail(maps, torch.tensor([2.0, 2.0, 2.0, 1.0]).log().view(1, 4, 1, 1).expand(-1, -1, 16, 16))
    assert torch.allclose(doubled[:, :3], 2 * maps[:, :3], atol=1e-5) and torch.equal(doubled[:, 3:], maps[:, 3:])
    shinier = with_detail(maps, torch.tensor([0.0, 0.0, 0.0, 0.1]).view(1, 4, 1, 1))
    assert torch.allclose(shinier[:, 3:6], maps[:, 3:6] + 0.1) and torch.equal(shinier[:, 6:], maps[:, 6:])


def test_detail_brings_the_photo_nearer_where_it_is_shown(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    guide = guide_of(pipeline, crop)
    z = torch.zeros(1, 1, 67, 64)
    residual = refine_detail(guide, z, DetailConfig(steps=8)).residual
    losses = [row["total"] for row in guide.histories[0]]
    assert losses[-1] < 0.8 * losses[0] and len(losses) == 8
    parts = guide.layout.split(guide.statistics.denormalise(z))
    shown, rims = texels_shown(guide, guide.models.face_maps(parts.texture), parts)
    hidden = ((shown + rims) == 0) & ((shown + rims).flip(-1) == 0)
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


def test_the_expression_is_held_more_firmly_than_the_shape(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    moves = []
    for hold in (0.0, 50.0):
        guide = guide_of(pipeline, crop)
        found = refine_detail(guide, torch.zeros(1, 1, 67, 64), DetailConfig(steps=8, hold=0.0, hold_expression=hold))
        parts = guide.layout.split(found.z)
        moves.append([float(part.abs().mean()) for part in (parts.identity, parts.expression)])
    assert moves[1][1] < 0.2 * moves[0][1] and moves[1][0] > 0.5 * moves[0][0]


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
