"""Every default graph through TensorRT's builder: seconds, sizes, and what was refused.

    python benchmarks/build_engines.py --backend tensorrt-rtx

Needs no GPU for tensorrt-rtx. A table for people, then one line of JSON.
"""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch

from fitdiff.engines.build import check_graph_names, graphs_named
from fitdiff.engines.export import export_onnx
from fitdiff.engines.graph import Graph
from fitdiff.engines.graphs import GRAPH_NAMES
from fitdiff.engines.trt import Flavour, PlanOptions, build_plan, load_flavour
from fitdiff.engines.trt.loader import gpu_text
from fitdiff.errors import FitDiffError
from fitdiff.runtime.graph_sources import graph_sources
from fitdiff.runtime.loading import load_pipeline

MIB = 2**20
PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Row:
    """One build. error: empty where it went well; layers: of the parsed network."""

    graph: str
    precision: str
    export_seconds: float
    build_seconds: float
    onnx_mib: float
    plan_mib: float
    layers: int
    error: str = ""

    def __str__(self) -> str:
        numbers = f"{self.export_seconds:10.1f}{self.build_seconds:10.1f}{self.onnx_mib:10.1f}{self.plan_mib:10.1f}"
        return f"{self.graph:24}{self.precision:>6}{numbers}{self.layers:8}  {self.error}"


def build(graph: Graph, precision: str, max_batch: int, flavour: Flavour, folder: Path) -> Row:
    """Export and build one graph; a refusal is a row too."""
    onnx_path, plan_path = (folder / f"{graph.name}_{precision}.{suffix}" for suffix in ("onnx", "plan"))
    start = time.perf_counter()
    export_onnx(graph, onnx_path, dynamic_batch=max_batch > 1, half=precision == "fp16")
    exported, onnx_mib = time.perf_counter() - start, onnx_path.stat().st_size / MIB
    try:
        report = build_plan(onnx_path, plan_path, PlanOptions(max_batch=max_batch), flavour)
    except FitDiffError as error:
        return Row(graph.name, precision, round(exported, 2), 0.0, round(onnx_mib, 2), 0.0, 0, str(error))
    seconds, plan_mib = round(report.seconds, 2), round(report.bytes / MIB, 2)
    return Row(graph.name, precision, round(exported, 2), seconds, round(onnx_mib, 2), plan_mib, report.layers)


def rows(names: tuple[str, ...], precisions: tuple[str, ...], max_batch: int, flavour: Flavour) -> Iterator[Row]:
    """Build after build, each in a folder that is emptied."""
    pipeline = load_pipeline()
    for graph in graphs_named(names, graph_sources(pipeline.denoiser, pipeline.models)):
        for precision in precisions:
            with tempfile.TemporaryDirectory() as folder:
                yield build(graph, precision, max_batch, flavour, Path(folder))


@click.command()
@click.option("--backend", default="tensorrt-rtx", show_default=True, type=click.Choice(["tensorrt", "tensorrt-rtx"]))
@click.option("--graph", "names", multiple=True, help="Of these alone; repeat it. All where left out.")
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, type=click.Choice(PRECISIONS))
@click.option("--max-batch", default=1, show_default=True, type=click.IntRange(1), help="1 builds static shapes.")
def main(backend: str, names: tuple[str, ...], precisions: tuple[str, ...], max_batch: int) -> None:
    """Build engines, for example: python benchmarks/build_engines.py --graph recogniser --precision fp16."""
    check_graph_names(names)
    flavour = load_flavour(backend)
    click.echo(f"{backend} {flavour.version}, {gpu_text()}, batch {'1' if max_batch == 1 else f'1 to {max_batch}'}")
    click.echo(f"{'graph':24}{'':>6}{'export s':>10}{'build s':>10}{'ONNX MiB':>10}{'plan MiB':>10}{'layers':>8}")
    found: list[Row] = []
    for row in rows(names or GRAPH_NAMES, precisions, max_batch, flavour):
        found.append(row)
        click.echo(str(row))
    refused = sum(bool(row.error) for row in found)
    click.echo(f"{len(found) - refused} built, {refused} refused")
    summary = {
        "benchmark": "build_engines",
        "backend": f"{backend} {flavour.version}",
        "max_batch": max_batch,
        "rows": [asdict(row) for row in found],
        "machine": {"processor": platform.machine(), "gpu": gpu_text(), "torch": torch.__version__},
    }
    click.echo(json.dumps(summary))
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
