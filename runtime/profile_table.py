"""A measurement as text for people and as JSON for programs. Knows nothing of how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table

from .peak_memory import host_peak_method
from .profile import BatchProfile, Comparison, Measurement, Profile
from .profile_statistics import Row, StageRow

STAGE_COLUMNS = (
    "stage", "calls", "p50 ms", "p90 ms", "p99 ms", "total s", "share", "outside engines", "in no span", "copies",
    "copied MiB", "host MiB", "device MiB",
)  # fmt: skip
WORK_COLUMNS = ("engine or work", "kind", "calls", "p50 ms", "p90 ms", "p99 ms", "total s", "own s", "share")


def header_lines(measurement: Measurement) -> list[str]:
    """What was measured, and how."""
    settings = measurement.settings
    options = settings.options
    backends = ", ".join(
        f"{profile.backend} on {profile.device} (loaded in {profile.load_seconds:.1f} s)"
        for profile in measurement.profiles
    )
    batches = ", ".join(map(str, settings.batches))
    return [
        backends,
        f"{options.steps} steps, guidance {options.guidance}, seed {options.seed}; "
        f"{_counted(settings.warmup, 'warm-up run')} and {_counted(settings.runs, 'run')} of each batch",
        f"batch {batches}: so many avatars go through one loop together; a batch never changes a result",
    ]


def tables(profile: Profile, batch: BatchProfile) -> tuple[Table, Table]:
    """The stages, and the engines and named pieces of work in them."""
    title = f"{profile.backend}, batch {batch.batch}: {batch.seconds:.3f} s a run, "
    title += f"{batch.avatars_per_second:.3f} avatars/s, {batch.overhead:.1%} outside the engines"
    stages = Table(*STAGE_COLUMNS, title=title, title_justify="left")
    for row in batch.stages:
        stages.add_row(*stage_cells(row))
    work = Table(*WORK_COLUMNS)
    for row in batch.work:
        work.add_row(*work_cells(row))
    for table in (stages, work):
        for column in table.columns:
            column.no_wrap = True
            if column.header not in ("stage", "engine or work", "kind"):
                column.justify = "right"
    return stages, work


def stage_cells(row: StageRow) -> tuple[str, ...]:
    """The cells below STAGE_COLUMNS."""
    engines = f"{row.overhead:.1%}" if row.engine_calls else "-"
    unnamed = f"{row.unnamed_seconds / row.seconds:.1%}" if row.seconds else "-"
    return (
        *_times(row.name, row), f"{row.seconds:.3f}", f"{row.share:.1%}", engines, unnamed, f"{row.copies:g}",
        f"{row.copied_mib:.1f}", _mib(row.host_peak_mib), _mib(row.device_peak_mib),
    )  # fmt: skip


def work_cells(row: Row) -> tuple[str, ...]:
    """The cells below WORK_COLUMNS."""
    name, *times = _times(row.name, row)
    return (name, row.kind, *times, f"{row.seconds:.3f}", f"{row.own_seconds:.3f}", f"{row.share:.1%}")


def comparison_lines(comparison: Comparison) -> list[str]:
    """Each pair of runs, then the median ratio."""
    one, other = comparison.backend, comparison.other
    lines = [
        f"batch {comparison.batch}, pair {index}: {one} {a:.3f} s, {other} {b:.3f} s, ratio {ratio:.3f}"
        for index, ((a, b), ratio) in enumerate(zip(comparison.pairs, comparison.ratios, strict=True), 1)
    ]
    return [*lines, f"batch {comparison.batch}: {one} is {comparison.median:.3f} times as fast as {other} (median)"]


def warning_lines(measurement: Measurement) -> list[str]:
    """Every warning, with where it belongs."""
    return [
        f"{profile.backend}, batch {batch.batch}: {warning}"
        for profile, batch in batches_of(measurement)
        for warning in batch.warnings
    ]


def json_from_measurement(measurement: Measurement) -> str:
    """One line; seconds, milliseconds and MiB as the names say. Spans are left to the trace file."""
    settings = measurement.settings
    value = {
        "format": "fitdiff-profile-1",
        "options": asdict(settings.options),
        "warmup": settings.warmup,
        "runs": settings.runs,
        "batching": "together",
        "host_memory": host_peak_method(),
        "environment": measurement.environment,
        "backends": [
            {
                "backend": profile.backend,
                "device": profile.device,
                "load_seconds": profile.load_seconds,
                "batches": [_batch_json(batch) for batch in profile.batches],
            }
            for profile in measurement.profiles
        ],
        "comparisons": [
            {**asdict(comparison), "ratios": comparison.ratios, "median_ratio": comparison.median}
            for comparison in measurement.comparisons
        ],
    }
    return json.dumps(value)


def batches_of(measurement: Measurement) -> Iterator[tuple[Profile, BatchProfile]]:
    """Every batch size of every backend."""
    for profile in measurement.profiles:
        for batch in profile.batches:
            yield profile, batch


def _batch_json(batch: BatchProfile) -> dict[str, Any]:
    return {
        "batch": batch.batch,
        "seconds": batch.seconds,
        "run_seconds": [run.seconds for run in batch.runs],
        "avatars_per_second": batch.avatars_per_second,
        "overhead": batch.overhead,
        "stages": [{**asdict(row), "overhead": row.overhead if row.engine_calls else None} for row in batch.stages],
        "work": [asdict(row) for row in batch.work],
        "warnings": batch.warnings,
    }


def _times(name: str, row: Row) -> tuple[str, ...]:
    return (name, f"{row.calls:g}", *(f"{value:.2f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms)))


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
