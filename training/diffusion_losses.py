"""The denoiser's losses (paper, section 3.3), L = L_noise + L_id + L_per + L_verts, as functions of tensors.

L_id and L_per need a renderer and a recogniser; they come in as a callable. Knows nothing of the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..models.latent import LatentLayout
from ..models.recogniser import IdentityFeatures

CENTIMETRES = 100.0  # a metre

Weighting = Literal["plain", "min_snr", "balanced"]


@dataclass(frozen=True)
class DiffusionBatch:
    """What an identity loss may compare with."""

    photos: Tensor  # (B,) long, indices into the training data
    z_0: Tensor  # (B, 1, 67, 64) raw
    features: IdentityFeatures  # of the photo itself, not augmented


IdentityLosses = Callable[[Tensor, DiffusionBatch], tuple[Tensor, Tensor]]
"""(estimate of z_0 (B, 1, 67, 64) raw, batch) -> (L_id (B,), L_per (B,))."""


def noise_weights(alpha_bar: Tensor, kind: Weighting, gamma: float = 5.0) -> Tensor:
    """Weight of each sample's squared error of eps, (B,) like alpha_bar.

    plain: 1, the paper's. min_snr: min(SNR, gamma) / SNR (Hang et al. 2023), which spares the nearly clean
    latents. balanced: 1 / alpha-bar up to gamma squared, so that an error of z_0 counts 1 / (1 - alpha-bar)
    and the noisy steps, which decide whose face it is, are learnt as eagerly as the last ones.
    """
    if kind == "plain":
        return torch.ones_like(alpha_bar)
    if kind == "min_snr":
        snr = alpha_bar / (1 - alpha_bar)
        return snr.clamp(max=gamma) / snr
    return (1 / alpha_bar).clamp(max=gamma**2)


def noise_loss(predicted: Tensor, noise: Tensor, weights: Tensor, layout: LatentLayout, vector_weight: float) -> Tensor:
    """L_noise (equation 1) as a mean square; shape and light numbers count `vector_weight` times each.

    The factor leaves the best predictor what it is: every element's own optimum is the same.
    """
    square = (predicted - noise).square().flatten(1)
    texture, vector = square[:, : layout.texture], square[:, layout.texture :]
    return (weights * (texture.sum(1) + vector_weight * vector.sum(1)) / layout.size).mean()


def vertex_gram(identity_basis: Tensor, expression_basis: Tensor) -> Tensor:
    """Bases (158, V, 3) and (25, V, 3) in metres -> G (183, 183) in cm^2, so that x G x is the mean over the
    vertices of the squared length by which the coefficients x move them."""
    basis = torch.cat([identity_basis, expression_basis]).double().flatten(1) * CENTIMETRES
    return (basis @ basis.T / identity_basis.shape[1]).float()


def vertex_loss(z_0: Tensor, target: Tensor, gram: Tensor, layout: LatentLayout) -> Tensor:
    """L_verts (B,): mean squared distance of vertices in cm^2, of raw latents, without making a vertex."""
    a, b = layout.split(z_0), layout.split(target)
    difference = torch.cat([a.identity - b.identity, a.expression - b.expression], dim=1)
    return ((difference @ gram) * difference).sum(1)
