"""The whole job with small models: repeatable, independent of its neighbours, with and without guidance."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fitdiff.models.latent import LatentLayout
from fitdiff.rendering.camera import project
from fitdiff.rendering.even_skin import evening
from fitdiff.rendering.lightness import DARKEST
from fitdiff.rendering.shader import linear_from_srgb
from fitdiff.runtime.avatar_result import AvatarOptions, AvatarResult
from fitdiff.runtime.detail import DetailConfig
from fitdiff.runtime.face_chip import five_points_from_landmarks
from fitdiff.runtime.face_crop import FaceCrop
from fitdiff.runtime.guidance import GUIDANCE_PRESETS, GuidanceConfig
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline

OPTIONS = AvatarOptions(steps=2, guidance="latent", seed=3)


def same(a: AvatarResult, b: AvatarResult) -> bool:
    return (
        np.array_equal(a.avatar.vertices, b.avatar.vertices)
        and np.array_equal(a.avatar.head_maps.base_color, b.avatar.head_maps.base_color)
        and a.report.guidance == b.report.guidance
    )


def test_neighbours_and_order_change_nothing(pipeline: FitDiffPipeline, small_assets: Path, crop: FaceCrop) -> None:
    other = FaceCrop(**(vars(crop) | {"image": np.ascontiguousarray(crop.image * 0.7)}))
    in_a_row = [pipeline.avatar(c, OPTIONS) for c in (crop, other, crop)]
    alone = load_pipeline(small_assets).avatar(crop, OPTIONS)
    assert same(in_a_row[0], alone) and same(in_a_row[2], alone)
    assert not same(in_a_row[1], alone)


def people(crop: FaceCrop) -> list[FaceCrop]:
    """Three photos: in colour, monochrome, and darker with the face elsewhere and larger."""
    grey = np.repeat(cv2.cvtColor(crop.image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    shift = np.float32([-9, -12])
    moved = cv2.warpAffine(crop.image**1.3, np.c_[1.1 * np.eye(2), shift], (224, 224), borderMode=cv2.BORDER_REPLICATE)
    landmarks = (crop.landmarks * 1.1 + np.append(shift, 0)).astype(np.float32)
    elsewhere = {"image": moved, "landmarks": landmarks, "five_points": five_points_from_landmarks(landmarks)}
    return [crop, replace(crop, image=grey, is_monochrome=True), replace(crop, **elsewhere)]


@pytest.fixture
def sampled(pipeline: FitDiffPipeline, monkeypatch: pytest.MonkeyPatch) -> tuple[FitDiffPipeline, list[torch.Tensor]]:
    """A pipeline in float32, and every z_0 that its loops end with, before any detail."""
    found: list[torch.Tensor] = []
    loop = FitDiffPipeline._sample

    def listened(*arguments: Any) -> torch.Tensor:
        found.append(loop(*arguments))
        return found[-1]

    monkeypatch.setattr(FitDiffPipeline, "_sample", listened)
    return replace(pipeline, models=replace(pipeline.models, bfloat16=False)), found


def test_a_batch_changes_no_result(
    sampled: tuple[FitDiffPipeline, list[torch.Tensor]], crop: FaceCrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together and alone, with a seed each, in colour and grey. Sums of other lengths round in another order; one
    guided step shows what that is, further ones and Adam, which asks for a gradient's sign, make more of it."""
    config = GuidanceConfig(start=0.0, interval=1, detail=DetailConfig(steps=2))
    monkeypatch.setitem(GUIDANCE_PRESETS, "full", config)
    pipeline, found = sampled
    crops, options = people(crop), [AvatarOptions(steps=1, seed=seed, cfg=1.5) for seed in (3, 4, 5)]
    together = pipeline.avatars(crops, options)
    alone = [pipeline.avatar(*pair) for pair in zip(crops, options, strict=True)]
    batch, *single = found
    error = (batch - torch.cat(single)).abs().amax((1, 2, 3))
    print(f"largest difference of z {error.tolist()}, largest z {float(batch.abs().max()):.1f}")
    assert float(error.max()) < 1e-4  # of numbers of about unit variance
    strangers = (batch[0] - batch[1:]).abs().amax((1, 2, 3))
    assert float(strangers.min()) > 0.1
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.avatar.vertices - other.avatar.vertices).max() < 1e-4  # metres
        albedo = np.abs(one.avatar.face_maps.diffuse_albedo - other.avatar.face_maps.diffuse_albedo)
        assert albedo.mean() < 1e-3
        assert one.report.similarity == pytest.approx(other.report.similarity, abs=1e-2)
        assert one.report.landmark_error == pytest.approx(other.report.landmark_error, abs=1e-4)
        assert one.report.pose is not None and other.report.pose is not None
        assert one.report.pose["rvec"] == pytest.approx(other.report.pose["rvec"], abs=1e-3)
        assert len(one.report.guidance) == len(other.report.guidance) == 3
        for row, expected in zip(one.report.guidance, other.report.guidance, strict=True):
            assert row == pytest.approx(expected, rel=2e-2, abs=1e-4)
        assert one.report.seed == other.report.seed and one.report.options["photos_at_once"] == 3


def test_neighbours_leave_not_a_bit_of_a_photo_changed(
    pipeline: FitDiffPipeline, crop: FaceCrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batch size, place and seed, another neighbour: nothing of one photo reaches another."""
    config = GuidanceConfig(start=0.0, interval=1, detail=DetailConfig(steps=2))
    monkeypatch.setitem(GUIDANCE_PRESETS, "full", config)
    options = [AvatarOptions(steps=2, seed=seed) for seed in (3, 4)]
    colour, grey, elsewhere = people(crop)
    results = [pipeline.avatars(pair, options) for pair in ((colour, grey), (colour, elsewhere), (elsewhere, grey))]
    assert same(results[0][0], results[1][0]) and same(results[0][1], results[2][1])
    assert not same(results[0][0], results[2][0]) and not same(results[0][1], results[1][1])


@pytest.mark.parametrize("guidance", ["full", "none"])
def test_a_head_has_the_size_that_is_expected_and_looks_as_it_did(
    guidance: str,
    sampled: tuple[FitDiffPipeline, list[torch.Tensor]],
    crop: FaceCrop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A photo cannot tell a small head from a large one farther away: the prior does, and the picture stays."""
    monkeypatch.setitem(GUIDANCE_PRESETS, "full", GuidanceConfig(start=0.0, interval=1, detail=DetailConfig(steps=1)))
    pipeline, found = sampled
    expected = torch.zeros(1, 1, 67, 64)
    expected.flatten(1)[:, 64 * 64 : 64 * 64 + 158] = 1.5 * torch.randn(158, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(type(pipeline.denoiser), "prior_mean", lambda *_: expected)
    result = pipeline.avatar(crop, AvatarOptions(steps=2, guidance=guidance))
    model, statistics = pipeline.morphable, pipeline.denoiser.statistics
    wanted, made = (model(LatentLayout().split(statistics.denormalise(z)).identity) for z in (expected, found[-1]))
    vertices = torch.from_numpy(result.avatar.vertices)[None]
    assert float(model.size(vertices)) == pytest.approx(float(model.size(wanted)), rel=1e-5)
    factor = float(model.size(wanted) / model.size(made))
    assert abs(factor - 1) > 0.005
    assert torch.allclose(vertices, factor * made, atol=1e-3)  # the detail's steps move the shape a little
    assert result.camera is not None and result.report.landmark_error is not None
    points = project(result.camera, pipeline.models.surface_points(result.vertices))[0, :, :2]
    target = photo_target(crop, pipeline.models)
    error = (points - target.landmarks[0])[pipeline.models.surface_valid].norm(dim=1).mean() / target.eye_distance[0]
    assert float(error) == pytest.approx(result.report.landmark_error, rel=1e-3)


def test_what_differs_in_more_than_the_seed_goes_through_loops_of_its_own(
    sampled: tuple[FitDiffPipeline, list[torch.Tensor]], crop: FaceCrop
) -> None:
    pipeline, found = sampled
    first, second = AvatarOptions(steps=1, guidance="none"), AvatarOptions(steps=2, guidance="none", seed=1)
    mixed = pipeline.avatars([crop] * 3, [first, second, replace(first, seed=1)])
    assert [len(z) for z in found] == [2, 1]
    assert [result.report.seed for result in mixed] == [0, 1, 1]
    assert [result.report.options["steps"] for result in mixed] == [1, 2, 1]
    for result, options in zip(mixed, [first, second, replace(first, seed=1)], strict=True):
        alone = pipeline.avatar(crop, options)
        assert np.abs(result.avatar.vertices - alone.avatar.vertices).max() < 1e-6
    with pytest.raises(ValueError, match="2 options for 3 crops"):
        pipeline.avatars([crop] * 3, [first, second])
    assert pipeline.avatars([], first) == []


@pytest.mark.parametrize("guidance", ["none", "full"])
def test_temples_and_ears_have_the_colour_of_the_face(
    pipeline: FitDiffPipeline, crop: FaceCrop, guidance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uneven() -> float:
        albedo = pipeline.avatar(crop, AvatarOptions(steps=2, guidance=guidance)).avatar.face_maps.diffuse_albedo
        linear = linear_from_srgb(torch.from_numpy(albedo).permute(2, 0, 1)[None])
        return float(evening(linear.clamp_min(DARKEST).log()).square().mean().sqrt())

    evened = uneven()
    for module in ("pipeline", "detail"):
        monkeypatch.setattr(f"fitdiff.runtime.{module}.even_surround", lambda maps: torch.zeros_like(maps[:, :4]))
    assert evened < 0.4 * uneven()


def test_seed_decides(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    unguided = [pipeline.avatar(crop, AvatarOptions(steps=2, seed=s, guidance="none")) for s in (0, 0, 1)]
    assert same(unguided[0], unguided[1]) and not same(unguided[0], unguided[2])
    assert unguided[0].report.guidance == []


@pytest.mark.parametrize(("scale", "calls"), [(1.0, 2), (4.0, 4)])
def test_classifier_free_scale_asks_without_a_face_too(
    pipeline: FitDiffPipeline, crop: FaceCrop, scale: float, calls: int
) -> None:
    seen: list[int] = []
    handle = pipeline.denoiser.denoiser.register_forward_hook(lambda *_: seen.append(1))
    result = pipeline.avatar(crop, AvatarOptions(steps=2, guidance="none", cfg=scale))
    handle.remove()
    assert len(seen) == calls and np.isfinite(result.avatar.vertices).all()


def test_report_names_every_stage_and_term(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    result = pipeline.avatar(crop, OPTIONS)
    report = result.report
    assert [stage.name for stage in report.stages] == ["condition", "sample", "decode"]
    assert len(report.guidance) == 1  # the first of two steps lies in the unguided share
    assert {"identity", "identity_perceptual", "photometric", "landmarks", "perceptual", "total"} < set(
        report.guidance[0]
    )
    assert report.landmark_error is not None and report.landmark_error < 0.1
    assert result.camera is not None and result.camera.height == 224


def test_unconditional_faces_differ(pipeline: FitDiffPipeline) -> None:
    first, second = (pipeline.sample(AvatarOptions(steps=2, seed=seed)) for seed in (0, 1))
    assert not same(first, second) and first.camera is None and first.report.photo_sha256 is None


def test_guidance_never_asks_the_unet_for_gradients(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    seen: list[bool] = []
    handle = pipeline.denoiser.denoiser.unet.register_forward_hook(
        lambda module, inputs, output: seen.append(torch.is_grad_enabled() or output.requires_grad)
    )
    pipeline.avatar(crop, OPTIONS)
    handle.remove()
    assert seen == [False, False]
