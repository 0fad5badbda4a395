"""Checkpoints: what is written is what is read, and nothing else is."""

import json
from pathlib import Path

import pytest
import torch

from fitdiff.errors import MissingError
from fitdiff.models import checkpoint
from fitdiff.models.checkpoint import (
    ModelCard,
    assets_dir,
    load_checkpoint,
    load_weights_file,
    save_checkpoint,
    save_weights_file,
)

CARD = ModelCard("recogniser", "toy", "made here", "CC0-1.0", commercial=True)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "toy-1.2"  # a dot in the name is not a suffix
    tensors = {"weight": torch.arange(6.0).view(2, 3).t(), "steps": torch.tensor([3], dtype=torch.int64)}
    save_checkpoint(path, tensors, {"widths": [2, 3]}, CARD, "do as you like")
    return path


def test_round_trip(saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert torch.equal(loaded.tensors["weight"], torch.arange(6.0).view(2, 3).t())
    assert loaded.tensors["steps"].dtype == torch.int64
    assert loaded.config == {"widths": [2, 3]}
    assert (loaded.card.name, loaded.card.licence, len(loaded.card.sha256)) == ("toy", "CC0-1.0", 64)
    assert Path(f"{saved}.LICENSE").read_text() == "do as you like"
    assert sorted(p.name for p in saved.parent.iterdir()) == [
        "toy-1.2.LICENSE",
        "toy-1.2.json",
        "toy-1.2.safetensors",
    ]


def test_path_may_end_in_safetensors_and_card_may_be_a_dictionary(tmp_path: Path) -> None:
    card = {"role": "r", "name": "n", "source": "s", "licence": "MIT", "commercial": False}
    written = save_checkpoint(tmp_path / "toy.safetensors", {"a": torch.zeros(1)}, {}, card)
    assert load_checkpoint(tmp_path / "toy.safetensors").card == written
    assert not (tmp_path / "toy.LICENSE").exists()


def test_same_content_gives_same_hash(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    first = save_checkpoint(tmp_path / "first", tensors, {}, CARD)
    second = save_checkpoint(tmp_path / "second", dict(reversed(tensors.items())), {}, CARD)
    assert first.sha256 == second.sha256


def test_absent_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file.*check the path"):
        load_checkpoint(tmp_path / "absent")


def test_absent_embedded_model_says_to_reinstall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FITDIFF_ASSETS", str(tmp_path))
    assert assets_dir() == tmp_path
    with pytest.raises(MissingError, match="reinstall fitdiff"):
        load_checkpoint(assets_dir() / "recogniser")


def test_changed_weights_are_refused(saved: Path) -> None:
    file = Path(f"{saved}.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(MissingError, match="SHA-256"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["{", '{"format": "fitdiff-checkpoint/99"}', "[]"])
def test_bad_manifest_is_refused(saved: Path, text: str) -> None:
    Path(f"{saved}.json").write_text(text)
    with pytest.raises(MissingError, match="model manifest"):
        load_checkpoint(saved)


def test_interrupted_save_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, data: bytes, write=checkpoint._write_whole) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(checkpoint, "_write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, {"weight": torch.zeros(1)}, {}, CARD)
    with pytest.raises(MissingError, match="SHA-256"):
        load_checkpoint(saved)


def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    before = sorted(saved.parent.iterdir())
    monkeypatch.setattr(checkpoint.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(saved, {"weight": torch.zeros(1)}, {}, CARD)
    assert sorted(saved.parent.iterdir()) == before
    assert load_checkpoint(saved).config == {"widths": [2, 3]}


def test_other_weights_format_keeps_the_manifest(tmp_path: Path) -> None:
    save_weights_file(tmp_path / "net", ".onnx", b"\x08\x07", {"a": 1}, CARD, "MIT")
    file = load_weights_file(tmp_path / "net", ".onnx")
    assert (file.data, file.config, file.card.role) == (b"\x08\x07", {"a": 1}, "recogniser")


@pytest.mark.parametrize(
    ("role", "suffix"),
    [
        ("recogniser", ".safetensors"),
        ("landmarks", ".safetensors"),
        ("perceptual", ".safetensors"),
        ("detector", ".onnx"),
    ],
)
def test_embedded_assets_are_whole_and_licensed(role: str, suffix: str) -> None:
    file = load_weights_file(assets_dir() / role, suffix)
    assert file.card.role == role
    assert file.card.commercial
    assert (assets_dir() / f"{role}.LICENSE").read_text(encoding="utf-8")
    manifest = json.loads((assets_dir() / f"{role}.json").read_text(encoding="utf-8"))
    assert manifest["card"]["sha256"] == manifest["sha256"] == file.card.sha256
