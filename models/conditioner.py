"""The conditioner: everything about a photo that the denoiser needs, computed once for all its steps.

Paper, section 3.2: the recogniser's maps and its embedding, expanded over space, are concatenated along the
channels. A small trunk follows, and one head per SPADE norm of the UNet gives that norm's gamma and beta.
The conditioning is a flat dictionary of named tensors, so that it can pass between two compiled graphs.

Knows nothing of the noise level or of z.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear_prior import PriorRegression
from .recogniser import IdentityFeatures, Recogniser
from .spade import ModulationHead
from .unet import NormSite, UNetConfig

Conditioning = dict[str, Tensor]


def modulation_names(sites: int) -> tuple[str, ...]:
    return tuple(f"spade_{index:02d}" for index in range(sites))


def conditioning_names(sites: int) -> tuple[str, ...]:
    """The keys of a conditioning, in the order in which graphs list them."""
    return ("prior_mean", "prior_variances", "identity", *modulation_names(sites))


def empty_features(recogniser: Recogniser) -> IdentityFeatures:
    """The unconditional input, batch 1: the recogniser's features of an empty (black) image (section 3.3)."""
    device = recogniser.centre.device
    return recogniser(torch.zeros(1, 3, recogniser.chip_size, recogniser.chip_size, device=device))


class Conditioner(nn.Module):
    """From a recogniser's features to a `Conditioning`:

    prior_mean (B, K), prior_variances (B, K + 1), identity (B, C), spade_00... (B, 2 C_i, H_i, W_i).
    """

    channel_mean: Tensor
    channel_std: Tensor

    def __init__(self, config: UNetConfig, sites: tuple[NormSite, ...], components: int, prior_grid: int) -> None:
        super().__init__()
        self.config = config
        width = config.condition_channels
        inputs = sum(config.condition_maps) + config.condition_embedding
        pooled = prior_grid**2 * sum(config.condition_maps) + config.condition_embedding
        self.prior = PriorRegression(components, pooled, prior_grid)
        self.register_buffer("channel_mean", torch.zeros(inputs))
        self.register_buffer("channel_std", torch.ones(inputs))
        self.trunk = nn.Sequential(
            nn.Conv2d(inputs, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
        )
        self.identity = nn.Sequential(nn.Linear(config.condition_embedding, width), nn.SiLU())
        self.heads = nn.ModuleList(ModulationHead(width, s.channels, s.height, s.width) for s in sites)

    @property
    def output_names(self) -> tuple[str, ...]:
        return conditioning_names(len(self.heads))

    def forward(self, features: IdentityFeatures, present: Tensor) -> Conditioning:
        """features of a photo, or of an empty image with present (B,) = 0 for the unconditional model."""
        mean, variances = self.prior(features, present)
        condition = self._condition(features)
        embedding = condition[:, -self.config.condition_embedding :, 0, 0]
        shared = self.trunk(condition)
        outputs = (mean, variances, self.identity(embedding), *(head(shared) for head in self.heads))
        return dict(zip(self.output_names, outputs, strict=True))

    def embedding_only(self, features: IdentityFeatures) -> IdentityFeatures:
        """The same embedding with maps that tell nothing of this photo: the training set's means.

        The means are those of the linear prior's cells. One mean a channel would not do: a cell that hardly ever
        fires has a deviation near zero, and its channel's mean is thousands of those away. Without cells it does.
        """
        channels, grid = list(self.config.condition_maps), self.prior.grid
        maps: list[Tensor] = []
        if not grid:
            means = self.channel_mean[: sum(channels)].split(channels)
            maps = [mean[:, None, None].expand_as(m) for mean, m in zip(means, features.maps, strict=True)]
        else:
            cells = self.prior.input_mean[self.config.condition_embedding :].split([n * grid**2 for n in channels])
            for mean, like in zip(cells, features.maps, strict=True):
                # The smallest map whose adaptive average pooling, which may overlap, gives exactly these cells.
                rows, columns = (
                    torch.linalg.pinv(F.adaptive_avg_pool1d(torch.eye(n, device=mean.device), grid).T.double())
                    for n in like.shape[-2:]
                )
                spread = rows @ mean.view(-1, grid, grid).double() @ columns.T
                maps.append(spread.to(like).expand_as(like))
        return IdentityFeatures(tuple(maps), features.embedding)

    def _condition(self, features: IdentityFeatures) -> Tensor:
        """Maps and embedding on the common grid, standardised per channel: (B, sum C, h, w)."""
        grid = self.config.condition_grid
        maps = [F.interpolate(m.float(), size=grid, mode="bilinear", align_corners=False) for m in features.maps]
        expanded = features.embedding.float()[:, :, None, None].expand(-1, -1, *grid)
        stacked = torch.cat([*maps, expanded], dim=1)
        return (stacked - self.channel_mean[:, None, None]) / self.channel_std[:, None, None]

    @torch.no_grad()
    def set_channel_moments(self, features: IdentityFeatures) -> None:
        """Measure the standardisation on the features (P photos at once) of the training set."""
        stacked = [
            *(m.float().transpose(0, 1).flatten(1) for m in features.maps),
            features.embedding.float().T,
        ]
        self.channel_mean.copy_(torch.cat([s.mean(1) for s in stacked]))
        self.channel_std.copy_(torch.cat([s.std(1) for s in stacked]).clamp(min=1e-6))
