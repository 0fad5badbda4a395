"""How far an engine's answers are from PyTorch's on the same random inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .graph import Graph

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
    """The errors of each output. One that is not finite, or of another shape, has an infinite error."""
    inputs = graph.example(batch, seed)
    with torch.inference_mode():
        expected = graph.module(*inputs)
    got = run(*inputs)
    return tuple(
        _compared(f"{graph.name}.{spec.name}", a, b) for spec, a, b in zip(graph.outputs, expected, got, strict=True)
    )


def _compared(name: str, expected: Tensor, got: Tensor) -> Parity:
    if expected.shape != got.shape or not torch.isfinite(got).all():
        return Parity(name, float("inf"), float("inf"), float("inf"))
    wanted = expected.double().cpu()
    error = (wanted - got.double().cpu()).abs()
    largest = float(error.max())
    return Parity(name, largest, float(error.mean()), largest / max(float(wanted.abs().max()), 1e-12))
