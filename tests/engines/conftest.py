"""Networks of every kind, small and with random weights, as sources of graphs."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import nn

from fitdiff.engines.graphs import GraphSources
from fitdiff.models.autoencoder import AutoencoderConfig, BranchedAutoencoder
from fitdiff.models.denoiser import DenoiserConfig, FitDiffDenoiser
from fitdiff.models.landmarks import FaceMesh, FaceMeshConfig
from fitdiff.models.perceptual import EfficientNetLite0Config, EfficientNetLite0Features, StageConfig
from fitdiff.models.recogniser import DlibResNet, DlibResNetConfig
from fitdiff.models.unet import UNetConfig

Network = TypeVar("Network", bound=nn.Module)


def random_network(network: Network) -> Network:
    """Every weight random: an untrained block would else be the identity, and hide mistakes."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
        elif not name.endswith("gain"):
            nn.init.normal_(parameter, std=0.1)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_sources() -> GraphSources:
    torch.manual_seed(0)
    recogniser = DlibResNetConfig(
        chip_size=111, stem_width=4, stage_widths=(4, 8, 8, 12, 12), stage_depths=(1, 2, 1, 1, 1), embedding_size=8
    )
    unet = UNetConfig(
        base_channels=8,
        multipliers=(1, 2),
        attention_levels=(1,),
        head_channels=8,
        condition_maps=(8, 8, 12),
        condition_embedding=8,
        condition_channels=8,
        vector_channels=8,
    )
    stages = (StageConfig(1, 3, 1, 1, 4), StageConfig(2, 3, 2, 2, 6), StageConfig(2, 5, 2, 2, 6))
    autoencoder = BranchedAutoencoder(
        AutoencoderConfig(
            chart_size=128,
            decoder_channels=(12, 8, 8, 4),
            decoder_blocks=(2, 1, 1),
            encoder_channels=(4, 4, 8, 8),
            encoder_blocks=1,
            codes=16,
        )
    )
    autoencoder.chart_mean.uniform_(0.2, 0.8)
    return GraphSources(
        random_network(FitDiffDenoiser(DenoiserConfig(unet, prior_components=4))),
        random_network(autoencoder),
        random_network(DlibResNet(recogniser)),
        random_network(FaceMesh(FaceMeshConfig(64, 4, (4, 8, 12), 12, 1, 8))),
        random_network(EfficientNetLite0Features(EfficientNetLite0Config(stem_width=4, stages=stages))),
        (2, 13, 3, 12),
        64,
    )
