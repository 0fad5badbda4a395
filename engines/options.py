"""How an engine is to be made: precision, batch, device, threads. Knows nothing of graphs or backends."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch

from ..errors import UsageError

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class EngineOptions:
    """What every backend is told; a backend that cannot do what is asked raises UsageError.

    precision: of the arithmetic. Inputs and outputs keep the types of the graph's specs. bf16 is PyTorch's alone.
    max_batch: 1 makes an engine of static shapes, more makes one that takes every batch from 1 to that.
    cache_dir: where ONNX files and plans are kept; None is the default of `engines/cache.py`.
    device: where inputs and outputs are. "cuda" without a number is the current device, looked up once, here.
    threads: within one operator on the CPU, for ONNX Runtime; None is as many as PyTorch uses. PyTorch's own are
        the process's (`torch.set_num_threads`), so its backends leave them alone.
    channels_last: run PyTorch's convolutions on NHWC weights; the other backends choose their own layout.
    refit: build TensorRT plans whose weights can be replaced by those of another checkpoint; without it such a plan is
        taken where there is one, and none is made.
    compile_mode: of `torch.compile`; None is the backend's choice for the device.
    """

    precision: Precision = "fp32"
    max_batch: int = 1
    cache_dir: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int | None = None
    channels_last: bool = False
    refit: bool = False
    compile_mode: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            names = ", ".join(get_args(Precision))
            raise UsageError("precision", repr(self.precision), f"one of {names}", "choose one of these")
        if self.max_batch < 1:
            raise UsageError("max_batch", str(self.max_batch), "1 or more", "1 makes an engine of static shapes")
        if self.threads is not None and self.threads < 1:
            raise UsageError("threads", str(self.threads), "1 or more", "leave it out to use as many as PyTorch")
        device = torch.device(self.device)
        if device.type == "cuda" and device.index is None and torch.cuda.is_available():
            device = torch.device("cuda", torch.cuda.current_device())
        object.__setattr__(self, "device", device)

    @property
    def dynamic_batch(self) -> bool:
        """Whether axis 0 of the engine's tensors may vary from call to call."""
        return self.max_batch > 1

    @property
    def cpu_threads(self) -> int:
        """Threads within one operator on the CPU."""
        return self.threads or torch.get_num_threads()
