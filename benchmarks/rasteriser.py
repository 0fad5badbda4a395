"""Time of the compiled rasteriser and its PyTorch twin: 20,000 triangles at 224 x 224.

    python benchmarks/rasteriser.py

A table for people, then one line of JSON.
"""

import json
import math
import platform
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from torch import Tensor

from fitdiff.rendering.rasteriser import NativeRasteriser, TorchRasteriser

PERCENTILES = (10, 50, 90, 99)


def face_like_pixels(triangle_count: int, size: int) -> tuple[Tensor, Tensor]:
    """A bulging sheet over most of the image: (1, V, 3) px and depth, and about `triangle_count` (F, 3)."""
    side = round(math.sqrt(triangle_count / 2)) + 1
    span = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(span, span, indexing="ij")
    depth = 0.6 - 0.1 * torch.exp(-3 * (x**2 + y**2)) - 0.03 * torch.exp(-40 * (x**2 + y**2))
    scale = 0.225 * size / depth
    vertices = torch.stack([x * scale + size / 2, y * scale + size / 2, depth], -1).reshape(1, -1, 3)
    number = torch.arange(side * side).reshape(side, side)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    halves = [torch.stack([a, c, b], -1).reshape(-1, 3), torch.stack([b, c, d], -1).reshape(-1, 3)]
    return vertices.contiguous(), torch.cat(halves).int()


def milliseconds(call: Callable[[], Tensor], warm_up: int, repeats: int) -> dict[str, float]:
    """Percentiles of the wall time of one call."""
    times: list[float] = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return {f"p{level}": round(float(np.percentile(times[warm_up:], level)), 3) for level in PERCENTILES}


@click.command()
@click.option("--triangles", default=20_000, show_default=True, type=click.IntRange(2))
@click.option("--size", default=224, show_default=True, type=click.IntRange(1), help="Side of the image, px.")
@click.option("--repeats", default=200, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=torch.get_num_threads(), show_default=True, type=click.IntRange(1))
def main(triangles: int, size: int, repeats: int, threads: int) -> None:
    """Time the rasterisers, for example: python benchmarks/rasteriser.py --size 512."""
    vertices, faces = face_like_pixels(triangles, size)
    torch.set_num_threads(threads)
    native, twin = NativeRasteriser(threads), TorchRasteriser()
    one = NativeRasteriser(1)
    calls: dict[str, tuple[Callable[[], Tensor], int]] = {
        "native, 1 thread": (lambda: one(vertices, faces, size, size), repeats),
        f"native, {threads} threads": (lambda: native(vertices, faces, size, size), repeats),
        "PyTorch twin": (lambda: twin(vertices, faces, size, size), max(3, repeats // 20)),
    }
    index = native(vertices, faces, size, size)
    differing = int((index != twin(vertices, faces, size, size)).sum())
    results = {name: milliseconds(call, 3, count) for name, (call, count) in calls.items()}

    coverage = float((index >= 0).float().mean())
    click.echo(f"{len(faces)} triangles, {size} x {size}, {coverage:.0%} covered, ms a call")
    click.echo(f"{'':20}" + "".join(f"{f'p{level}':>10}" for level in PERCENTILES))
    for name, row in results.items():
        click.echo(f"{name:20}" + "".join(f"{value:10.3f}" for value in row.values()))
    click.echo(f"pixels where native and twin differ: {differing}")
    summary = {
        "benchmark": "rasteriser",
        "triangles": len(faces),
        "size": size,
        "coverage": round(coverage, 4),
        "differing_pixels": differing,
        "milliseconds": results,
        "machine": {"processor": platform.machine(), "torch": torch.__version__, "threads": threads},
    }
    click.echo(json.dumps(summary))


if __name__ == "__main__":
    main()
