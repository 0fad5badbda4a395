"""Pickles of arrays come out as arrays; pickles that ask for anything else are refused, and nothing of them runs."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flame_pickle
import numpy as np
import pytest

from fitdiff.errors import UsageError
from fitdiff.models.importers import restricted_pickle
from fitdiff.models.importers.restricted_pickle import load_arrays


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    content = {
        "floats": np.arange(6.0).reshape(2, 3), "ints": np.arange(4, dtype=np.uint32), "name": "model",
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">f8"), "none": None,
        "number": np.float64(2.5), "flags": np.array([True, False]), "list": [1, 2.0, np.zeros(2)],
        "ordered": OrderedDict(a=np.ones(1)),
    }  # fmt: skip
    found = load_arrays(written(tmp_path, pickle.dumps(content, protocol=protocol)))
    assert set(found) == set(content)
    for key in ("floats", "ints", "columns", "big", "flags"):
        assert np.array_equal(found[key], content[key]) and found[key].dtype.isnative
    assert found["number"] == 2.5 and found["name"] == "model" and found["none"] is None
    assert np.array_equal(found["list"][2], np.zeros(2)) and np.array_equal(found["ordered"]["a"], np.ones(1))


def test_an_array_that_python_2_wrote(tmp_path: Path) -> None:
    """Python 2 keeps an array's bytes in a string, and its functions are in modules that are gone."""
    values = np.arange(3.0)
    raw = values.tobytes()
    data = (
        b"\x80\x02}U\x01xcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + struct.pack("<B", len(raw)) + raw + b"tbs."
    )
    assert np.array_equal(load_arrays(written(tmp_path, data))["x"], values)


def test_chumpy_and_sparse_without_either(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    dense = np.array([[0, 1.5, 0], [2, 0, 0]])
    own = flame_pickle.Ch(np.arange(6.0).reshape(3, 2))
    path = tmp_path / "file.pkl"
    content = {"ch": own, "csc": sparse.csc_matrix(dense), "csr": sparse.csr_matrix(dense),
               "chosen": flame_pickle.Select(own, np.array([5, 0]), (2, 1))}  # fmt: skip
    flame_pickle.write_flame(path, content)
    found = load_arrays(path)
    assert "chumpy" not in sys.modules
    assert np.array_equal(found["ch"], own.x)
    assert np.array_equal(found["csc"], dense) and np.array_equal(found["csr"], dense)
    assert found["chosen"].tolist() == [[5.0], [0.0]]


class _Attack:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _object_array() -> np.ndarray:
    array = np.empty(1, object)
    array[0] = 1
    return array


ATTACKS: dict[str, bytes] = {
    "a shell": pickle.dumps({"v_template": _Attack(os.system, "touch PROOF")}),
    "eval": pickle.dumps({"x": _Attack(eval, "open('PROOF', 'w')")}),
    "opening a file": pickle.dumps({"x": _Attack(open, "PROOF", "w")}),
    "exec within a list": pickle.dumps({"x": [1, [_Attack(exec, "open('PROOF', 'w')")]]}),
    "getattr": b"cbuiltins\ngetattr\n.",
    "an import": b"c__builtin__\n__import__\n(S'os'\ntR.",
    "a numpy function": b"cnumpy\nfromfile\n(S'/etc/hostname'\ntR.",
    "numpy's own pickle reader": b"cnumpy.lib.npyio\nload\n(S'PROOF'\ntR.",
    "a name with dots": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
    "instance by name": b"(S'touch PROOF'\nios\nsystem\n.",
    "state set on a function": b"}U\x01xcnumpy.core.multiarray\n_reconstruct\n}U\x01aK\x01sbs.",
    "attributes set on a function": b"\x80\x02}U\x01xcnumpy.core.multiarray\n_reconstruct\nN}U\x03docK\x01s\x86bs.",
    "state set on a class": b"\x80\x02}U\x01xcnumpy\nndarray\n}U\x01aK\x01sbs.",
    "a conversion": b"\x80\x02}U\x01xc_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86Rs.",
    "an object array": pickle.dumps({"x": _object_array()}),
    "a structured array": pickle.dumps({"x": np.zeros(2, [("a", "f8")])}),
    "a kept object": b"\x80\x02}U\x01xU\x03oidQs.",
    "an extension": b"\x80\x02}U\x01x\x82\x01s.",
    "half a file": pickle.dumps({"x": np.zeros(4)})[:-6],
    "a wrong size": pickle.dumps({"x": np.zeros(4)}, 2).replace(b"K\x04\x85", b"K\x7f\x85"),
    "a bare class": b"\x80\x02}U\x01xcnumpy\nndarray\ns.",
    "a set": pickle.dumps({"x": {1, 2}}),
    "no dictionary": pickle.dumps([np.zeros(2)]),
    "no pickle": b"hello",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_everything_else_is_refused_and_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, ATTACKS[name])
    monkeypatch.chdir(tmp_path)
    before = dict(vars(builtins))
    with pytest.raises(UsageError, match="pickle"):
        load_arrays(path)
    assert not (tmp_path / "PROOF").exists() and dict(vars(builtins)) == before
    assert set(os.listdir(tmp_path)) == {"file.pkl"}


def test_the_attacks_would_work_on_pickle_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(ATTACKS["a shell"])
    assert (tmp_path / "PROOF").exists()


def test_a_million_references_to_one_list_stay_one_list(tmp_path: Path) -> None:
    nested: list[Any] = [1]
    for _ in range(60):
        nested = [nested, nested]
    assert load_arrays(written(tmp_path, pickle.dumps({"x": nested})))["x"]


def test_only_arrays_have_names() -> None:
    modules = {module.split(".")[0] for module, _ in restricted_pickle._ALLOWED}
    assert modules == {"numpy", "scipy", "chumpy", "copy_reg", "copyreg", "builtins", "__builtin__", "_codecs",
                       "collections"}  # fmt: skip
