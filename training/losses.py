"""The losses of the branched VQGAN: reconstruction, chroma, latent moments, hinge, and its adaptive weight.

Maps are (B, 9, H, W) in [0, 1]. Knows nothing of how batches are made or of the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CHROMA_CELL = 16  # pixels: two latent cells


@dataclass(frozen=True)
class MapWeights:
    """How much a unit of error in each map costs."""

    diffuse: float = 1.0
    specular: float = 1.5  # its fine detail is the hardest to keep
    normal: float = 1.0

    def channels(self, like: Tensor) -> Tensor:
        """(1, 9, 1, 1) on the device of `like`."""
        weights = [self.diffuse] * 3 + [self.specular] * 3 + [self.normal] * 3
        return torch.tensor(weights, device=like.device).view(1, 9, 1, 1)


def reconstruction_loss(
    maps: Tensor, target: Tensor, weights: MapWeights, importance: Tensor | None = None, square: float = 1.0
) -> Tensor:
    """Weighted mean of |error| + `square` * error^2 (scalar).

    Args:
        maps, target: (B, 9, H, W).
        importance: (B or 1, 1, H, W) weight of each pixel, about 1 on average; features of the face more.
    """
    error = maps - target
    cost = (error.abs() + square * error * error) * weights.channels(maps)
    return cost.mean() if importance is None else (cost * importance).mean()


def chroma_loss(maps: Tensor, target: Tensor, importance: Tensor | None = None) -> Tensor:
    """Mean |error| of the diffuse albedo's chroma, averaged over cells of `CHROMA_CELL` pixels (scalar).

    Chroma is red - green and blue - (red + green) / 2. Next to lightness it is a small part of any error a pixel,
    and the latent holds no hue unless it is asked for by itself.

    Args:
        maps, target: (B, 9, H, W), H and W multiples of `CHROMA_CELL`.
        importance: as for `reconstruction_loss`.
    """
    red, green, blue = (maps - target)[:, :3].unbind(1)
    error = torch.stack((red - green, blue - (red + green) / 2), 1)
    if importance is not None:
        error = error * importance
    return F.avg_pool2d(error, CHROMA_CELL).abs().mean()


def moment_loss(z: Tensor) -> Tensor:
    """(mean)^2 + (standard deviation - 1)^2 of a batch of latents: holds their scale without fixing it."""
    return z.mean() ** 2 + (z.std() - 1.0) ** 2


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of one branch of the discriminator on logits of any shape (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """What the decoder lowers: minus the mean logit of its output."""
    return -fake.mean()


def adaptive_weight(
    output: Tensor,
    last_layer: Tensor,
    reconstruction_gradient: Tensor,
    adversarial_gradient: Tensor,
    mean: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Tensor:
    """VQGAN's lambda (Esser et al. 2021, eq. 7): |grad L_rec| / |grad L_adv| at the decoder's last layer.

    Takes the two losses' gradients at the decoder's output, so each costs a pass through one convolution and
    not through the decoder. The graph of `output` is kept.

    Args:
        mean: of a gradient over the processes that share the batch, where there are several.

    Returns:
        Scalar in [0, 10000], without gradient.
    """
    norms = []
    for gradient in (reconstruction_gradient, adversarial_gradient):
        (weight_gradient,) = torch.autograd.grad(output, last_layer, gradient, retain_graph=True)
        norms.append(mean(weight_gradient.float()).norm())
    return (norms[0] / (norms[1] + 1e-6)).clamp(0.0, 1e4).detach()
