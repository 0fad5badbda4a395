"""A graph as a pair: what it does, saving what its gradient needs, and that gradient.

Tracing a network takes seconds, and what it saves is known only after that. So the shapes of the saved tensors are kept
in the engine cache: where they are found, nothing is traced until somebody asks for a module, and whoever only wants
a built engine never does. Knows nothing of which networks there are, and of ONNX.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from .cache import EngineCache
from .cache_key import TraceKey
from .fingerprint import sha256_of_module
from .graph import Graph, TensorSpec, description_of_graph
from .installed import exporter_versions, source_sha256
from .vjp import TRACED_BATCH, ForwardPass, GradientPass, vjp_pair


def pair_from_graph(graph: Graph, trace_cache: EngineCache | None = None) -> tuple[Graph, Graph]:
    """Forward and gradient with respect to the only input, traced at most once.

    Both are in half where the graph's `half_in_pair` says, or as the graph itself.

    trace_cache: where the shapes of what is saved are kept, so that a later process need not trace for them.
    """

    @cache
    def traced() -> tuple[ForwardPass, GradientPass]:
        return vjp_pair(graph.module, graph.example(TRACED_BATCH))

    saved = _saved_specs(graph, lambda: traced()[0], trace_cache)
    (image,) = graph.inputs
    common = replace(
        graph,
        half=graph.half if graph.half_in_pair is None else graph.half_in_pair,
        half_in_pair=None,
        made_from=graph,
    )
    forward = replace(
        common,
        name=f"{graph.name}_forward",
        summary=f"{graph.summary} Saves what its gradient needs.",
        network=lambda: traced()[0],
        outputs=(*graph.outputs, *saved),
    )
    cotangents = tuple(
        replace(spec, name=f"{spec.name}_cotangent", meaning=f"gradient of a scalar by {spec.name}", low=-1.0, high=1.0)
        for spec in graph.outputs
    )
    gradient = replace(
        common,
        name=f"{graph.name}_vjp",
        summary=f"The gradient by {image.name} of: {graph.summary}",
        network=lambda: traced()[1],
        inputs=(*saved, *cotangents),
        outputs=(replace(image, name=f"{image.name}_gradient", meaning=f"gradient of a scalar by {image.name}"),),
        saved_by=forward,
    )
    return forward, gradient


def _saved_specs(
    graph: Graph, traced: Callable[[], ForwardPass], trace_cache: EngineCache | None
) -> tuple[TensorSpec, ...]:
    """`saved_00`, `saved_01` ...: what the forward pass hands out for the gradient."""

    def described() -> list[tuple[list[int], str]]:
        return [(list(each.shape[1:]), str(each.dtype).removeprefix("torch.")) for each in traced().saved_examples]

    def write(path: Path) -> None:
        path.write_text(json.dumps(described()), encoding="utf-8")

    if trace_cache is None:
        tensors = described()
    else:
        tensors = json.loads(trace_cache.get_or_build(trace_key(graph), write).read_text(encoding="utf-8"))
    return tuple(
        TensorSpec(f"saved_{index:02d}", (None, *shape), getattr(torch, dtype), "for the gradient", 0.0, 1.0)
        for index, (shape, dtype) in enumerate(tensors)
    )


def trace_key(graph: Graph) -> TraceKey:
    """What the tensors that a graph's pair saves depend on.

    Raises:
        MissingError: a package that exports is not installed.
    """
    return TraceKey(
        graph=graph.name,
        module_sha256=sha256_of_module(graph.module),
        description=description_of_graph(graph),
        source_sha256=source_sha256(),
        versions=exporter_versions(),
    )
