"""The folder of a batch: names, rows, and what counts as made already."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fitdiff.errors import FitDiffError, NoFaceError, UsageError
from fitdiff.runtime.batch import Failed, Made
from fitdiff.runtime.batch_folder import BatchFolder, BatchRow, folder_names, kept_rows, photos_from_paths, write_batch
from fitdiff.runtime.report import StageClock

OPTIONS = {"steps": 2, "seed": 0, "models": ("one", "two")}


def photo(folder: Path, name: str, content: bytes = b"photo") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def report(path: Path) -> Any:

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return SimpleNamespace(
        photo_sha256=sha256,
        seconds=6.0,
        options={"photos_at_once": 3},
        similarity={"guiding": 0.8},
        landmark_error=0.02,
    )


def entry(path: Path) -> Made:
    return Made(path, None, SimpleNamespace(report=report(path)), StageClock())  # type: ignore[arg-type]


def write(made: Made, folder: Path) -> Any:
    (folder / "maps").mkdir()
    (folder / "maps" / "a.png").write_bytes(b"pixels")
    (folder / "report.json").write_text("{}")
    return made.result.report


def test_photos_of_folders_and_files(tmp_path: Path) -> None:
    folder, other = tmp_path / "photos", photo(tmp_path, "other.raw")
    names = [photo(folder, name) for name in ("b.JPG", "a.png", "notes.txt", "c.webp")]
    (folder / "d.jpg").mkdir()
    assert photos_from_paths([folder, other, names[0]]) == (names[1], names[0], names[3], other)
    with pytest.raises(UsageError, match="no image file"):
        photos_from_paths([folder / "d.jpg"])


def test_every_photo_has_a_folder_of_its_own(tmp_path: Path) -> None:
    names = folder_names([Path("x/a.jpg"), Path("x/b.jpg"), Path("x/B.png")])
    assert list(names.values()) == ["a", "b_jpg", "B_png"]
    with pytest.raises(UsageError, match="x/a.jpg, y/a.jpg"):
        folder_names([Path("x/a.jpg"), Path("y/a.jpg")])


def run(out: Path, made: list[Made | Failed], **options: Any) -> list[BatchRow]:
    folder = BatchFolder(out, OPTIONS | options)
    names = folder_names([one.photo for one in made])
    return list(write_batch(folder, names, {}, iter(made), write))


def test_rows_say_what_became_of_each(tmp_path: Path) -> None:
    good, bad = photo(tmp_path, "good.jpg"), photo(tmp_path, "bad.jpg")
    error = NoFaceError(f"photo {bad}", "no face", "a face", "use another")
    rows = run(tmp_path / "out", [entry(good), Failed(bad, error)])
    assert [(row.photo, row.folder, row.state) for row in rows] == [
        ("good.jpg", "good", "made"), ("bad.jpg", "bad", "failed"),
    ]  # fmt: skip
    assert rows[0].files == {"maps/a.png": 6, "report.json": 2} and rows[0].seconds == pytest.approx(2.0, abs=1.0)
    assert rows[1].error is not None and "no face" in rows[1].error and not (tmp_path / "out" / "bad").exists()
    text = (tmp_path / "out" / "batch.json").read_text()
    assert json.loads(text)["photos"][0]["similarity"] == {"guiding": 0.8}
    assert str(tmp_path) not in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["batch.json", "good"]


def test_only_what_is_whole_and_the_same_is_kept(tmp_path: Path) -> None:
    photos = [photo(tmp_path, f"{name}.jpg", name.encode()) for name in ("same", "changed", "damaged", "failed", "new")]
    names = folder_names(photos)
    out = tmp_path / "out"
    error = FitDiffError("a", "b", "c", "d")
    run(out, [*map(entry, photos[:3]), Failed(photos[3], error)])
    photos[1].write_bytes(b"another photo")
    (out / "damaged" / "maps" / "a.png").write_bytes(b"pix")
    assert list(kept_rows(BatchFolder(out, OPTIONS), names)) == [photos[0]]
    assert kept_rows(BatchFolder(out, OPTIONS), names)[photos[0]].state == "kept"
    assert kept_rows(BatchFolder(out, OPTIONS | {"seed": 1}), names) == {}
    (out / "batch.json").write_text("{")
    assert kept_rows(BatchFolder(out, OPTIONS), names) == {}


def test_a_batch_that_stops_knows_what_it_made(tmp_path: Path) -> None:
    first, second = photo(tmp_path, "first.jpg"), photo(tmp_path, "second.jpg")
    names = folder_names([first, second])
    folder = BatchFolder(tmp_path / "out", OPTIONS)

    def interrupted() -> Iterator[Made | Failed]:
        yield entry(first)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(write_batch(folder, names, {}, interrupted(), write))
    kept = kept_rows(folder, names)
    assert list(kept) == [first]
    rows = list(write_batch(folder, names, kept, iter([entry(second)]), write))
    assert [row.folder for row in rows] == ["second"]
    assert [row["state"] for row in json.loads((tmp_path / "out" / "batch.json").read_text())["photos"]] == [
        "kept", "made",
    ]  # fmt: skip
    assert len(kept_rows(folder, names)) == 2


def test_bad_numbers_fail_one_photo_and_a_full_disk_all(tmp_path: Path) -> None:
    paths = [photo(tmp_path, "a.jpg"), photo(tmp_path, "b.jpg")]
    names, folder = folder_names(paths), BatchFolder(tmp_path / "out", OPTIONS)

    def refuse(made: Made, work: Path) -> Any:
        if made.photo == paths[0]:
            (work / "half").write_text("")
            raise FitDiffError("avatar", "nan", "numbers", "report it")
        return write(made, work)

    rows = list(write_batch(folder, names, {}, iter(map(entry, paths)), refuse))
    assert [row.state for row in rows] == ["failed", "made"] and not (tmp_path / "out" / "a").exists()

    def fill(made: Made, work: Path) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UsageError, match="No space left"):
        list(write_batch(folder, names, {}, iter(map(entry, paths)), fill))
