"""What an engine is made from: a frozen network of flat named tensors, and what they mean.

Knows nothing of backends, files, or of which networks there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output. `shape` has None at axis 0 where that is the batch.

    meaning: range and unit in a phrase. low, high: where random inputs for a parity test are drawn.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32
    meaning: str = ""
    low: float = -1.0
    high: float = 1.0

    def sized(self, batch: int) -> tuple[int, ...]:
        """The shape for a batch."""
        return tuple(batch if side is None else side for side in self.shape)


@dataclass(frozen=True, eq=False)
class Graph:
    """`module` takes one tensor for each of `inputs`, in that order, and answers a tuple, one for each of `outputs`.

    network: the module, or what makes it once it is asked for: what only looks a file up never asks.
    tolerance: the largest error that a float32 engine may have, over the largest magnitude of the output.
    half_tolerance: the same of a half-precision engine.
    half: the submodules that a half-precision engine computes in half, "" for all of it; what is around them, and
        the `float32` ones inside them, it computes in float32. Both are `fnmatch` patterns of module names.
    half_in_pair: what `half` is in the pair made from this graph, where the gradient bears less of it than the answer;
        None for the same.
    saved_by: the graph whose outputs, of the same names, are what this one takes.
    made_from: the graph whose module this one's is derived from, by this package's code alone.
    """

    name: str
    summary: str
    network: nn.Module | Callable[[], nn.Module]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tolerance: float = 1e-3
    half_tolerance: float = 1e-2
    half: tuple[str, ...] = ("",)
    float32: tuple[str, ...] = ()
    half_in_pair: tuple[str, ...] | None = None
    saved_by: Graph | None = None
    made_from: Graph | None = None

    @property
    def has_half(self) -> bool:
        """Whether a half-precision engine is another than the float32 one."""
        return bool(self.half)

    @cached_property
    def module(self) -> nn.Module:
        return self.network if isinstance(self.network, nn.Module) else self.network()

    def example(self, batch: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs within their ranges; a seed means the same on every machine."""
        generator = torch.Generator().manual_seed(seed)
        drawn = {spec.name: _drawn(spec, batch, generator) for spec in self.inputs}
        if self.saved_by is not None:  # random ones would not fit together
            with torch.no_grad():
                outputs = self.saved_by.module(*self.saved_by.example(batch, seed))
            named = zip(self.saved_by.outputs, outputs, strict=True)
            drawn |= {spec.name: value for spec, value in named if spec.name in drawn}
        return tuple(drawn.values())


def description_of_graph(graph: Graph) -> str:
    """Everything about a graph but networks, and what only serves to test it."""
    told = [field.name for field in fields(graph) if field.name not in ("network", "saved_by", "made_from")]
    return ", ".join(f"{name}={getattr(graph, name)!r}" for name in told)


def _drawn(spec: TensorSpec, batch: int, generator: torch.Generator) -> Tensor:
    if spec.dtype.is_floating_point:
        drawn = torch.rand(spec.sized(batch), generator=generator) * (spec.high - spec.low) + spec.low
        return drawn.to(spec.dtype)
    return torch.randint(int(spec.low), int(spec.high) + 1, spec.sized(batch), generator=generator).to(spec.dtype)
