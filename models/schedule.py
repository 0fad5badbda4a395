"""The noise schedule that training, the denoiser's preconditioning and the sampler share.

Symbols as in the papers: alphas_cumprod[t] is the product of (1 - beta) up to t, written alpha-bar below.
Knows nothing of networks or of the sampling loop.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiffusionSchedule:
    """T steps, the square root of beta linear in t (what latent diffusion calls "linear")."""

    timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195

    def alphas_cumprod(self) -> Tensor:
        """(T,) float32, computed in float64."""
        root = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.timesteps, dtype=torch.float64)
        return (1 - root.square()).cumprod(0).float()


def add_noise(z_0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = sqrt(alpha-bar) z_0 + sqrt(1 - alpha-bar) eps (Ho et al. 2020, equation 4)."""
    return alpha_bar.sqrt() * z_0 + (1 - alpha_bar).sqrt() * noise


def predict_z0(z_t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_0 = (z_t - sqrt(1 - alpha-bar) eps) / sqrt(alpha-bar) (paper, section 3.3)."""
    return (z_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
