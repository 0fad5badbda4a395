"""What a run records: options, models, time and memory per stage, every guidance term at every step.

Never the photo or its path, only the SHA-256 of its bytes. Knows nothing of how the run was made.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..models.checkpoint import ModelCard


@dataclass(frozen=True)
class StageCost:
    """Wall seconds of one stage, and the peak resident memory of the process when it ended, MiB."""

    name: str
    seconds: float
    peak_mib: float


class StageClock:
    """Collects the stages of a run: `with clock.stage("decode"): ...`; one name may come several times."""

    def __init__(self) -> None:
        self.stages: list[StageCost] = []
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.stages.append(StageCost(name, time.perf_counter() - begun, peak_memory_mib()))

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start


@dataclass(frozen=True)
class RunReport:
    """Everything about a run that `report.json` holds."""

    options: dict[str, Any]
    seed: int
    photo_sha256: str | None
    face_index: int | None
    face_count: int | None
    models: tuple[ModelCard, ...]
    similarity: dict[str, float]  # {"guiding": cosine of the guiding recogniser between rendering and photo}
    landmark_error: float | None  # mean distance of the surface's landmarks to the photo's, share of the eye distance
    pose: dict[str, Any] | None
    light: dict[str, list[float]]
    stages: tuple[StageCost, ...]
    seconds: float
    guidance: list[dict[str, float]]
    notes: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=lambda: installed_versions())

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`."""
        return {"format": "fitdiff-report-1", **asdict(self)}


def peak_memory_mib() -> float:
    """Largest resident set of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def installed_versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"python": platform.python_version()}
    for package in ("fitdiff", "torch", "numpy", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
