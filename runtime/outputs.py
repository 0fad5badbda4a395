"""An output folder that appears whole or not at all.

Files are made in a temporary folder on the same file system and moved into place when all of them are there.
This file knows nothing of what is in them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """`with whole_folder(out) as folder:` yields an empty folder whose files come to `target` at the end.

    If the block raises, `target` is as it was: absent, or with the files of an earlier run. If `target` is
    there, the new files replace those of the same name and all others stay; should a move fail, the ones
    before it are undone.

    Raises:
        UsageError: `target` is a file, or nothing can be written there; known before the block runs.
    """
    target = target.resolve()
    made: list[Path] = []
    try:
        work = _work_folder(target, made)
        try:
            yield work
            _install(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except BaseException:
        for parent in reversed(made):
            _remove_if_empty(parent)
        raise


def _work_folder(target: Path, made: list[Path]) -> Path:
    """A new folder inside `target` where that exists (it may be a mount point), beside it otherwise.

    Parents that had to be made are added to `made`, outermost first.
    """
    if target.exists() and not target.is_dir():
        expected, remedy = "a folder, or a path that is free", "choose another --out"
        raise UsageError(f"output folder {target}", "a file", expected, remedy)
    name = f".fitdiff-{secrets.token_hex(4)}"  # mkdtemp would make it unreadable to others
    try:
        if target.is_dir():
            work = target / name
        else:
            for parent in reversed([p for p in target.parents if not p.exists()]):
                parent.mkdir()
                made.append(parent)
            work = target.parent / name
        work.mkdir()
    except OSError as error:
        thing, remedy = f"output folder {target}", "choose another --out, or change the permissions"
        raise UsageError(thing, f"{error.strerror}", "a folder to write in", remedy) from error
    return work


def _install(work: Path, target: Path) -> None:
    if not target.exists():
        os.rename(work, target)
        return
    backup = work / ".replaced"
    undo: list[tuple[Path, Path]] = []  # (where it is, where it was)
    files = sorted(path for path in work.rglob("*") if path.is_file())
    made: list[Path] = []
    try:
        for file in files:
            place = target / file.relative_to(work)
            for parent in reversed([p for p in place.parents if not p.exists()]):
                parent.mkdir()
                made.append(parent)
            if place.is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
            if place.exists():
                kept = backup / file.relative_to(work)
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.rename(place, kept)
                undo.append((kept, place))
            os.rename(file, place)
            undo.append((place, file))
    except BaseException as error:
        for now, before in reversed(undo):
            os.rename(now, before)
        for parent in reversed(made):
            _remove_if_empty(parent)
        if isinstance(error, OSError):
            got = f"{error.strerror}: {error.filename2 or error.filename}"
            remedy = "choose another --out"
            raise UsageError(f"output folder {target}", got, "files that can be replaced", remedy) from error
        raise


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty: somebody else uses it by now
        pass
