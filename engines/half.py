"""A network in mixed precision: half where its graph says that this does no harm, float32 elsewhere.

The types are written into the network, as strongly typed engines want them. What goes in and out stays float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .graph import Graph
from .vjp import NetworkPass


def half_from_graph(graph: Graph, keep_float32: Iterable[str] = ()) -> nn.Module:
    """The graph's module in mixed precision; `keep_float32` adds to the graph's own `float32`.

    A graph with nothing in half answers its own module.
    """
    if not graph.has_half:
        return graph.module

    def convert(module: nn.Module) -> nn.Module:
        return half_from_module(module, graph.half, (*graph.float32, *keep_float32))

    return graph.module.converted(convert) if isinstance(graph.module, NetworkPass) else convert(graph.module)


def half_from_module(module: nn.Module, half: Iterable[str], float32: Iterable[str]) -> nn.Module:
    """A copy of `module` that computes submodules matching `half` in float16, but those matching `float32` not.

    Args:
        half, float32: `fnmatch` patterns of names as `named_modules` gives them; "" is the whole.

    Raises:
        ValueError: a pattern of `half` matches nothing.
    """
    module = copy.deepcopy(module)
    for pattern in half:
        chosen = [(name, part) for name, part in module.named_modules() if fnmatch(name, pattern)]
        if not chosen:
            raise ValueError(f"half precision: got the pattern {pattern!r}; expected the name of a submodule")
        for name, part in chosen:
            _convert(part.half(), torch.float16, torch.float32)
            for inner, exception in part.named_modules(prefix=name):
                if any(fnmatch(inner, kept) for kept in float32):
                    _convert(exception.float(), torch.float32, torch.float16)
    return module


def _convert(module: nn.Module, inside: torch.dtype, outside: torch.dtype) -> None:
    module.register_forward_pre_hook(lambda _, args: _cast(args, outside, inside))
    module.register_forward_hook(lambda _, __, result: _cast(result, inside, outside))


def _cast(values: Any, source: torch.dtype, target: torch.dtype) -> Any:
    def cast(value: Any) -> Any:
        return value.to(target) if isinstance(value, Tensor) and value.dtype == source else value

    return pytree.tree_map(cast, values)
