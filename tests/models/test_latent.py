"""The latent's layout and normalisation."""

import pytest
import torch

from fitdiff.models.latent import LatentLayout, LatentParts, LatentStatistics


def test_the_default_layout_is_the_papers() -> None:
    layout = LatentLayout()
    assert (layout.size, layout.vector, layout.shape) == (4288, 192, (1, 67, 64))


def test_split_and_join_are_inverse_and_in_order() -> None:
    layout = LatentLayout()
    z = torch.arange(2 * layout.size, dtype=torch.float32).view(2, *layout.shape)
    parts = layout.split(z)
    assert parts.texture.shape == (2, 1, 64, 64)
    assert parts.identity[0].tolist() == list(range(4096, 4096 + 158))
    assert parts.expression[0].tolist() == list(range(4254, 4254 + 25))
    assert parts.light[0].tolist() == list(range(4279, 4288))
    assert torch.equal(layout.join(parts), z)


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 1, 64, 64\); expected \(B, 1, 67, 64\)"):
        LatentLayout().split(torch.zeros(2, 1, 64, 64))
    with pytest.raises(ValueError, match="whole rows"):
        LatentLayout(identity=157)


def test_normalise_gives_unit_variance_and_denormalise_undoes_it() -> None:
    layout = LatentLayout(texture_size=8, identity=10, expression=3, light=3)
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(layout.size, generator=generator) + 0.5
    z = (torch.randn(4000, layout.size, generator=generator) * scale + 3).view(-1, *layout.shape)
    statistics = LatentStatistics(layout)
    statistics.set_from_moments(z.flatten(1).mean(0), z.flatten(1).std(0))
    normalised = statistics.normalise(z).flatten(1)
    assert normalised.mean(0).abs().max() < 1e-4
    assert (normalised.std(0) - 1).abs().max() < 1e-4
    assert torch.allclose(statistics.denormalise(normalised.view_as(z)), z, atol=1e-5)


def test_an_element_that_hardly_moves_is_not_blown_up() -> None:
    layout = LatentLayout(texture_size=8, identity=10, expression=3, light=3)
    std = torch.ones(layout.size)
    std[5] = 0.0
    std[layout.texture + 11] = 1e-9
    statistics = LatentStatistics(layout)
    statistics.set_from_moments(torch.zeros(layout.size), std, floor=0.1)
    assert 0.09 < float(statistics.std[5]) < 0.11
    assert 0.05 < float(statistics.std[layout.texture + 11]) < 0.11
    parts = LatentParts(*(torch.zeros(1, *s) for s in ((1, 8, 8), (10,), (3,), (3,))))
    assert torch.isfinite(statistics.normalise(layout.join(parts))).all()
