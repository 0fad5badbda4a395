"""How far every engine of an avatar is from PyTorch, with the embedded weights, on the same random inputs.

    python benchmarks/engine_parity.py --backend onnxruntime --precision fp32 --precision fp16

A gradient (`*_vjp`) is taken of what the engine's own forward pass saved, as the guided loop takes it. A table for
people, then one line of JSON; exit code 1 where an engine is beyond its graph's tolerance in that precision.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch

from fitdiff.engines.backends import BACKENDS, backend_named
from fitdiff.engines.build import check_graph_names, graphs_named
from fitdiff.engines.cache import EngineCache
from fitdiff.engines.compiled_models import RUN_GRAPHS
from fitdiff.engines.graph import Graph
from fitdiff.engines.options import EngineOptions, Precision
from fitdiff.engines.parity import Parity, pair_parity, parity
from fitdiff.errors import FitDiffError
from fitdiff.runtime.graph_sources import graph_sources
from fitdiff.runtime.loading import load_pipeline

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


@dataclass(frozen=True)
class Row:
    """The worst output of an engine. relative: see `engines.parity`. error: why there are no figures."""

    graph: str
    precision: str
    output: str = ""
    largest: float = 0.0
    mean: float = 0.0
    relative: float = 0.0
    tolerance: float = 0.0
    error: str = ""

    @property
    def is_beyond(self) -> bool:
        return bool(self.error) or self.relative > self.tolerance

    def __str__(self) -> str:
        name = f"{self.graph:22}{self.precision:>6}  "
        if self.error:
            return name + self.error
        beyond = "  beyond the tolerance" if self.is_beyond else ""
        return f"{name}{self.output:18}{self.largest:10.1e}{self.mean:10.1e}{self.relative:10.1e}{beyond}"


def compared(graph: Graph, backend: str, options: EngineOptions) -> Parity:
    """Build what the cache does not have, run it and PyTorch."""
    make = backend_named(backend).make_runner
    with make(graph, options) as runner:
        if graph.saved_by is None:
            return parity(graph, runner)
        with make(graph.saved_by, options) as forward:
            return pair_parity(graph, forward, runner)


def rows(names: Sequence[str], backend: str, precisions: Sequence[Precision], cache: Path | None) -> Iterator[Row]:
    pipeline = load_pipeline()
    sources = graph_sources(pipeline.denoiser, pipeline.models)
    for graph in graphs_named(names, sources, EngineCache(cache)):
        for precision in precisions:
            try:
                found = compared(graph, backend, EngineOptions(precision, cache_dir=cache))
            except (FitDiffError, RuntimeError) as error:
                yield Row(graph.name, precision, error=" ".join(str(error).split())[:200])
                continue
            output = found.name.rpartition(".")[2]
            tolerance = graph.tolerance if precision == "fp32" else graph.half_tolerance
            yield Row(graph.name, precision, output, found.largest, found.mean, found.relative, tolerance)


@click.command()
@click.option("--backend", default="onnxruntime", show_default=True, type=click.Choice(list(BACKENDS)))
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, type=click.Choice(PRECISIONS))
@click.option("--graph", "names", multiple=True, help="Of these alone; repeat it. [default: all of an avatar]")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of the engines. [default: the user's]")
def main(backend: str, precisions: tuple[Precision, ...], names: tuple[str, ...], cache: Path | None) -> None:
    """Compare, for example: python benchmarks/engine_parity.py --graph recogniser_vjp --precision fp32."""
    check_graph_names(names)
    found = backend_named(backend).availability()
    click.echo(f"{backend} {found.version}, PyTorch {torch.__version__}, batch 1")
    click.echo(f"{'graph':30}{'worst output':18}{'largest':>10}{'mean':>10}{'relative':>10}")
    made: list[Row] = []
    for row in rows(names or RUN_GRAPHS, backend, precisions, cache):
        made.append(row)
        click.echo(str(row))
    summary = {
        "benchmark": "engine_parity",
        "backend": f"{backend} {found.version}",
        "torch": torch.__version__,
        "rows": [asdict(row) for row in made],
    }
    click.echo(json.dumps(summary))
    sys.exit(1 if any(row.is_beyond for row in made) else 0)


if __name__ == "__main__":
    main()
