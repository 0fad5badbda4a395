"""Spans nest, add up, cross threads, and cost nothing while nobody records."""

from __future__ import annotations

import threading
import time
from mmap import mmap
from types import TracebackType

import pytest
import torch
from torch import Tensor, nn

from fitdiff.runtime import peak_memory
from fitdiff.runtime.peak_memory import host_peak, host_peak_method
from fitdiff.runtime.trace import recording, span
from fitdiff.runtime.traced_runner import traced, traced_modules


def test_spans_nest_and_sum() -> None:
    with recording() as recorder:
        with span("sample"):
            for _ in range(3):
                with span("denoiser", "engine"):
                    time.sleep(0.002)
            with span("to the GPU", "copy", moved=40):
                pass
    stage, *inner = recorder.spans
    assert (stage.name, stage.kind, stage.depth) == ("sample", "stage", 0)
    assert [piece.name for piece in inner] == ["denoiser"] * 3 + ["to the GPU"]
    assert all(piece.depth == 1 and stage.begin <= piece.begin <= piece.end <= stage.end for piece in inner)
    assert inner[-1].moved == 40
    engines = sum(piece.seconds for piece in inner[:3])
    assert 0.006 <= engines <= stage.seconds <= recorder.seconds
    assert recorder.begin <= stage.begin and stage.end <= recorder.end


def test_nothing_is_kept_without_a_recorder() -> None:
    assert span("a") is span("b", "engine")
    with recording() as recorder:
        pass
    with span("after"):
        pass
    assert recorder.spans == []


def test_one_recorder_at_a_time() -> None:
    with recording(), pytest.raises(RuntimeError, match="one at a time"), recording():
        pass
    with recording():  # the first has ended properly
        pass


def test_threads_have_depths_of_their_own() -> None:
    def work() -> None:
        with span("backward", "engine"), span("inner", "engine"):
            time.sleep(0.001)

    with recording() as recorder, span("sample"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    by_name = {piece.name: piece for piece in recorder.spans}
    assert by_name["sample"].thread == 0
    assert (by_name["backward"].thread, by_name["backward"].depth) == (1, 0)
    assert (by_name["inner"].thread, by_name["inner"].depth) == (1, 1)


def test_a_span_ends_with_an_error() -> None:
    with recording() as recorder:
        with pytest.raises(ValueError), span("sample"), span("denoiser", "engine"):
            raise ValueError
        with span("next"):
            pass
    assert [(piece.name, piece.depth) for piece in recorder.spans] == [("sample", 0), ("denoiser", 1), ("next", 0)]


def test_a_span_that_nobody_records_costs_little() -> None:
    """Measured 0.2 us on a quiet core; the fastest of several rounds, so that a busy machine does not fail it."""
    rounds = []
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(1000):
            with span("denoiser", "engine"):
                pass
        rounds.append((time.perf_counter() - begun) / 1000)
    print(f"a span without a recorder: {min(rounds) * 1e9:.0f} ns")
    assert min(rounds) < 2e-6


@pytest.mark.parametrize("method", ["kernel", "sampled", "process"])
def test_each_stage_has_its_own_peak(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "kernel" and host_peak_method() != "kernel":
        pytest.skip(f"the kernel's record cannot be reset here: {host_peak_method()}")
    if method == "sampled" and host_peak_method() == "process":
        pytest.skip("there is no /proc here")
    monkeypatch.setattr(peak_memory, "host_peak_method", lambda: method)
    with recording() as recorder:
        with span("large"):
            with mmap(-1, 64 * 2**20) as block:  # fresh pages: an allocator may have old ones left
                for page in range(0, len(block), 4096):
                    block[page] = 1
                time.sleep(0.05)
        with span("small"), span("within"):
            pass
    large, small, within = (piece.host_peak_mib for piece in recorder.spans)
    assert large is not None and small is not None and within is None
    assert (large < small + 48) if method == "process" else (large > small + 48)


def test_host_peak_is_a_number_of_mib() -> None:
    meter = host_peak()
    meter.start()
    assert 10 < meter.stop() < 2**20


class FakeRunner:
    graph_name, backend, device, reuses_outputs = "denoiser", "fake", torch.device("cpu"), True

    def __init__(self) -> None:
        self.closed = False

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(2 * tensor for tensor in inputs)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def test_a_traced_runner_is_the_runner() -> None:
    inner = FakeRunner()
    with recording() as recorder, traced(inner) as runner:
        (doubled,) = runner(torch.ones(2))
    assert doubled.tolist() == [2, 2] and inner.closed
    assert (runner.graph_name, runner.backend, runner.device.type, runner.reuses_outputs) == (
        "denoiser",
        "fake",
        "cpu",
        True,
    )
    assert [(piece.name, piece.kind) for piece in recorder.spans] == [("denoiser", "engine")]


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > 1:
            raise ValueError("too many")
        return x + 1


def test_modules_are_traced_within_the_block_alone() -> None:
    module = Picky()
    with recording() as recorder:
        module(torch.zeros(1))
        with traced_modules({"picky": module}):
            assert module(torch.zeros(1)).item() == 1
            with pytest.raises(ValueError):
                module(torch.zeros(2))
            module(torch.zeros(1))
        module(torch.zeros(1))
    assert [(piece.name, piece.kind, piece.depth) for piece in recorder.spans] == [("picky", "engine", 0)] * 3


def test_a_gpu_is_timed_by_events_and_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a fake of torch.cuda whose GPU clock advances 5 ms with every event; a real one is timed alike."""
    said: list[str] = []
    clock = [0.0]
    capturing = [False]

    class FakeEvent:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.at = 0.0

        def record(self) -> None:
            clock[0] += 5.0
            self.at = clock[0]

        def elapsed_time(self, later: FakeEvent) -> float:
            return later.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: said.append("wait"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: said.append("forget"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 3 * 2**20)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", said.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: said.append("pop"))
    with recording(torch.device("cuda")) as recorder:
        said.clear()
        with span("sample"):
            with span("denoiser", "engine"):
                pass
            capturing[0] = True
            with span("captured", "engine"):
                pass
    assert said == ["forget", "sample", "denoiser", "pop", "captured", "pop", "wait", "pop", "wait"]
    stage, engine, captured = recorder.spans
    assert engine.cost == pytest.approx(0.005) and engine.seconds < engine.cost
    assert stage.device_begin is None and stage.device_peak_mib == 3.0 and engine.device_peak_mib is None
    assert captured.device_begin is None and captured.cost == captured.seconds
