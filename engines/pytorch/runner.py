"""Runners that keep PyTorch: the plain module, which every other backend is measured against, and torch.compile.

Both run under `no_grad` and not under `inference_mode`: their outputs go on into autograd, and autograd cannot save
a tensor that was made in inference mode. Outputs belong to the caller, in whatever strides PyTorch gave them.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

import torch
from torch import Tensor, nn

from ...errors import MissingError, UsageError
from ..availability import Availability
from ..graph import Graph
from ..half import half_from_graph
from ..options import EngineOptions
from ..runner import CheckedRunner

CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")
COMPILERS = {"win32": ("cl",), "darwin": ("clang++",)}
CPU = torch.device("cpu")


class EagerRunner(CheckedRunner):
    """The graph's module, operator by operator.

    precision: fp16 is the mixed precision that the other backends' files have too, bf16 is PyTorch's autocast.
    Outputs have their specs' types.
    """

    def __init__(self, graph: Graph, options: EngineOptions, backend: str = "eager") -> None:
        super().__init__(graph, backend, options)
        self._forward: Callable[..., tuple[Tensor, ...]] = forward_on(graph, options)
        self._channels_last = options.channels_last
        self._autocast = options.precision == "bf16"

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._channels_last:
            inputs = tuple(
                tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                for tensor in inputs
            )
        with torch.no_grad(), self._precision():
            outputs = self._forward(*inputs)
        return tuple(tensor.to(spec.dtype) for tensor, spec in zip(outputs, self.outputs, strict=True))

    def close(self) -> None:
        super().close()
        self._forward = nn.Identity()

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self._autocast else nullcontext()


class CompiledRunner(EagerRunner):
    """The graph's module through `torch.compile`; the first call of each kind of shape compiles, for seconds or more.

    On the CPU the weights are folded in ("freezing"). On CUDA the default is "max-autotune", which records CUDA
    graphs: their outputs are overwritten by the next call of any compiled function, so they are cloned here.

    Raises MissingError where nothing can compile for the device, UsageError for an unknown `compile_mode`.
    """

    def __init__(self, graph: Graph, options: EngineOptions, backend: str = "compile") -> None:
        found = compile_availability(options.device)
        if not found.ok:
            raise MissingError("backend compile", found.reason, "a compiler for the device", "use the eager backend")
        super().__init__(graph, options, backend)
        mode = options.compile_mode or ("max-autotune" if self.device.type == "cuda" else None)
        modes = tuple(torch._inductor.list_mode_options())
        if mode is not None and mode not in modes:
            raise UsageError("compile_mode", repr(mode), f"one of {', '.join(modes)}", "or leave it out")
        self._cuda_graphs = self.device.type == "cuda" and mode in CUDA_GRAPH_MODES
        self._forward = torch.compile(
            _own_code(graph.name, self._forward),
            fullgraph=True,  # a graph break would quietly run eagerly
            dynamic=None if options.dynamic_batch else False,
            mode=mode,
            options={"freezing": True} if mode is None else None,
        )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not self._cuda_graphs:
            return super().infer(inputs)
        torch.compiler.cudagraph_mark_step_begin()
        return tuple(tensor.clone() for tensor in super().infer(inputs))


def compile_availability(device: torch.device = CPU) -> Availability:
    """Whether `torch.compile` can generate code for a device: C++ for the CPU, Triton for CUDA."""
    if device.type == "cuda":
        missing = None if find_spec("triton") else "the package triton, which compiles for CUDA, is not installed"
    else:
        compilers = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS.get(sys.platform, ("g++", "clang++"))
        missing = None
        if not any(shutil.which(name.split()[0]) for name in compilers):
            missing = f"no C++ compiler was found (looked for {', '.join(compilers)}; the variable CXX names another)"
        elif not Path(sysconfig.get_paths()["include"], "Python.h").exists():
            missing = f"Python.h is not in {sysconfig.get_paths()['include']}; install Python's development headers"
    return Availability(missing is None, missing or f"compiles for {device.type}", torch.__version__)


def forward_on(graph: Graph, options: EngineOptions) -> Callable[..., tuple[Tensor, ...]]:
    """The graph's module with its weights on the device, and in the layout and precision that were asked for.

    The module is never changed: where its weights have to be others, it is called with copies of them.
    """
    module = half_from_graph(graph) if options.precision == "fp16" else graph.module
    weights = dict(module.named_parameters()) | dict(module.named_buffers())
    if not options.channels_last and all(weight.device == options.device for weight in weights.values()):
        return module
    for name, weight in weights.items():
        moved = weight.detach().to(options.device)
        is_nhwc = options.channels_last and moved.ndim == 4
        weights[name] = _nhwc(moved) if is_nhwc else moved

    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        return torch.func.functional_call(module, weights, inputs)

    return forward


def _nhwc(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _own_code(name: str, forward: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """A function of its own code object: torch.compile counts recompilations by code object, and after 8 it gives up,
    so graphs whose modules are of one class would push each other out."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return forward(*inputs)

    return FunctionType(run.__code__.replace(co_name=name), globals(), name, None, run.__closure__)
