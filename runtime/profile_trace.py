"""A measurement as a Chrome trace: the JSON object format that Perfetto and chrome://tracing open.

Each backend is a process; its threads are the threads of the host, and one more for what the GPU did. Knows nothing of
how the spans were made.
"""

from __future__ import annotations

from typing import Any

from .profile import Measurement
from .profile_statistics import Run

RUNS_THREAD, DEVICE_THREAD = 0, 1000
FIRST_THREAD = 1


def chrome_trace(measurement: Measurement) -> dict[str, Any]:
    """For `json.dump`: complete events ("X") in microseconds from the first run's begin, in order of time."""
    runs = [run for profile in measurement.profiles for batch in profile.batches for run in batch.runs]
    origin = min(run.begin for run in runs)
    names: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for process, profile in enumerate(measurement.profiles, 1):
        names.append(_named("process_name", process, RUNS_THREAD, f"fitdiff {profile.backend} on {profile.device}"))
        threads = {RUNS_THREAD: "runs"}
        for batch in profile.batches:
            for index, run in enumerate(batch.runs, 1):
                name = f"batch {batch.batch}, run {index}"
                events.append(_event(name, "run", process, RUNS_THREAD, run.begin - origin, run.end - origin))
                events += _span_events(run, process, origin, threads)
        names += [_named("thread_name", process, thread, name) for thread, name in sorted(threads.items())]
    events.sort(key=lambda event: (event["ts"], -event["dur"]))
    return {
        "traceEvents": [*names, *events],
        "displayTimeUnit": "ms",
        "otherData": measurement.environment,
    }


def _span_events(run: Run, process: int, origin: int, threads: dict[int, str]) -> list[dict[str, Any]]:
    events = []
    for span in run.spans:
        thread = FIRST_THREAD + span.thread
        threads.setdefault(thread, "host" if span.thread == 0 else f"host, thread {span.thread + 1}")
        event = _event(span.name, span.kind, process, thread, span.begin - origin, span.end - origin)
        if span.moved:
            event["args"] = {"bytes": span.moved}
        if span.host_peak_mib is not None:
            event["args"] = {"host_peak_mib": span.host_peak_mib, "device_peak_mib": span.device_peak_mib}
        events.append(event)
        if span.device_begin is not None and span.device_end is not None:
            threads.setdefault(DEVICE_THREAD, "GPU")
            begin, end = span.device_begin - origin, span.device_end - origin
            events.append(_event(span.name, span.kind, process, DEVICE_THREAD, begin, end))
    return events


def _event(name: str, category: str, process: int, thread: int, begin: int, end: int) -> dict[str, Any]:
    return {
        "name": name, "cat": category, "ph": "X", "pid": process, "tid": thread, "ts": begin / 1e3,
        "dur": (end - begin) / 1e3,
    }  # fmt: skip


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
