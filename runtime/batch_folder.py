"""The folder of a batch: one folder a photo, whole or absent, and `batch.json`, from which a batch is taken up again.

`batch.json` is renewed after every photo, so that what was made is known however a batch ends. It names photos by their
file names and SHA-256, never by their paths. Knows nothing of how avatars are made, and of what is in their folders.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import FitDiffError, UsageError
from .batch import Failed, Made
from .outputs import whole_folder
from .report import RunReport

FORMAT = "fitdiff-batch-1"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".gif", ".jp2", ".heic", ".heif")
"""What counts as a photo within a folder; HEIC is told how to convert."""

WriteAvatar = Callable[[Made, Path], RunReport]
"""Fills a folder with everything of an avatar."""


@dataclass(frozen=True)
class BatchRow:
    """What became of one photo.

    state: "kept" is made by an earlier batch of the same options. seconds: of its batch, over the photos in it, and of
    its own files. files: of its folder, with their sizes in bytes.
    """

    photo: str
    folder: str
    state: Literal["made", "kept", "failed"]
    photo_sha256: str | None = None
    seconds: float = 0.0
    similarity: dict[str, float] = field(default_factory=dict)
    landmark_error: float | None = None
    files: dict[str, int] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class BatchFolder:
    """A batch's output folder. `options`: everything that decides what is in a photo's folder, as JSON has it."""

    path: Path
    options: Mapping[str, Any]

    def rows(self) -> dict[str, BatchRow]:
        """By folder name, what an earlier batch with the same options left here and what is still whole."""
        try:
            found = json.loads((self.path / "batch.json").read_text(encoding="utf-8"))
            if found["format"] != FORMAT or found["options"] != _plain(self.options):
                return {}
            rows = [BatchRow(**row) for row in found["photos"]]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {row.folder: row for row in rows if row.state != "failed" and self._is_whole(row)}

    def _is_whole(self, row: BatchRow) -> bool:
        return bool(row.files) and _sizes(self.path / row.folder) == row.files

    def write(self, rows: Iterable[BatchRow]) -> None:
        """Renew `batch.json`, whole or not at all.

        Raises:
            UsageError: it cannot be written.
        """
        value = {"format": FORMAT, "options": _plain(self.options), "photos": [asdict(row) for row in rows]}
        partial = self.path / ".batch.json.partial"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
            os.replace(partial, self.path / "batch.json")
        except OSError as error:
            raise _unwritable(self.path, error) from error


def photos_from_paths(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The photos among these paths: files as they are, of folders the images directly in them, by name.

    Raises:
        UsageError: there is none.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in inside if file == path or (file.suffix.lower() in SUFFIXES and file.is_file())]
    if not found:
        named = ", ".join(str(path) for path in paths)
        raise UsageError(f"photos {named}", "no image file", "photos, or folders with photos", "check the paths")
    return tuple(dict.fromkeys(found))


def folder_names(photos: Sequence[Path]) -> dict[Path, str]:
    """A folder name for each photo: its name without the ending, and with it where two photos share that.

    Raises:
        UsageError: two photos have the same name.
    """
    stems = Counter(photo.stem.casefold() for photo in photos)
    names = {p: p.stem if stems[p.stem.casefold()] == 1 else p.name.replace(".", "_") for p in photos}
    for name, count in Counter(name.casefold() for name in names.values()).items():
        if count > 1:
            twice = ", ".join(str(photo) for photo in photos if names[photo].casefold() == name)
            raise UsageError("photos", f"{twice}", "a name for each of its own", "rename one, or run them one by one")
    return names


def kept_rows(folder: BatchFolder, names: Mapping[Path, str]) -> dict[Path, BatchRow]:
    """The photos whose avatars are here already, of the same bytes and options, as rows of state "kept"."""
    kept: dict[Path, BatchRow] = {}
    rows = folder.rows()
    for photo, name in names.items():
        row = rows.get(name)
        if row is not None and row.photo == photo.name and row.photo_sha256 == _sha256(photo):
            kept[photo] = replace(row, state="kept")
    return kept


def write_batch(
    folder: BatchFolder,
    names: Mapping[Path, str],
    kept: Mapping[Path, BatchRow],
    made: Iterator[Made | Failed],
    write_avatar: WriteAvatar,
) -> Iterator[BatchRow]:
    """A row for each photo that `made` brings, as soon as its folder is there; `batch.json` holds the kept ones too.

    An avatar that cannot be written as it is (it holds bad numbers) is a failed photo.

    Raises:
        UsageError: the folder cannot be written: then none could.
    """
    rows = dict(kept)
    folder.write(rows.values())
    for entry in made:
        row = _row(folder, names[entry.photo], entry, write_avatar)
        rows[entry.photo] = row
        folder.write(rows[photo] for photo in names if photo in rows)
        yield row


def _row(folder: BatchFolder, name: str, entry: Made | Failed, write_avatar: WriteAvatar) -> BatchRow:
    if isinstance(entry, Failed):
        return BatchRow(entry.photo.name, name, "failed", error=_without_path(str(entry.error), entry.photo))
    report = entry.result.report
    begun = entry.clock.total()
    try:
        with whole_folder(folder.path / name) as work:
            written = write_avatar(entry, work)
    except UsageError:
        raise
    except FitDiffError as error:
        return BatchRow(entry.photo.name, name, "failed", report.photo_sha256, error=str(error))
    except OSError as error:
        raise _unwritable(folder.path / name, error) from error
    seconds = report.seconds / report.options["photos_at_once"] + entry.clock.total() - begun
    return BatchRow(
        entry.photo.name, name, "made", report.photo_sha256, round(seconds, 3), written.similarity,
        written.landmark_error, _sizes(folder.path / name),
    )  # fmt: skip


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _sha256(photo: Path) -> str | None:
    try:
        with photo.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _without_path(message: str, photo: Path) -> str:
    return message.replace(str(photo), photo.name)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(options)))


def _unwritable(path: Path, error: OSError) -> UsageError:
    remedy = "make room, or choose another --out"
    return UsageError(f"output folder {path}", str(error.strerror or error), "a folder to write in", remedy)
