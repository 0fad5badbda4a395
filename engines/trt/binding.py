"""The memory of one execution context: an address for every tensor, kept from call to call.

Knows nothing of streams and of what runs the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..graph import TensorSpec
from .loader import EngineError

ALIGNMENT = 256  # bytes, of every address that TensorRT is given


class Binding:
    """Inputs and outputs of `context`, which runs one batch of `engine`.

    An input is read where it is as long as it comes at one address and is plain memory of the engine's type; from
    the first time that it does not, it is copied to a buffer here, for good. So addresses change a few times at most,
    and between runners whose outputs and inputs are the same buffers nothing is copied.

    Raises EngineError where the engine refuses a shape or an address.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        engine: Any,
        context: Any,
        trt: Any,
        *,
        batch: int,
        device: torch.device,
        thing: str,
    ) -> None:
        self._context, self._device, self._thing = context, device, thing
        read = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        # An input that nothing reads may be absent from the engine.
        self._inputs = [(place, spec.name) for place, spec in enumerate(inputs) if spec.name in read]
        self._types = {name: torch_dtype(engine.get_tensor_dtype(name), trt) for _, name in self._inputs}
        self._addresses: dict[str, int] = {}
        self._copies: dict[str, Tensor] = {}
        for place, name in self._inputs:
            shape = inputs[place].sized(batch)
            self._require(context.set_input_shape(name, shape), f"shape {shape} of {name}")
        self._outputs = tuple(
            self._output(spec, batch, torch_dtype(engine.get_tensor_dtype(spec.name), trt)) for spec in outputs
        )
        self._output_types = tuple(spec.dtype for spec in outputs)

    def take(self, inputs: Sequence[Tensor]) -> bool:
        """Make the context read these; whether any address changed."""
        changed = False
        for place, name in self._inputs:
            tensor = inputs[place]
            copy = self._copies.get(name)
            if copy is None:
                address = tensor.data_ptr()
                plain = tensor.is_contiguous() and tensor.dtype == self._types[name] and address % ALIGNMENT == 0
                if plain and self._addresses.get(name) == address:
                    continue
                changed = True
                if not plain or name in self._addresses:
                    copy = torch.empty(tensor.shape, dtype=self._types[name], device=self._device)
                    self._copies[name], address = copy, copy.data_ptr()
                self._addresses[name] = address
                self._require(self._context.set_tensor_address(name, address), f"address of {name}")
            if copy is not None:
                copy.copy_(tensor)
        return changed

    def results(self) -> tuple[Tensor, ...]:
        """The outputs, in the types of their specs: the buffers themselves where the engine's types are the same."""
        return tuple(tensor.to(dtype) for tensor, dtype in zip(self._outputs, self._output_types, strict=True))

    def _output(self, spec: TensorSpec, batch: int, dtype: torch.dtype) -> Tensor:
        buffer = torch.empty(spec.sized(batch), dtype=dtype, device=self._device)
        shape = tuple(self._context.get_tensor_shape(spec.name))
        self._require(shape == tuple(buffer.shape), f"shape {tuple(buffer.shape)} of {spec.name}, which is {shape},")
        self._require(self._context.set_tensor_address(spec.name, buffer.data_ptr()), f"address of {spec.name}")
        return buffer

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(self._thing, f"{what} refused", "an engine of this graph and batch", "build it again")


def torch_dtype(dtype: Any, trt: Any) -> torch.dtype:
    """PyTorch's type for one of TensorRT's."""
    types = {
        "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT64": torch.int64,
        "INT32": torch.int32, "INT8": torch.int8, "UINT8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    return {getattr(trt.DataType, name): found for name, found in types.items()}[dtype]
