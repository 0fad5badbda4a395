"""MATLAB files as dictionaries of numpy arrays: version 5 through scipy, version 7.3 (which is HDF5) through h5py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import MissingError
from .source import unreadable


def load_mat(path: Path, format_name: str, required: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The numeric arrays of a file, as MATLAB shapes them (at least two axes).

    Raises:
        MissingError: scipy, or for version 7.3 h5py, is not installed.
        UsageError: no MATLAB file, or a required array is not in it.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_package("scipy") from error
    try:
        content = loadmat(str(path))
    except NotImplementedError:
        content = _hdf5(path)
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise unreadable(path, format_name, f"{type(error).__name__}: {error}", "a MATLAB file") from error
    arrays = {k: v for k, v in content.items() if isinstance(v, np.ndarray) and v.dtype.kind in "fiub"}
    require_keys(path, format_name, arrays, required)
    return arrays


def require_keys(path: Path, format_name: str, found: object, required: tuple[str, ...]) -> None:
    """Raise UsageError unless `found` (a mapping) has all keys."""
    absent = [key for key in required if key not in found]  # type: ignore[operator]
    if absent:
        raise unreadable(path, format_name, f"no {', '.join(absent)}", ", ".join(required))


def missing_package(name: str) -> MissingError:
    """The error for an optional package that a format needs."""
    return MissingError(f"package {name}", "not installed", "it, to read this format", f"pip install {name}")


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise missing_package("h5py") from error
    with h5py.File(path, "r") as file:  # HDF5 keeps MATLAB's columns as rows
        return {key: np.asarray(item).T for key, item in file.items() if isinstance(item, h5py.Dataset)}
