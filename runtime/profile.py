"""Measures the pipeline on one photo: warm-up, runs under a recorder, two backends in turn.

Knows nothing of how figures are shown. Runs are paired: with two backends A B A B ..., so that a machine that slows
down slows both.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .avatar_result import AvatarOptions
from .environment import environment
from .face_crop import crop_face
from .loading import load_pipeline
from .photo import Photo, load_photo
from .pipeline import FitDiffPipeline
from .profile_statistics import Row, Run, StageRow, stage_rows, warnings_of, work_rows
from .trace import recording, span
from .traced_runner import traced_modules

if TYPE_CHECKING:
    from ..engines.options import Precision


@dataclass(frozen=True)
class ProfileSettings:
    """What is measured: avatars of one photo, `batches` at a time, each size `warmup` + `runs` times.

    The avatars of a batch have the seeds from that of the options on.
    """

    options: AvatarOptions
    batches: tuple[int, ...] = (1,)
    warmup: int = 1
    runs: int = 3


@dataclass(frozen=True)
class Job:
    """Something to measure: `work(batch)` makes so many avatars on `device`."""

    backend: str
    device: torch.device
    work: Callable[[int], None]
    load_seconds: float = 0.0


@dataclass(frozen=True)
class BatchProfile:
    """One batch size on one backend."""

    batch: int
    runs: tuple[Run, ...]
    stages: tuple[StageRow, ...]
    work: tuple[Row, ...]
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of a run, the median."""
        return float(np.median([run.seconds for run in self.runs]))

    @property
    def avatars_per_second(self) -> float:
        return self.batch / self.seconds

    @property
    def overhead(self) -> float:
        """Share of the runs that lies in stages with engines, but outside those."""
        total = sum(run.seconds for run in self.runs) / len(self.runs)
        return sum(s.seconds - s.engine_seconds for s in self.stages if s.engine_calls) / total


@dataclass(frozen=True)
class Profile:
    """All batch sizes on one backend."""

    backend: str
    device: str
    load_seconds: float
    batches: tuple[BatchProfile, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs of two backends in turn. A ratio says how many times longer `other` took than `backend`, pair by pair."""

    backend: str
    other: str
    batch: int
    pairs: tuple[tuple[float, float], ...]  # seconds of `backend`, of `other`

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(second / first for first, second in self.pairs)

    @property
    def median(self) -> float:
        return float(np.median(self.ratios))


@dataclass(frozen=True)
class Measurement:
    """Everything that one `fitdiff profile` found; `environment` says on what."""

    settings: ProfileSettings
    profiles: tuple[Profile, ...]
    comparisons: tuple[Comparison, ...]
    environment: dict[str, str]


def profile_photo(
    photo: Path, settings: ProfileSettings, backends: Sequence[str], *, threads: int | None = None,
    face: int | None = None, say: Callable[[str], None] = lambda _: None, device: torch.device | str = "cpu",
    precision: Precision = "fp32",
) -> Measurement:  # fmt: skip
    """Load each backend's pipeline and measure it on the photo; with two backends, in turn.

    `say` hears what happens next; device and precision are as in `loading.load_pipeline`. Nothing is written.

    Raises:
        UsageError, MissingError: no such backend, or not here.
        ImageError, NoFaceError: as `fitdiff avatar`.
    """
    loaded = load_photo(photo)
    jobs = []
    for backend in backends:
        say(f"loading {backend}")
        job = job_of_backend(backend, loaded, settings.options, threads, face, device, precision, max(settings.batches))
        jobs.append(job)
    return measure(jobs, settings, say)


def measure(jobs: Sequence[Job], settings: ProfileSettings, say: Callable[[str], None] = lambda _: None) -> Measurement:
    """Every batch size of the settings on every job; the runs of the jobs take turns."""
    by_batch = [_measure_batch(jobs, batch, settings, say) for batch in settings.batches]
    profiles = tuple(
        Profile(job.backend, str(job.device), job.load_seconds, tuple(found[index] for found in by_batch))
        for index, job in enumerate(jobs)
    )
    comparisons = tuple(
        Comparison(
            jobs[0].backend,
            jobs[1].backend,
            first.batch,
            tuple((a.seconds, b.seconds) for a, b in zip(first.runs, second.runs, strict=True)),
        )
        for first, second in (found[:2] for found in by_batch if len(found) > 1)
    )
    return Measurement(settings, profiles, comparisons, environment())


def job_of_backend(
    backend: str, photo: Photo, options: AvatarOptions, threads: int | None, face: int | None,
    device: torch.device | str = "cpu", precision: Precision = "fp32", max_batch: int = 1,
) -> Job:  # fmt: skip
    """The way from the photo to the avatars on a freshly loaded pipeline, whose engines take up to `max_batch`."""
    begun = time.perf_counter()
    pipeline = load_pipeline(threads=threads, backend=backend, device=device, precision=precision, max_batch=max_batch)
    load_seconds = time.perf_counter() - begun

    def work(batch: int) -> None:
        with traced_modules(_networks(pipeline)):
            with span("crop"):
                crops = [crop_face(photo, pipeline.detector, pipeline.models.face_mesh, face) for _ in range(batch)]
            pipeline.avatars(crops, [replace(options, seed=options.seed + index) for index in range(batch)])

    return Job(pipeline.backend, pipeline.device, work, load_seconds)


def _measure_batch(
    jobs: Sequence[Job], batch: int, settings: ProfileSettings, say: Callable[[str], None]
) -> list[BatchProfile]:
    for index in range(settings.warmup):
        for job in jobs:
            say(f"batch {batch}: warm-up {index + 1} of {settings.warmup}, {job.backend}")
            job.work(batch)
    runs: list[list[Run]] = [[] for _ in jobs]
    for index in range(settings.runs):
        for job, found in zip(jobs, runs, strict=True):
            say(f"batch {batch}: run {index + 1} of {settings.runs}, {job.backend}")
            gc.collect()  # what the run before left is not this one's to clear away
            with recording(job.device) as recorder:
                job.work(batch)
            found.append(Run(tuple(recorder.spans), recorder.begin, recorder.end))
    profiles = []
    for found in runs:
        stages, work = stage_rows(found), work_rows(found)
        profiles.append(BatchProfile(batch, tuple(found), stages, work, warnings_of(stages, work, found)))
    return profiles


def _networks(pipeline: FitDiffPipeline) -> dict[str, nn.Module]:
    """The networks that PyTorch runs, by their graphs' names. Engines and decoders tell the recorder themselves."""
    networks: dict[str, nn.Module] = {"occlusion": pipeline.models.occlusion}
    if pipeline.engines is None:
        networks |= {
            "recogniser": pipeline.models.recogniser,
            "landmarks": pipeline.models.face_mesh,
            "perceptual": pipeline.models.perceptual,
            "conditioner": pipeline.denoiser.conditioner,
            "denoiser": pipeline.denoiser.denoiser,
        }
    return networks
