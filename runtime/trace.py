"""Where the time of a run goes: `with span("denoiser", "engine"): ...` is recorded when somebody records.

One recorder listens at a time, to all threads: autograd runs backward passes on threads of its own. Without one, a span
costs a fraction of a microsecond. On a GPU, spans are NVTX ranges too, engines and copies are timed by CUDA events, and
a stage waits at its end for what it began. Knows nothing of what is timed and of how it is shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .peak_memory import HostPeak, device_peak_mib, host_peak, reset_device_peak

Kind = Literal["stage", "engine", "pytorch", "copy", "host"]
"""A part of the run; a network at work; PyTorch at work between networks (rendering, losses, their gradient, the pose);
data moving between devices; other work worth a name."""
COMPUTE = ("engine", "pytorch")
"""What is no overhead of the host's."""


@dataclass(frozen=True, slots=True)
class Span:
    """One timed piece. Times are nanoseconds of `time.perf_counter_ns`.

    thread: 0 for the first thread that recorded, then 1, ... depth: how many spans of this thread it lies in.
    moved: bytes, of a copy. device_begin, device_end: on the GPU, in the same clock, as near as events tell; None where
    they were not taken. host_peak_mib, device_peak_mib: of outermost stages alone.
    """

    name: str
    kind: Kind
    begin: int
    end: int
    thread: int = 0
    depth: int = 0
    moved: int = 0
    device_begin: int | None = None
    device_end: int | None = None
    host_peak_mib: float | None = None
    device_peak_mib: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time on the host; of an engine on a GPU, the time to launch it."""
        return (self.end - self.begin) / 1e9

    @property
    def cost(self) -> float:
        """Seconds on the GPU where they are known, else on the host."""
        if self.device_begin is None or self.device_end is None:
            return self.seconds
        return (self.device_end - self.device_begin) / 1e9


class Recorder:
    """Collects the spans of one `recording`; `spans` is complete and in order of `begin` when that has ended."""

    def __init__(self, device: torch.device | None = None) -> None:
        """`device`: where the engines run; events and memory of the GPU are taken if it is one."""
        self.device = device if device is not None and device.type == "cuda" else None
        self.spans: list[Span] = []
        self.begin = self.end = 0
        self._closed: list[_Open] = []
        self._threads: dict[int, int] = {}
        self._local = threading.local()
        self._lock = threading.Lock()
        self._first_event: torch.cuda.Event | None = None
        self._first_moment = 0

    @property
    def seconds(self) -> float:
        """From the first to the last moment of the recording."""
        return (self.end - self.begin) / 1e9

    def _start(self) -> None:
        host_peak()  # finds out once how to measure, outside what is timed
        if self.device:
            torch.cuda.synchronize(self.device)
            self._first_event = _event_now()
            torch.cuda.synchronize(self.device)
            self._first_moment = time.perf_counter_ns()
        self.begin = time.perf_counter_ns()

    def _finish(self) -> None:
        if self.device:
            torch.cuda.synchronize(self.device)
        self.end = time.perf_counter_ns()
        self.spans = sorted((self._span(piece) for piece in self._closed), key=lambda s: (s.begin, -s.end, s.depth))
        self._closed.clear()

    def _place(self) -> threading.local:
        """This thread's number, depth, and depth in stages."""
        local = self._local
        if not hasattr(local, "depth"):
            with self._lock:
                local.thread = self._threads.setdefault(threading.get_ident(), len(self._threads))
            local.depth = local.stages = 0
        return local

    def _span(self, piece: _Open) -> Span:
        device_begin = device_end = None
        if piece.events and self._first_event is not None:
            first = self._first_event
            device_begin, device_end = (
                self._first_moment + round(first.elapsed_time(event) * 1e6) for event in piece.events
            )
        return Span(
            piece.name, piece.kind, piece.begin, piece.end, piece.thread, piece.depth, piece.moved, device_begin,
            device_end, piece.host_peak_mib, piece.device_peak_mib,
        )  # fmt: skip


_recorder: Recorder | None = None


@contextmanager
def recording(device: torch.device | None = None) -> Iterator[Recorder]:
    """Record every span of every thread until the end of the block.

    Raises:
        RuntimeError: somebody records already.
    """
    global _recorder
    if _recorder is not None:
        raise RuntimeError("recording: got a second recorder; expected one at a time; end the first one")
    recorder = Recorder(device)
    recorder._start()
    _recorder = recorder
    try:
        yield recorder
    finally:
        _recorder = None
        recorder._finish()


def span(name: str, kind: Kind = "stage", moved: int = 0) -> _Nothing | _Open:
    """A context manager that times its block; `moved` is the bytes of a copy."""
    recorder = _recorder
    return _NOTHING if recorder is None else _Open(recorder, name, kind, moved)


class _Nothing:
    """What a span is while nobody records."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NOTHING = _Nothing()


class _Open:
    """A span that is being timed."""

    kind: Kind
    __slots__ = (
        "begin", "depth", "device_peak_mib", "end", "events", "host_peak_mib", "kind", "memory", "moved", "name",
        "recorder", "thread",
    )  # fmt: skip

    def __init__(self, recorder: Recorder, name: str, kind: Kind, moved: int) -> None:
        self.recorder, self.name, self.kind, self.moved = recorder, name, kind, moved
        self.begin = self.end = self.thread = self.depth = 0
        self.events: tuple[Any, ...] = ()
        self.host_peak_mib: float | None = None
        self.device_peak_mib: float | None = None
        self.memory: HostPeak | None = None

    def __enter__(self) -> None:
        place, device = self.recorder._place(), self.recorder.device
        self.thread, self.depth = place.thread, place.depth
        place.depth += 1
        if self.kind == "stage":
            if place.stages == 0:
                self.memory = host_peak()
                self.memory.start()
                if device:
                    reset_device_peak(device)
            place.stages += 1
        if device:
            torch.cuda.nvtx.range_push(self.name)
            if self.kind in (*COMPUTE, "copy") and not torch.cuda.is_current_stream_capturing():
                self.events = (_event_now(),)
        self.begin = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        place, device = self.recorder._place(), self.recorder.device
        if device:
            if self.events:
                self.events = (*self.events, _event_now())
            if self.kind == "stage":
                torch.cuda.synchronize(device)
            torch.cuda.nvtx.range_pop()
        self.end = time.perf_counter_ns()
        if self.kind == "stage":
            place.stages -= 1
            if self.memory:
                self.host_peak_mib = self.memory.stop()
                self.memory = None
                if device:
                    self.device_peak_mib = device_peak_mib(device)
        place.depth -= 1
        self.recorder._closed.append(self)


def _event_now() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
