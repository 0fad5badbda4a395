"""Networks of every kind, small and with random weights, as sources of graphs; a cache; an ONNX file; TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from fitdiff.engines.cache import EngineCache
from fitdiff.engines.graphs import GraphSources
from fitdiff.engines.trt.loader import Flavour, load_flavour
from fitdiff.errors import MissingError
from fitdiff.models.autoencoder import AutoencoderConfig, BranchedAutoencoder, load_autoencoder
from fitdiff.models.denoiser import DenoiserConfig, FitDiffDenoiser
from fitdiff.models.landmarks import FaceMesh, FaceMeshConfig, load_face_mesh
from fitdiff.models.perceptual import (
    EfficientNetLite0Config,
    EfficientNetLite0Features,
    StageConfig,
    load_perceptual,
)
from fitdiff.models.recogniser import DlibResNet, DlibResNetConfig, load_recogniser
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


@pytest.fixture
def embedded_sources(default_models: Path, small_sources: GraphSources) -> GraphSources:
    """What guidance looks through, with the embedded weights; a small part of the chart."""
    return GraphSources(
        small_sources.denoiser,
        load_autoencoder().requires_grad_(False),
        load_recogniser()[0],
        load_face_mesh()[0],
        load_perceptual()[0],
        (10, 30, 12, 30),
        160,
    )


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """An empty one."""
    return EngineCache(tmp_path / "engines")


@pytest.fixture(scope="session")
def rtx() -> Flavour:
    try:
        return load_flavour("tensorrt-rtx")
    except MissingError as error:
        pytest.skip(f"TensorRT-RTX cannot be imported: {error.got}")


@pytest.fixture(scope="session")
def write_network() -> Callable[..., Path]:
    """Writes a convolution, group norm, an activation, a resize and a matrix product, in ONNX opset 21."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'fitdiff[engines]'")

    def write(path: Path, *, half: bool = False, batch: str = "1", seed: int = 0, tail: str = "Sigmoid") -> Path:
        kind, dtype = ("float16", np.float16) if half else ("float", np.float32)
        model = onnx.parser.parse_model(f"""
            <ir_version: 10, opset_import: ["" : 21]>
            small ({kind}[{batch},3,16,16] image) => ({kind}[{batch},8,32,32] maps, {kind}[{batch},5] vector) {{
                a = Conv<pads = [1,1,1,1]>(image, conv_weight, conv_bias)
                b = GroupNormalization<num_groups = 2>(a, norm_weight, norm_bias)
                c = {tail}(b)
                maps = Resize<mode = "nearest">(c, , scales)
                d = ReduceMean<keepdims = 0>(c, axes)
                vector = Gemm(d, matrix, offset)
            }}""")
        random = np.random.default_rng(seed)
        shapes = {
            "conv_weight": (8, 3, 3, 3), "conv_bias": (8,), "norm_weight": (8,), "norm_bias": (8,),
            "matrix": (8, 5), "offset": (5,),
        }  # fmt: skip
        weights = {name: random.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
        weights |= {"scales": np.array([1, 1, 2, 2], np.float32), "axes": np.array([2, 3])}
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path

    return write
