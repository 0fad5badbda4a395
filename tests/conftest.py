"""A complete set of small models, so that the whole way runs in seconds; and the default ones, if there."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fitdiff.models.autoencoder import AutoencoderConfig, BranchedAutoencoder, json_from_config
from fitdiff.models.checkpoint import ModelCard, assets_dir, load_checkpoint, save_checkpoint
from fitdiff.models.denoiser import DenoiserConfig, FitDiffDenoiser, TrainedWith, save_denoiser
from fitdiff.models.unet import UNetConfig
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.runtime.registry import PRESET

ROOT = Path(__file__).parents[1]
TRAINED_HERE = ("autoencoder", "denoiser")

# Workers that share the cores take one thread each: threads that wait for one another's cores are far slower.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1)
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))  # of processes that tests start
torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def astronaut() -> Path:
    return ROOT / "examples" / "astronaut.jpg"


@pytest.fixture(scope="session")
def paper_networks() -> ModuleType:
    """`paper_networks.py`: networks in the form of the files that the paper preset reads."""
    spec = importlib.util.spec_from_file_location("paper_networks", ROOT / "tests" / "paper_networks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def small_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded assets, with an autoencoder and a denoiser that are untrained and small."""
    folder = tmp_path_factory.mktemp("assets")
    for name in PRESET:
        if name not in TRAINED_HERE:
            for file in assets_dir().glob(f"{name}.*"):
                (folder / file.name).symlink_to(file)
    torch.manual_seed(0)
    config = AutoencoderConfig(
        decoder_channels=(8, 8, 8, 4), decoder_blocks=(1, 1, 1), encoder_channels=(4, 4, 4, 8), codes=16
    )
    autoencoder = BranchedAutoencoder(config)
    autoencoder.chart_mean.copy_(load_head_atlas()[0].neutral_face()[0])
    card = ModelCard("autoencoder", "small", "made by the tests", "Apache-2.0", True)
    card = save_checkpoint(folder / "autoencoder", autoencoder.state_dict(), json_from_config(config), card, "none")
    unet = UNetConfig(base_channels=8, multipliers=(1, 1), attention_levels=(), condition_channels=8, vector_channels=8)
    denoiser = FitDiffDenoiser(DenoiserConfig(unet, prior_components=4, prior_grid=0))
    recogniser, morphable = (load_checkpoint(folder / name).card for name in ("recogniser", "morphable"))
    denoiser.trained_with = TrainedWith(recogniser.name, recogniser.sha256, morphable.sha256, card.sha256)
    denoiser.statistics.std[:] = 0.3
    denoiser.statistics.mean[-9:] = torch.tensor([-0.7, -0.7, -0.7, -0.3, -0.3, -0.3, 0.3, 0.3, 0.9])
    save_denoiser(
        folder / "denoiser", denoiser, ModelCard("denoiser", "small", "made by the tests", "Apache-2.0", True)
    )
    return folder


@pytest.fixture
def small_models(small_assets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`small_assets` as what `fitdiff` finds."""
    monkeypatch.setenv("FITDIFF_ASSETS", str(small_assets))
    return small_assets


@pytest.fixture(scope="session")
def small_pipeline(small_assets: Path) -> FitDiffPipeline:
    return load_pipeline(small_assets)


@pytest.fixture(scope="session")
def default_models() -> Iterator[Path]:
    """The folder of the embedded preset; skips where its trained checkpoints are absent."""
    absent = [name for name in TRAINED_HERE if not (assets_dir() / f"{name}.safetensors").is_file()]
    if absent:
        pytest.skip(f"the default checkpoint is not here: no {', '.join(absent)} in {assets_dir()}")
    yield assets_dir()
