"""PyTorch's memory under a TensorRT engine: what is read in place, what is copied, what is handed out again.

The engine is pretended, on the CPU.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from fitdiff.engines.graph import TensorSpec
from fitdiff.engines.trt.binding import Binding
from fitdiff.engines.trt.loader import EngineError


class FakeContext:
    """An execution context that doubles what stands at its input's address, on the CPU."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.settings = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["image"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        self.settings += name == "image"
        return True

    def run(self) -> None:
        count = int(np.prod(self.shapes["image"]))
        given, answer = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in ("image", "doubled"))
        for index in range(count):
            answer[index] = 2 * given[index]


FAKE_TRT = SimpleNamespace(
    DataType=SimpleNamespace(**{name: name for name in "FLOAT HALF BF16 INT64 INT32 INT8 UINT8 BOOL".split()})
)
FAKE_ENGINE = SimpleNamespace(
    num_io_tensors=2, get_tensor_name=("image", "doubled").__getitem__, get_tensor_dtype=lambda name: "FLOAT"
)
IMAGE = TensorSpec("image", (None, 4, 16))
UNREAD = TensorSpec("unread", (None, 2))
DOUBLED = TensorSpec("doubled", (None, 4, 16))


def bind(context: FakeContext, batch: int = 1, image: TensorSpec = IMAGE) -> Binding:
    return Binding(
        (UNREAD, image), (DOUBLED,), FAKE_ENGINE, context, FAKE_TRT,
        batch=batch, device=torch.device("cpu"), thing="engine of doubled",
    )  # fmt: skip


def aligned(value: float, floats: int = 64) -> Tensor:
    """(1, 4, 16) at an address that is a multiple of 256."""
    memory = torch.full((floats + 64,), value)
    return memory[(-memory.data_ptr() % 256) // 4 :][:64].view(1, 4, 16)


def test_inputs_that_stay_are_read_in_place_and_others_copied() -> None:
    context, unread = FakeContext(), torch.zeros(1, 2)
    binding = bind(context)
    first = aligned(1.0)
    assert binding.take((unread, first))
    assert context.addresses["image"] == first.data_ptr()
    first.fill_(3.0)  # new content at the old address
    assert not binding.take((unread, first))
    context.run()
    assert torch.equal(binding.results()[0], torch.full((1, 4, 16), 6.0))

    second = aligned(5.0)
    assert binding.take((unread, second))  # to a copy, for good
    assert context.addresses["image"] not in (first.data_ptr(), second.data_ptr())
    for value in (7.0, 8.0):
        assert not binding.take((unread, aligned(value)))
        context.run()
        assert torch.equal(binding.results()[0], torch.full((1, 4, 16), 2 * value))
    assert context.settings == 2


def test_strided_and_unaligned_inputs_are_copied() -> None:
    memory = aligned(0.0)
    memory.copy_(torch.arange(64.0).view(1, 4, 16))
    strided = memory.view(1, 16, 4).transpose(1, 2)
    for given in (strided, memory.flatten()[1:].new_ones(1, 4, 17)[..., 1:], aligned(2.0).double().float()):
        context = FakeContext()
        binding = bind(context)
        binding.take((torch.zeros(1, 2), given))
        context.run()
        assert torch.equal(binding.results()[0], 2 * given)
    context = FakeContext()
    binding = bind(context)
    binding.take((torch.zeros(1, 2), memory))
    binding.take((torch.zeros(1, 2), strided))  # the same address, another order
    context.run()
    assert torch.equal(binding.results()[0], 2 * strided)


def test_outputs_are_reused_and_types_converted() -> None:
    context = FakeContext()
    binding = bind(context, image=TensorSpec("image", (None, 4, 16), torch.float64))
    binding.take((torch.zeros(1, 2), torch.full((1, 4, 16), 4.0, dtype=torch.float64)))
    context.run()
    once, again = binding.results()[0], binding.results()[0]
    assert once.data_ptr() == again.data_ptr()
    assert torch.equal(once, torch.full((1, 4, 16), 8.0))


def test_a_batch_beyond_the_profile_is_an_error() -> None:
    with pytest.raises(EngineError, match="engine of doubled.*shape"):
        bind(FakeContext(), batch=5)
