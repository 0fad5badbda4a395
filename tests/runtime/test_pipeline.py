"""The whole job with small models: repeatable, independent of its neighbours, with and without guidance."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.pipeline import AvatarOptions, AvatarResult, FitDiffPipeline, load_pipeline

OPTIONS = AvatarOptions(steps=2, guidance="latent", seed=3)


@pytest.fixture(scope="module")
def pipeline(small_assets: Path) -> FitDiffPipeline:
    return load_pipeline(small_assets)


@pytest.fixture(scope="module")
def crop(pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), pipeline.detector, pipeline.models.face_mesh)


def same(a: AvatarResult, b: AvatarResult) -> bool:
    return (
        np.array_equal(a.avatar.vertices, b.avatar.vertices)
        and np.array_equal(a.avatar.head_maps.base_color, b.avatar.head_maps.base_color)
        and a.report.guidance == b.report.guidance
    )


def test_neighbours_and_order_change_nothing(
    pipeline: FitDiffPipeline, small_assets: Path, crop: FaceCrop
) -> None:
    other = FaceCrop(**(vars(crop) | {"image": np.ascontiguousarray(crop.image * 0.7)}))
    in_a_row = [pipeline.avatar(c, OPTIONS) for c in (crop, other, crop)]
    alone = load_pipeline(small_assets).avatar(crop, OPTIONS)
    assert same(in_a_row[0], alone) and same(in_a_row[2], alone)
    assert not same(in_a_row[1], alone)


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
