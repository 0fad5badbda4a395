"""How much faster is an avatar than the same loop in plain PyTorch? Both in turn, on one machine, in one run.

    python benchmarks/guided_loop.py [--photo examples/astronaut.jpg] [--backend eager] [--steps 50] [--preset full]

Plain: float32, a gradient at every step but the first tenth, the textures decoded whole at 512 and composed at 1024 for
every gradient, recogniser and conditioner run again at every step. The losses, the number of steps and the detail stage
are the same.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from fitdiff.models.denoiser import Denoiser, FitDiffDenoiser
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_chip import warp_chip
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.guidance import GUIDANCE_PRESETS, GuidanceConfig
from fitdiff.runtime.guidance_models import GuidanceModels
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.peak_memory import host_peak
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline

PLAIN = "plain"
ROOT = Path(__file__).resolve().parents[1]


class WholeMaps(GuidanceModels):
    """Decodes the whole chart at full size every time."""

    def face_maps(self, texture: Tensor, around: Tensor | None = None) -> Tensor:
        return self.autoencoder.decode(texture)


class Forgetful(nn.Module):
    """The denoiser with its condition computed again at every step."""

    def __init__(self, model: FitDiffDenoiser, models: GuidanceModels, chip: Tensor) -> None:
        super().__init__()
        self.inner, self.model, self.models, self.chip = model.denoiser, model, models, chip
        self.linear, self.start = self.inner.linear, self.inner.start

    def forward(self, z_t: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        present = torch.ones(1)
        return self.inner(z_t, t, self.model.conditioner(self.models.recogniser(self.chip), present))


def plain_pipeline(pipeline: FitDiffPipeline, crop: FaceCrop) -> FitDiffPipeline:
    """The same models without anything that makes them fast, for one photo."""
    fields = {name: getattr(pipeline.models, name) for name in GuidanceModels.__dataclass_fields__}
    autoencoder = copy.deepcopy(pipeline.models.autoencoder).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    models = WholeMaps(**fields | {"autoencoder": autoencoder, "atlas": load_head_atlas()[0], "bfloat16": False})
    target = photo_target(crop, models)
    chip = warp_chip(target.image, target.chip_from_crop, models.recogniser.chip_size)
    denoiser = copy.copy(pipeline.denoiser)
    forgetful: dict[str, nn.Module] = {"denoiser": Forgetful(pipeline.denoiser, models, chip)}
    denoiser.__dict__["_modules"] = {**pipeline.denoiser._modules, **forgetful}
    assert isinstance(pipeline.denoiser.denoiser, Denoiser)
    return replace(pipeline, denoiser=denoiser, models=models)


@click.command()
@click.option("--photo", type=click.Path(exists=True, path_type=Path), default=ROOT / "examples" / "astronaut.jpg")
@click.option("--backend", default="auto", show_default=True)
@click.option("--steps", default=50, show_default=True, type=click.IntRange(2))
@click.option("--preset", default="full", show_default=True, help="Guidance of the fast one, as in `fitdiff avatar`.")
@click.option("--runs", default=2, show_default=True, type=click.IntRange(1), help="Pairs; a short one goes before.")
@click.option("--threads", type=click.IntRange(1))
def main(photo: Path, backend: str, steps: int, preset: str, runs: int, threads: int | None) -> None:
    """Print seconds of both, the ratio of every pair, and JSON on the last line."""
    slow = load_pipeline(threads=threads)
    crop = crop_face(load_photo(photo), slow.detector, slow.models.face_mesh)
    slow = plain_pipeline(slow, crop)
    fast = load_pipeline(threads=threads, backend=backend)
    print(f"fast: {fast.backend} {fast.backend_reason}; {torch.get_num_threads()} threads, {steps} steps")
    for pipeline in (slow, fast):
        pipeline.avatar(crop, AvatarOptions(steps=2))
    GUIDANCE_PRESETS[PLAIN] = replace(GuidanceConfig(), interval=1, start=0.1)
    rows = []
    for run in range(runs):
        row: dict[str, float] = {}
        for name, pipeline in (("plain", slow), ("fast", fast)):
            peak = host_peak()
            peak.start()
            begun, busy = time.perf_counter(), time.process_time()
            result = pipeline.avatar(crop, AvatarOptions(steps, PLAIN if pipeline is slow else preset))
            row[f"{name}_seconds"] = time.perf_counter() - begun
            row[f"{name}_cpu_seconds"] = time.process_time() - busy
            row[f"{name}_peak_mib"] = peak.stop()
            row[f"{name}_guiding"] = result.report.similarity["guiding"]
        row["ratio"] = row["plain_seconds"] / row["fast_seconds"]
        row["cpu_ratio"] = row["plain_cpu_seconds"] / row["fast_cpu_seconds"]
        rows.append(row)
        print(f"pair {run + 1}: " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    print(json.dumps({"backend": fast.backend, "steps": steps, "threads": torch.get_num_threads(), "pairs": rows}))


if __name__ == "__main__":
    main()
