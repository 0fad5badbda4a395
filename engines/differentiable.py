"""A pair of runners, a network's forward pass and its vector-Jacobian product, as one step of PyTorch's autograd.

Autograd only stitches: what happens inside either pass is the engine's. Knows nothing of backends or of networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import UsageError
from .runner import Runner


def differentiable(forward: Runner, vjp: Runner, outputs: int) -> Callable[..., tuple[Tensor, ...]]:
    """A function of the network's inputs that autograd can differentiate with respect to the first of them.

    Args:
        forward: the inputs of the network -> its outputs, then the tensors that its gradient needs.
        vjp: those saved tensors, then one cotangent for each floating-point output -> the first input's gradient.
        outputs: how many outputs the network has; what `forward` answers beyond them is saved.

    All results belong to the caller: what a runner that reuses its outputs hands out is cloned, the saved tensors
    too, so any number of calls may lie between a call and its backward pass. An output without a cotangent counts
    as zeros. Where no gradient is wanted nothing is saved.

    The gradient cannot be differentiated again (RuntimeError), and an input after the first that requires a gradient
    is a UsageError.
    """
    pair = _Pair(forward, vjp, outputs)

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in inputs):
            return owned(forward, forward(*inputs)[:outputs])
        for index, tensor in enumerate(inputs[1:], start=1):
            if tensor.requires_grad:
                raise UsageError(
                    f"input {index} of {forward.graph_name}", "a tensor that requires a gradient",
                    "one that does not: only input 0 gets a gradient", "pass it with .detach()",
                )  # fmt: skip
        return _EngineStep.apply(pair, *inputs)  # pyright: ignore[reportReturnType]

    return call


@dataclass(frozen=True)
class _Pair:
    forward: Runner
    vjp: Runner
    outputs: int


class _EngineStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pair: _Pair, *inputs: Tensor) -> tuple[Tensor, ...]:
        results = owned(pair.forward, pair.forward(*inputs))
        outputs, saved = results[: pair.outputs], results[pair.outputs :]
        ctx.pair = pair
        ctx.is_floating = tuple(output.is_floating_point() for output in outputs)
        ctx.save_for_backward(*saved)
        ctx.mark_non_differentiable(*(output for output in outputs if not output.is_floating_point()))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        pair: _Pair = ctx.pair  # autograd has filled absent cotangents with zeros
        wanted = (cotangent for cotangent, floating in zip(cotangents, ctx.is_floating, strict=True) if floating)
        (gradient,) = owned(pair.vjp, pair.vjp(*ctx.saved_tensors, *wanted))
        return None, gradient, *(None for _ in ctx.needs_input_grad[2:])


def owned(runner: Runner, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The tensors, as copies where the runner's next call would overwrite them."""
    return tuple(tensor.clone() for tensor in tensors) if runner.reuses_outputs else tuple(tensors)
