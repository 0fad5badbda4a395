"""A runner for any batch, made of one for small batches: what does not fit is run piece by piece.

Engines of static shapes take one photo at a time, others as many as they were built for. The guided loop hands them
however many it has and does not know. Knows nothing of any backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..engines.graph import Graph
from ..engines.runner import Runner, WrappingRunner


def in_batches(runner: Runner, graph: Graph, max_batch: int) -> Runner:
    """`runner`, an engine of `graph` for batches up to `max_batch`, as one that takes any batch.

    A batch that fits is handed on as it is. The outputs of one that does not are the caller's.
    """
    return _BatchedRunner(runner, graph, max_batch)


class _BatchedRunner(WrappingRunner):
    def __init__(self, runner: Runner, graph: Graph, max_batch: int) -> None:
        super().__init__(runner)
        self._max_batch = max_batch
        self._batched = tuple(bool(spec.shape) and spec.shape[0] is None for spec in graph.inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        batch = max((len(x) for x, batched in zip(inputs, self._batched, strict=False) if batched), default=1)
        if batch <= self._max_batch:
            return self._runner(*inputs)
        pieces: list[tuple[Tensor, ...]] = []
        for begin in range(0, batch, self._max_batch):
            rows = slice(begin, begin + self._max_batch)
            some = (x[rows] if batched else x for x, batched in zip(inputs, self._batched, strict=True))
            found = self._runner(*some)
            pieces.append(tuple(x.clone() for x in found) if self.reuses_outputs else found)
        return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))
