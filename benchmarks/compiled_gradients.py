"""Guidance with compiled gradients against pure autograd, in float32, over whole runs of one photo, in turn.

    python benchmarks/compiled_gradients.py [--photo examples/astronaut.jpg] [--backend onnxruntime] [--steps 50]

A guided loop is chaotic: what differs by rounding at the first step differs by much more at the last. So more runs of
autograd, their noise changed by a millionth, say how much of a difference means nothing. What the compiled gradients
themselves are off by is measured apart, at the estimates of z_0 that the first run went through.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from fitdiff.models.latent import LatentLayout
from fitdiff.runtime.compiled import compiled_pipeline
from fitdiff.runtime.ddim import predict_z0
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.guidance import GUIDANCE_PRESETS, GuidanceConfig, PhotoGuidance
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import AvatarOptions, FitDiffPipeline

ROOT = Path(__file__).resolve().parents[1]
PERTURBATION = 1e-6  # of noise and estimates, whose spread is 1
EVERY = 8  # steps from one estimate at which gradients are compared to the next


class WatchedDenoiser(nn.Module):
    """The denoiser, telling which estimates of z_0 it makes; a seed above 0 changes the noise that it starts from."""

    def __init__(self, pipeline: FitDiffPipeline, seed: int) -> None:
        super().__init__()
        self.inner, self.linear, self.seed = pipeline.denoiser.denoiser, pipeline.denoiser.denoiser.linear, seed
        self.alphas_cumprod = pipeline.denoiser.config.schedule.alphas_cumprod()
        self.estimates: list[Tensor] = []

    def start(self, noise: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        self.estimates.clear()
        return self.inner.start(perturbed(noise, self.seed), t, conditioning)

    def forward(self, z_t: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        noise = self.inner(z_t, t, conditioning)
        self.estimates.append(predict_z0(z_t, noise, self.alphas_cumprod[t[0]].to(z_t)))
        return noise


@dataclass(frozen=True, eq=False)
class WatchedPipeline(FitDiffPipeline):
    """A pipeline that keeps the z_0 it ends with."""

    finals: list[Tensor] = field(default_factory=list)

    def _finished(self, z: Tensor, *rest: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.finals.append(z)
        return super()._finished(z, *rest)


@dataclass(frozen=True)
class Run:
    """A whole run: what it ended with, what it cost."""

    z: Tensor
    similarity: float
    landmark_error: float
    seconds: float
    cpu_seconds: float
    estimates: tuple[Tensor, ...]


def watched(pipeline: FitDiffPipeline, seed: int = 0) -> WatchedPipeline:
    denoiser = copy.copy(pipeline.denoiser)
    inner: dict[str, nn.Module] = {"denoiser": WatchedDenoiser(pipeline, seed)}
    denoiser.__dict__["_modules"] = {**pipeline.denoiser._modules, **inner}
    own: dict[str, Any] = {each.name: getattr(pipeline, each.name) for each in fields(FitDiffPipeline)}
    own["denoiser"] = denoiser
    return WatchedPipeline(**own)


def perturbed(tensor: Tensor, seed: int) -> Tensor:
    """Changed by a millionth; seed 0 leaves it as it is."""
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)).to(tensor)
    return tensor + PERTURBATION * noise if seed else tensor


def run(pipeline: WatchedPipeline, crop: FaceCrop, options: AvatarOptions) -> Run:
    begun, busy = time.perf_counter(), time.process_time()
    report = pipeline.avatar(crop, options).report
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - busy
    assert report.landmark_error is not None and isinstance(pipeline.denoiser.denoiser, WatchedDenoiser)
    estimates = tuple(pipeline.denoiser.denoiser.estimates[::EVERY])
    similarity = report.similarity["guiding"]
    return Run(pipeline.finals[-1], similarity, report.landmark_error, seconds, cpu_seconds, estimates)


def differences(layout: LatentLayout, z: Tensor, other: Tensor) -> dict[str, float]:
    """Of each part of z: root mean square of the difference over the part's own."""
    parts, others = vars(layout.split(z)), vars(layout.split(other))
    return {name: float((part - others[name]).norm() / part.norm()) for name, part in parts.items()}


def gradient_at(pipeline: FitDiffPipeline, crop: FaceCrop, config: GuidanceConfig, z: Tensor) -> Tensor:
    """Of the guidance's objective, by a guidance that has seen nothing before."""
    target = photo_target(crop, pipeline.models)
    return PhotoGuidance(pipeline.models, pipeline.denoiser.statistics, target, config).gradient(z)[0]


def gradient_rows(
    autograd: FitDiffPipeline,
    compiled: FitDiffPipeline,
    crop: FaceCrop,
    config: GuidanceConfig,
    z_0s: tuple[Tensor, ...],
) -> dict[str, dict[str, list[float]]]:
    """Part of z -> the difference at each estimate of the compiled gradient, and of autograd's a millionth away."""
    found: dict[str, dict[str, list[float]]] = {}
    for z in z_0s:
        wanted = gradient_at(autograd, crop, config, z)
        others = {
            "compiled": gradient_at(compiled, crop, config, z),
            "perturbed": gradient_at(autograd, crop, config, perturbed(z, 1)),
        }
        for name, gradient in others.items():
            for part, value in differences(autograd.layout, wanted, gradient).items():
                found.setdefault(part, {}).setdefault(name, []).append(value)
    return found


@click.command()
@click.option("--photo", type=click.Path(exists=True, path_type=Path), default=ROOT / "examples" / "astronaut.jpg")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--steps", default=50, show_default=True, type=click.IntRange(2))
@click.option(
    "--preset", default="full", show_default=True, type=click.Choice([n for n, c in GUIDANCE_PRESETS.items() if c])
)
@click.option("--perturbed", "shifts", default=3, show_default=True, type=click.IntRange(1), help="Runs of that kind.")
def main(photo: Path, backend: str, steps: int, preset: str, shifts: int) -> None:
    """Print both tables, and JSON on the last line."""
    plain = load_pipeline()
    plain = replace(plain, models=replace(plain.models, bfloat16=False))
    crop = crop_face(load_photo(photo), plain.detector, plain.models.face_mesh)
    compiled = compiled_pipeline(plain, backend)
    ways = {"autograd": watched(plain), "compiled": watched(compiled)}
    ways |= {f"perturbed {seed}": watched(plain, seed) for seed in range(1, shifts + 1)}
    options = AvatarOptions(steps=steps, guidance=preset)
    for name in ("autograd", "compiled"):
        ways[name].avatar(crop, replace(options, steps=2))
    runs = {name: run(way, crop, options) for name, way in ways.items()}
    config = GUIDANCE_PRESETS[preset]
    assert config is not None
    gradients = gradient_rows(plain, compiled, crop, config, runs["autograd"].estimates)

    print(f"{compiled.backend_reason}; {torch.get_num_threads()} threads, {steps} steps, {preset}, float32")
    print(f"{'':28}" + "".join(f"{name:>13}" for name in runs))
    figures = {
        name: {way: float(getattr(made, name)) for way, made in runs.items()}
        for name in ("seconds", "cpu_seconds", "similarity", "landmark_error")
    }
    apart = {way: differences(plain.layout, runs["autograd"].z, made.z) for way, made in runs.items()}
    figures |= {f"final z, {part}": {way: apart[way][part] for way in apart} for part in apart["autograd"]}
    for name, values in figures.items():
        print(f"{name:28}" + "".join(f"{value:13.4g}" for value in values.values()))
    ratios = {name: figures[name]["autograd"] / figures[name]["compiled"] for name in ("seconds", "cpu_seconds")}
    print("autograd over compiled: " + ", ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    print(f"gradients at {len(runs['autograd'].estimates)} estimates of z_0, difference to autograd: median, largest")
    for part, rows in gradients.items():
        told = "".join(f"   {name} {np.median(values):.1e} {max(values):.1e}" for name, values in rows.items())
        print(f"{part:20}{told}")
    setting = {"backend": compiled.backend, "steps": steps, "preset": preset, "threads": torch.get_num_threads()}
    print(json.dumps(setting | figures | {"ratios": ratios, "gradients": gradients}))


if __name__ == "__main__":
    main()
