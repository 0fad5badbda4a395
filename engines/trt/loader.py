"""The TensorRT module that is installed, and an engine from a plan file.

`tensorrt` (data centre, 10 and later) and `tensorrt_rtx` share one API; what differs is asked of `Flavour`. A plan is
executable input: whoever calls `load_engine` has checked its hash first. Knows nothing of graphs, ONNX or caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ...errors import FitDiffError, MissingError, UsageError
from ..availability import Availability

MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
INSTALL = {
    "tensorrt": "install TensorRT 10 or later as NVIDIA describes, or choose another backend",
    "tensorrt-rtx": "pip install tensorrt-rtx, or choose another backend",
}
OLDEST_DATA_CENTRE = 10  # the first with tensors by name only and refitting from ONNX


class EngineError(FitDiffError):
    """TensorRT refused a network, a plan or a call."""


@dataclass(frozen=True, eq=False)
class Flavour:
    """An imported TensorRT. `trt` is its module; its API is the same in both flavours as far as it is used here."""

    name: str
    trt: Any
    version: str
    log: Log

    @property
    def is_rtx(self) -> bool:
        """Whether plans are finished for the GPU when they first run, not when they are built."""
        return self.name == "tensorrt-rtx"


class Log:
    """What TensorRT says, kept instead of printed. `messages` takes the warnings and worse of a block of calls."""

    def __init__(self, trt: Any) -> None:
        self._open: list[list[tuple[int, str]]] = []
        self.logger = _python_logger(trt, self._keep)

    @contextmanager
    def messages(self) -> Iterator[list[str]]:
        """Within the block, errors first and then warnings, each once, in a list that fills when the block ends.

        Blocks of several threads each hear all that is said meanwhile: TensorRT has one logger for the process.
        """
        found: list[str] = []
        lines: list[tuple[int, str]] = []
        self._open.append(lines)
        try:
            yield found
        finally:
            self._open[:] = [each for each in self._open if each is not lines]
            found.extend(dict.fromkeys(text for _, text in sorted(lines, key=lambda line: line[0])))

    def _keep(self, severity: int, text: str) -> None:
        for lines in tuple(self._open):
            lines.append((severity, " ".join(text.split())))


def _python_logger(trt: Any, keep: Any) -> Any:
    # The class exists only once the module does; the module keeps one logger for the whole process.
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.WARNING):
                keep(int(severity), msg)

    return Logger()


@lru_cache(maxsize=2)
def load_flavour(name: str) -> Flavour:
    """Import "tensorrt" or "tensorrt-rtx" (the whole package, or its bindings alone).

    Raises UsageError for another name, MissingError that says why where it cannot be imported or is too old.
    """
    if name not in MODULES:
        raise UsageError("TensorRT flavour", repr(name), f"one of {', '.join(MODULES)}", "choose one of these")
    reasons: list[str] = []
    for module in MODULES[name]:
        try:
            trt = import_module(module)
        except (ImportError, OSError, RuntimeError) as error:  # a package without its libraries raises any of these
            reasons.append(f"{module}: {error}")
            continue
        version = str(getattr(trt, "__version__", "0"))
        if not hasattr(trt, "OnnxParserRefitter"):
            raise MissingError(name, f"version {version}", f"{OLDEST_DATA_CENTRE} or later", INSTALL[name])
        return Flavour(name, trt, version, Log(trt))
    raise MissingError(name, "; ".join(reasons), "an importable package", INSTALL[name])


def availability(name: str) -> Availability:
    """Whether a flavour can run here: its package is importable and PyTorch sees a GPU. Building may need less."""
    try:
        flavour = load_flavour(name)
    except MissingError as error:
        return Availability(False, f"{error.got} ({error.remedy})")
    if not torch.cuda.is_available():
        builds = ", though it builds plans without one" if flavour.is_rtx else ""
        return Availability(False, f"no CUDA device is present{builds}", flavour.version)
    return Availability(True, f"runs on {gpu_text()}", flavour.version)


def gpu_text(device: torch.device | None = None) -> str:
    """The GPU that PyTorch sees, in words, for messages."""
    if not torch.cuda.is_available():
        return "no GPU that PyTorch can use"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"


def load_engine(
    plan: Path, flavour: Flavour, *, device: torch.device | None = None, built_for: str = "another machine"
) -> Any:
    """Deserialise a plan that was verified, on `device` or the current GPU.

    built_for: what its manifest says of GPU and version, for the message. Raises EngineError that names the GPU and
    TensorRT's reason where the plan does not fit; TensorRT itself would answer None.
    """
    blob = plan.read_bytes()
    with torch.cuda.device(device) if device is not None and torch.cuda.is_available() else nullcontext():
        with flavour.log.messages() as said:
            runtime = flavour.trt.Runtime(flavour.log.logger)
            unfit = _unfit(runtime, blob, flavour)
            engine = None if unfit else runtime.deserialize_cuda_engine(blob)
    if engine is None:
        reason = "; ".join([*unfit, *said[:2]]) or "no reason given"
        raise EngineError(
            f"plan {plan.name}",
            f"{gpu_text(device)}, {flavour.name} {flavour.version}: {reason}",
            f"what the plan was built for: {built_for}",
            "build it again on this machine (`fitdiff engines build`), or choose another backend",
        )
    return engine


def _unfit(runtime: Any, blob: bytes, flavour: Flavour) -> list[str]:
    """Why the header alone rules the plan out. RTX names its reasons; without a GPU it knows none and says so later."""
    if not hasattr(runtime, "get_engine_validity"):
        return []
    validity, bits = runtime.get_engine_validity(blob)
    if validity != flavour.trt.EngineValidity.INVALID:
        return []
    reasons = flavour.trt.EngineInvalidityDiagnostics.__members__.items()
    return [name.lower().replace("_", " ") for name, bit in reasons if int(bits) & int(bit)]
