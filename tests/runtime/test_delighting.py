"""Unwrapped photos land on the right side of the chart, and delighting changes what it may change and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fitdiff.models.delighting import COLUMNS, ROWS, SIDE, DelightingNet, about_zero
from fitdiff.rendering.blur import blurred
from fitdiff.rendering.lightness import lightness
from fitdiff.rendering.shader import linear_from_srgb, luminance
from fitdiff.runtime.delighting import delit_faces, with_lightness, with_tone
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.guidance import GuidanceConfig, PhotoGuidance
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_targets
from fitdiff.runtime.pipeline import FitDiffPipeline


@pytest.fixture(scope="module")
def crop(small_pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), small_pipeline.detector, small_pipeline.models.face_mesh)


class Shown(DelightingNet):
    """Answers with the photo itself, as it was told of it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, :3].mean(1, keepdim=True)


def faces(pipeline: FitDiffPipeline, network: DelightingNet | None, *crops: FaceCrop) -> Tensor:
    """The delit grey faces (B, 9, 256, 256) of crops, on the mean head."""
    models = replace(pipeline.models, delighting=network)
    guide = PhotoGuidance(models, pipeline.denoiser.statistics, photo_targets(crops, models), GuidanceConfig())
    parts = guide.layout.split(guide.statistics.denormalise(torch.zeros(len(crops), 1, 67, 64)))
    return delit_faces(guide, parts, torch.full((len(crops), 9, SIDE, SIDE), 0.5))


def marked(crop: FaceCrop, landmark: int) -> FaceCrop:
    """The photo with a black spot on the skin at a landmark."""
    x, y = (int(v) for v in crop.landmarks[landmark, :2])
    image = crop.image.copy()
    image[y - 5 : y + 6, x - 5 : x + 6] = 0.02
    return replace(crop, image=image)


@pytest.mark.parametrize("landmark", [425, 205])  # the character's left and right cheek
def test_a_mark_on_a_cheek_lands_on_that_cheek(small_pipeline: FitDiffPipeline, crop: FaceCrop, landmark: int) -> None:
    plain, spotted = faces(small_pipeline, Shown(), crop, marked(crop, landmark))
    change = (plain - spotted)[:3].mean(0)
    row, column = divmod(int(change.argmax()), SIDE)
    assert change.max() > 0.1
    wanted = small_pipeline.morphable.landmarks_on_chart()[landmark].numpy() * (SIDE / 512)
    assert np.hypot(column - wanted[0], row - wanted[1]) < 14  # the mean head is not hers
    assert (column > SIDE / 2) == (landmark == 425)


def test_photos_of_a_batch_stay_apart(small_pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    both = faces(small_pipeline, Shown(), crop, marked(crop, 425))
    alone = faces(small_pipeline, Shown(), marked(crop, 425))
    torch.testing.assert_close(both[1:], alone, atol=2e-4, rtol=0)


def test_without_a_network_the_expected_face_stays(small_pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    assert torch.equal(faces(small_pipeline, None, crop), torch.full((1, 9, SIDE, SIDE), 0.5))


def test_only_how_lightness_varies_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = 0.3 + 0.3 * torch.rand(1, 9, SIDE, SIDE, generator=generator)
    network = DelightingNet()
    network.weight.copy_(_bump(network.weight))
    fine = 0.05 * torch.randn(network.weight.shape, generator=generator)
    height = torch.linspace(-0.5, 0.5, fine.shape[-2])[:, None]  # dark above, light below: nobody's skin, but the light
    varying = about_zero(fine + height, network.weight)
    found = with_lightness(maps, varying, network)
    window = (..., ROWS, COLUMNS)
    before, after = (lightness(x[:, :3])[window] for x in (maps, found))
    sure = network.weight > 0.5
    wanted, finer = (x - blurred(x, 6.0) for x in (varying, after))
    torch.testing.assert_close(finer[sure], wanted[sure], atol=0.03, rtol=0)
    assert blurred(after - before, 16.0)[sure].abs().max() < 0.2 * height.max()
    level = [float((x * network.weight).sum() / network.weight.sum()) for x in (before, after)]
    assert level[0] == pytest.approx(level[1], abs=0.01)
    hue = [x[:, :3] / x[:, :3].mean(1, keepdim=True) for x in (maps, found)]
    torch.testing.assert_close(*hue, atol=1e-4, rtol=0)
    assert torch.equal(found[:, 3:], maps[:, 3:])
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[ROWS, COLUMNS] = False
    assert torch.equal(found[..., outside], maps[..., outside])
    edge = found[window][..., 0, :] - maps[window][..., 0, :]
    assert edge.abs().max() < 1e-3  # no seam


def test_maps_of_twice_the_size_change_alike() -> None:
    cells = 0.3 + 0.3 * torch.rand(1, 9, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = functional.interpolate(cells, SIDE, mode="bilinear")
    large = functional.interpolate(maps, 2 * SIDE, mode="nearest")
    network = DelightingNet()
    network.weight.copy_(_bump(network.weight))
    varying = about_zero(network.weight * 0.3, network.weight)
    for change in (
        lambda x: with_lightness(x, varying, network),
        lambda x: with_tone(x, torch.tensor([-2.0]), torch.tensor([1.0]), network),
    ):
        again = functional.avg_pool2d(change(large), 2)
        torch.testing.assert_close(again, change(maps), atol=0.03, rtol=0)
        assert (again - change(maps)).abs().mean() < 0.003


def test_a_told_tone_is_that_of_the_maps() -> None:
    maps = 0.3 + 0.3 * torch.rand(3, 9, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    network = DelightingNet()
    network.weight.copy_(_bump(network.weight))
    tone, believed = torch.tensor([-1.0, -2.5, -2.5]), torch.tensor([1.0, 1.0, 0.0])
    found = with_tone(maps, tone, believed, network)

    def light(x: Tensor) -> Tensor:
        return (luminance(linear_from_srgb(x[:, :3, ROWS, COLUMNS])) * network.weight).sum((1, 2, 3)) / (
            network.weight.sum()
        )

    assert light(found)[:2].log().tolist() == pytest.approx([-1.0, -2.5], abs=0.02)
    torch.testing.assert_close(found[2], maps[2], atol=1e-5, rtol=0)
    ratio = [linear_from_srgb(x[1, :1]) / linear_from_srgb(x[1, 2:3]) for x in (maps, found)]
    torch.testing.assert_close(*ratio, rtol=1e-3, atol=0)
    assert torch.equal(found[:, 3:], maps[:, 3:])
    assert torch.equal(with_tone(maps, tone, believed, None), maps)


def _bump(like: Tensor) -> Tensor:
    y, x = (torch.linspace(-1, 1, n) for n in like.shape[-2:])
    return (1.5 - 2 * torch.hypot(y[:, None], x[None])).clamp(0, 1).expand_as(like)
