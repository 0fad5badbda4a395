"""Runs a TensorRT engine on PyTorch's own device memory, by address.

Outputs are buffers of the runner, good until its next call (`reuses_outputs`); inputs that come at the same address
from call to call are read where they are (`binding.py`). So all addresses stay, and the second call of a shape becomes
a CUDA graph: the data-centre TensorRT is captured here, TensorRT-RTX captures itself. Batches of another size get a
context of their own.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cache import KERNELS
from ..graph import Graph
from ..options import EngineOptions
from ..runner import CheckedRunner
from .binding import Binding
from .builder import Progress
from .jit_file import JitFile
from .loader import EngineError, Flavour, load_engine, load_flavour
from .plans import plan_file
from .refit import refit_engine

_LOG = logging.getLogger(__name__)
MAX_CONTEXTS = 4  # sizes of batch that are kept ready; each has the engine's scratch memory once


def make_runner(
    graph: Graph, options: EngineOptions, flavour_name: str, *, progress: Progress | None = None
) -> TensorRtRunner:
    """Export and build what is not in the cache, and answer the engine ready to run, with this graph's weights.

    A refittable plan that refuses them is passed over, and one for these weights is built; with `options.refit` the
    refusal is raised.

    Raises MissingError where the flavour is not installed, UsageError for bfloat16, EngineError where TensorRT refuses.
    """
    flavour = load_flavour(flavour_name)
    plan = plan_file(graph, options, flavour, progress=progress)
    runner = TensorRtRunner(graph, plan.path, options, flavour, built_for=plan.built_for)
    if not plan.needs_refit:
        return runner
    try:
        runner.refit(plan.onnx_path)
        return runner
    except EngineError as error:
        runner.close()  # some of its weights may be the new ones
        if options.refit:
            raise
        _LOG.warning("%s is built, since the plan of its architecture takes no other weights: %s", graph.name, error)
    plan = plan_file(graph, options, flavour, shared=False, progress=progress)
    return TensorRtRunner(graph, plan.path, options, flavour, built_for=plan.built_for)


class TensorRtRunner(CheckedRunner):
    """A plan behind the runner's interface.

    plan: verified by the caller. built_for: what its manifest says, for messages. cuda_graphs: replay a captured
    graph instead of launching kernel by kernel; within a capture of the caller's the kernels go into that one.

    Raises EngineError where the plan does not run here, or is not one of this graph.
    """

    reuses_outputs = True

    def __init__(
        self,
        graph: Graph,
        plan: Path,
        options: EngineOptions,
        flavour: Flavour,
        *,
        cuda_graphs: bool = True,
        built_for: str = "another machine",
    ) -> None:
        super().__init__(graph, flavour.name, options)
        self._flavour = flavour
        self._cuda_graphs = cuda_graphs
        self._thing = f"{flavour.name} engine of {graph.name}"
        self._engine: Any = load_engine(plan, flavour, device=self.device, built_for=built_for)
        self._compare_names(plan)
        self._stream = torch.cuda.Stream(self.device)
        self._jit = JitFile(plan.with_suffix(KERNELS)) if flavour.is_rtx else None
        self._sized: OrderedDict[int, _Sized] = OrderedDict()

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        batch = next((t.shape[0] for spec, t in zip(self.inputs, inputs, strict=True) if None in spec.shape), 1)
        sized = self._sized.get(batch)
        is_new = sized is None
        if sized is None:
            sized = self._sized[batch] = self._size(batch)
        self._sized.move_to_end(batch)
        with torch.no_grad():
            sized.launch(addresses_changed=sized.binding.take(inputs))
            if is_new and self._jit is not None:
                self._jit.save()
            return sized.binding.results()

    def refit(self, onnx_path: Path) -> None:
        """Replace the weights by those of an ONNX file of the same architecture; see `refit_engine`."""
        torch.cuda.synchronize(self.device)
        for sized in self._sized.values():
            sized.launch.forget_graph()
        refit_engine(self._engine, onnx_path, self._flavour)

    def close(self) -> None:
        super().close()
        if self._engine is not None:
            torch.cuda.synchronize(self.device)
            self._sized.clear()
            self._jit = self._engine = None

    def _size(self, batch: int) -> _Sized:
        while len(self._sized) >= MAX_CONTEXTS:
            torch.cuda.synchronize(self.device)
            self._sized.popitem(last=False)
        with torch.cuda.device(self.device), self._flavour.log.messages() as said:
            context = self._context()
        if context is None:
            got = "; ".join(said[:2]) or "no execution context"
            raise EngineError(self._thing, got, "device memory for a context", "lower the batch, or free memory")
        binding = Binding(
            self.inputs, self.outputs, self._engine, context, self._flavour.trt,
            batch=batch, device=self.device, thing=self._thing,
        )  # fmt: skip
        captures = self._cuda_graphs and not self._flavour.is_rtx
        return _Sized(binding, Launch(context, self._stream, captures=captures, thing=self._thing))

    def _context(self) -> Any:
        if self._jit is None:
            return self._engine.create_execution_context()
        trt = self._flavour.trt
        config = self._engine.create_runtime_config()
        if self._cuda_graphs:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Eager: a shape's kernels are complete after its first run, not some time later in the background.
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        self._jit.attach(config)
        return self._engine.create_execution_context(config)

    def _compare_names(self, plan: Path) -> None:
        engine, trt = self._engine, self._flavour.trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        outputs = set(names) - inputs
        if inputs <= {spec.name for spec in self.inputs} and outputs == {spec.name for spec in self.outputs}:
            return
        raise EngineError(
            f"plan {plan.name}",
            f"inputs {', '.join(sorted(inputs))}, outputs {', '.join(sorted(outputs))}",
            f"those of {self.graph_name}",
            "build it again with `fitdiff engines build`",
        )


class Launch:
    """Runs a context on PyTorch's current stream; with `captures`, through a CUDA graph from the second call on."""

    def __init__(self, context: Any, stream: torch.cuda.Stream, *, captures: bool, thing: str) -> None:
        self._context, self._stream, self._captures, self._thing = context, stream, captures, thing
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = False  # ran at these addresses

    def __call__(self, *, addresses_changed: bool) -> None:
        """Enqueue one run. Raises EngineError where TensorRT refuses."""
        if addresses_changed:
            self.forget_graph()
        within_another = torch.cuda.is_current_stream_capturing()
        if self._captures and self._warm and self._graph is None and not within_another:
            self._capture()
        if self._graph is not None and not within_another:
            self._graph.replay()
        else:
            self._enqueue()
        self._warm = True

    def forget_graph(self) -> None:
        """Let go of what was captured: addresses or weights are about to change."""
        self._graph = None
        self._warm = False

    def _enqueue(self) -> None:
        current = torch.cuda.current_stream(self._stream.device)
        # TensorRT synchronises on the legacy default stream, and nothing can be captured from it.
        stream = current if current.cuda_stream else self._stream
        if stream is not current:
            stream.wait_stream(current)
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise EngineError(self._thing, "a run refused", "an engine of this graph and batch", "build it again")
        if stream is not current:
            current.wait_stream(stream)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            done = self._context.execute_async_v3(self._stream.cuda_stream)
        if done:
            self._graph = graph
        else:
            self._captures = False  # an engine whose control flow needs the host runs kernel by kernel


@dataclass(frozen=True)
class _Sized:
    """What one size of batch runs with."""

    binding: Binding
    launch: Launch
