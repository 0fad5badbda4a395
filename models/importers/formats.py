"""Which reader reads which format, and how a file's format is guessed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from ...errors import UsageError
from .bfm2009 import read_bfm2009
from .bfm2019 import read_bfm2019
from .flame import read_flame
from .gnm import read_gnm
from .ict import read_ict
from .lsfm import read_lsfm
from .source import SourceHead

FORMATS: dict[str, Callable[[Path], SourceHead]] = {
    "lsfm": read_lsfm,
    "bfm2009": read_bfm2009,
    "bfm2019": read_bfm2019,
    "flame": read_flame,
    "ict": read_ict,
    "gnm": read_gnm,
}
_SUFFIXES = {".h5": "bfm2019", ".hdf5": "bfm2019", ".pkl": "flame", ".obj": "ict"}


def read_source(path: Path, format_name: str | None = None) -> tuple[SourceHead, str]:
    """Read a model in a format, or in the one that the file looks like; also returns the format.

    Raises:
        MissingError: a package that the format needs is not installed.
        UsageError: the file is not of that format, or nothing tells which it has.
    """
    if not path.exists():
        raise UsageError(f"morphable model {path}", "no such file", "a file or folder", "check the path")
    name = format_name or guess_format(path)
    return FORMATS[name](path), name


def guess_format(path: Path) -> str:
    """The format that a file's name and, for two formats of one suffix, its contents tell.

    Raises:
        UsageError: nothing tells it.
    """
    suffix = path.suffix.lower()
    found = "ict" if path.is_dir() else _SUFFIXES.get(suffix)
    if suffix == ".mat":
        found = _mat_format(path)
    elif suffix == ".npz":
        found = _archive_format(path)
    if found is None:
        expected = ".mat, .h5, .pkl, .npz or FaceKit's folder, with that format's contents"
        remedy = f"name the format with --format {'|'.join(FORMATS)}"
        raise UsageError(f"morphable model {path}", "a file that tells no format", expected, remedy)
    return found


def _archive_format(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return None
    if "template_vertex_positions" in names:
        return "gnm"
    return "ict" if {"V", "I", "F"} <= names else None


def _mat_format(path: Path) -> str | None:
    try:
        from scipy.io import whosmat

        names = {entry[0] for entry in whosmat(str(path))}
    except Exception:  # without scipy, or of version 7.3: the user has to say
        return None
    if "shapeMU" in names:
        return "bfm2009"
    return "lsfm" if {"components", "trilist"} <= names else None
