"""The condition without the recogniser's maps."""

import pytest
import torch

from fitdiff.models.conditioner import Conditioner
from fitdiff.models.denoiser import DenoiserConfig, FitDiffDenoiser
from fitdiff.models.linear_prior import pooled_inputs
from fitdiff.models.recogniser import IdentityFeatures
from fitdiff.models.unet import UNetConfig

UNET = UNetConfig(
    base_channels=8, multipliers=(1, 1), attention_levels=(), condition_maps=(3, 4, 5), condition_embedding=6,
    condition_channels=8, vector_channels=8,
)  # fmt: skip


def features(seed: int) -> IdentityFeatures:
    generator = torch.Generator().manual_seed(seed)
    maps = tuple(torch.rand(2, c, s, s, generator=generator) for c, s in zip((3, 4, 5), (17, 8, 4), strict=True))
    return IdentityFeatures(maps, torch.randn(2, 6, generator=generator))


@pytest.fixture(params=[0, 2])
def conditioner(request: pytest.FixtureRequest) -> Conditioner:
    torch.manual_seed(0)
    found = FitDiffDenoiser(DenoiserConfig(UNET, prior_components=4, prior_grid=request.param)).conditioner
    found.channel_mean.copy_(torch.rand(18))
    found.prior.input_mean.copy_(torch.rand(found.prior.input_mean.shape))
    found.prior.regression.normal_()
    for parameter in found.parameters():  # the heads start at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return found.eval()


def test_embedding_only_forgets_the_maps_and_nothing_else(conditioner: Conditioner) -> None:
    one, other = features(0), features(1)
    mixed = IdentityFeatures(other.maps, one.embedding)
    present = torch.ones(2)
    with torch.no_grad():
        alone, again = (conditioner(conditioner.embedding_only(f), present) for f in (one, mixed))
        whole, another = conditioner(one, present), conditioner(conditioner.embedding_only(other), present)
    assert all(torch.equal(alone[name], again[name]) for name in alone)
    for name in ("prior_mean", "identity", "spade_00"):
        assert not torch.allclose(alone[name], another[name]), name
    assert not torch.allclose(alone["spade_00"], whole["spade_00"])


def test_the_maps_are_the_training_sets_means(conditioner: Conditioner) -> None:
    """Cell for cell as the linear prior averages them, though its cells overlap on an odd side."""
    found = conditioner.embedding_only(features(0))
    grid = conditioner.prior.grid
    inputs = pooled_inputs(found, grid)
    if grid:
        expected = conditioner.prior.input_mean[6:].expand(2, -1)
        torch.testing.assert_close(inputs[:, 6:], expected, atol=1e-6, rtol=0)
    else:
        means = torch.cat([m.mean((2, 3)) for m in found.maps], 1)
        torch.testing.assert_close(means, conditioner.channel_mean[:12].expand(2, -1), atol=1e-6, rtol=0)
