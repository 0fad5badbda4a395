"""The paper preset's files: where they are looked for, what a TOML file says, and the one error for all that lacks."""

from pathlib import Path

import pytest
import torch

from fitdiff.errors import MissingError, UsageError
from fitdiff.models.checkpoint import ModelCard
from fitdiff.runtime.preset_pieces import PIECES
from fitdiff.runtime.presets import preset_files, preset_path, preset_states, refuse_non_commercial

FOR_TRAINING = ("recogniser", "perceptual", "morphable")
HERE = {
    "recogniser.path": ".insightface/models/antelopev2/antelopev2/glintr100.onnx",
    "landmarks.path": "torch/hub/checkpoints/2DFAN4-11f355bf06.pth.tar",
    "perceptual.vgg": "torch/hub/checkpoints/vgg16-397923af.pth",
    "morphable.path": "data/fitdiff/paper/morphable.safetensors",
    "denoiser.path": "data/fitdiff/paper/denoiser.safetensors",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, with nothing in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch" / "hub"))
    return tmp_path


def put(home: Path, *keys: str) -> None:
    for key in keys or HERE:
        (home / HERE[key]).parent.mkdir(parents=True, exist_ok=True)
        (home / HERE[key]).touch()


def preset_file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_the_default_preset_asks_for_nothing(home: Path) -> None:
    assert not preset_files("default").paths


def test_all_that_is_missing_is_in_one_message(home: Path) -> None:
    put(home, "recogniser.path", "denoiser.path")
    with pytest.raises(MissingError) as caught:
        preset_files("paper")
    message = str(caught.value)
    for piece in PIECES:
        wanted = not piece.optional and piece.key not in ("recogniser.path", "denoiser.path")
        assert (f": {piece.what}\n" in message) == wanted, piece.key
        if wanted:
            assert piece.source in message and piece.licence in message and str(home) in message
            assert piece.command.split("{")[0] in message
    assert str(preset_path()) in message and caught.value.exit_code == 5


def test_files_are_found_where_their_packages_put_them(home: Path) -> None:
    put(home)
    settings = home / "config" / "fitdiff" / "paper.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('rasteriser = "native"\n[perceptual]\nlinear = "vgg.pth"\n')
    (settings.parent / "vgg.pth").touch()
    files = preset_files("paper")
    expected = {key: home / path for key, path in HERE.items()} | {"perceptual.linear": settings.parent / "vgg.pth"}
    assert dict(files.paths) == expected and files.rasteriser == "native"
    assert all(state.path for state in preset_states())


def test_the_better_copy_is_taken(home: Path) -> None:
    put(home)
    for name in ("landmarks.path", "recogniser.path"):
        other = {"landmarks.path": "3DFAN4-4a694010b9.zip", "recogniser.path": "../../buffalo_l/w600k_r50.onnx"}[name]
        path = (home / HERE[name]).parent / other
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {state.piece.key: state.path for state in preset_states()}
    assert found["landmarks.path"] is not None and found["landmarks.path"].name.startswith("3DFAN4")
    assert found["recogniser.path"] is not None and found["recogniser.path"].name == "glintr100.onnx"


def test_training_needs_no_denoiser(home: Path) -> None:
    put(home, "recogniser.path", "morphable.path")
    files = preset_files(preset_file(home, 'perceptual = "embedded"'), FOR_TRAINING)
    assert set(files.paths) == {"recogniser.path", "morphable.path"}


def test_a_path_that_is_named_but_absent_is_missing(home: Path) -> None:
    put(home, "recogniser.path")
    with pytest.raises(MissingError, match="ArcFace.*\n.*\n.*\n.*\n.*elsewhere.onnx"):
        preset_files(preset_file(home, '[recogniser]\npath = "elsewhere.onnx"'), FOR_TRAINING)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[recognizer]\n", "'recognizer'; expected one of recogniser"),
        ("[recogniser]\nfile = 1\n", "recogniser.file; expected one of commercial, licence, path"),
        ('denoiser = "embedded"\n', "denoiser = 'embedded'"),
        ('rasteriser = "cuda"\n', "'cuda'; expected 'native'"),
        ("[recogniser\n", "expected TOML"),
    ],
)
def test_a_preset_file_that_says_nonsense_is_refused(home: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        preset_files(preset_file(home, text))


def test_an_unknown_preset_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="papers; expected default, paper or a .toml file"):
        preset_files("papers")


def test_commercial_refuses_and_a_stated_licence_helps(home: Path) -> None:
    free = ModelCard("detector", "yunet", "s", "MIT", True)
    bound = ModelCard("recogniser", "arcface-r100", "s", "LicenseRef-x", False)
    refuse_non_commercial([free])
    with pytest.raises(UsageError, match=r"recogniser arcface-r100 \(LicenseRef-x\); morphable lsfm"):
        refuse_non_commercial([free, bound, ModelCard("morphable", "lsfm", "s", "LicenseRef-LSFM", False)])
    put(home)
    text = (
        'rasteriser = "native"\nperceptual = "embedded"\n'
        '[recogniser]\nlicence = "InsightFace contract 7"\ncommercial = true\n'
    )
    files = preset_files(preset_file(home, text))
    stated = files.stated(bound)
    assert (stated.licence, stated.commercial) == ("InsightFace contract 7", True) and "as stated" in stated.source
    refuse_non_commercial([free, stated])
    assert files.stated(free) == free
