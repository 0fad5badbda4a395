"""Guidance with compiled gradients against pure autograd, in float32, over whole runs of one photo, in turn.

    python benchmarks/compiled_gradients.py [--photo examples/astronaut.jpg] [--backend onnxruntime] [--steps 50]

Two comparisons. Step by step: at each step of autograd's run the compiled denoiser and the compiled guidance, with its
own momentum, poses and scales, answer for the same z_t and the same estimate, and what they answer is compared. And by
the end: a guided loop is chaotic, what differs by rounding at the first step differs by much more at the last; so the
compiled run should end among more runs of autograd whose noise was changed by a millionth, no farther from them than
they are from each other.
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
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.compiled import compiled_pipeline
from fitdiff.runtime.ddim import GuidanceStep
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.guidance import GUIDANCE_PRESETS, GuidanceConfig, PhotoGuidance
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import PhotoTarget
from fitdiff.runtime.pipeline import FitDiffPipeline

ROOT = Path(__file__).resolve().parents[1]
PERTURBATION = 1e-6  # of noise and estimates, whose spread is 1


class WatchedDenoiser(nn.Module):
    """The denoiser of one pipeline; `shadow` answers for the same z_t, and how far off it is goes into `rows`."""

    def __init__(self, pipeline: FitDiffPipeline, seed: int, shadow: nn.Module | None) -> None:
        super().__init__()
        self.inner, self.linear, self.seed = pipeline.denoiser.denoiser, pipeline.denoiser.denoiser.linear, seed
        self.shadow, self.layout = shadow, pipeline.layout
        self.rows: list[dict[str, float]] = []

    def start(self, noise: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return self.inner.start(perturbed(noise, self.seed), t, conditioning)

    def forward(self, z_t: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        noise = self.inner(z_t, t, conditioning)
        if self.shadow is not None:
            self.rows.append(differences(self.layout, noise, self.shadow(z_t, t, conditioning)))
        return noise


class ShadowedGuidance:
    """Autograd's guidance, which is followed, and others that answer for the same estimates."""

    def __init__(self, inner: PhotoGuidance, shadows: Mapping[str, tuple[PhotoGuidance, int]]) -> None:
        self.inner, self.shadows = inner, shadows
        self.rows: dict[str, list[dict[str, float]]] = {name: [] for name in shadows}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, z_0: Tensor, step: GuidanceStep) -> Tensor:
        change = self.inner(z_0, step)
        for name, (guidance, seed) in self.shadows.items():
            other = guidance(perturbed(z_0, seed), step)
            if change.any():  # the first steps run unguided
                self.rows[name].append(differences(self.inner.layout, change, other))
        return change


@dataclass(frozen=True, eq=False)
class WatchedPipeline(FitDiffPipeline):
    """A pipeline that keeps the z_0 it ends with; `compiled`, if there is one, answers beside it at every step."""

    compiled: FitDiffPipeline | None = None
    finals: list[Tensor] = field(default_factory=list)
    guidances: list[ShadowedGuidance] = field(default_factory=list)

    def _guidance(self, target: PhotoTarget, config: GuidanceConfig) -> Any:
        own = super()._guidance(target, config)
        if self.compiled is None:
            return own
        shadows = {"compiled": (self.compiled._guidance(target, config), 0)}
        self.guidances.append(ShadowedGuidance(own, shadows | {"perturbed": (super()._guidance(target, config), 1)}))
        return self.guidances[-1]

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


def watched(pipeline: FitDiffPipeline, seed: int = 0, compiled: FitDiffPipeline | None = None) -> WatchedPipeline:
    denoiser = copy.copy(pipeline.denoiser)
    inner: dict[str, nn.Module] = {
        "denoiser": WatchedDenoiser(pipeline, seed, compiled.denoiser.denoiser if compiled else None)
    }
    denoiser.__dict__["_modules"] = {**pipeline.denoiser._modules, **inner}
    own: dict[str, Any] = {each.name: getattr(pipeline, each.name) for each in fields(FitDiffPipeline)}
    own["denoiser"] = denoiser
    return WatchedPipeline(**own, compiled=compiled)


def perturbed(tensor: Tensor, seed: int) -> Tensor:
    """Changed by a millionth; seed 0 leaves it as it is."""
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)).to(tensor)
    return tensor + PERTURBATION * noise if seed else tensor


def run(pipeline: WatchedPipeline, crop: FaceCrop, options: AvatarOptions) -> Run:
    begun, busy = time.perf_counter(), time.process_time()
    report = pipeline.avatar(crop, options).report
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - busy
    assert report.landmark_error is not None
    return Run(pipeline.finals[-1], report.similarity["guiding"], report.landmark_error, seconds, cpu_seconds)


def differences(layout: LatentLayout, z: Tensor, other: Tensor) -> dict[str, float]:
    """Of each part of z: root mean square of the difference over the part's own."""
    parts, others = vars(layout.split(z)), vars(layout.split(other))
    return {name: float((part - others[name]).norm() / part.norm()) for name, part in parts.items()}


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Part of z -> median, 90th percentile and largest of its differences."""
    return {
        part: {
            "median": float(np.median(values)),
            "p90": float(np.percentile(values, 90)),
            "largest": max(values),
        }
        for part, values in ((part, [row[part] for row in rows]) for part in rows[0])
    }


def step_by_step(pipeline: WatchedPipeline, crop: FaceCrop, options: AvatarOptions) -> dict[str, Any]:
    """What answers beside autograd's run -> part of z -> how far off it is, over all guided steps."""
    pipeline.avatar(crop, options)
    denoiser = pipeline.denoiser.denoiser
    assert isinstance(denoiser, WatchedDenoiser)
    rows = pipeline.guidances[-1].rows
    return {"denoiser, compiled": summary(denoiser.rows)} | {
        f"guidance, {name}": summary(found) for name, found in rows.items()
    }


def distances(layout: LatentLayout, runs: Mapping[str, Run]) -> dict[str, dict[str, float]]:
    """Run -> part of final z -> its mean distance to the runs of autograd other than itself."""
    cloud = [name for name in runs if name != "compiled"]
    return {
        name: {
            part: float(np.mean([row[part] for row in rows]))
            for rows in [[differences(layout, runs[other].z, made.z) for other in cloud if other != name]]
            for part in rows[0]
        }
        for name, made in runs.items()
    }


@click.command()
@click.option("--photo", type=click.Path(exists=True, path_type=Path), default=ROOT / "examples" / "astronaut.jpg")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--steps", default=50, show_default=True, type=click.IntRange(2))
@click.option(
    "--preset", default="full", show_default=True, type=click.Choice([n for n, c in GUIDANCE_PRESETS.items() if c])
)
@click.option("--perturbed", "shifts", default=7, show_default=True, type=click.IntRange(1), help="Runs of that kind.")
def main(photo: Path, backend: str, steps: int, preset: str, shifts: int) -> None:
    """Print the tables, and JSON on the last line."""
    plain = load_pipeline()
    plain = replace(plain, models=replace(plain.models, bfloat16=False))
    crop = crop_face(load_photo(photo), plain.detector, plain.models.face_mesh)
    compiled = compiled_pipeline(plain, backend)
    options = AvatarOptions(steps=steps, guidance=preset)
    print(f"{compiled.backend_reason}; {torch.get_num_threads()} threads, {steps} steps, {preset}, float32")

    steps_apart = step_by_step(watched(plain, compiled=compiled), crop, options)
    print("answers for the same z_t and z_0, difference to autograd's: median, 90th percentile, largest")
    for name, parts in steps_apart.items():
        for part, values in parts.items():
            print(f"{name:22}{part:12}" + "".join(f"{value:10.1e}" for value in values.values()))

    ways = {"autograd": watched(plain), "compiled": watched(compiled)}
    ways |= {f"perturbed {seed}": watched(plain, seed) for seed in range(1, shifts + 1)}
    ways["compiled"].avatar(crop, replace(options, steps=2))
    runs = {name: run(way, crop, options) for name, way in ways.items()}
    figures = {
        name: {way: float(getattr(made, name)) for way, made in runs.items()}
        for name in ("seconds", "cpu_seconds", "similarity", "landmark_error")
    }
    apart = distances(plain.layout, runs)
    figures |= {f"final z, {part}": {way: apart[way][part] for way in apart} for part in apart["autograd"]}
    print("whole runs; final z: mean distance to the other runs of autograd")
    print(f"{'':22}" + "".join(f"{name:>13}" for name in runs))
    for name, values in figures.items():
        print(f"{name:22}" + "".join(f"{value:13.4g}" for value in values.values()))
    ratios = {name: figures[name]["autograd"] / figures[name]["compiled"] for name in ("seconds", "cpu_seconds")}
    print("autograd over compiled: " + ", ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    setting = {"backend": compiled.backend, "steps": steps, "preset": preset, "threads": torch.get_num_threads()}
    print(json.dumps(setting | figures | {"ratios": ratios, "step by step": steps_apart}))


if __name__ == "__main__":
    main()
