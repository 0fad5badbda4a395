"""The options that choose models, and what is said of the paper preset."""

from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from fitdiff.cli_presets import loading_options, preset_summary
from fitdiff.runtime.doctor import examine


@click.command()
@loading_options
def chosen(loading: dict[str, Any]) -> None:
    click.echo("{preset} {commercial} {backend} {threads}".format_map(loading))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in {"HOME": "", "XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "3DFAN4-4a694010b9.zip").touch()
    return tmp_path


def test_options_default_to_the_embedded_models() -> None:
    assert CliRunner().invoke(chosen, []).output == "default False eager None\n"
    given = ["--preset", "paper", "--commercial", "--backend", "onnxruntime", "--threads", "2"]
    assert CliRunner().invoke(chosen, given).output == "paper True onnxruntime 2\n"


def test_the_summary_says_what_is_here(home: Path) -> None:
    first, *lines = preset_summary()
    assert "1 of 6 pieces are here" in first
    by_key = {line.split()[0]: line for line in lines}
    assert by_key["landmarks.path"].endswith("~/hub/checkpoints/3DFAN4-4a694010b9.zip")
    assert by_key["recogniser.path"].endswith("non-commercial research only (InsightFace sells licences): not found")


def test_doctor_notes_the_paper_preset_and_misses_nothing_for_it(home: Path) -> None:
    found = {finding.name: finding for finding in examine() if finding.group == "paper preset"}
    assert found["landmarks.path"].state == "ok"
    for name in ("recogniser.path", "perceptual.vgg", "morphable.path", "denoiser.path"):
        assert found[name].state == "note" and found[name].remedy  # an avatar can be made without it
    assert str(home) in found["morphable.path"].remedy
