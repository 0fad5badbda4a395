"""The backends that can run a graph, whether they can here, and which to take. Imports none before it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from ..errors import MissingError, UsageError
from .availability import Availability, has_native_bfloat16
from .graph import Graph
from .options import EngineOptions
from .runner import Runner

CPU = torch.device("cpu")
AUTO = "auto"
ORDER = {  # what "auto" tries, the fastest first; docs/engines.md has what was measured, on CPUs alone
    # The decoder is most of the time, and in bfloat16, where the processor has it, PyTorch is the fastest at it.
    "cpu": ("eager", "onnxruntime", "compile") if has_native_bfloat16() else ("onnxruntime", "eager", "compile"),
    "cuda": ("tensorrt", "tensorrt-rtx", "compile", "onnxruntime-cuda", "eager"),
}


class Backend(Protocol):
    """A way to run graphs."""

    @property
    def name(self) -> str: ...
    def availability(self, device: torch.device = CPU) -> Availability:
        """Whether it can run here, on `device` where it knows more than one kind."""
        ...

    def make_runner(self, graph: Graph, options: EngineOptions) -> Runner:
        """Export, build or compile what is needed, from the cache where it is there, and answer it ready to run.

        Raises MissingError where the backend cannot run here, UsageError where it cannot do what the options ask.
        """
        ...


@dataclass(frozen=True)
class Choice:
    """A backend, and why it was taken, in one sentence."""

    backend: Backend
    reason: str


@dataclass(frozen=True)
class BackendRow:
    """A line of the table of backends. in_auto: place among what "auto" tries for this kind of device, from 1."""

    name: str
    device_type: str
    found: Availability
    in_auto: int


@dataclass(frozen=True)
class TableBackend:
    """A backend as an entry of `BACKENDS`. remedy: what to do where it is missing."""

    name: str
    device_types: tuple[str, ...]
    remedy: str
    probe: Callable[[torch.device], Availability]
    make: Callable[[Graph, EngineOptions], Runner]

    def availability(self, device: torch.device = CPU) -> Availability:
        return self.probe(device if device.type in self.device_types else torch.device(self.device_types[0]))

    def make_runner(self, graph: Graph, options: EngineOptions) -> Runner:
        self.check(options.device)
        return self.make(graph, options)

    def check(self, device: torch.device) -> None:
        """Raise UsageError for a kind of device that is not the backend's, MissingError where it cannot run here."""
        if device.type not in self.device_types:
            remedy = f"choose another backend or {AUTO}"
            raise UsageError(f"backend {self.name}", f"device {device}", " or ".join(self.device_types), remedy)
        found = self.availability(device)
        if not found.ok:
            raise MissingError(f"backend {self.name}", found.reason, "a backend that can run here", self.remedy)


def choose_backend(name: str, device: torch.device) -> Choice:
    """The backend called `name`, or for "auto" the fastest that can run on `device`.

    Raises UsageError for an unknown name and for a backend that is not for the device, MissingError for one that
    cannot run here.
    """
    if name != AUTO:
        backend = backend_named(name)
        backend.check(device)
        return Choice(backend, f"{_labelled(backend, device)} was asked for")
    order = ORDER.get(device.type)
    if order is None:
        raise UsageError("device", str(device), " or ".join(ORDER), "choose one of these")
    found = {entry: backend_named(entry).availability(device) for entry in order}
    present = [entry for entry in order if found[entry].ok]
    if not present:
        reasons = "; ".join(f"{entry}: {found[entry].reason}" for entry in order)
        raise MissingError(f"backend for {device}", reasons, "one that can run", backend_named(order[-1]).remedy)
    taken = backend_named(present[0])
    reason = f"{_labelled(taken, device)} is the first choice of those present for {device.type}"
    if len(present) > 1:
        reason += f", before {', '.join(present[1:])}"
    missing = [f"{entry} ({found[entry].reason})" for entry in order if not found[entry].ok]
    return Choice(taken, reason + (f"; passed over: {', '.join(missing)}" if missing else ""))


def backend_named(name: str) -> TableBackend:
    """The backend called `name`; raises UsageError that lists them where there is none."""
    if name not in BACKENDS:
        expected = f"one of {', '.join((AUTO, *BACKENDS))}"
        raise UsageError("backend", repr(name), expected, f"choose one of these; {AUTO} takes the fastest present")
    return BACKENDS[name]


def backend_table() -> tuple[BackendRow, ...]:
    """Every backend with every kind of device that it is for; PyTorch's on CUDA only where a CUDA device is present."""
    rows = []
    for name, backend in BACKENDS.items():
        for device_type in backend.device_types:
            if len(backend.device_types) > 1 and device_type == "cuda" and not torch.cuda.is_available():
                continue
            found = backend.availability(torch.device(device_type))
            rows.append(BackendRow(name, device_type, found, ORDER[device_type].index(name) + 1))
    return tuple(rows)


def _labelled(backend: TableBackend, device: torch.device) -> str:
    return f"{backend.name} {backend.availability(device).version}".rstrip()


def _eager_availability(device: torch.device) -> Availability:
    if device.type == "cuda" and not torch.cuda.is_available():
        return Availability(False, "no CUDA device is present", torch.__version__)
    return Availability(True, f"runs on {device.type}", torch.__version__)


def _compile_availability(device: torch.device) -> Availability:
    from .pytorch.runner import compile_availability

    here = _eager_availability(device)
    return compile_availability(device) if here.ok else here


def _eager(graph: Graph, options: EngineOptions) -> Runner:
    from .pytorch.runner import EagerRunner

    return EagerRunner(graph, options)


def _compiled(graph: Graph, options: EngineOptions) -> Runner:
    from .pytorch.runner import CompiledRunner

    return CompiledRunner(graph, options)


def _onnxruntime_availability(device: torch.device) -> Availability:
    from .onnxrt.loader import availability

    return availability(device.type)


def _onnxruntime(graph: Graph, options: EngineOptions) -> Runner:
    from .cache import EngineCache
    from .onnx_files import onnx_file
    from .onnxrt.loader import refuse_unable, session_from_onnx
    from .onnxrt.runner import OnnxRuntimeRunner

    refuse_unable(options)  # before an export that would be for nothing
    cache = EngineCache(options.cache_dir)
    path = onnx_file(cache, graph, dynamic_batch=options.dynamic_batch, half=options.precision == "fp16")
    is_cuda = options.device.type == "cuda"
    stream = torch.cuda.Stream(options.device) if is_cuda else None
    session = session_from_onnx(path, options, stream)
    return OnnxRuntimeRunner(graph, session, options, "onnxruntime-cuda" if is_cuda else "onnxruntime", stream)


def _tensorrt_availability(flavour: str) -> Callable[[torch.device], Availability]:
    def probe(device: torch.device) -> Availability:
        from .trt.loader import availability

        return availability(flavour)

    return probe


def _tensorrt(flavour: str) -> Callable[[Graph, EngineOptions], Runner]:
    def make(graph: Graph, options: EngineOptions) -> Runner:
        from .trt.runner import make_runner

        return make_runner(graph, options, flavour)

    return make


_BOTH = ("cpu", "cuda")
_GPU = ("cuda",)
_COMPILER = "install a C++ compiler for the CPU, Triton for CUDA"
_EXTRA = "pip install 'fitdiff[engines]'"
_RT, _RTX = "tensorrt", "tensorrt-rtx"

BACKENDS = {
    backend.name: backend
    for backend in (
        TableBackend("eager", _BOTH, "use another device", _eager_availability, _eager),
        TableBackend("compile", _BOTH, _COMPILER, _compile_availability, _compiled),
        TableBackend("onnxruntime", ("cpu",), _EXTRA, _onnxruntime_availability, _onnxruntime),
        TableBackend("onnxruntime-cuda", _GPU, f"{_EXTRA} onnxruntime-gpu", _onnxruntime_availability, _onnxruntime),
        TableBackend(_RT, _GPU, "install TensorRT from NVIDIA", _tensorrt_availability(_RT), _tensorrt(_RT)),
        TableBackend(_RTX, _GPU, "pip install tensorrt-rtx", _tensorrt_availability(_RTX), _tensorrt(_RTX)),
    )
}
