"""TensorRT's module is found or its absence explained, and plans that do not fit are refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fitdiff.engines.trt import loader
from fitdiff.engines.trt.builder import PlanOptions, build_plan
from fitdiff.engines.trt.jit_file import kernels_from_file, write_kernels
from fitdiff.engines.trt.loader import EngineError, Flavour, availability, load_engine, load_flavour
from fitdiff.errors import MissingError, UsageError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present: this is what happens without one")


@no_gpu
def test_without_a_gpu_a_plan_does_not_load_and_says_why(
    tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour
) -> None:
    plan = tmp_path / "small.plan"
    build_plan(write_network(tmp_path / "small.onnx"), plan, PlanOptions(), rtx)
    with pytest.raises(EngineError, match=r"plan small\.plan: got no GPU.*CUDA driver.*expected.*RTX 4090"):
        load_engine(plan, rtx, built_for="RTX 4090, compute capability 8.9")


def test_a_foreign_plan_does_not_load(tmp_path: Path, rtx: Flavour) -> None:
    plan = tmp_path / "foreign.plan"
    plan.write_bytes(b"not a plan" * 1000)
    with pytest.raises(EngineError, match="malformed engine"):
        load_engine(plan, rtx)


def test_messages_are_kept_and_not_printed(tmp_path: Path, rtx: Flavour, capfd: pytest.CaptureFixture[str]) -> None:
    with rtx.log.messages() as said:
        parser = rtx.trt.OnnxParser(rtx.trt.Builder(rtx.log.logger).create_network(0), rtx.log.logger)
        parser.parse_from_file(str(tmp_path / "absent.onnx"))
    assert any("absent.onnx" in line for line in said)
    assert capfd.readouterr() == ("", "")


def test_availability_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    load_flavour.cache_clear()
    monkeypatch.setitem(loader.MODULES, "tensorrt-rtx", ("tensorrt_rtx_absent",))
    found = availability("tensorrt-rtx")
    load_flavour.cache_clear()
    assert not found.ok
    assert "No module named 'tensorrt_rtx_absent'" in found.reason and "pip install tensorrt-rtx" in found.reason


def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt_of_old")
    old.__dict__["__version__"] = "8.6.1"
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_of_old", old)
    monkeypatch.setitem(loader.MODULES, "tensorrt", ("tensorrt_of_old",))
    load_flavour.cache_clear()
    with pytest.raises(MissingError, match="8.6.1.*10 or later"):
        load_flavour("tensorrt")
    load_flavour.cache_clear()


def test_an_unknown_flavour_is_refused() -> None:
    with pytest.raises(UsageError, match="tensorrt, tensorrt-rtx"):
        load_flavour("tensorflow")


def test_finished_kernels_survive_and_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.jit"
    assert kernels_from_file(path) == b""
    write_kernels(path, b"kernels")
    assert kernels_from_file(path) == b"kernels"
    assert [file.name for file in tmp_path.iterdir()] == ["x.jit"]
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"S", content[:10], b""):
        path.write_bytes(damaged)
        assert kernels_from_file(path) == b""
    write_kernels(tmp_path / "absent" / "x.jit", b"kernels")  # costs time at the next start, no error
