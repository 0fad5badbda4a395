"""Which backend is taken where, and what is said about it; what is installed is simulated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines import backends
from fitdiff.engines.availability import Availability
from fitdiff.engines.backends import BACKENDS, ORDER, backend_table, choose_backend
from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.options import EngineOptions
from fitdiff.errors import MissingError, UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name -> version of the backends that can run; the test fills it."""
    present: dict[str, str] = {}

    def found(name: str) -> Availability:
        return Availability(name in present, "runs" if name in present else f"no {name} here", present.get(name, ""))

    for name, backend in BACKENDS.items():
        monkeypatch.setitem(backends.BACKENDS, name, replace(backend, probe=lambda _, name=name: found(name)))
    return present


def test_auto_takes_the_first_present_and_says_what_it_passed_over(installed: dict[str, str]) -> None:
    installed.update({"eager": "2.13", "tensorrt-rtx": "1.7.1", "onnxruntime": "1.32"})
    choice = choose_backend("auto", CUDA)
    assert choice.backend.name == "tensorrt-rtx"
    assert choice.reason.startswith("tensorrt-rtx 1.7.1 is the first choice of those present for cuda, before eager;")
    assert "tensorrt (no tensorrt here)" in choice.reason and "compile (no compile here)" in choice.reason
    first = f"{ORDER['cpu'][0]} {installed[ORDER['cpu'][0]]} is the first choice of those present for cpu"
    assert choose_backend("auto", CPU).reason.startswith(first)
    assert set(ORDER["cpu"]) == {"eager", "onnxruntime", "compile"}


@pytest.mark.parametrize("device", ORDER)
def test_auto_keeps_its_order_as_backends_go_missing(installed: dict[str, str], device: str) -> None:
    installed.update(dict.fromkeys(ORDER[device], "1"))
    for name in ORDER[device]:
        assert choose_backend("auto", torch.device(device)).backend.name == name
        del installed[name]
    with pytest.raises(MissingError, match="no eager here"):
        choose_backend("auto", torch.device(device))


def test_a_name_is_taken_or_refused_never_replaced(installed: dict[str, str]) -> None:
    installed.update({"eager": "2.13", "onnxruntime": "1.32"})
    assert choose_backend("eager", CPU).backend.name == "eager"
    with pytest.raises(MissingError, match="backend compile: got no compile here.*install a C"):
        choose_backend("compile", CPU)
    with pytest.raises(UsageError, match="backend onnxruntime: got device cuda; expected cpu"):
        choose_backend("onnxruntime", CUDA)
    with pytest.raises(UsageError, match="'tensort'; expected one of auto, eager, .*, tensorrt-rtx"):
        choose_backend("tensort", CPU)
    with pytest.raises(UsageError, match="device: got mps; expected cpu or cuda"):
        choose_backend("auto", torch.device("mps"))


def test_every_backend_is_in_the_order_of_its_devices() -> None:
    for device, order in ORDER.items():
        assert set(order) == {name for name, backend in BACKENDS.items() if device in backend.device_types}


def test_the_table_tells_what_this_machine_has() -> None:
    rows = {(row.name, row.device_type): row for row in backend_table()}
    for row in rows.values():
        print(f"{row.name:17} {row.device_type:5} {row.in_auto} {row.found}")
    assert rows["eager", "cpu"].found == Availability(True, "runs on cpu", torch.__version__)
    assert {name for name, _ in rows} == set(BACKENDS)
    assert all(row.found.reason for row in rows.values())
    if not torch.cuda.is_available():
        assert not any(row.found.ok for row in rows.values() if row.device_type == "cuda")


class _Sine(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.sin(x),)


@pytest.mark.parametrize("name", ["eager", "onnxruntime"])
def test_a_backend_makes_a_runner_from_a_graph(name: str, tmp_path: Path) -> None:
    found = BACKENDS[name].availability()
    if not found.ok:
        pytest.skip(found.reason)
    graph = Graph("sine", "sin x", _Sine().eval(), (TensorSpec("x", (None, 4)),), (TensorSpec("y", (None, 4)),))
    options = EngineOptions(cache_dir=tmp_path, max_batch=2)
    with choose_backend(name, CPU).backend.make_runner(graph, options) as runner:
        (x,) = graph.example(2)
        assert runner.backend == name and runner.graph_name == "sine"
        torch.testing.assert_close(runner(x)[0], torch.sin(x), atol=1e-6, rtol=1e-6)
    with pytest.raises(UsageError, match=f"backend {name}: got device meta"):
        BACKENDS[name].make_runner(graph, EngineOptions(device=torch.device("meta")))
