"""The sampling loop against diffusers' scheduler, and the guidance contract."""

import pytest
import torch
from torch import Tensor

from fitdiff.models.schedule import DiffusionSchedule, predict_z0
from fitdiff.runtime.ddim import (
    GuidanceStep,
    SamplerConfig,
    alpha_bar_pairs,
    classifier_free,
    ddim_sigma,
    ddim_step,
    ddim_timesteps,
    draw_noise,
    guided_noise,
    sample,
    seeded_generators,
)

SHAPE = (1, 11, 8)
SCHEDULE = DiffusionSchedule()
CONFIGS = [
    SamplerConfig(),
    SamplerConfig(spacing="leading", offset=1, final_alpha_one=False),
    SamplerConfig(spacing="leading"),
    SamplerConfig(steps=20, final_alpha_one=False),
]


def predictor(z: Tensor, t: Tensor) -> Tensor:
    """Some smooth function of z and t that treats samples apart."""
    return torch.tanh(z * 0.7 + 0.1 * z.roll(1, -1)) * (0.3 + t.view(-1, 1, 1, 1) / 1500)


def diffusers_scheduler(config: SamplerConfig):  # noqa: ANN201  (an optional package's class)
    diffusers = pytest.importorskip("diffusers", reason="diffusers, the reference, is not installed")
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=SCHEDULE.beta_start,
        beta_end=SCHEDULE.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=config.final_alpha_one,
        steps_offset=config.offset,
        timestep_spacing=config.spacing,
    )
    scheduler.set_timesteps(config.steps)
    return scheduler


@pytest.mark.parametrize("config", CONFIGS)
def test_every_step_agrees_with_diffusers(config: SamplerConfig) -> None:
    scheduler = diffusers_scheduler(config)
    assert ddim_timesteps(config, SCHEDULE) == scheduler.timesteps.tolist()
    assert torch.allclose(SCHEDULE.alphas_cumprod(), scheduler.alphas_cumprod, rtol=1e-4, atol=0)
    z_t = theirs = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    worst = 0.0
    pairs = alpha_bar_pairs(config, SCHEDULE)
    for t, pair in zip(ddim_timesteps(config, SCHEDULE), pairs, strict=True):
        steps = torch.full((2,), t)
        alpha_bar, previous = (torch.tensor(a) for a in pair)
        z_t = ddim_step(z_t, predictor(z_t, steps), alpha_bar, previous, torch.tensor(0.0))
        theirs = scheduler.step(predictor(theirs, steps), t, theirs).prev_sample
        worst = max(worst, float(((z_t - theirs).abs() / theirs.abs().max()).max()))
    print(f"{config.steps} steps, {config.spacing}: largest relative difference {worst:.1e}")
    assert worst < 1e-4


def test_noisy_sampling_agrees_with_diffusers() -> None:
    config = SamplerConfig(spacing="leading", eta=0.7)
    scheduler = diffusers_scheduler(config)
    generator = torch.Generator().manual_seed(1)
    z_t, eps, noise = (torch.randn(1, *SHAPE, generator=generator) for _ in range(3))
    for index in (0, 10, 30):
        t, pair = ddim_timesteps(config, SCHEDULE)[index], alpha_bar_pairs(config, SCHEDULE)[index]
        alpha_bar, previous = (torch.tensor(a) for a in pair)
        mine = ddim_step(z_t, eps, alpha_bar, previous, ddim_sigma(alpha_bar, previous, 0.7), noise)
        theirs = scheduler.step(eps, t, z_t, eta=0.7, variance_noise=noise).prev_sample
        assert (mine - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_classifier_free_combines_two_predictions() -> None:
    z, t = torch.randn(2, *SHAPE), torch.tensor([5, 5])
    one, zero = (lambda z, t: z * 3), (lambda z, t: z)
    assert classifier_free(one, zero, 1.0) is one
    assert torch.allclose(classifier_free(one, zero, 0.0)(z, t), z)
    assert torch.allclose(classifier_free(one, zero, 2.0)(z, t), z + 2 * (3 * z - z))


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_guidance_moves_each_step_by_just_what_it_wants(eta: float) -> None:
    generator = torch.Generator().manual_seed(2)
    z_t, eps, delta = (torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(3))
    for pair in alpha_bar_pairs(SamplerConfig(), SCHEDULE):
        alpha_bar, previous = (torch.tensor(a, dtype=torch.float64) for a in pair)
        sigma = ddim_sigma(alpha_bar, previous, eta)
        plain = ddim_step(z_t, eps, alpha_bar, previous, sigma)
        guided = guided_noise(eps, delta, alpha_bar, previous, sigma)
        moved = ddim_step(z_t, guided, alpha_bar, previous, sigma) - plain
        assert torch.allclose(moved, previous.sqrt() * delta, atol=1e-8)


def test_guidance_is_equation_2() -> None:
    z_t, eps, delta = (torch.randn(1, *SHAPE, dtype=torch.float64) for _ in range(3))
    a, p = (torch.tensor(x, dtype=torch.float64) for x in alpha_bar_pairs(SamplerConfig(), SCHEDULE)[25])
    s = (p / (1 - a)).sqrt() / ((1 - p).sqrt() - (p * (1 - a) / a).sqrt())
    expected = eps + s * (1 - a).sqrt() * delta
    assert torch.allclose(guided_noise(eps, delta, a, p, torch.tensor(0.0)), expected)
    assert float(s) < 0  # eq. 2 climbs G by lowering eps


def test_the_last_step_returns_the_guided_estimate() -> None:
    seen: list[tuple[Tensor, GuidanceStep]] = []
    target = torch.full((2, *SHAPE), 0.25)

    def towards_target(z_0: Tensor, step: GuidanceStep) -> Tensor:
        return target - z_0

    z_0 = sample(
        predictor,
        torch.randn(2, *SHAPE),
        SCHEDULE,
        SamplerConfig(),
        towards_target,
        observer=lambda z, s: seen.append((z, s)),
    )
    assert torch.allclose(z_0, target, atol=1e-5)
    assert [s.index for _, s in seen] == list(range(50))
    assert (seen[0][1].t, seen[-1][1].alpha_bar_prev) == (999, 1.0)


def test_a_batch_never_changes_a_result() -> None:
    seeds = [11, 12, 13]
    config = SamplerConfig(steps=10, eta=1.0)

    def run(chosen: list[int]) -> Tensor:
        generators = seeded_generators(chosen)
        return sample(predictor, draw_noise(generators, SHAPE), SCHEDULE, config, generators=generators)

    together = run(seeds)
    for row, seed in enumerate(seeds):
        assert torch.equal(run([seed])[0], together[row])


def test_without_guidance_the_step_is_the_estimate_renoised() -> None:
    z_t, eps = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    a, p = torch.tensor(0.3), torch.tensor(0.4)
    z_0 = predict_z0(z_t, eps, a)
    assert torch.allclose(ddim_step(z_t, eps, a, p, torch.tensor(0.0)), p.sqrt() * z_0 + (1 - p).sqrt() * eps)


def test_step_counts_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0; expected 1..1000"):
        ddim_timesteps(SamplerConfig(steps=0), SCHEDULE)
