"""The largest memory of this process and its GPU between two moments. Knows nothing of what is measured.

Linux keeps the largest resident set and forgets it on demand; where it does not, a thread samples; where there is no
/proc either, the largest since the process began must do.
"""

from __future__ import annotations

import mmap
import threading
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import torch

from .report import peak_memory_mib

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_PROBE_KIB = 8192
_SAMPLE_SECONDS = 0.005


class HostPeak(Protocol):
    """`start` forgets what was; `stop` answers the largest resident set since then, MiB."""

    def start(self) -> None: ...

    def stop(self) -> float: ...


def host_peak() -> HostPeak:
    """A meter of the best kind that works here; one `start` needs one `stop`."""
    kinds = {"kernel": _KernelPeak, "sampled": _SampledPeak, "process": _ProcessPeak}
    return kinds[host_peak_method()]()


@cache
def host_peak_method() -> Literal["kernel", "sampled", "process"]:
    """`process` means the largest since the process began: too much for all stages but the first."""
    if not _STATUS.is_file():
        return "process"
    try:
        with mmap.mmap(-1, _PROBE_KIB * 1024) as block:
            block.write(b"1" * len(block))  # gone again at once, so the peak stands above what is resident
        _CLEAR.write_text("5")
        values = _status_kib()
        return "kernel" if values["VmHWM"] < values["VmRSS"] + _PROBE_KIB // 2 else "sampled"
    except (OSError, KeyError):
        return "sampled"


def reset_device_peak(device: torch.device) -> None:
    """Forget the peak of PyTorch's CUDA allocator."""
    torch.cuda.reset_peak_memory_stats(device)


def device_peak_mib(device: torch.device) -> float:
    """Peak of PyTorch's CUDA allocator since `reset_device_peak`; what other libraries allocate is not in it."""
    return torch.cuda.max_memory_allocated(device) / 2**20


class _KernelPeak:
    def start(self) -> None:
        _CLEAR.write_text("5")

    def stop(self) -> float:
        return _status_kib()["VmHWM"] / 1024


class _SampledPeak:
    def start(self) -> None:
        self._peak = _resident_mib()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="fitdiff memory")
        self._thread.start()

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        return max(self._peak, _resident_mib())

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, _resident_mib())


class _ProcessPeak:
    def start(self) -> None:
        pass

    def stop(self) -> float:
        return peak_memory_mib()


def _status_kib() -> dict[str, int]:
    lines = (line.split() for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


def _resident_mib() -> float:
    return _status_kib()["VmRSS"] / 1024
