"""The UNet, its conditioner and the checkpoint that holds them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fitdiff.errors import MissingError
from fitdiff.models.checkpoint import ModelCard
from fitdiff.models.denoiser import (
    Denoiser,
    DenoiserConfig,
    FitDiffDenoiser,
    TrainedWith,
    check_trained_with,
    load_denoiser,
    save_denoiser,
)
from fitdiff.models.latent import LatentLayout
from fitdiff.models.recogniser import IdentityFeatures
from fitdiff.models.spade import SpadeNorm
from fitdiff.models.unet import ResidualBlock, UNet, UNetConfig

SMALL = DenoiserConfig(
    unet=UNetConfig(
        base_channels=8,
        multipliers=(1, 2, 2, 3),
        attention_levels=(3,),
        head_channels=8,
        condition_maps=(6, 8, 10),
        condition_embedding=12,
        condition_channels=16,
        vector_channels=32,
    ),
    prior_components=200,
)
CARD = ModelCard("denoiser", "test", "made by a test", "Apache-2.0", True)
TRAINED_WITH = TrainedWith("dlib", "a", "b", "c")


def filled(config: DenoiserConfig = SMALL, seed: int = 0) -> FitDiffDenoiser:
    """A model without zeros in it, so that every path counts."""
    torch.manual_seed(seed)
    model = FitDiffDenoiser(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    model.denoiser.linear.basis.copy_(torch.linalg.qr(torch.randn(4288, config.prior_components)).Q.T)
    model.conditioner.prior.regression.normal_(std=0.05)
    model.conditioner.prior.variance_null.uniform_(0.1, 3)
    model.conditioner.prior.variance_conditional.uniform_(0.1, 1)
    return model


def inputs(batch: int, config: DenoiserConfig = SMALL) -> tuple[Tensor, Tensor, IdentityFeatures, Tensor]:
    generator = torch.Generator().manual_seed(7)
    sides = (17, 8, 4, 4)[: len(config.unet.condition_maps)]
    shapes = zip(config.unet.condition_maps, sides, strict=True)
    maps = tuple(torch.randn(batch, c, side, side, generator=generator) for c, side in shapes)
    embedding = torch.randn(batch, config.unet.condition_embedding, generator=generator)
    z_t = torch.randn(batch, 1, 67, 64, generator=generator)
    t = torch.randint(0, 1000, (batch,), generator=generator)
    present = (torch.arange(batch) % 2 == 0).float()
    return z_t, t, IdentityFeatures(maps, embedding), present


def test_the_split_is_exact() -> None:
    model = filled()
    z_t, t, features, present = inputs(3)
    conditioning = model.conditioner(features, present)
    assert torch.equal(model(z_t, t, features, present), model.denoiser(z_t, t, conditioning))
    assert tuple(conditioning) == model.conditioner.output_names
    again = model.denoiser(z_t, t - t // 2, conditioning)  # one conditioning serves all steps
    assert torch.equal(again, model(z_t, t - t // 2, features, present))


def test_every_residual_block_is_normalised_by_spade() -> None:
    unet = UNet(UNetConfig())
    blocks = [m for m in unet.modules() if isinstance(m, ResidualBlock)]
    assert len(blocks) == 10
    assert all(isinstance(n, SpadeNorm) for b in blocks for n in (b.norm1, b.norm2))
    assert len(unet.norm_sites) == 2 * len(blocks)
    assert unet.padded == (72, 64)


def test_every_modulation_and_every_input_counts() -> None:
    model = filled()
    z_t, t, features, present = inputs(1)
    conditioning = model.conditioner(features, present)
    before = model.denoiser(z_t, t, conditioning)
    for name, value in conditioning.items():
        changed = conditioning | {name: value + 0.5}
        assert not torch.equal(model.denoiser(z_t, t, changed), before), name
    for index in range(3):
        maps = tuple(m + (i == index) * torch.randn_like(m) for i, m in enumerate(features.maps))
        other = model(z_t, t, IdentityFeatures(maps, features.embedding), present)
        assert not torch.equal(other, before)


def test_the_condition_takes_any_list_of_maps() -> None:
    unet = replace(SMALL.unet, condition_maps=(5, 7), condition_embedding=3)
    config = replace(SMALL, unet=unet, prior_grid=0)
    assert filled(config)(*inputs(2, config)).shape == (2, 1, 67, 64)


def test_an_untrained_model_is_the_gaussian_priors_denoiser() -> None:
    model = FitDiffDenoiser(SMALL).eval().requires_grad_(False)
    model.conditioner.prior.variance_conditional.uniform_(0.1, 3)
    z_t, t, features, present = inputs(2)
    conditioning = model.conditioner(features, present)
    expected = model.denoiser.expected_noise(z_t, model.denoiser.alphas_cumprod[t][:, None], conditioning)
    assert torch.equal(model(z_t, t, features, present), expected)


def test_present_chooses_the_prior_alone() -> None:
    model = filled()
    _, _, features, _ = inputs(2)
    given = model.conditioner(features, torch.ones(2))
    absent = model.conditioner(features, torch.zeros(2))
    different = {name for name in given if not torch.equal(given[name], absent[name])}
    assert different == {"prior_mean", "prior_variances"}
    assert absent["prior_mean"].abs().max() == 0


def test_a_batch_gives_what_its_samples_give_alone() -> None:
    model = filled()
    z_t, t, features, present = inputs(3)
    together = model(z_t, t, features, present)
    for row in range(3):
        alone = IdentityFeatures(tuple(m[row : row + 1] for m in features.maps), features.embedding[row : row + 1])
        one = model(z_t[row : row + 1], t[row : row + 1], alone, present[row : row + 1])
        error = (one[0] - together[row]).abs().max()
        print(f"sample {row}: largest difference {error:.1e}")
        assert error < 1e-4


def test_bfloat16_weights_and_autocast_stay_near_float32() -> None:
    model = filled()
    z_t, t, features, present = inputs(2)
    conditioning = model.conditioner(features, present)
    exact = model.denoiser(z_t, t, conditioning)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.denoiser(z_t, t, conditioning)
    model.denoiser.unet.to(torch.bfloat16)
    low = model.denoiser(z_t, t, conditioning)
    for name, other in (("autocast", cast), ("weights", low)):
        error = (other - exact).abs()
        print(f"bfloat16 {name}: largest {error.max():.3f}, mean {error.mean():.4f}")
        assert other.dtype == torch.float32
        assert error.mean() < 0.03 * exact.abs().mean()


def test_all_parameters_get_a_gradient() -> None:
    model = filled().requires_grad_(True)
    model(*inputs(2)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_default_size() -> None:
    model = FitDiffDenoiser()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f} million parameters")
    assert 2e6 < parameters < 4e6
    assert isinstance(model.denoiser, Denoiser)


def test_a_checkpoint_comes_back_and_knows_its_companions(tmp_path: Path) -> None:
    model = filled()
    model.trained_with = TRAINED_WITH
    model.statistics.set_from_moments(torch.randn(4288), torch.rand(4288) + 0.5)
    card = save_denoiser(tmp_path / "denoiser", model, CARD)
    loaded = load_denoiser(tmp_path / "denoiser")
    assert loaded.config == SMALL and loaded.trained_with == TRAINED_WITH and loaded.card == card
    assert torch.equal(loaded.statistics.mean, model.statistics.mean)
    z_t, t, features, present = inputs(2)
    exact = model(z_t, t, features, present)
    error = (loaded(z_t, t, features, present) - exact).abs()
    print(f"float16 checkpoint: largest {error.max():.1e}, mean {error.mean():.1e}")
    assert error.max() < 0.02 * exact.abs().max()
    check_trained_with(loaded.trained_with, TRAINED_WITH)
    with pytest.raises(MissingError, match="another recogniser: got recogniser other with SHA-256 x; expected .*dlib"):
        check_trained_with(loaded.trained_with, replace(TRAINED_WITH, recogniser="other", recogniser_sha256="x"))
    with pytest.raises(MissingError, match="another morphable and another autoencoder: got morphable lsfm .* y, auto"):
        other = replace(TRAINED_WITH, morphable="lsfm", morphable_sha256="y", autoencoder_sha256="z")
        check_trained_with(loaded.trained_with, other)
    check_trained_with(loaded.trained_with, replace(TRAINED_WITH, morphable="the same by another name"))
    with pytest.raises(MissingError, match="no record"):
        check_trained_with(None, TRAINED_WITH)


def test_a_model_that_knows_no_companions_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained_with"):
        save_denoiser(tmp_path / "denoiser", FitDiffDenoiser(SMALL), CARD)


def test_the_latent_layout_may_differ() -> None:
    layout = LatentLayout(texture_size=32, identity=20, expression=8, light=4)
    config = replace(SMALL, layout=layout, prior_components=40)
    model = FitDiffDenoiser(config)
    _, t, features, present = inputs(2)
    assert model(torch.randn(2, *layout.shape), t, features, present).shape == (2, 1, 33, 32)
