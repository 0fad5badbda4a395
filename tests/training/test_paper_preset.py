"""The paper preset from end to end, small: features of an ArcFace, a denoiser on them, guided avatars with all of it.

The networks have random weights in files of the real form; the shape is the embedded model's and, where FITDIFF_ICT
names its archive, ICT-FaceKit's; the faces are one photograph and noise.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fitdiff.assets.import_model import import_model
from fitdiff.errors import MissingError, UsageError
from fitdiff.exporter import write_glb
from fitdiff.models.checkpoint import assets_dir, load_checkpoint
from fitdiff.models.denoiser import DenoiserConfig, load_denoiser
from fitdiff.models.fan import FAN, FANConfig
from fitdiff.models.unet import UNetConfig
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.training.recipe import train_default_diffusion
from fitdiff.training.state import Budget
from fitdiff.training.train_diffusion import DiffusionTrainingConfig

pytest.importorskip("onnx", reason="onnx is not installed")

FACES = 8
TINY = DiffusionTrainingConfig(
    budget=Budget(steps=3),
    model=DenoiserConfig(
        unet=UNetConfig(
            base_channels=8, multipliers=(1, 1), attention_levels=(), condition_channels=8, vector_channels=8
        ),
        prior_components=196,
        prior_grid=1,
    ),
    batch=2,
    validation_photos=2,
    validation_steps=(400,),
    bfloat16=False,
    num_threads=1,
    quiet=True,
)  # fmt: skip


@dataclass(frozen=True)
class PaperRun:
    """A preset file, the run that it was used for, and the folder of the preset's other models."""

    preset: Path
    checkpoint: Path
    assets: Path
    morphable: Path


def random_files(networks: ModuleType, folder: Path) -> None:
    """ArcFace, FAN and LPIPS as users have them."""
    for seed, name in ((0, "glintr100.onnx"), (1, "other.onnx")):
        arcface = networks.randomised(networks.ReferenceIResNet((1, 2, 1, 1)), seed)
        networks.write_onnx(networks.EmbeddingAlone(arcface), folder / name)
    torch.save(networks.randomised(FAN(FANConfig(1, features=16))).state_dict(), folder / "2DFAN4-small.pth.tar")
    networks.write_lpips(folder / "vgg16-397923af.pth", folder / "vgg.pth")


def preset_file(path: Path, files: Path, arcface: str, denoiser: str, morphable: Path, more: str = "") -> Path:
    path.write_text(
        f'rasteriser = "native"\n[recogniser]\npath = "{files / arcface}"\n{more}'
        f'[landmarks]\npath = "{files}/2DFAN4-small.pth.tar"\n'
        f'[perceptual]\nvgg = "{files}/vgg16-397923af.pth"\nlinear = "{files}/vgg.pth"\n'
        f'[morphable]\npath = "{morphable}"\n[denoiser]\npath = "{denoiser}"\n'
    )
    return path


def write_faces(folder: Path, pipeline: FitDiffPipeline, photo: Path) -> None:
    """A data folder: one photograph under noise, maps of the neutral face under noise, random shapes."""
    crop = crop_face(load_photo(photo), pipeline.detector, pipeline.models.face_mesh)
    rng = np.random.default_rng(0)
    folder.mkdir()
    neutral = load_head_atlas()[0].neutral_face()[0].numpy()
    maps = neutral + rng.normal(0, 0.05, (FACES, 9, 1, 1)) + rng.normal(0, 0.02, (FACES, *neutral.shape))
    np.save(folder / "maps.npy", (maps.clip(0, 1) * 255).astype(np.uint8))
    photos = crop.image * rng.uniform(0.6, 1.0, (FACES, 1, 1, 3)) + rng.normal(0, 0.02, (FACES, 224, 224, 3))
    np.save(folder / "photos.npy", (photos.clip(0, 1) * 255).astype(np.uint8))
    light = np.array([-0.7, -0.7, -0.7, -0.3, -0.3, -0.3, 0.3, 0.3, 0.9])
    faces = {
        "identity": rng.normal(size=(FACES, 158)),
        "expression": rng.normal(size=(FACES, 25)),
        "light": light + rng.normal(0, 0.1, (FACES, 9)),
        "five_points": np.repeat(crop.five_points[None], FACES, 0),
        "landmarks": np.repeat(crop.landmarks[None, :, :2], FACES, 0),
    }
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in faces.items()}
    save_file(arrays | {"map_index": np.arange(FACES, dtype=np.int32)}, folder / "faces.safetensors")
    (folder / "index.json").write_text(json.dumps({"held_out": [6, 7]}))


@pytest.fixture(scope="module", params=["embedded", "ict"])
def morphable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "embedded":
        return assets_dir() / "morphable.safetensors"
    named = os.environ.get("FITDIFF_ICT")
    if not named:
        pytest.skip("FITDIFF_ICT names no file with ICT-FaceKit as a NumPy archive")
    pytest.importorskip("scipy", reason="scipy is not installed")
    out = tmp_path_factory.mktemp("ict") / "ict.safetensors"
    import_model(Path(named), out)
    return out


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, paper_networks: ModuleType, small_pipeline: FitDiffPipeline,
    small_assets: Path, astronaut: Path, morphable: Path,
) -> PaperRun:  # fmt: skip
    folder = tmp_path_factory.mktemp("paper")
    random_files(paper_networks, folder)
    write_faces(folder / "data", small_pipeline, astronaut)
    preset = preset_file(folder / "paper.toml", folder, "glintr100.onnx", f"{folder}/run/denoiser", morphable)
    with patch.dict(os.environ, {"FITDIFF_ASSETS": str(small_assets)}):
        result = train_default_diffusion(
            TINY, folder / "data", small_assets / "autoencoder", folder / "run", preset=preset
        )
    return PaperRun(preset, result.checkpoint, small_assets, morphable)


def test_the_denoiser_knows_and_has_the_shape_of_its_recogniser(run: PaperRun) -> None:
    denoiser = load_denoiser(run.checkpoint)
    trained = denoiser.trained_with
    assert trained is not None and trained.recogniser == "arcface-iresnet-1-2-1-1-glintr100"
    assert trained.morphable == load_checkpoint(run.morphable).card.name
    assert denoiser.config.unet.condition_maps == (12, 16, 20) and denoiser.config.unet.condition_embedding == 24
    assert denoiser.card is not None and not denoiser.card.commercial and "InsightFace" in denoiser.card.licence


def test_an_avatar_with_every_piece(run: PaperRun, astronaut: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(run.assets, preset=run.preset)
    crop = crop_face(load_photo(astronaut), pipeline.detector, pipeline.models.face_mesh)
    result = pipeline.avatar(crop, AvatarOptions(steps=3, guidance="latent"))
    assert np.isfinite(result.avatar.vertices).all() and len(result.report.guidance) > 0
    assert all(np.isfinite(list(row.values())).all() for row in result.report.guidance)
    named = {card.name: card for card in result.avatar.models}
    for name, commercial in {
        "arcface-iresnet-1-2-1-1-glintr100": False, "fan-2DFAN4-small": False, "lpips-vgg16": True,
        "fitdiff-denoiser": False,
    }.items():  # fmt: skip
        assert named[name].commercial == commercial and len(named[name].sha256) == 64 and named[name].licence
    assert result.report.models == result.avatar.models
    write_glb(result.avatar, tmp_path / "avatar.glb")
    content = (tmp_path / "avatar.glb").read_bytes()
    for card in named.values():
        assert card.name.encode() in content and card.sha256.encode() in content, card.name


def test_another_recogniser_is_refused_with_the_reason(run: PaperRun, tmp_path: Path) -> None:
    other = preset_file(tmp_path / "other.toml", run.preset.parent, "other.onnx", str(run.checkpoint), run.morphable)
    with pytest.raises(
        MissingError, match="another recogniser: got recogniser arcface-.*-other .*expected.*-glintr100"
    ):
        load_pipeline(run.assets, preset=other)


def test_commercial_refuses_what_is_not(run: PaperRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="denoiser fitdiff-denoiser.*recogniser arcface.*landmarks fan") as caught:
        load_pipeline(run.assets, preset=run.preset, commercial=True)
    assert "lpips" not in str(caught.value) and caught.value.exit_code == 2
    stated = 'licence = "InsightFace contract 7"\ncommercial = true\n'
    files = run.preset.parent
    mine = preset_file(tmp_path / "mine.toml", files, "glintr100.onnx", str(run.checkpoint), run.morphable, stated)
    with pytest.raises(UsageError) as caught:
        load_pipeline(run.assets, preset=mine, commercial=True)
    assert "recogniser arcface" not in str(caught.value) and "landmarks fan" in str(caught.value)
    assert load_pipeline(run.assets, commercial=True).cards
