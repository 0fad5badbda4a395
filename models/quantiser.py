"""A codebook of scalars with a straight-through gradient.

The codes follow a moving average of the latents, as in van den Oord et al. 2017, appendix A.1. Knows nothing
of images: it maps a tensor of numbers to the nearest codes, whatever its shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VectorQuantizer(nn.Module):
    """Nearest code of a scalar codebook.

    Codes of one dimension can be sorted, so the nearest is a binary search, O(log K) and without a K-wide
    distance table. Codes follow a moving average of the latents assigned to them; a code that nothing uses is
    restarted at a latent of the batch.
    """

    codes: Tensor  # (K,) in the latent's units
    usage: Tensor  # (K,) moving average of assignments a batch
    ready: Tensor  # () bool, whether codes came from latents
    totals: Tensor  # (K,) moving average of the sum of assigned latents

    def __init__(self, size: int, limit: float, commitment: float = 0.25, decay: float = 0.99) -> None:
        super().__init__()
        self.commitment = commitment
        self.decay = decay
        self.register_buffer("codes", torch.linspace(-limit, limit, size))
        self.register_buffer("usage", torch.ones(size))
        self.register_buffer("totals", self.codes.clone())
        self.register_buffer("ready", torch.tensor(False))

    @property
    def is_initialised(self) -> bool:
        """Whether `initialise` was called, here or before the weights were saved."""
        return bool(self.ready)

    @torch.no_grad()
    def initialise(self, latents: Tensor) -> None:
        """Put the codes at evenly spaced quantiles of `latents` (any shape)."""
        size = self.codes.numel()
        ranks = (torch.arange(size, device=latents.device) + 0.5) / size
        values = latents.detach().float().flatten().sort().values
        position = ranks * (values.numel() - 1)
        low = position.long()
        high = (low + 1).clamp(max=values.numel() - 1)
        self.codes.copy_(torch.lerp(values[low], values[high], position - low))
        self.usage.fill_(1.0)
        self.totals.copy_(self.codes)
        self.ready.fill_(True)

    def nearest(self, latents: Tensor) -> Tensor:
        """Index (int64, the shape of `latents`) of the nearest code."""
        ordered, order = self.codes.sort()
        midpoints = (ordered[1:] + ordered[:-1]) * 0.5
        return order[torch.bucketize(latents.detach().float().contiguous(), midpoints)]

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise; in training mode also update the codebook.

        Returns:
            The codes with the gradient of `latents` (its shape), the commitment loss (scalar), the indices.
        """
        indices = self.nearest(latents)
        quantised = self.codes[indices].to(latents.dtype)
        loss = self.commitment * torch.mean((latents.float() - quantised.detach().float()) ** 2)
        if self.training:
            self._update(latents.detach().float().flatten(), indices.flatten())
        return latents + (quantised - latents).detach(), loss, indices

    @torch.no_grad()
    def _update(self, latents: Tensor, indices: Tensor) -> None:
        size = self.codes.numel()
        counts = torch.bincount(indices, minlength=size).float()
        sums = torch.zeros_like(self.totals).index_add_(0, indices, latents)
        self.usage.lerp_(counts, 1.0 - self.decay)
        self.totals.lerp_(sums, 1.0 - self.decay)
        self.codes.copy_(self.totals / self.usage.clamp(min=1e-6))
        dead = self.usage < 0.01 * latents.numel() / size
        if bool(dead.any()):
            count = int(dead.sum())
            picks = torch.randint(latents.numel(), (count,)).to(latents.device)
            self.codes[dead] = latents[picks]
            self.usage[dead] = latents.numel() / size
            self.totals[dead] = self.codes[dead] * self.usage[dead]
