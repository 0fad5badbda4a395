"""Engines made ahead of their use, by the names of graphs. Needs no GPU where the backend builds without one.

Knows nothing of where the models come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import FitDiffError, MissingError, UsageError
from .backends import AUTO, backend_named, choose_backend
from .cache import EngineCache
from .graph import Graph
from .graphs import GRAPH_NAMES, GraphSources, build_graph, build_pair
from .onnx_files import onnx_file
from .options import EngineOptions

BUILDABLE = ("onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
"""Backends that leave files in the cache. ONNX Runtime loads the exported file itself."""


@dataclass(frozen=True)
class BuiltEngine:
    """The file that a backend loads.

    needs_refit: it is for every checkpoint of its architecture, and takes the graph's weights when it is loaded.
    """

    path: Path
    needs_refit: bool = False


Progress = Callable[[str, float], None]
"""What is being done, and the share of it in [0, 1] that is."""


def backend_to_build(name: str) -> str:
    """The backend called `name`, or what "auto" would run here.

    Raises:
        UsageError: it keeps nothing in the cache.
        MissingError: it is not installed.
    """
    if name == AUTO:
        name = choose_backend(AUTO, torch.device("cuda" if torch.cuda.is_available() else "cpu")).backend.name
    backend = backend_named(name)
    if name not in BUILDABLE:
        remedy = f"name one, such as --backend {BUILDABLE[0]}"
        raise UsageError("backend", f"{name}, which builds in memory", f"one of {', '.join(BUILDABLE)}", remedy)
    found = backend.availability()
    if not found.version:
        raise MissingError(f"backend {name}", found.reason, "its package, to build with", backend.remedy)
    return name


def check_graph_names(names: Sequence[str]) -> None:
    """Raise UsageError for a name that no graph has."""
    unknown = [name for name in names if name not in GRAPH_NAMES]
    if unknown:
        raise UsageError("graph", ", ".join(unknown), f"of {', '.join(GRAPH_NAMES)}", "check the spelling")


def graphs_named(names: Sequence[str], sources: GraphSources, cache: EngineCache | None = None) -> Iterator[Graph]:
    """The graphs in the order of `names`; the two of a pair are traced once, with `cache` only where they must be."""
    pairs: dict[str, Graph] = {}
    for name in names:
        network, _, role = name.rpartition("_")
        other = f"{network}_{'vjp' if role == 'forward' else 'forward'}"
        if name not in pairs and other in names and role in ("forward", "vjp"):
            pairs |= {graph.name: graph for graph in build_pair(network, sources, cache)}
        yield pairs.pop(name) if name in pairs else build_graph(name, sources, cache)


def build_engine(graph: Graph, backend: str, options: EngineOptions, progress: Progress) -> BuiltEngine:
    """What `backend` loads for a graph, built where the cache does not have it.

    Raises as `backend_to_build`, and FitDiffError where the backend cannot build this graph.
    """
    if backend.startswith("tensorrt"):
        from .trt.loader import load_flavour
        from .trt.plans import plan_file

        plan = plan_file(graph, options, load_flavour(backend), progress=progress)
        return BuiltEngine(plan.path, plan.needs_refit)
    cache, half = EngineCache(options.cache_dir), options.precision == "fp16"
    path = onnx_file(
        cache, graph, dynamic_batch=options.dynamic_batch, half=half, progress=lambda text: progress(text, 0.0)
    )
    return BuiltEngine(path)


def is_about_one_graph(error: FitDiffError) -> bool:
    """Whether other graphs may still be built after this error."""
    return not isinstance(error, UsageError | MissingError)
