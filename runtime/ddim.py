"""The guided DDIM loop: from noise to z_0 with any noise predictor and any guidance.

Paper, section 3.4; DDIM is Song et al. 2021. Equations are one function each. The loop knows nothing of
networks, of photos, or of what z means: `denoiser` is a callable eps(z_t, t), `guidance` a callable that
answers by how much it wants the estimate of z_0 changed.

Agreement with `diffusers.DDIMScheduler` (tested): `spacing` is its `timestep_spacing`, `offset` its
`steps_offset`, `final_alpha_one` its `set_alpha_to_one`; no clipping, no thresholding. Latent diffusion
samples with ("leading", offset 1, final_alpha_one False). The default here is "trailing" with a final
alpha-bar of one: it starts at the noisiest step, and its last step returns the guided estimate of z_0 whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..models.schedule import DiffusionSchedule, predict_z0

NoisePredictor = Callable[[Tensor, Tensor], Tensor]  # z_t (B, 1, 67, 64), t (B,) long -> eps like z_t


@dataclass(frozen=True)
class SamplerConfig:
    """How the loop walks down the schedule."""

    steps: int = 50
    eta: float = 0.0  # 0: deterministic DDIM; 1: DDPM-like
    spacing: Literal["leading", "trailing"] = "trailing"
    offset: int = 0  # for "leading" alone
    final_alpha_one: bool = True


@dataclass(frozen=True)
class GuidanceStep:
    """Where the loop stands when it asks for guidance."""

    index: int  # 0 at the noisiest step
    count: int
    t: int
    alpha_bar: float
    alpha_bar_prev: float  # of the z that this step makes


Guidance = Callable[[Tensor, GuidanceStep], Tensor]  # estimate of z_0 (B, 1, 67, 64) -> wanted change of it
Observer = Callable[[Tensor, GuidanceStep], None]  # sees each unguided z_0 estimate


def ddim_timesteps(config: SamplerConfig, schedule: DiffusionSchedule) -> list[int]:
    """The time steps t, noisiest first; `diffusers`' rounding."""
    if not 1 <= config.steps <= schedule.timesteps:
        raise ValueError(f"sampler steps: got {config.steps}; expected 1..{schedule.timesteps}")
    if config.spacing == "trailing":
        ends = np.round(np.arange(schedule.timesteps, 0, -schedule.timesteps / config.steps))
        return [int(t) - 1 for t in ends]
    stride = schedule.timesteps // config.steps
    return [i * stride + config.offset for i in reversed(range(config.steps))]


def alpha_bar_pairs(config: SamplerConfig, schedule: DiffusionSchedule) -> list[tuple[float, float]]:
    """(alpha-bar at t, alpha-bar of the z that the step makes) for each time step."""
    alphas_cumprod = schedule.alphas_cumprod().tolist()
    alpha_bars = [alphas_cumprod[t] for t in ddim_timesteps(config, schedule)]
    final = 1.0 if config.final_alpha_one else alphas_cumprod[0]
    return list(zip(alpha_bars, [*alpha_bars[1:], final], strict=True))


def ddim_sigma(alpha_bar: Tensor, alpha_bar_prev: Tensor, eta: float) -> Tensor:
    """Deviation of the noise that a step adds (Song et al. 2021, equation 16)."""
    return eta * ((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)).sqrt()


def ddim_step(
    z_t: Tensor,
    eps: Tensor,
    alpha_bar: Tensor,
    alpha_bar_prev: Tensor,
    sigma: Tensor,
    noise: Tensor | None = None,
) -> Tensor:
    """z_{t-1} = sqrt(a') z_0 + sqrt(1 - a' - sigma^2) eps + sigma noise (Song et al. 2021, equation 12)."""
    direction = (1 - alpha_bar_prev - sigma**2).clamp(min=0).sqrt() * eps
    z_prev = alpha_bar_prev.sqrt() * predict_z0(z_t, eps, alpha_bar) + direction
    return z_prev if noise is None else z_prev + sigma * noise


def guided_noise(eps: Tensor, delta: Tensor, alpha_bar: Tensor, alpha_bar_prev: Tensor, sigma: Tensor) -> Tensor:
    """The paper's eps-hat = eps + s sqrt(1 - a) grad G, with s so that the wanted change survives the step.

    Changing eps by e changes z_0 by -sqrt((1 - a) / a) e, and with it (equation 12)

        z_{t-1} by  e (sqrt(1 - a' - sigma^2) - sqrt(a') sqrt((1 - a) / a)).

    The two parts nearly cancel in a short step: a gradient added to eps with a fixed s hardly moves z. Here
    `delta` is the change of z_0 that guidance wants, and e is such that z_{t-1} moves by sqrt(a') delta: what
    it would be had z_0 been changed and eps kept. Equation 2 is the case
    s = sqrt(a' / (1 - a)) / (sqrt(1 - a' - sigma^2) - sqrt(a' (1 - a) / a)) with grad = delta.
    In the last step (a' = 1) this is exactly z_0 + delta.
    """
    kept = (1 - alpha_bar_prev - sigma**2).clamp(min=0).sqrt()
    moved = kept - (alpha_bar_prev * (1 - alpha_bar) / alpha_bar).sqrt()
    return eps + alpha_bar_prev.sqrt() / moved * delta


def classifier_free(conditional: NoisePredictor, unconditional: NoisePredictor, scale: float) -> NoisePredictor:
    """eps = eps_null + w (eps_cond - eps_null) (Ho and Salimans 2022). w = 1 asks `conditional` alone."""
    if scale == 1:
        return conditional

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        null = unconditional(z_t, t)
        return null + scale * (conditional(z_t, t) - null)

    return predict


def seeded_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a sample, on the CPU: neither the batch nor the device changes what a seed gives."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """White noise (B, *shape), each sample from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def sample(
    denoiser: NoisePredictor,
    z_t: Tensor,
    schedule: DiffusionSchedule,
    config: SamplerConfig,
    guidance: Guidance | None = None,
    generators: Sequence[torch.Generator] = (),
    observer: Observer | None = None,
) -> Tensor:
    """Walk from z_T (B, 1, 67, 64) to z_0. `generators`, one a sample, are needed when eta > 0."""
    pairs = alpha_bar_pairs(config, schedule)
    on_device = z_t.new_tensor(pairs)  # (steps, 2), once: to a GPU each copy is a wait
    for index, (t, pair) in enumerate(zip(ddim_timesteps(config, schedule), pairs, strict=True)):
        step = GuidanceStep(index, config.steps, t, *pair)
        alpha_bar, alpha_bar_prev = on_device[index].unbind()
        sigma = ddim_sigma(alpha_bar, alpha_bar_prev, config.eta)
        with torch.no_grad():
            eps = denoiser(z_t, torch.full((len(z_t),), t, device=z_t.device))
        z_0 = predict_z0(z_t, eps, alpha_bar)
        if observer is not None:
            observer(z_0, step)
        if guidance is not None:
            eps = guided_noise(eps, guidance(z_0, step), alpha_bar, alpha_bar_prev, sigma)
        noise = draw_noise(generators, z_t.shape[1:]).to(z_t) if config.eta > 0 else None
        z_t = ddim_step(z_t, eps, alpha_bar, alpha_bar_prev, sigma, noise)
    return z_t
