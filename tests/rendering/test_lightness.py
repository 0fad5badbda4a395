"""Lightness in bands of scale: nothing lost, nothing twice, and the spread of a set of faces where they differ."""

import pytest
import torch

from fitdiff.rendering.blur import blurred
from fitdiff.rendering.lightness import (
    BROADEST,
    EDGES,
    lightness,
    lightness_bands,
    lightness_departures,
    lightness_depth,
    lightness_spread,
)


def test_bands_add_up_to_all_but_the_broad_part() -> None:
    x = torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lightness_bands(x).sum(1, keepdim=True), x - blurred(x, BROADEST), atol=1e-5)


@pytest.mark.parametrize(("wavelength", "band"), [(5.0, 0), (16.0, 1), (56.0, 2)])
def test_a_wave_is_in_the_band_of_its_length(wavelength: float, band: int) -> None:
    wave = torch.sin(torch.arange(256) * 2 * torch.pi / wavelength).expand(1, 1, 256, 256)
    power = lightness_bands(wave)[0, :, 64:192, 64:192].square().mean((1, 2))
    assert int(power.argmax()) == band and power[band] > 0.5 * power.sum()


def test_bands_are_the_same_places_at_half_the_size() -> None:
    x = blurred(torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)), 3.0)
    half = torch.nn.functional.avg_pool2d(x, 2)
    coarse = torch.nn.functional.avg_pool2d(lightness_bands(x), 2)[0, 2, 16:-16, 16:-16]
    assert torch.allclose(lightness_bands(half)[0, 2, 16:-16, 16:-16], coarse, atol=2e-3)


def test_lightness_is_the_logarithm_of_a_common_factor() -> None:
    albedo = 0.4 + 0.1 * torch.rand(1, 3, 8, 8)
    change = lightness(albedo * 1.1) - lightness(albedo)
    assert torch.allclose(change, torch.full_like(change, 1.1).log(), atol=0.02)


def test_the_spread_is_where_faces_differ_and_knows_left_from_right() -> None:
    generator = torch.Generator().manual_seed(0)
    faces = torch.full((40, 3, 64, 64), 0.5) * (0.8 + 0.4 * torch.rand(40, 1, 1, 1, generator=generator))
    faces[:, :, 20:28, 8:16] *= 1 - 0.5 * torch.rand(40, 1, 1, 1, generator=generator)  # on every face another mark
    faces[:5, :, 20:28, 44:52] *= 0.5  # on few: no freedom for all
    departures = lightness_departures(faces)
    assert departures.shape == (40, 3, 64, 64)
    spread = lightness_spread(departures)
    assert spread.shape == (3, 32, 32)
    assert spread[:, 11:13, 5:7].mean() > 4 * spread[:, 11:13, 23:25].mean()
    assert len(EDGES) + 1 == len(spread)


def test_the_depth_is_where_a_few_are_dark_and_not_where_they_are_light() -> None:
    faces = torch.full((200, 3, 64, 64), 0.5)
    faces[:4, :, 20:28, 8:16] *= 0.6  # a mark on two of a hundred
    faces[:4, :, 20:28, 44:52] *= 1.6
    faces[:1, :, 40:44, 8:12] *= 0.6  # on one of two hundred
    depth = lightness_depth(lightness_departures(faces))
    assert depth.shape == (1, 32, 32) and depth.min() >= 0
    assert depth[0, 11:13, 5:7].mean() > 0.15
    assert depth[0, 10:14, 22:26].max() < 0.05 and depth[0, 19:22, 3:6].max() < 0.05
