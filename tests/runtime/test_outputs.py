"""Output folders: whole on success, untouched on failure."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fitdiff.errors import UsageError
from fitdiff.runtime.outputs import whole_folder


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as work:
        fill(work, a="1", maps__b="2")
        assert not out.exists()
    assert contents(tmp_path) == {"deep/out/a": "1", "deep/out/maps/b": "2"}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask  # readable by whom the user lets


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_remains_of_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), whole_folder(tmp_path / "deep" / "out") as work:
        fill(work, a="1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_survive_a_failure_and_are_replaced_by_a_success(tmp_path: Path) -> None:
    fill(tmp_path, a="old", own="mine")
    with pytest.raises(ValueError), whole_folder(tmp_path) as work:
        fill(work, a="new")
        raise ValueError
    assert contents(tmp_path) == {"a": "old", "own": "mine"}
    with whole_folder(tmp_path) as work:
        fill(work, a="new", maps__b="2")
        assert (tmp_path / "a").read_text() == "old"
    assert contents(tmp_path) == {"a": "new", "maps/b": "2", "own": "mine"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "maps", "own"]


def test_a_move_that_fails_undoes_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, a="old")
    (out / "maps").write_text("a file where a folder has to be")
    before = contents(out)
    with pytest.raises(UsageError, match="output folder"), whole_folder(out) as work:
        fill(work, a="new", b="new", maps__c="new")
    assert contents(out) == before
    assert sorted(p.name for p in out.iterdir()) == ["a", "maps"]


def test_refuses_before_the_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError), whole_folder(out):
            pytest.fail("the block ran")
