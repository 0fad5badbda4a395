"""The closed-form linear prior against analytic results on Gaussians."""

import pytest
import torch

from fitdiff.models.linear_prior import (
    LinearDenoiser,
    LinearPriorFit,
    PriorRegression,
    linear_prior_from_data,
    pooled_inputs,
)
from fitdiff.models.recogniser import IdentityFeatures
from fitdiff.models.schedule import DiffusionSchedule
from fitdiff.runtime.ddim import SamplerConfig, sample

SIZE, COMPONENTS = 24, 6


def gaussian() -> tuple[LinearDenoiser, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear denoiser with its mean (1, K), variances (1, K + 1), mu (N,) and Sigma (N, N)."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(SIZE, COMPONENTS, generator=generator)).Q.T.contiguous()
    mean = torch.randn(1, COMPONENTS, generator=generator)
    variances = torch.tensor([[9.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.05]])
    linear = LinearDenoiser(COMPONENTS, SIZE)
    linear.basis.copy_(basis)
    inside = basis.T @ basis
    sigma = basis.T @ variances[0, :-1].diag() @ basis + variances[0, -1] * (torch.eye(SIZE) - inside)
    return linear, mean, variances, (mean @ basis)[0], sigma


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.5, 2e-4])
def test_the_expected_noise_is_the_analytic_posterior(alpha_bar: float) -> None:
    linear, mean, variances, mu, sigma = gaussian()
    z_t = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(2))
    got = linear(z_t, torch.full((5, 1), alpha_bar), mean.expand(5, -1), variances.expand(5, -1))
    total = (alpha_bar * sigma + (1 - alpha_bar) * torch.eye(SIZE)).double()
    shift = (z_t - alpha_bar**0.5 * mu).double()
    expected = (1 - alpha_bar) ** 0.5 * torch.linalg.solve(total, shift.T).T
    error = (got - expected).abs()
    print(f"alpha_bar {alpha_bar}: largest {error.max():.2e}, mean {error.mean():.2e}")
    assert error.max() < 1e-4 * expected.abs().max()


def test_ddim_with_it_reproduces_mean_and_covariance() -> None:
    linear, mean, variances, mu, sigma = gaussian()
    schedule = DiffusionSchedule()
    alphas_cumprod = schedule.alphas_cumprod()
    count = 20_000
    means, spreads = mean.expand(count, -1), variances.expand(count, -1)
    noise = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(3))
    z_t = linear.diffused_sample(noise, alphas_cumprod[-1].view(1, 1), means, spreads)
    z_0 = sample(
        lambda z, t: linear(z, alphas_cumprod[t][:, None], means, spreads),
        z_t,
        schedule,
        SamplerConfig(steps=200),
    )
    covariance = torch.cov(z_0.T)
    mean_error, covariance_error = (z_0.mean(0) - mu).abs().max(), (covariance - sigma).abs().max()
    print(f"mean off by {mean_error:.3f}, covariance by {covariance_error:.3f} of {sigma.abs().max():.1f}")
    assert mean_error < 0.1
    assert covariance_error < 0.06 * sigma.abs().max()


def test_at_alpha_bar_one_the_prior_itself_is_sampled() -> None:
    linear, mean, variances, mu, sigma = gaussian()
    noise = torch.randn(20_000, SIZE, generator=torch.Generator().manual_seed(4))
    z_0 = linear.diffused_sample(noise, torch.ones(1, 1), mean, variances)
    assert (z_0.mean(0) - mu).abs().max() < 0.1
    assert (torch.cov(z_0.T) - sigma).abs().max() < 0.05 * sigma.abs().max()


def linear_data(count: int, explained: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z_0 (P, N) of known spectrum whose leading coefficients depend on the first inputs, inputs, basis."""
    generator = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator)).Q.T
    deviations = torch.tensor([4.0, 3.0, 2.0, 1.0] + [0.1] * (SIZE - 4))
    inputs = torch.randn(count, 40, generator=generator)
    unit = torch.randn(count, SIZE, generator=generator)
    unit[:, :4] = explained**0.5 * inputs[:, :4] + (1 - explained) ** 0.5 * unit[:, :4]
    return (unit * deviations) @ basis, inputs * 5 + 2, basis


def test_the_fit_recovers_spectrum_and_regression() -> None:
    z_0, inputs, basis = linear_data(4000, explained=0.75)
    fit = linear_prior_from_data(z_0, inputs, components=4)
    assert torch.allclose(fit.basis @ fit.basis.T, torch.eye(4), atol=1e-5)
    assert ((fit.basis @ basis[:4].T).abs().diag() > 0.99).all()
    expected = torch.tensor([16.0, 9.0, 4.0, 1.0, 0.01])
    assert torch.allclose(fit.variance_null, expected, rtol=0.1)
    assert torch.allclose(fit.variance_conditional[:-1], 0.25 * expected[:-1], rtol=0.1)
    assert fit.explained == pytest.approx(0.75, abs=0.03)


def test_features_that_tell_nothing_are_ignored_even_with_few_samples() -> None:
    z_0, inputs, _ = linear_data(60, explained=0.0)
    fit = linear_prior_from_data(z_0, inputs, components=4)
    assert torch.isinf(fit.ridge).sum() + (fit.ridge >= 3).sum() >= 3
    assert (fit.variance_conditional[:-1] > 0.8 * fit.variance_null[:-1]).all()
    assert fit.regression[torch.isinf(fit.ridge)].abs().sum() == 0


def test_variances_are_measured_on_samples_not_fitted() -> None:
    generator = torch.Generator().manual_seed(6)
    white = torch.randn(48, 200, generator=generator)
    fit = linear_prior_from_data(white, torch.randn(48, 4, generator=generator), components=20)
    assert float(fit.variance_null[0]) < 2  # the largest eigenvalue in the sample is about 9
    assert 0.8 < float(fit.variance_null[-1]) < 1.2


def test_groups_stay_together() -> None:
    generator = torch.Generator().manual_seed(7)
    groups = torch.arange(20).repeat_interleave(10)
    z_0 = torch.randn(20, SIZE, generator=generator)[groups]
    inputs = torch.randn(20, 10, generator=generator)[groups]  # tells the group, and nothing else
    apart = linear_prior_from_data(z_0, inputs, components=4)
    together = linear_prior_from_data(z_0, inputs, components=4, groups=groups)
    assert apart.explained > 0.3
    assert together.explained < 0.2


def test_complete_elements_lie_inside_the_basis() -> None:
    z_0 = torch.randn(300, SIZE, generator=torch.Generator().manual_seed(8))
    fit = linear_prior_from_data(z_0, z_0[:, :3], components=8, complete=5)
    unit = torch.eye(SIZE)[-5:]
    assert torch.allclose(unit @ fit.basis.T @ fit.basis, unit, atol=1e-5)
    with pytest.raises(ValueError, match="got 3 components; expected 5..24"):
        linear_prior_from_data(z_0, z_0[:, :3], components=3, complete=5)


def test_without_a_face_the_mean_is_zero_and_the_variance_the_priors() -> None:
    features = IdentityFeatures((torch.randn(2, 3, 5, 5),), torch.randn(2, 4))
    inputs = pooled_inputs(features, 2)
    assert inputs.shape == (2, 4 + 3 * 4)
    z_0, _, _ = linear_data(200, 0.5)
    fit: LinearPriorFit = linear_prior_from_data(z_0, inputs.repeat(100, 1), components=4)
    regression = PriorRegression(4, 16, grid=2)
    for name in ("regression", "input_mean", "input_std", "variance_null", "variance_conditional"):
        getattr(regression, name).copy_(getattr(fit, name))
    regression.regression.fill_(0.1)
    mean, variances = regression(features, torch.tensor([1.0, 0.0]))
    assert mean[0].abs().max() > 0 and mean[1].abs().max() == 0
    assert torch.equal(variances[0], fit.variance_conditional) and torch.equal(variances[1], fit.variance_null)
