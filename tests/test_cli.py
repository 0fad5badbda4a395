"""The command line, with small untrained models: files, messages, exit codes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fitdiff.cli import EXIT_CODES, avatar, main
from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.validate import document_and_binary_from_glb
from fitdiff.models.checkpoint import assets_dir
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.guidance import GUIDANCE_PRESETS

FILES = {
    "avatar.fitdiff",
    "avatar.glb",
    "maps/diffuse_albedo.png",
    "maps/folds.png",
    "maps/normal.png",
    "maps/specular_albedo.png",
    "preview.png",
    "render.png",
    "report.json",
}


@dataclass
class Run:
    result: Result
    out: Path


def fitdiff(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(small_assets: Path, astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`fitdiff avatar` on the example photo, two steps, into a folder with a file of somebody else's."""
    out = tmp_path_factory.mktemp("run") / "out"
    out.mkdir()
    (out / "own.txt").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FITDIFF_ASSETS", str(small_assets))
        return Run(fitdiff("avatar", astronaut, "--out", out, "--steps", 2, "--seed", 3), out)


def test_avatar_writes_everything(run: Run, astronaut: Path) -> None:
    assert run.result.exit_code == 0, run.result.output
    assert files(run.out) == FILES | {"own.txt"}
    assert run.result.stdout.startswith(str(run.out / "avatar.glb"))
    document, _ = document_and_binary_from_glb((run.out / "avatar.glb").read_bytes())
    assert len(document["meshes"][0]["extras"]["targetNames"]) == 52
    render, photo = Image.open(run.out / "render.png"), Image.open(astronaut)
    assert (render.mode, render.size) == ("RGBA", photo.size)
    assert Image.open(run.out / "preview.png").width == 1600
    for name in ("diffuse_albedo", "specular_albedo", "normal"):
        assert Image.open(run.out / "maps" / f"{name}.png").size == (512, 512)


def test_render_lies_over_the_face(run: Run, astronaut: Path) -> None:
    """The head covers the face that is in the photo, and little else."""
    alpha = np.asarray(Image.open(run.out / "render.png"))[..., 3] > 127
    assert alpha[80:150, 190:250].all()  # the astronaut's face
    assert alpha.mean() < 0.2
    assert not alpha[300:].any()


def test_report_says_how_and_not_who(run: Run, astronaut: Path) -> None:
    text = (run.out / "report.json").read_text()
    report = json.loads(text)
    assert report["options"] == {
        "steps": 2, "guidance": "full", "cfg": 1.0, "seed": 3, "photo": True, "backend": "eager",
        "precision": "fp32", "device": "cpu", "face": None, "threads": None, "condition": "all",
        "photos_at_once": 1, "export": ExportOptions().to_json(),
    }  # fmt: skip
    assert report["photo_sha256"] == hashlib.sha256(astronaut.read_bytes()).hexdigest()
    assert astronaut.name not in text and str(astronaut.parent) not in text
    names = [stage["name"] for stage in report["stages"]]
    assert names == ["read", "load", "crop", "condition", "sample", "detail", "decode", "asset", "pictures"]
    assert all(stage["seconds"] >= 0 and stage["peak_mib"] > 0 for stage in report["stages"])
    assert sum(stage["seconds"] for stage in report["stages"]) <= report["seconds"]
    assert -1 <= report["similarity"]["guiding"] <= 1
    assert {"identity", "identity_perceptual", "photometric", "landmarks", "perceptual"} <= set(report["guidance"][0])
    assert {model["role"] for model in report["models"]} >= {
        "morphable",
        "denoiser",
        "autoencoder",
        "recogniser",
    }
    assert all(len(model["sha256"]) == 64 and model["licence"] for model in report["models"])


def test_same_seed_same_files(run: Run, small_models: Path, astronaut: Path, tmp_path: Path) -> None:
    again = fitdiff("avatar", astronaut, "--out", tmp_path / "again", "--steps", 2, "--seed", 3)
    assert again.exit_code == 0, again.output
    for name in FILES - {"report.json"}:
        assert (tmp_path / "again" / name).read_bytes() == (run.out / name).read_bytes(), name


def test_defaults_are_the_librarys() -> None:
    defaults = {option.name: option.default for option in avatar.params}
    expected = AvatarOptions()
    for name in ("steps", "guidance", "cfg", "seed"):
        assert defaults[name] == getattr(expected, name)
    choices = next(option.type for option in avatar.params if option.name == "guidance")
    assert set(choices.choices) == set(GUIDANCE_PRESETS)  # type: ignore[attr-defined]


def test_help_documents_exit_codes() -> None:
    codes = [line for line in EXIT_CODES.splitlines() if line[:3].strip().isdigit()]
    assert [line.split()[0] for line in codes] == ["0", "1", "2", "3", "4", "5"]
    for command in (
        (),
        ("avatar",),
        ("sample",),
        ("doctor",),
        ("models",),
        ("synthesize",),
        ("train", "diffusion"),
    ):
        result = fitdiff(*command, "--help")
        assert result.exit_code == 0
        assert all(line.strip() in result.output for line in codes)


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ("avatar", "{astronaut}", "--out", "{out}", "--steps", "0"), "--steps"),
        (2, ("avatar", "{astronaut}"), "--out"),
        (2, ("avatar", "{astronaut}", "--out", "{astronaut}"), "is a file"),
        (2, ("train", "autoencoder", "--data", "{tmp}", "--out", "{out}"), "--minutes"),
        (3, ("avatar", "{tmp}/none.jpg", "--out", "{out}"), "no such file"),
        (3, ("avatar", "{text}", "--out", "{out}"), "not a readable image"),
        (4, ("avatar", "{wall}", "--out", "{out}"), "no face"),
        (4, ("avatar", "{astronaut}", "--out", "{out}", "--face", "2"), "--face: got 2"),
        (
            5,
            ("train", "autoencoder", "--data", "{tmp}", "--out", "{out}", "--steps", "1"),
            "fitdiff synthesize",
        ),
    ],
)
def test_errors(
    code: int, arguments: tuple[str, ...], words: str, small_models: Path, astronaut: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 120, np.uint8))
    before = files(tmp_path)
    places = {
        "astronaut": astronaut, "out": tmp_path / "deep" / "out", "tmp": tmp_path,
        "text": tmp_path / "text.jpg", "wall": tmp_path / "wall.png",
    }  # fmt: skip
    result = fitdiff(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == code, result.output
    assert words in result.stderr and "Traceback" not in result.output
    assert not result.stdout
    assert files(tmp_path) == before and not (tmp_path / "deep").exists()


def test_a_missing_or_altered_model(
    small_assets: Path, astronaut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for file in small_assets.iterdir():
        (assets / file.name).symlink_to(file)
    monkeypatch.setenv("FITDIFF_ASSETS", str(assets))
    (assets / "perceptual.safetensors").unlink()
    for command in (("avatar", astronaut, "--out", tmp_path / "out"), ("doctor",), ("models",)):
        result = fitdiff(*command)
        assert result.exit_code == 5
        assert "perceptual" in result.stderr
    (assets / "perceptual.safetensors").write_bytes(b"something else")
    result = fitdiff("doctor")
    assert result.exit_code == 5 and "with SHA-256" in result.stdout
    assert not (tmp_path / "out").exists()


def test_doctor_sees_models_that_do_not_belong_together(
    small_assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in small_assets.iterdir():
        (tmp_path / file.name).symlink_to(file)
    manifest = json.loads((small_assets / "denoiser.json").read_text())
    manifest["config"]["trained_with"]["recogniser_sha256"] = "another"
    (tmp_path / "denoiser.json").unlink()
    (tmp_path / "denoiser.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("FITDIFF_ASSETS", str(tmp_path))
    result = fitdiff("doctor")
    assert result.exit_code == 5
    assert "trained with another recogniser" in result.stdout


def test_doctor_and_models(small_models: Path) -> None:
    result = fitdiff("doctor")
    assert result.exit_code == 0, result.output
    assert "Everything that an avatar needs is here." in result.output
    assert "torch" in result.output and str(small_models) in result.output
    result = fitdiff("models")
    assert result.exit_code == 0
    for words in (
        "dlib ResNet v1",
        "CC0-1.0",
        "Apache-2.0",
        "MIT",
        "yes",
        "Licence",
        "Commercial",
        "SHA-256",
    ):
        assert words in result.stdout


def test_unexpected_errors(
    small_models: Path, astronaut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message without --debug, the exception itself with it, wherever the flag stands."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr("fitdiff.runtime.photo.load_photo", broken)
    result = fitdiff("avatar", astronaut, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("fitdiff: unexpected ZeroDivisionError: an accident")
    for arguments in (("--debug", "avatar", astronaut), ("avatar", astronaut, "--debug")):
        result = fitdiff(*arguments, "--out", tmp_path / "out")
        assert isinstance(result.exception, ZeroDivisionError)
    assert not (tmp_path / "out").exists()


def test_sample(small_models: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    result = fitdiff("sample", "--count", 2, "--out", out, "--steps", 1, "--seed", 5)
    assert result.exit_code == 0, result.output
    each = FILES - {"render.png", "maps/folds.png"}  # there is no photo, and so no expression of it
    assert files(out) == {"contact.png"} | {f"face_{n:04d}/{name}" for n in (5, 6) for name in each}
    first, second = (json.loads((out / f"face_000{n}" / "report.json").read_text()) for n in (5, 6))
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["photo_sha256"] is None and first["similarity"] == {}
    assert (out / "face_0005" / "avatar.glb").read_bytes() != (out / "face_0006" / "avatar.glb").read_bytes()


def test_sample_sheet(small_models: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "faces.jpg"
    result = fitdiff("sample", "--count", 3, "--sheet", sheet, "--steps", 1)
    assert result.exit_code == 0, result.output
    assert Image.open(sheet).size == (900, 260) and sheet.stat().st_size > 5000
    assert fitdiff("sample", "--count", 3).exit_code == 2


def test_synthesize_and_train(astronaut: Path, tmp_path: Path) -> None:
    """Skins of noise, a few faces, one step of each training: what one command writes, the next one takes."""
    pytest.importorskip("tensorboard")
    skins, data = tmp_path / "skins", tmp_path / "data"
    skins.mkdir()
    rng = np.random.default_rng(0)
    for name, colour in (
        ("young_lightskinned_male", (150, 180, 220)),
        ("young_darkskinned_female", (50, 70, 110)),
    ):
        noise = np.array(colour) + rng.normal(0, 8, (1536, 1536, 1))
        cv2.imwrite(str(skins / f"{name}_diffuse.png"), noise.clip(0, 255).astype(np.uint8))
    result = fitdiff("synthesize", "--skins", skins, "--out", data, "--count", 6, "--photos", 1)
    assert result.exit_code == 0, result.output
    options = ("--data", data, "--steps", 1, "--batch", 2)
    result = fitdiff("train", "autoencoder", *options, "--out", tmp_path / "ae")
    assert result.exit_code == 0, result.output
    result = fitdiff(
        "train",
        "diffusion",
        *options,
        "--autoencoder",
        tmp_path / "ae" / "autoencoder",
        "--out",
        tmp_path / "dm",
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "dm" / "denoiser.safetensors").is_file()
    trained_with = json.loads((tmp_path / "dm" / "denoiser.json").read_text())["config"]["trained_with"]
    manifest = json.loads((tmp_path / "ae" / "autoencoder.json").read_text())
    assert trained_with["autoencoder_sha256"] == manifest["sha256"]

    photos, labels = tmp_path / "photos", tmp_path / "tones.tsv"
    photos.mkdir()
    for number in range(4):
        shutil.copy(astronaut, photos / f"{number}.jpg")
    cv2.imwrite(str(photos / "nobody.png"), np.full((80, 80, 3), 90, np.uint8))
    labels.write_text("".join(f"{n}.jpg\t65\n" for n in range(4)) + "nobody.png\t40\n")
    made = ("--denoiser", tmp_path / "dm" / "denoiser", "--autoencoder", tmp_path / "ae" / "autoencoder")
    told = ("--photos", photos, "--labels", labels, "--versions", 2)
    result = fitdiff("train", "tone", "--data", data, *made, *told, "--out", tmp_path / "tone")
    assert result.exit_code == 0, result.output
    assert "left out photo" in result.output and "nobody.png" in result.output
    card = json.loads((tmp_path / "tone" / "denoiser.json").read_text())["card"]
    assert card["source"] == "trained by fitdiff, skin tones told on photographs of 4 people"
    with (tmp_path / "dm" / "denoiser.json").open() as before:
        assert card["sha256"] != json.load(before)["card"]["sha256"]
    other = ("--denoiser", tmp_path / "dm" / "denoiser", "--autoencoder", assets_dir() / "autoencoder")
    result = fitdiff("train", "tone", "--data", data, *other, *told, "--out", tmp_path / "other")
    assert result.exit_code == 5 and "trained with another autoencoder" in result.output


def test_every_asset_has_a_licence() -> None:
    for weights in [*assets_dir().glob("*.safetensors"), *assets_dir().glob("*.onnx")]:
        assert weights.with_suffix(".LICENSE").read_text().strip(), weights.name
