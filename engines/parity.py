"""How far an engine's answers are from PyTorch's on the same random inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .graph import Graph, TensorSpec

Runs = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Parity:
    """Errors of one output: the largest, the mean, and the largest over the output's largest magnitude."""

    name: str
    largest: float
    mean: float
    relative: float

    def __str__(self) -> str:
        return f"{self.name}: largest error {self.largest:.2e}, mean {self.mean:.2e}, relative {self.relative:.2e}"


def parity(graph: Graph, run: Runs, batch: int = 1, seed: int = 0) -> Parity:
    """The worst output of `run`, by relative error; named `graph.output`.

    Args:
        run: takes the graph's inputs and answers its outputs, as a runner does.
    """
    return max(parities(graph, run, batch, seed), key=lambda worst: worst.relative)


def parities(graph: Graph, run: Runs, batch: int = 1, seed: int = 0) -> tuple[Parity, ...]:
    """The errors of each output. One that is not finite, or of another shape, has an infinite error.

    Saved tensors are left out: many are the sign of a number, and one near zero may fall on either side. What the
    gradient makes of them counts: see `pair_parity`.
    """
    inputs = graph.example(batch, seed)
    with torch.inference_mode():
        expected = graph.module(*inputs)
    named = zip(graph.outputs, expected, run(*inputs), strict=True)
    return tuple(_compared(f"{graph.name}.{spec.name}", a, b) for spec, a, b in named if not _is_saved(spec))


def pair_parity(vjp: Graph, run_forward: Runs, run_vjp: Runs, batch: int = 1, seed: int = 0) -> Parity:
    """The error of the gradient that `run_vjp` makes of what `run_forward` saved. `vjp` is the pair's second graph.

    `relative` is that of the whole vector here, its length over the gradient's: where a sign fell on the other side,
    single numbers differ by much.

    Raises:
        ValueError: `vjp` is not the second of a pair.
    """
    if vjp.saved_by is None:
        raise ValueError(f"{vjp.name}: got no graph that saves its inputs; expected the second graph of a pair")
    forward, examples = vjp.saved_by, vjp.example(batch, seed)
    with torch.inference_mode():
        (expected,) = vjp.module(*examples)
    named = zip(forward.outputs, run_forward(*forward.example(batch, seed)), strict=True)
    saved = [value for spec, value in named if _is_saved(spec)]
    (got,) = run_vjp(*saved, *examples[len(saved) :])
    error = _compared(f"{vjp.name}.{vjp.outputs[0].name}", expected, got)
    if not math.isfinite(error.largest):
        return error
    length = float((expected.double() - got.double().to(expected.device)).norm() / expected.double().norm())
    return replace(error, relative=length)


def _is_saved(spec: TensorSpec) -> bool:
    return spec.name.startswith("saved_")


def _compared(name: str, expected: Tensor, got: Tensor) -> Parity:
    if expected.shape != got.shape or not torch.isfinite(got).all():
        return Parity(name, float("inf"), float("inf"), float("inf"))
    wanted = expected.double().cpu()
    error = (wanted - got.double().cpu()).abs()
    largest = float(error.max())
    return Parity(name, largest, float(error.mean()), largest / max(float(wanted.abs().max()), 1e-12))
