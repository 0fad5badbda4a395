"""`fitdiff batch` with small untrained models: folders, table, exit codes, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fitdiff.cli_batch import batch


def run(*arguments: object) -> Result:
    return CliRunner().invoke(batch, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def photos(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(astronaut, folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_a_folder_of_photos(small_models: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--steps", 2, "--guidance", "none", "--batch", 2, "--out", out)
    result = run(photos, *options)
    assert result.exit_code == 1, result.output  # one photo is none
    assert "2 of 3 photos have their avatars" in result.output and "broken.png" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["batch.json", "one", "two"]
    for name in ("one", "two"):
        report = json.loads((out / name / "report.json").read_text())
        assert (out / name / "avatar.glb").is_file() and report["options"]["photos_at_once"] == 2
    rows = {row["folder"]: row for row in json.loads((out / "batch.json").read_text())["photos"]}
    assert [rows[name]["state"] for name in ("broken", "one", "two")] == ["failed", "made", "made"]

    (out / "two" / "avatar.glb").unlink()
    before = (out / "one" / "avatar.glb").stat().st_mtime_ns
    again = run(photos / "one.jpg", photos / "two.jpg", *options, "--resume")
    assert again.exit_code == 0, again.output
    assert (out / "one" / "avatar.glb").stat().st_mtime_ns == before and (out / "two" / "avatar.glb").is_file()
    rows = {row["folder"]: row for row in json.loads((out / "batch.json").read_text())["photos"]}
    assert [rows[name]["state"] for name in ("one", "two")] == ["kept", "made"]


def test_wrong_usage(tmp_path: Path) -> None:
    assert run("--out", tmp_path / "out").exit_code == 2
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", "--out", tmp_path / "out")
    assert result.exit_code != 0 and "no image file" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_help_shows_an_example_and_the_exit_codes() -> None:
    text = run("--help").output
    assert "fitdiff batch photos --out avatars" in text and "some have none" in text
