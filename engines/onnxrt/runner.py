"""Runs an ONNX Runtime session on PyTorch's own memory: inputs and outputs are bound by address, nothing is copied.

Outputs are new tensors, and the caller's. On CUDA the session enqueues on a stream of its own that waits for the
current one and is waited for by it, so the call returns before the device is done, as a PyTorch operator does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UsageError
from ..graph import Graph, TensorSpec
from ..options import EngineOptions
from ..runner import CheckedRunner

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TYPES: dict[str, tuple[torch.dtype, type]] = {
    "tensor(float)": (torch.float32, np.float32),
    "tensor(float16)": (torch.float16, np.float16),
    "tensor(double)": (torch.float64, np.float64),
    "tensor(int64)": (torch.int64, np.int64),
    "tensor(int32)": (torch.int32, np.int32),
    "tensor(uint8)": (torch.uint8, np.uint8),
    "tensor(bool)": (torch.bool, np.bool_),
}


class OnnxRuntimeRunner(CheckedRunner):
    """A session behind the runner's interface; it must have the graph's inputs and outputs by name.

    Where the file's types differ from the specs' (a half-precision export), tensors are converted on the device.

    Raises UsageError where the session's names are not the graph's.
    """

    def __init__(
        self,
        graph: Graph,
        session: InferenceSession,
        options: EngineOptions,
        backend: str = "onnxruntime",
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        super().__init__(graph, backend, options)
        import onnxruntime

        self._session: InferenceSession | None = session
        self._binding: Any = session.io_binding()
        self._stream = stream
        self._run_options = None  # which the Python binding searches for a WebGPU setting at 30 us a call
        if stream is not None:
            self._run_options = onnxruntime.RunOptions()
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._input_types = _types("inputs", graph, graph.inputs, session.get_inputs())
        self._output_types = _types("outputs", graph, graph.outputs, session.get_outputs())

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert self._session is not None
        kind, index = self.device.type, self.device.index or 0
        bound = []  # what was converted must outlive the run
        batch = 1
        for spec, (dtype, element), given in zip(self.inputs, self._input_types, inputs, strict=True):
            tensor = given.detach().to(dtype).contiguous()
            if spec.shape and spec.shape[0] is None:
                batch = tensor.shape[0]
            self._binding.bind_input(spec.name, kind, index, element, tensor.shape, tensor.data_ptr())
            bound.append(tensor)
        outputs = []
        for spec, (dtype, element) in zip(self.outputs, self._output_types, strict=True):
            tensor = torch.empty(spec.sized(batch), dtype=dtype, device=self.device)
            self._binding.bind_output(spec.name, kind, index, element, tensor.shape, tensor.data_ptr())
            outputs.append(tensor)
        if self._stream is None:
            self._session.run_with_iobinding(self._binding)
        else:
            current = torch.cuda.current_stream(self.device)
            self._stream.wait_stream(current)
            self._session.run_with_iobinding(self._binding, self._run_options)
            current.wait_stream(self._stream)
        return tuple(tensor.to(spec.dtype) for tensor, spec in zip(outputs, self.outputs, strict=True))

    def close(self) -> None:
        super().close()
        if self._session is not None:
            if self._stream is not None:
                self._stream.synchronize()
            self._binding = self._session = None


def _types(
    kind: str, graph: Graph, specs: tuple[TensorSpec, ...], nodes: Sequence[Any]
) -> tuple[tuple[torch.dtype, type], ...]:
    types = {node.name: node.type for node in nodes}
    names = [spec.name for spec in specs]
    if set(types) != set(names):
        raise UsageError(
            f"{kind} of the ONNX file of {graph.name}", ", ".join(types), ", ".join(names), "export the graph again"
        )
    return tuple(TYPES[types[name]] for name in names)
