"""What every backend's runner is: named tensors are checked, then it infers. Knows nothing of any backend.

Inputs are read during the call and never kept or written. Who owns the outputs is `reuses_outputs`: where it is
False they are the caller's to keep; where it is True they are buffers of the runner, good until its next call, and
whoever needs them longer clones them. A runner serves one thread at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor

from ..errors import UsageError
from .graph import Graph, TensorSpec
from .options import EngineOptions


class Runner(Protocol):
    """A graph, ready to run on a device: tensors in the order of its input specs -> those of its output specs."""

    @property
    def graph_name(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def reuses_outputs(self) -> bool: ...
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class CheckedRunner(ABC):
    """A runner that checks each new combination of shapes, types and devices once. A backend writes `infer`."""

    reuses_outputs = False

    def __init__(self, graph: Graph, backend: str, options: EngineOptions) -> None:
        self.graph_name = graph.name
        self.backend = backend
        self.device = options.device
        self.max_batch = options.max_batch
        self.inputs = graph.inputs
        self.outputs = graph.outputs
        self._checked: set[tuple[tuple[torch.Size, torch.dtype, torch.device], ...]] = set()
        self._closed = False

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph. Gradients do not flow through: `engines/differentiable.py` makes them.

        Raises UsageError where an input is missing, of another type or shape, or on another device, and after `close`.
        """
        layout = tuple([(tensor.shape, tensor.dtype, tensor.device) for tensor in inputs])
        if layout not in self._checked:
            self._check(inputs)
            self._checked.add(layout)
        return self.infer(inputs)

    @abstractmethod
    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the graph on inputs that were checked; they may be strided, and may require gradients."""

    def close(self) -> None:
        """Let go of the engine. Calling the runner afterwards raises UsageError; closing twice does nothing."""
        self._closed = True
        self._checked.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, inputs: tuple[Tensor, ...]) -> None:
        if self._closed:
            raise UsageError(
                f"{self.backend} runner of {self.graph_name}",
                "a call after close()",
                "an open runner",
                "make a new one",
            )
        check_inputs(self.inputs, inputs, graph_name=self.graph_name, device=self.device, max_batch=self.max_batch)


class WrappingRunner(ABC):
    """A runner that does something about the calls of another, and is closed with it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.graph_name, self.backend, self.device = runner.graph_name, runner.backend, runner.device
        self.reuses_outputs = runner.reuses_outputs

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...

    def close(self) -> None:
        self._runner.close()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, trace)


def check_inputs(
    specs: Sequence[TensorSpec],
    tensors: Sequence[Tensor],
    *,
    graph_name: str = "graph",
    device: torch.device | None = None,
    max_batch: int | None = None,
) -> int:
    """Compare tensors with their specs and answer the batch, which is 1 where no spec has one.

    Raises UsageError that names the first tensor that is missing, or whose type, shape, device or batch does not
    fit. `device` and `max_batch` are not looked at where None.
    """
    if len(tensors) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(
            f"inputs of {graph_name}", f"{len(tensors)} tensors", f"{len(specs)} ({names})", "pass them in this order"
        )
    batch, batch_from = None, ""
    for spec, tensor in zip(specs, tensors, strict=True):
        thing = f"input {spec.name} of {graph_name}"
        if tensor.dtype != spec.dtype:
            raise UsageError(thing, str(tensor.dtype), str(spec.dtype), f"convert it with .to({spec.dtype})")
        shape = tuple(tensor.shape)
        fits = len(shape) == len(spec.shape) and all(
            side is None or side == found for side, found in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(thing, f"shape {shape}", f"shape {_named(spec.shape)}", "pass the tensors in order")
        if device is not None and tensor.device != device:
            raise UsageError(thing, f"a tensor on {tensor.device}", f"one on {device}", f"move it with .to('{device}')")
        if not spec.shape or spec.shape[0] is not None:
            continue
        if batch is not None and shape[0] != batch:
            raise UsageError(thing, f"batch {shape[0]}", f"{batch}, that of {batch_from}", "use one batch for all")
        batch, batch_from = shape[0], spec.name
    batch = 1 if batch is None else batch
    if batch < 1 or (max_batch is not None and batch > max_batch):
        limit = "1 or more" if max_batch is None else "1" if max_batch == 1 else f"1 to {max_batch}"
        remedy = "split it, or make the runner with a larger EngineOptions.max_batch"
        raise UsageError(f"batch of {graph_name}", str(batch), limit, remedy)
    return batch


def _named(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("batch" if side is None else str(side) for side in shape) + ")"
