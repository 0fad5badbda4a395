"""`fitdiff import-model`: messages, exit codes; the real ICT-FaceKit to file and training where it is."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from fitdiff.cli import main
from fitdiff.cli_import import FORMATS, UNITS
from fitdiff.models.importers import FORMATS as READERS
from fitdiff.models.importers.frame import UNITS as LENGTHS


def fitdiff(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_options_are_the_library_s() -> None:
    assert set(FORMATS) == set(READERS) and set(UNITS) == {*LENGTHS, "eyes"}
    text = fitdiff("import-model", "--help").output
    assert all(name in text for name in FORMATS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("absent.mat", "--out", "x.safetensors"), "no such file"),
        (("{here}/model.bin", "--out", "x.safetensors"), "--format"),
        (("{here}/model.bin", "--format", "gnm", "--out", "x.safetensors"), "NumPy archive"),
        (("{here}/model.bin", "--format", "flame", "--out", "x.safetensors"), "pickle"),
        (("{here}/model.bin", "--format", "obj", "--out", "x"), "not one of"),
        (("{here}/model.bin",), "--out"),
    ),
)
def test_wrong_use_is_one_message_and_exit_code_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"nothing")
    result = fitdiff("import-model", *(part.format(here=tmp_path) for part in arguments))
    assert result.exit_code == 2 and message in result.output, result.output
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.fixture(scope="module")
def ict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ICT-FaceKit imported by the command."""
    pytest.importorskip("scipy", reason="scipy is not installed")
    named = os.environ.get("FITDIFF_ICT")
    if not named:
        pytest.skip("FITDIFF_ICT names no file with ICT-FaceKit as a NumPy archive")
    out = tmp_path_factory.mktemp("ict") / "ict.safetensors"
    result = fitdiff("import-model", named, "--out", out)
    assert result.exit_code == 0, result.output
    assert "468 of 468 landmarks" in result.output and "52 blendshapes" in result.output and "MIT" in result.output
    return out


@pytest.fixture(scope="module")
def skins_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two made-up skins of 1536 pixels."""
    folder = tmp_path_factory.mktemp("skins")
    rng = np.random.default_rng(0)
    for name, rgb in (("young_lightskinned_male", (205, 160, 135)), ("old_darkskinned_female", (95, 62, 45))):
        image = np.clip(np.array(rgb)[::-1] + rng.normal(0, 6, (1536, 1536, 1)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}_diffuse.png"), image)
    return folder


def test_faces_of_an_imported_model_train_a_denoiser_that_loads(
    ict: Path, skins_folder: Path, small_assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way on a tiny run: synthesize, train diffusion on the autoencoder at hand, and make a face with it."""
    from fitdiff.errors import MissingError
    from fitdiff.runtime.avatar_result import AvatarOptions
    from fitdiff.runtime.loading import load_pipeline

    monkeypatch.setenv("FITDIFF_ASSETS", str(small_assets))
    data, run = tmp_path / "data", tmp_path / "run"
    made = fitdiff(
        "synthesize", "--skins", skins_folder, "--morphable", ict, "--out", data, "--count", 6, "--photos", 1
    )
    assert made.exit_code == 0, made.output
    train = ("train", "diffusion", "--data", data, "--autoencoder", small_assets / "autoencoder", "--out", run,
             "--steps", 1, "--batch", 1)  # fmt: skip
    wrong = fitdiff(*train)
    assert wrong.exit_code == 2 and "same --morphable" in wrong.output
    done = fitdiff(*train, "--morphable", ict)
    assert done.exit_code == 0, done.output

    folder = tmp_path / "models"
    folder.mkdir()
    for file in small_assets.iterdir():
        if file.stem not in ("morphable", "denoiser"):
            (folder / file.name).symlink_to(file)
    for suffix in ("safetensors", "json", "LICENSE"):
        (folder / f"morphable.{suffix}").symlink_to(ict.with_suffix(f".{suffix}"))
        (folder / f"denoiser.{suffix}").symlink_to((small_assets / "denoiser").with_suffix(f".{suffix}"))
    with pytest.raises(MissingError, match="another morphable"):
        load_pipeline(folder)
    for suffix in ("safetensors", "json"):
        (folder / f"denoiser.{suffix}").unlink()
        (folder / f"denoiser.{suffix}").symlink_to((run / "denoiser").with_suffix(f".{suffix}"))
    result = load_pipeline(folder).sample(AvatarOptions(steps=1, guidance="none"))
    assert result.avatar.topology.vertex_count > 20_000
    assert np.isfinite(result.avatar.vertices).all() and len(result.avatar.topology.blendshape_names) == 52


def test_the_imported_head_exports_clean(ict: Path, tmp_path: Path) -> None:
    """Through `write_glb`, whose own checks are the Khronos validator's."""
    import torch

    from fitdiff.exporter.gltf import write_glb
    from fitdiff.models.morphable import load_morphable
    from fitdiff.rendering.head_atlas import load_head_atlas
    from fitdiff.runtime.avatar import Avatar
    from fitdiff.runtime.avatar_maps import head_maps_from_tensors, reflectance_maps

    model, card = load_morphable(ict)
    atlas = load_head_atlas()[0]
    face = atlas.neutral_face()
    with torch.no_grad():
        maps = atlas.compose(face)
        vertices = model(torch.zeros(1, 158))[0].numpy()
    avatar = Avatar(vertices, np.zeros_like(vertices), {"jawOpen": 0.2}, model.topology(), reflectance_maps(face),
                    head_maps_from_tensors(maps), {}, None, (card,), 0)  # fmt: skip
    summary = write_glb(avatar, tmp_path / "ict.glb")
    assert len(summary.morph_targets) == 52 and summary.triangles > 40_000
    assert {"FitDiff_Skin", "FitDiff_Eye", "FitDiff_Teeth", "FitDiff_Tongue", "FitDiff_Lashes"} <= set(
        summary.materials
    )
