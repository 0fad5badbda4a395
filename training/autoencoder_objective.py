"""What the branched VQGAN's output is judged by: the losses of one batch of crops, and their gradients there.

Reconstruction at 512 and 256, chroma, a perceptual and an adversarial loss if asked for; the discriminator learns
here too. Knows nothing of the latent, of the autoencoder's optimiser or of how long a run is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.autoencoder import ALBEDO_CHANNELS, Decoder
from ..models.discriminator import BranchedDiscriminator, DiscriminatorConfig
from .chart_crops import CELL, CropBatch
from .devices import Workers
from .losses import (
    MapWeights,
    adaptive_weight,
    chroma_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    reconstruction_loss,
)
from .state import check_finite

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) sRGB in [0, 1] twice to (B,) distances, differentiable in the first."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What each loss at the output counts."""

    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    weights: MapWeights = field(default_factory=MapWeights)
    coarse_weight: float = 0.5  # of the error at 256 beside that at 512
    square_weight: float = 2.0  # of the squared error beside the absolute
    chroma_weight: float = 4.0  # of the low-frequency chroma's error
    perceptual_weight: float = 0.0
    perceptual_crops: int = 4  # of the batch, to save time
    adversarial_weight: float = 0.0
    bfloat16: bool = True


@dataclass(frozen=True)
class OutputGradients:
    """loss: scalar without the adversarial part; fine, coarse: gradients of all parts; values: scalars to log."""

    loss: Tensor
    fine: Tensor
    coarse: Tensor
    values: dict[str, Tensor]


class AutoencoderObjective:
    """The losses of a run, with the discriminator that one of them needs.

    Args:
        decoder: whose last layers the adversarial loss is weighed at.
        importance: (S, S) weight of each pixel of the chart, about 1 on average.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        decoder: Decoder,
        workers: Workers,
        perceptual: Perceptual | None = None,
        importance: np.ndarray | None = None,
    ) -> None:
        self.config, self.decoder, self.workers, self.perceptual = config, decoder, workers, perceptual
        self.importance = None
        if importance is not None:
            self.importance = torch.from_numpy(importance)[None].float().to(workers.device)
        self.discriminator = BranchedDiscriminator(config.discriminator).to(workers.device)
        self.optimiser = torch.optim.Adam(self.discriminator.parameters(), 2e-4, betas=(0.5, 0.9))

    def gradients(self, batch: CropBatch, coarse: Tensor, fine: Tensor, adversarial: bool) -> OutputGradients:
        """Differentiate the losses at the output (B, 9, S / 2, S / 2) and (B, 9, S, S).

        There their gradients are weighed against each other, and the decoder runs backward once for all of them.
        """
        config = self.config
        fine_leaf, coarse_leaf = (x.detach().requires_grad_() for x in (fine, coarse))
        importance, coarse_importance = self._importance(batch)
        exact = reconstruction_loss(fine_leaf, batch.maps, config.weights, importance, config.square_weight)
        half = reconstruction_loss(
            coarse_leaf, F.avg_pool2d(batch.maps, 2), config.weights, coarse_importance, config.square_weight
        )
        chroma = chroma_loss(fine_leaf, batch.maps, importance)
        loss = exact + config.coarse_weight * half + config.chroma_weight * chroma
        values = {"loss/fine": exact, "loss/coarse": half, "loss/chroma": chroma}
        if self.perceptual is not None and config.perceptual_weight > 0:
            distance = self._perceptual_distance(self.perceptual, fine_leaf, batch.maps)
            loss = loss + config.perceptual_weight * distance
            values["loss/perceptual"] = distance
        fine_gradient, coarse_gradient = torch.autograd.grad(loss, (fine_leaf, coarse_leaf))
        if adversarial:
            fine_gradient = fine_gradient + self._adversarial(fine, fine_leaf, fine_gradient, values)
        return OutputGradients(loss, fine_gradient, coarse_gradient, values)

    def teach_discriminator(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """One step of the discriminator on maps (B, 9, S, S), charts and reconstructions; returns its loss."""
        with self._autocast():
            pairs = zip(self.discriminator(real), self.discriminator(fake), strict=True)
            loss = torch.stack([hinge_discriminator_loss(a.float(), b.float()) for a, b in pairs]).sum()
        check_finite("discriminator loss", loss, step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.workers.average_gradients(self.discriminator.parameters())
        self.optimiser.step()
        return loss

    def _adversarial(
        self, fine: Tensor, leaf: Tensor, reconstruction_gradient: Tensor, values: dict[str, Tensor]
    ) -> Tensor:
        """Gradient at the fine output of the adversarial loss, each branch weighted for itself."""
        with self._autocast():
            losses = [hinge_generator_loss(logits) for logits in self.discriminator(leaf)]
        (gradient,) = torch.autograd.grad(losses[0] + losses[1], leaf)
        branches = (self.decoder.albedo, self.decoder.normal)
        selections = (slice(None, ALBEDO_CHANNELS), slice(ALBEDO_CHANNELS, None))
        weighted = torch.zeros_like(gradient)
        for name, branch, channels in zip(("albedo", "normal"), branches, selections, strict=True):
            weight = adaptive_weight(
                fine[:, channels],
                branch.head512.weight,
                reconstruction_gradient[:, channels],
                gradient[:, channels],
                self.workers.mean,
            )
            weighted[:, channels] = self.config.adversarial_weight * weight * gradient[:, channels]
            values[f"adversarial/weight_{name}"] = weight
        values["loss/adversarial"] = losses[0] + losses[1]
        return weighted

    def _perceptual_distance(self, function: Perceptual, maps: Tensor, target: Tensor) -> Tensor:
        """Mean distance of diffuse albedo and normals over the first crops, `perceptual_crops` of the whole batch."""
        n = max(1, self.config.perceptual_crops // self.workers.count)
        images, targets = (torch.cat((x[:n, :3], x[:n, ALBEDO_CHANNELS:])).clamp(0, 1) for x in (maps, target))
        with self._autocast():
            return function(images, targets).float().mean()

    def _importance(self, batch: CropBatch) -> tuple[Tensor | None, Tensor | None]:
        """(B, 1, S, S) of the crops, and the same at half the size."""
        if self.importance is None:
            return None, None
        side = batch.maps.shape[-1]
        corners = (batch.origin * CELL).tolist()
        crops = torch.stack([self.importance[:, y : y + side, x : x + side] for y, x in corners])
        return crops, F.avg_pool2d(crops, 2)

    def _autocast(self) -> torch.autocast:
        return self.workers.autocast(self.config.bfloat16)
