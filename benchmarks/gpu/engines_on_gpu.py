"""Every engine on an NVIDIA GPU: built, compared with PyTorch, timed; then the guided loop, profiled.

    python benchmarks/gpu/engines_on_gpu.py --out results

What a backend refuses is a line of the report, and the rest goes on. Writes `engines.txt`, `engines.json` and, of the
guided loop, `profile.json`; the last line printed is the JSON of the engines.
"""

import copy
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from fitdiff.engines.backends import BACKENDS, backend_named
from fitdiff.engines.build import check_graph_names, graphs_named
from fitdiff.engines.graph import Graph
from fitdiff.engines.graphs import GRAPH_NAMES
from fitdiff.engines.options import EngineOptions, Precision
from fitdiff.engines.parity import parity
from fitdiff.engines.runner import Runner
from fitdiff.errors import FitDiffError
from fitdiff.runtime import profile_table
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.graph_sources import graph_sources
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.profile import ProfileSettings, profile_photo

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
REFITTED = "recogniser"
COLUMNS = {"batch": 6, "ready s": 9, "p50 ms": 9, "p99 ms": 9, "host ms": 9, "x eager": 9, "relative error": 16}


@dataclass(frozen=True)
class EngineRow:
    """One engine. ready_seconds: export, build and load, less what the cache had. host_ms: to enqueue, the median.

    eager_ms: PyTorch in float32 on the same GPU. relative: the worst output's largest error over its magnitude.
    error: why there are no figures; empty where there are.
    """

    graph: str
    backend: str
    precision: str
    batch: int
    ready_seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    host_ms: float = 0.0
    eager_ms: float = 0.0
    worst_output: str = ""
    largest: float = 0.0
    relative: float = 0.0
    tolerance: float = 0.0
    error: str = ""

    def __str__(self) -> str:
        name = f"{self.graph:24}{self.backend:>16}{self.precision:>6}{self.batch:6}"
        if self.error:
            return f"{name}  {self.error[:300]}"
        times = f"{self.ready_seconds:9.1f}{self.p50_ms:9.3f}{self.p99_ms:9.3f}{self.host_ms:9.3f}"
        ratio = self.eager_ms / self.p50_ms
        beyond = " beyond the tolerance" if self.relative > self.tolerance else ""
        return f"{name}{times}{ratio:9.2f}{self.relative:16.2e}{beyond}"


def milliseconds(call: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """Device and host time of each call, after a warm-up that also captures graphs."""
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    host: list[float] = []
    for before, after in marks:
        before.record()
        start = time.perf_counter()
        call()
        host.append((time.perf_counter() - start) * 1e3)
        after.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in marks], host


def on_device(runner: Runner) -> Callable[..., list[Tensor]]:
    """The runner for tensors of the host, as `parity` calls it."""

    def run(*inputs: Tensor) -> list[Tensor]:
        return [output.cpu() for output in runner(*(tensor.to(runner.device) for tensor in inputs))]

    return run


def measured(
    graph: Graph, backend: str, options: EngineOptions, batch: int, repeats: int, eager_ms: float
) -> EngineRow:
    """Build, compare and time one engine."""
    start = time.perf_counter()
    tolerance = graph.tolerance if options.precision == "fp32" else graph.half_tolerance
    row = EngineRow(graph.name, backend, options.precision, batch, eager_ms=eager_ms, tolerance=tolerance)
    try:
        with backend_named(backend).make_runner(graph, options) as runner:
            inputs = tuple(tensor.to(options.device) for tensor in graph.example(batch))
            runner(*inputs)
            torch.cuda.synchronize()
            ready = time.perf_counter() - start
            device, host = milliseconds(lambda: runner(*inputs), repeats)
            worst = parity(
                graph, on_device(runner), batch
            )  # last: inputs at other addresses would be copied from then on
    except (FitDiffError, RuntimeError) as error:
        return replace(row, error=" ".join(str(error).split()))
    p50, p99 = (round(float(np.percentile(device, level)), 4) for level in (50, 99))
    return replace(
        row, ready_seconds=round(ready, 2), p50_ms=p50, p99_ms=p99, host_ms=round(float(np.median(host)), 4),
        worst_output=worst.name, largest=worst.largest, relative=worst.relative,
    )  # fmt: skip


def eager_milliseconds(graph: Graph, batch: int, device: torch.device, repeats: int) -> float:
    """PyTorch without an engine, float32."""
    with backend_named("eager").make_runner(graph, EngineOptions(max_batch=batch, device=device)) as runner:
        inputs = tuple(tensor.to(device) for tensor in graph.example(batch))
        return round(float(np.median(milliseconds(lambda: runner(*inputs), repeats)[0])), 4)


def engine_rows(
    names: Sequence[str],
    backends: Sequence[str],
    precisions: Sequence[Precision],
    batches: Sequence[int],
    cache: Path,
    repeats: int,
) -> Iterator[EngineRow]:
    """Every graph on every backend in every precision; one static engine for batch 1, one dynamic for the others."""
    device = torch.device("cuda", torch.cuda.current_device())
    pipeline = load_pipeline()
    for graph in graphs_named(names, graph_sources(pipeline.denoiser, pipeline.models)):
        for batch in batches:
            eager_ms = eager_milliseconds(graph, batch, device, repeats)
            for backend in backends:
                for precision in precisions:
                    options = EngineOptions(precision, max_batch=batch, cache_dir=cache, device=device)
                    yield measured(graph, backend, options, batch, repeats, eager_ms)


def refit_line(backend: str, cache: Path) -> str:
    """Build refittable, change the weights as a new training would, refit, compare with PyTorch."""
    from fitdiff.engines.trt.runner import make_runner

    options = EngineOptions(cache_dir=cache, device=torch.device("cuda", torch.cuda.current_device()), refit=True)
    pipeline = load_pipeline()
    (graph,) = graphs_named([REFITTED], graph_sources(pipeline.denoiser, pipeline.models))
    trained = copy.deepcopy(graph.module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in trained.parameters():
            weights.mul_(1 + 0.05 * torch.randn(weights.shape, generator=generator))
    changed = replace(graph, network=trained)
    try:
        seconds: list[float] = []
        errors: list[str] = []
        for each in (graph, changed):
            start = time.perf_counter()
            with make_runner(each, options, backend) as runner:
                seconds.append(time.perf_counter() - start)
                errors.append(f"{parity(each, on_device(runner)).relative:.2e}")
    except (FitDiffError, RuntimeError) as error:
        return f"refit of {REFITTED}: {' '.join(str(error).split())}"
    return (
        f"refit of {REFITTED}: built in {seconds[0]:.1f} s (relative error {errors[0]}), exported and refitted with "
        f"other weights in {seconds[1]:.1f} s (relative error {errors[1]})"
    )


def profile_text(backends: Sequence[str], steps: int, batches: Sequence[int], out: Path) -> str:
    """The guided loop on the example photo; its JSON goes to `out`."""
    settings = ProfileSettings(AvatarOptions(steps=steps), tuple(batches))
    try:
        measurement = profile_photo(
            ROOT / "examples" / "astronaut.jpg", settings, backends, say=click.echo, device="cuda"
        )
    except (FitDiffError, RuntimeError) as error:
        return f"guided loop: {' '.join(str(error).split())}"
    (out / "profile.json").write_text(profile_table.json_from_measurement(measurement), encoding="utf-8")
    console = Console(width=200, file=io.StringIO(), record=True)
    for profile, batch in profile_table.batches_of(measurement):
        for table in profile_table.tables(profile, batch):
            console.print(table)
    lines = [*profile_table.header_lines(measurement), console.export_text()]
    for comparison in measurement.comparisons:
        lines += profile_table.comparison_lines(comparison)
    return "\n".join([*lines, *profile_table.warning_lines(measurement)])


@click.command()
@click.option("--backend", "backends", multiple=True, default=("tensorrt-rtx",), type=click.Choice(list(BACKENDS)))
@click.option("--graph", "names", multiple=True, help="Of these alone; repeat it. All where left out.")
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, type=click.Choice(PRECISIONS))
@click.option("--batch", "batches", multiple=True, default=(1, 16), type=click.IntRange(1))
@click.option("--repeats", default=50, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=50, show_default=True, type=click.IntRange(0), help="Of the guided loop; 0: none.")
@click.option("--loop-backend", "loop_backends", multiple=True, help="Of the guided loop. [default: --backend, eager]")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of the engines. [default: OUT/engines]")
@click.option(
    "--out", default=os.environ.get("OUT", "gpu_results"), type=click.Path(path_type=Path), help="[default: $OUT]"
)
def main(
    backends: tuple[str, ...], names: tuple[str, ...], precisions: tuple[Precision, ...], batches: tuple[int, ...],
    repeats: int, steps: int, loop_backends: tuple[str, ...], cache: Path | None, out: Path,
) -> None:  # fmt: skip
    """Measure, for example: python benchmarks/gpu/engines_on_gpu.py --graph recogniser --batch 1 --steps 0."""
    if not torch.cuda.is_available():
        click.echo("engines_on_gpu: got no CUDA device; expected an NVIDIA GPU that PyTorch can use", err=True)
        sys.exit(2)
    check_graph_names(names)
    out.mkdir(parents=True, exist_ok=True)
    major, minor = torch.cuda.get_device_capability()
    gpu = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
    versions = {name: backend_named(name).availability(torch.device("cuda")) for name in backends}
    text = out / "engines.txt"
    text.write_text("", encoding="utf-8")

    def tell(line: str) -> None:  # written at once: a run that is cut short leaves what it found
        click.echo(line)
        with text.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    tell(f"{gpu}, PyTorch {torch.__version__}")
    for name, found in versions.items():
        tell(f"{name} {found.version}: {found.reason}")
    tell(f"{'graph':24}{'backend':>16}{'':6}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items()))
    rows: list[EngineRow] = []
    folder = cache or out / "engines"
    for row in engine_rows(names or GRAPH_NAMES, backends, precisions, batches, folder, repeats):
        rows.append(row)
        tell(str(row))
    for name in backends:
        if name.startswith("tensorrt"):
            tell(f"{name}, {refit_line(name, folder)}")
    if steps:
        tell(profile_text(loop_backends or (*backends, "eager")[:2], steps, batches, out))
    summary = {
        "benchmark": "engines_on_gpu",
        "gpu": gpu,
        "torch": torch.__version__,
        "backends": {name: asdict(found) for name, found in versions.items()},
        "rows": [asdict(row) for row in rows],
    }
    (out / "engines.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    click.echo(json.dumps(summary))
    beyond = [row for row in rows if row.error or row.relative > row.tolerance]
    sys.exit(1 if beyond else 0)


if __name__ == "__main__":
    main()
