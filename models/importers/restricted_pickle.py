"""Read a pickle of arrays without running anything that it names.

A pickle is a programme. Here every class and function that it may name is a record that keeps what it is handed;
any other name, and every name of what is not an array, is refused. Numpy arrays and scalars, scipy.sparse matrices and
chumpy arrays (also those written by Python 2) come out as plain numpy arrays; none of chumpy and scipy is imported.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError

_KINDS = "fiub"  # of numbers; no objects, strings or structures
_SPARSE = ("csc", "csr")
LARGEST_DENSE = 1 << 27  # numbers of a sparse matrix that is made dense


def load_arrays(path: Path) -> dict[str, Any]:
    """A pickled dictionary: its arrays as numpy arrays, its strings, numbers, lists and dictionaries as they are.

    Raises:
        UsageError: the file cannot be read, is no dictionary, or names anything that is not an array.
    """
    try:
        with path.open("rb") as file:
            found = _Reader(file, encoding="latin1").load()
        plain = _Conversion().plain(found)
    except _Refused as error:
        raise _unsafe(path, str(error)) from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _unsafe(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(plain, dict):
        raise _unsafe(path, f"a pickled {type(plain).__name__}")
    return plain


def _unsafe(path: Path, got: str) -> UsageError:
    remedy = "get the file from its publisher again; FitDiff runs nothing that a pickle asks for"
    return UsageError(f"pickle {path}", got, "a dictionary of numpy, chumpy and scipy.sparse arrays", remedy)


class _Refused(Exception):
    """The pickle asks for something that is not an array."""


class _Record:
    """Stands for an object of the pickle: what it was called with, and its state."""

    def __init__(self, kind: str, *arguments: Any) -> None:
        self.kind, self.arguments, self.state = kind, arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _class_of(kind: str) -> Any:
    """A class for the pickle's `NEWOBJ`, which calls `__new__` and never `__init__`."""

    def new(cls: type[_Record], *arguments: Any) -> _Record:
        record = object.__new__(cls)
        _Record.__init__(record, kind, *arguments)
        return record

    return type(kind, (_Record,), {"__new__": new, "__init__": lambda self, *arguments: None})


class _Call:
    """A function of the pickle. Its `BUILD` may set attributes on what it has: not on this."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a function with a state")

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused("a function with attributes")


_ARRAY, _DTYPE, _OBJECT = _class_of("array"), _class_of("dtype"), _class_of("object")
_CHUMPY, _SELECTION = _class_of("chumpy"), _class_of("chumpy selection")
_MATRICES = {kind: _class_of(kind) for kind in _SPARSE}


def _reconstructed(cls: Any, *_: Any) -> _Record:
    if not (isinstance(cls, type) and issubclass(cls, _Record)):
        raise _Refused("an object that is not an array")
    made: Any = cls
    return made()


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"a conversion to {encoding!r:.40}")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _ARRAY,
        ("numpy", "dtype"): _DTYPE,
        ("_codecs", "encode"): _Call(_encoded),
        ("collections", "OrderedDict"): _Call(dict),
        ("chumpy.ch", "Ch"): _CHUMPY,
        ("chumpy.reordering", "Select"): _SELECTION,
    }
    for core in ("numpy.core", "numpy._core"):
        names[(f"{core}.multiarray", "_reconstruct")] = _Call(lambda *_: _ARRAY())
        names[(f"{core}.multiarray", "scalar")] = _Call(lambda *arguments: _Record("scalar", *arguments))
        names[(f"{core}.numeric", "_frombuffer")] = _Call(lambda *arguments: _Record("buffer", *arguments))
    for registry, builtins in (("copy_reg", "__builtin__"), ("copyreg", "builtins")):
        names[(registry, "_reconstructor")] = names[(registry, "__newobj__")] = _Call(_reconstructed)
        names[(builtins, "object")] = _OBJECT
    for kind, record in _MATRICES.items():
        for module in (f"scipy.sparse.{kind}", f"scipy.sparse._{kind}"):
            names[(module, f"{kind}_matrix")] = names[(module, f"{kind}_array")] = record
    return names


_ALLOWED = _allowed()


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any, /) -> Any:
        raise _Refused("an object that is kept elsewhere")


class _Conversion:
    """Records -> arrays, all the way down; each object once, however often it is referred to."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def plain(self, value: Any) -> Any:
        if id(value) not in self._done:
            self._done[id(value)] = self._converted(value)
        return self._done[id(value)]

    def _converted(self, value: Any) -> Any:
        if isinstance(value, _Record):
            return self._from_record(value)
        if isinstance(value, dict):
            return {key: self.plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item) for item in value]
        if isinstance(value, (str, bytes, int, float, type(None))):
            return value
        raise _Refused(f"a {type(value).__name__}")

    def _from_record(self, record: _Record) -> Any:
        if record.kind == "array":
            return _array(record)
        if record.kind == "buffer":
            data, dtype, shape, order = record.arguments
            return _numbers(data, _dtype_from_record(dtype), shape, order == "F")
        if record.kind == "scalar":
            dtype, data = record.arguments
            return _numbers(data, _dtype_from_record(dtype), (), False)[()]
        if record.kind == "chumpy":
            return np.asarray(self.plain(_state(record)["x"]))
        if record.kind == "chumpy selection":
            return self._selection(_state(record))
        if record.kind in _SPARSE:
            return self._sparse(record.kind == "csc", _state(record))
        raise _Refused(f"a bare {record.kind}")

    def _selection(self, state: dict[str, Any]) -> np.ndarray:
        index = np.asarray(self.plain(state["idxs"])).ravel().astype(np.int64)
        chosen = np.asarray(self.plain(state["a"])).ravel()[index]
        shape = self.plain(state.get("preferred_shape"))
        return chosen.reshape([int(side) for side in shape]) if shape else chosen

    def _sparse(self, by_column: bool, state: dict[str, Any]) -> np.ndarray:
        """Compressed columns or rows -> a dense array."""
        data, indices, starts = (np.asarray(self.plain(state[name])) for name in ("data", "indices", "indptr"))
        rows, columns = (int(side) for side in self.plain(state.get("_shape", state.get("shape"))))
        major = np.repeat(np.arange(columns if by_column else rows), np.diff(starts))
        if rows * columns > LARGEST_DENSE or len(major) != len(data):
            raise _Refused(f"a sparse matrix of {rows} x {columns}")
        dense = np.zeros((rows, columns), data.dtype)
        dense[(indices, major) if by_column else (major, indices)] = data
        return dense


def _dtype_from_record(record: Any) -> np.dtype:
    if not (isinstance(record, _Record) and record.kind == "dtype" and isinstance(record.arguments[0], str)):
        raise _Refused("an array of an unknown type")
    name = record.arguments[0]
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "<"
    if len(name) > 3 or name[0] not in _KINDS or not name[1:].isdigit():
        raise _Refused(f"an array of {name!r:.20}")
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")


def _numbers(data: Any, dtype: np.dtype, shape: Any, column_major: bool) -> np.ndarray:
    if isinstance(data, str):  # what Python 2 calls a string
        data = data.encode("latin1")
    if not (isinstance(shape, tuple) and all(isinstance(side, int) and side >= 0 for side in shape)):
        raise _Refused(f"an array of shape {shape!r:.40}")
    if not isinstance(data, (bytes, bytearray)):
        raise _Refused("an array that does not hold numbers")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if column_major else "C")
    return array.astype(dtype.newbyteorder("="))


def _array(record: _Record) -> np.ndarray:
    state = record.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise _Refused("an array without contents")
    _, shape, dtype, column_major, data = state
    return _numbers(data, _dtype_from_record(dtype), shape, bool(column_major))


def _state(record: _Record) -> dict[str, Any]:
    state = record.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        state = state[0]
    if not isinstance(state, dict):
        raise _Refused(f"a {record.kind} without contents")
    return state
