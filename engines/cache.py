"""Files that take long to make and are loaded as code: TensorRT plans, exported ONNX files. Made once, checked always.

A cached file NAME.plan has a manifest NAME.json beside it: its key, SHA-256, size, and how it came about. It is handed
out only if all of that agrees; anything else (cut short, changed, made for something else) is made again. Files
appear whole: they are written in a folder of their own and moved into place. A lock for each name lets any number of
processes build it once. The hashes find damage and mix-ups; against somebody who may write to the folder they are no
help, so the folder is made for its owner alone, and one that everybody may write to is refused.

Nothing here is unpickled, and nothing is known of what the files mean.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from filelock import FileLock, Timeout

from .. import __version__
from ..errors import FitDiffError, UsageError
from .cache_key import CacheKey, digest_of_fields, sha256_of_file

FORMAT = "fitdiff-engine/1"
SUFFIXES = (".plan", ".onnx", ".specs")
KERNELS = ".jit"  # what TensorRT-RTX finished for a GPU, beside its plan; it has a hash of its own
_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Manifest:
    """What stands beside a cached file. key: the fields of its `CacheKey`. created: ISO 8601, UTC."""

    kind: str
    key: dict[str, Any]
    sha256: str
    bytes: int
    created: str
    build_seconds: float
    fitdiff: str
    format: str = FORMAT


@dataclass(frozen=True)
class CacheEntry:
    """A file in the cache, or what is left of one.

    problem: why it would not be handed out; empty where it would. kernel_bytes: of what is beside it for its GPU.
    """

    name: str
    path: Path
    bytes: int
    manifest: Manifest | None
    problem: str
    kernel_bytes: int = 0

    @property
    def age_days(self) -> float | None:
        """Since it was built; None where no manifest says when."""
        if self.manifest is None:
            return None
        return (datetime.now(UTC) - datetime.fromisoformat(self.manifest.created)).total_seconds() / 86400


def default_cache_root() -> Path:
    """FITDIFF_CACHE, or `engines` in the user's cache folder."""
    named = os.environ.get("FITDIFF_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("fitdiff") / "engines"


class EngineCache:
    """A folder of built files; it is made when the first one is built."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path(root) if root else default_cache_root()

    def get_or_build(
        self, key: CacheKey, build: Callable[[Path], None], progress: Callable[[str], None] | None = None
    ) -> Path:
        """The file of `key`, which agrees with its manifest; `build(path)` writes it where there is none.

        Processes that want the same file wait for the one that builds. An error of `build` is raised again, and
        leaves nothing behind. progress: told in a phrase what takes long.

        Raises:
            UsageError: the folder cannot be written, or everybody may write to it.
            FitDiffError: `build` wrote no file.
        """
        say = progress or (lambda _: None)
        name = key.digest()
        path = self.root / f"{name}{key.suffix}"
        if self.find(key):  # also from a folder that others filled and that cannot be written
            return path
        with self._locked(name, say):
            problem = self._problem(path, key)
            if not problem:
                return path
            if path.exists() or _manifest_path(path).exists():
                _LOG.warning("%s of %s is made again: %s", path.name, key.graph, problem)
            say("building")
            self._build(path, key, build)
        return path

    def find(self, key: CacheKey) -> Path | None:
        """The file of `key` if it is there and agrees with its manifest.

        Raises:
            UsageError: everybody may write to the folder.
        """
        path = self.root / f"{key.digest()}{key.suffix}"
        self._refuse_open_folder()
        return None if self._problem(path, key) else path

    def entries(self) -> tuple[CacheEntry, ...]:
        """Everything in the folder, each file hashed; oldest last."""
        if not self.root.is_dir():
            return ()
        kinds = (*SUFFIXES, KERNELS, ".json")
        files = [path for path in self.root.iterdir() if path.suffix in kinds and path.is_file()]
        found = [self._entry(name, files) for name in sorted({path.stem for path in files})]
        return tuple(sorted(found, key=lambda entry: entry.age_days or 0.0))

    def remove(self, entry: CacheEntry) -> int | None:
        """Delete a file and what is beside it; answers the bytes freed, or None where somebody is building it."""
        with self._locked_or_none(entry.name) as lock:
            if lock is None:
                return None
            freed = 0
            for path in self.root.glob(f"{entry.name}.*"):  # a backend may keep more beside a plan
                if path.suffix != ".lock":
                    freed += path.stat().st_size
                    self._writing(path.unlink)
            return freed

    def remove_unfinished(self) -> int:
        """Delete what builders left that died; those at work are left alone. Answers the bytes freed."""
        freed = 0
        for folder in self.root.glob(".*.building-*"):
            with self._locked_or_none(folder.name[1:].partition(".")[0]) as lock:
                if lock is not None:
                    freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                    shutil.rmtree(folder, ignore_errors=True)
        return freed

    def _entry(self, name: str, files: list[Path]) -> CacheEntry:
        path = next((p for p in files if p.stem == name and p.suffix in SUFFIXES), None)
        kernels = sum(p.stat().st_size for p in files if p.stem == name and p.suffix == KERNELS)
        manifest = _read_manifest(self.root / f"{name}.json")
        if path is None:
            path = self.root / f"{name}.plan"
            return CacheEntry(name, path, 0, manifest, "its file is gone", kernels)
        problem = _disagreement(path, manifest)
        if manifest is not None and digest_of_fields(manifest.kind, manifest.key) != name:
            problem = "its manifest belongs to another file"
        return CacheEntry(name, path, path.stat().st_size, manifest, problem, kernels)

    def _problem(self, path: Path, key: CacheKey) -> str:
        """Why `path` may not be handed out for `key`; empty where it may."""
        manifest = _read_manifest(_manifest_path(path))
        if manifest is not None and (manifest.kind, manifest.key) != (key.kind, key.fields()):
            fields = key.fields()
            other = [name for name in sorted({*fields, *manifest.key}) if fields.get(name) != manifest.key.get(name)]
            return f"it was made for another {', '.join(other) or 'kind of file'}"
        return _disagreement(path, manifest)

    def _build(self, path: Path, key: CacheKey, build: Callable[[Path], None]) -> None:
        name = path.stem
        for left in self.root.glob(f".{name}.building-*"):  # whoever made it died: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        started = time.monotonic()
        folder = self._writing(lambda: Path(tempfile.mkdtemp(dir=self.root, prefix=f".{name}.building-")))
        try:
            made = folder / path.name
            build(made)
            if not made.is_file():
                raise FitDiffError(f"engine {key.graph}", "no file from its builder", "a file", "report this")
            manifest = Manifest(
                key.kind, key.fields(), sha256_of_file(made), made.stat().st_size, datetime.now(UTC).isoformat(),
                round(time.monotonic() - started, 3), __version__,
            )  # fmt: skip
            text = folder / "manifest.json"
            text.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
            for file, target in ((made, path), (text, _manifest_path(path))):  # the manifest last
                _flush(file)
                self._writing(lambda file=file, target=target: os.replace(file, target))
            _flush(self.root)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self, name: str, say: Callable[[str], None]) -> Iterator[None]:
        def made() -> None:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

        def acquired() -> bool:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
            return True

        self._writing(made)
        lock = FileLock(self.root / f"{name}.lock", poll_interval=0.2)
        if not self._writing(acquired):
            say("another process builds it: waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _locked_or_none(self, name: str) -> Iterator[FileLock | None]:
        """The lock of a name, or None where somebody holds it. Lock files stay: taking one away would split waiters."""
        lock = FileLock(self.root / f"{name}.lock")
        try:
            self._writing(lambda: lock.acquire(timeout=0))
        except Timeout:
            yield None
            return
        try:
            yield lock
        finally:
            lock.release()

    def _refuse_open_folder(self) -> None:
        if os.name == "posix" and self.root.is_dir() and self.root.stat().st_mode & stat.S_IWOTH:
            thing, got = f"engine cache {self.root}", "a folder that everybody may write to"
            remedy = f"run chmod o-w {self.root}, or set FITDIFF_CACHE to another folder"
            raise UsageError(thing, got, "one that only you fill, since what it holds is run", remedy)

    def _writing(self, action: Callable[[], _T]) -> _T:
        """`action()`, its OS errors as a UsageError."""
        try:
            return action()
        except Timeout:
            raise
        except OSError as error:
            thing, got = f"engine cache {self.root}", error.strerror or str(error)
            remedy = "free some space" if error.errno == errno.ENOSPC else "change its permissions"
            remedy += ", or set FITDIFF_CACHE to another folder"
            raise UsageError(thing, got, "a folder to write engines to", remedy) from error


def _manifest_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_manifest(path: Path) -> Manifest | None:
    """None where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(**values)
        dated = datetime.fromisoformat(manifest.created).tzinfo is not None
    except (OSError, ValueError, TypeError):
        return None
    whole = isinstance(manifest.key, dict) and isinstance(manifest.build_seconds, float) and dated
    return manifest if whole and manifest.format == FORMAT else None


def _disagreement(path: Path, manifest: Manifest | None) -> str:
    if manifest is None:
        return "it has no manifest that can be read"
    if not path.is_file():
        return "its file is gone"
    size = path.stat().st_size
    if size != manifest.bytes:
        return f"it has {size} bytes instead of {manifest.bytes}"
    if sha256_of_file(path) != manifest.sha256:
        return "its SHA-256 is not the one of its manifest"
    return ""


def _flush(path: Path) -> None:
    """Bring a file, or a folder's list of files, to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
