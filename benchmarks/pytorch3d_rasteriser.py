"""PyTorch3D's rasteriser against the native one: differing pixels and time, on the embedded head.

    python benchmarks/pytorch3d_rasteriser.py --device cuda --size 512

Needs PyTorch3D. A table for people, then one line of JSON.
"""

import json
import time

import click
import numpy as np
import torch
from torch import Tensor

from fitdiff.models.morphable import load_morphable
from fitdiff.rendering.camera import camera_from_pose, camera_from_world, pixels_from_camera
from fitdiff.rendering.pytorch3d_rasteriser import PyTorch3DRasteriser
from fitdiff.rendering.rasteriser import Rasteriser, default_rasteriser

PERCENTILES = (10, 50, 90)


def heads_in_pixels(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`count` random heads before a camera: (B, V, 3) px and depth, (F, 3)."""
    model = load_morphable()[0].to(device)
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(count, model.config.identity_components, generator=generator).to(device)
    turn = torch.tensor([np.pi, 0.0, 0.0]).repeat(count, 1) + 0.2 * torch.randn(count, 3, generator=generator)
    place = torch.tensor([0.0, 0.0, 0.6]).repeat(count, 1)
    camera = camera_from_pose(turn.to(device), place.to(device), 2.5 * size, size)
    return pixels_from_camera(camera, camera_from_world(camera, model(identity))), model.triangles


def milliseconds(
    rasteriser: Rasteriser, vertices: Tensor, triangles: Tensor, size: int, repeats: int
) -> dict[str, float]:
    """Percentiles of the wall time of one call, after three that are not counted."""
    times: list[float] = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        rasteriser(vertices, triangles, size, size, cull=True)
        if vertices.is_cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return {f"p{level}": round(float(np.percentile(times[3:], level)), 3) for level in PERCENTILES}


@click.command()
@click.option("--size", default=224, show_default=True, type=click.IntRange(1), help="Side of the image, px.")
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1), help="Heads in a call.")
@click.option("--repeats", default=20, show_default=True, type=click.IntRange(1))
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
def main(size: int, batch: int, repeats: int, device: str) -> None:
    """Compare the rasterisers, for example: python benchmarks/pytorch3d_rasteriser.py --device cuda."""
    native, theirs = default_rasteriser(), PyTorch3DRasteriser()
    vertices, triangles = heads_in_pixels(batch, size, torch.device(device))
    a, b = (r(vertices, triangles, size, size, cull=True) for r in (native, theirs))
    differing = float((a != b).float().mean())
    rows = {
        name: milliseconds(rasteriser, vertices, triangles, size, repeats)
        for name, rasteriser in (("native", native), ("pytorch3d", theirs))
    }
    click.echo(f"{batch} heads of {len(triangles)} triangles, {size} x {size}, on {device}; ms a call")
    for name, row in rows.items():
        click.echo(f"{name:12}" + "".join(f"{key:>6} {value:9.2f}" for key, value in row.items()))
    click.echo(f"pixels that differ: {differing:.4%} (edges, where two triangles tie)")
    summary = {"benchmark": "pytorch3d_rasteriser", "size": size, "batch": batch, "device": device}
    click.echo(json.dumps(summary | {"differing": differing, "milliseconds": rows, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
