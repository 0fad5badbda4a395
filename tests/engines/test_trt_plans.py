"""Plans in the cache: one for each network with its weights, or one for every checkpoint; where there is a GPU, run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.options import EngineOptions
from fitdiff.engines.trt import plans, runner
from fitdiff.engines.trt.builder import PlanOptions
from fitdiff.engines.trt.loader import EngineError, Flavour
from fitdiff.engines.trt.plans import plan_file
from fitdiff.errors import UsageError

pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'fitdiff[engines]'")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: engines cannot run here")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present: this is what happens without one")
IMAGE = TensorSpec("image", (None, 4, 16))
DOUBLED = TensorSpec("doubled", (None, 4, 16))


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1, 4, 1), 2.0), requires_grad=False)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.factor * image,)


def doubled() -> Graph:
    return Graph("doubled", "Twice the image.", Doubled().eval(), (IMAGE,), (DOUBLED,))


def multiplied(factor: float, sides: int = 1) -> Graph:
    """The same network with other weights; another network where `sides` differs."""
    graph = doubled()
    graph.module.register_parameter("factor", nn.Parameter(torch.full((1, 4, sides), factor), requires_grad=False))
    return graph


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[PlanOptions]:
    """A builder that writes what it was told to build; it is asked for each once."""
    asked: list[PlanOptions] = []

    def build_plan(onnx_path: Path, plan_path: Path, options: PlanOptions, *_: Any) -> None:
        asked.append(options)
        plan_path.write_bytes(b"a plan")

    monkeypatch.setattr(plans, "build_plan", build_plan)
    return asked


FAKE: Any = SimpleNamespace(name="tensorrt-rtx", version="1.0", is_rtx=True)


def test_a_refittable_plan_serves_the_next_checkpoint(tmp_path: Path, builds: list[PlanOptions]) -> None:
    plain, refittable = EngineOptions(cache_dir=tmp_path), EngineOptions(cache_dir=tmp_path, refit=True)
    first = plan_file(doubled(), refittable, FAKE)
    assert first.needs_refit and [options.refit for options in builds] == [True]
    later = plan_file(multiplied(3.0), plain, FAKE)
    assert later.path == first.path and later.needs_refit and later.onnx_path != first.onnx_path
    assert plan_file(multiplied(3.0), refittable, FAKE) == later
    assert len(builds) == 1
    for other, options in (
        (multiplied(2.0, sides=16), plain),  # another network
        (doubled(), EngineOptions("fp16", cache_dir=tmp_path)),
        (doubled(), EngineOptions(max_batch=2, cache_dir=tmp_path)),
    ):
        made = plan_file(other, options, FAKE)
        assert not made.needs_refit and made.path != first.path
    assert [options.refit for options in builds] == [True, False, False, False]


def test_a_plan_of_the_very_weights_comes_first_and_a_fixed_one_serves_no_other(
    tmp_path: Path, builds: list[PlanOptions]
) -> None:
    plain, refittable = EngineOptions(cache_dir=tmp_path), EngineOptions(cache_dir=tmp_path, refit=True)
    fixed = plan_file(doubled(), plain, FAKE)
    assert not fixed.needs_refit and plan_file(multiplied(3.0), plain, FAKE).path != fixed.path
    shared = plan_file(doubled(), refittable, FAKE)
    assert shared.needs_refit and shared.path != fixed.path
    assert plan_file(doubled(), plain, FAKE) == fixed
    assert plan_file(multiplied(4.0), plain, FAKE, shared=False).path not in (fixed.path, shared.path)
    assert [options.refit for options in builds] == [False, False, True, False]


class FakeRunner:
    """Loads anything; takes other weights unless they are refused."""

    refuses = False

    def __init__(self, graph: Graph, plan: Path, *_: Any, built_for: str) -> None:
        self.plan, self.refitted, self.closed = plan, [], False

    def refit(self, onnx_path: Path) -> None:
        self.refitted.append(onnx_path)
        if self.refuses:
            raise EngineError("weights", "another shape", "those of the architecture", "build")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("refuses", [False, True])
def test_the_loader_refits_what_it_finds_or_builds(
    tmp_path: Path, builds: list[PlanOptions], refuses: bool, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(runner, "TensorRtRunner", FakeRunner)
    monkeypatch.setattr(runner, "load_flavour", lambda _: FAKE)
    monkeypatch.setattr(FakeRunner, "refuses", refuses)
    shared = plan_file(doubled(), EngineOptions(cache_dir=tmp_path, refit=True), FAKE)
    wanted = plan_file(multiplied(3.0), EngineOptions(cache_dir=tmp_path), FAKE)
    made: Any = runner.make_runner(multiplied(3.0), EngineOptions(cache_dir=tmp_path), FAKE.name)
    warned = " ".join(record.getMessage() for record in caplog.records if record.name == runner.__name__)
    if not refuses:
        assert made.plan == shared.path and made.refitted == [wanted.onnx_path]
        assert len(builds) == 1 and not warned
        return
    assert made.plan != shared.path and not made.refitted and not made.closed
    assert [options.refit for options in builds] == [True, False] and "another shape" in warned
    with pytest.raises(EngineError, match="another shape"):
        runner.make_runner(multiplied(5.0), EngineOptions(cache_dir=tmp_path, refit=True), FAKE.name)


@no_gpu
def test_a_plan_is_built_once_for_its_weights_and_precision(tmp_path: Path, rtx: Flavour) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'fitdiff[engines]'")
    graph, options, told = doubled(), EngineOptions(cache_dir=tmp_path), []
    first = plan_file(graph, options, rtx, progress=lambda text, share: told.append(text))
    assert told and first.path.is_file() and first.onnx_path.is_file()
    assert "any GPU from 8.0 on" in first.built_for and rtx.version in first.built_for
    told.clear()
    assert plan_file(graph, options, rtx, progress=lambda text, share: told.append(text)) == first
    assert not told
    assert plan_file(multiplied(3.0), options, rtx).path != first.path
    half = plan_file(graph, EngineOptions("fp16", cache_dir=tmp_path), rtx)
    assert half.path != first.path
    with pytest.raises(UsageError, match="bf16 for TensorRT"):
        plan_file(graph, EngineOptions("bf16", cache_dir=tmp_path), rtx)


@needs_gpu
@pytest.mark.parametrize("max_batch", [1, 4], ids=["static", "dynamic"])
def test_an_engine_runs(tmp_path: Path, rtx: Flavour, max_batch: int) -> None:
    graph = doubled()
    options = EngineOptions(max_batch=max_batch, cache_dir=tmp_path, device=torch.device("cuda"))
    with runner.make_runner(graph, options, rtx.name) as engine:
        for batch in (1, max_batch, 1):
            for seed in range(3):  # launched, captured, replayed
                image = graph.example(batch, seed)[0].cuda()
                assert torch.equal(engine(image)[0], 2 * image)


@needs_gpu
def test_an_engine_takes_other_weights(tmp_path: Path, rtx: Flavour) -> None:
    other = multiplied(3.0)
    image = other.example()[0].cuda()
    for graph, factor, refit in ((doubled(), 2, True), (other, 3, False)):
        options = EngineOptions(cache_dir=tmp_path, device=torch.device("cuda"), refit=refit)
        with runner.make_runner(graph, options, rtx.name) as engine:
            assert torch.equal(engine(image)[0], factor * image)
    assert len(list(tmp_path.glob("*.plan"))) == 1
