"""FLAME files as their publisher pickles them: chumpy arrays and a scipy.sparse matrix, without chumpy being there."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class Ch:
    """What a chumpy array looks like to pickle: its values under "x", beside caches."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self._dirty_vars: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"x": self.x, "_status": "new", "_parents": {}}


class Select:
    """What picks entries of a chumpy array."""

    def __init__(self, a: Ch, idxs: np.ndarray, preferred_shape: tuple[int, ...]) -> None:
        self.a, self.idxs, self.preferred_shape = a, idxs, preferred_shape


@contextmanager
def chumpy_installed() -> Iterator[None]:
    """Modules of chumpy's names that hold the classes above, for the time of writing."""
    modules = {"chumpy": ModuleType("chumpy"), "chumpy.ch": ModuleType("chumpy.ch")}
    modules["chumpy.reordering"] = ModuleType("chumpy.reordering")
    for cls, name in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering")):
        cls.__module__ = name
        setattr(modules[name], cls.__name__, cls)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def write_flame(path: Path, content: dict[str, Any], protocol: int = 2) -> None:
    """Pickle a dictionary as FLAME's files are: protocol 2, as Python 2 wrote."""
    with chumpy_installed():
        path.write_bytes(pickle.dumps(content, protocol=protocol))
