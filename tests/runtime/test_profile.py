"""Figures from known spans, warnings that fire and that do not, trace and page, the command on the example photo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fitdiff.cli import main
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.profile import Job, Measurement, ProfileSettings, measure
from fitdiff.runtime.profile_report import html_from_measurement
from fitdiff.runtime.profile_statistics import (
    UNNAMED,
    Run,
    breakdown,
    stage_rows,
    warnings_of,
    work_rows,
)
from fitdiff.runtime.profile_table import comparison_lines, json_from_measurement, warning_lines
from fitdiff.runtime.profile_trace import DEVICE_THREAD, chrome_trace
from fitdiff.runtime.trace import Kind, Span, span

MS = 1_000_000  # ns


def piece(name: str, kind: Kind, begin: float, end: float, thread: int = 0, **more: float | int | None) -> Span:
    """A span from and to these milliseconds."""
    return Span(name, kind, round(begin * MS), round(end * MS), thread, **more)  # type: ignore[arg-type]


def run_of(*spans: Span, length: float) -> Run:
    return Run(tuple(sorted(spans, key=lambda s: (s.begin, -s.end))), 0, round(length * MS))


def calm_run(engine: float = 0.95, scale: float = 1.0) -> Run:
    """100 ms of ten equal engine calls, of which the engines take this share."""
    calls = [piece("denoiser", "engine", 10 * i * scale, 10 * (i + engine) * scale) for i in range(10)]
    return run_of(piece("sample", "stage", 0, 100 * scale), *calls, length=100 * scale)


def warnings(*runs: Run) -> tuple[str, ...]:
    return warnings_of(stage_rows(runs), work_rows(runs), runs)


def test_percentiles_over_the_calls_of_all_runs() -> None:
    """Calls of 1 to 101 ms, odd ones in one run and even ones in the other: linear percentiles are whole."""
    runs = []
    for first in (1, 2):
        spans, now = [], 0.0
        for length in range(first, 102, 2):
            spans.append(piece("denoiser", "engine", now, now + length))
            now += length
        runs.append(run_of(piece("sample", "stage", 0, now), *spans, length=now))
    (row,) = work_rows(runs)
    assert (row.p50_ms, row.p90_ms, row.p99_ms) == pytest.approx((51, 91, 100))
    assert row.calls == 50.5 and row.share == pytest.approx(1)
    assert row.seconds == pytest.approx(sum(range(1, 102)) / 2e3)


def test_own_times_add_up_and_engines_in_autograd_count_once() -> None:
    run = run_of(
        piece("sample", "stage", 0, 100, host_peak_mib=7.0),
        piece("guidance", "host", 10, 90),
        piece("gradient", "engine", 20, 70),
        piece("recogniser_vjp", "engine", 30, 45, thread=1),  # autograd's own thread
        piece("to the GPU", "copy", 75, 80, moved=2**20),
        length=110,
    )
    (stage,) = stage_rows([run])
    assert stage.engine_seconds == pytest.approx(0.050) and stage.overhead == pytest.approx(0.5)
    assert stage.unnamed_seconds == pytest.approx(0.020)
    assert (stage.engine_calls, stage.copies, stage.copied_mib) == (2, 1, 1.0)
    assert stage.host_peak_mib == 7.0 and stage.device_peak_mib is None
    assert stage.share == pytest.approx(100 / 110)
    own = {row.name: round(1e3 * row.own_seconds, 6) for row in work_rows([run])}
    assert own == {"gradient": 35, "recogniser_vjp": 15, "to the GPU": 5, "guidance": 25}
    cut = breakdown([run])["sample"]
    assert cut.pop(UNNAMED) == pytest.approx(0.020)
    assert sum(cut.values()) == pytest.approx(0.080)


def test_an_engine_in_a_network_of_its_name_is_one_call() -> None:
    run = run_of(
        piece("decode", "stage", 0, 100),
        piece("texture_decoder", "engine", 10, 90),
        piece("texture_decoder", "engine", 20, 80),
        length=100,
    )
    (row,), (stage,) = work_rows([run]), stage_rows([run])
    assert row.calls == stage.engine_calls == 1 and row.own_seconds == pytest.approx(0.080)


def test_the_gpu_is_timed_on_the_gpu() -> None:
    launched = piece("denoiser", "engine", 10, 11, device_begin=12 * MS, device_end=72 * MS)
    run = run_of(piece("sample", "stage", 0, 100), launched, length=100)
    (stage,), (row,) = stage_rows([run]), work_rows([run])
    assert stage.on_device and stage.overhead == pytest.approx(0.4) and row.p50_ms == pytest.approx(60)
    assert warnings_of((stage,), (row,), [run]) == ()


def test_a_calm_profile_has_no_warning() -> None:
    assert warnings(calm_run(), calm_run(scale=1.05), calm_run()) == ()


def test_warns_of_a_launch_bound_stage() -> None:
    (line,) = warnings(calm_run(engine=0.7), calm_run(engine=0.7))
    assert "sample is launch-bound" in line and "70%" in line and "10 calls" in line
    idle = [piece("denoiser", "engine", 10 * i, 10 * i + 1, device_begin=10 * i * MS, device_end=(10 * i + 4) * MS)
            for i in range(10)]  # fmt: skip
    (line,) = warnings(run_of(piece("sample", "stage", 0, 100), *idle, length=100))
    assert "launch-bound: the GPU works 40%" in line


def test_few_calls_are_host_bound() -> None:
    calls = [piece("texture_decoder", "engine", 0, 50)]
    (line,) = warnings(run_of(piece("decode", "stage", 0, 100), *calls, length=100))
    assert "decode is host-bound" in line and "50%" in line


def test_a_stage_without_engines_is_not_launch_bound() -> None:
    assert warnings(run_of(piece("crop", "stage", 0, 100), length=100)) == ()


def test_warns_of_a_long_tail() -> None:
    lengths = [5.0] * 40 + [60.0] * 2
    ends = np.cumsum(lengths)
    calls = [piece("pose", "engine", end - length, end) for end, length in zip(ends, lengths, strict=True)]
    (line,) = warnings(run_of(piece("sample", "stage", 0, ends[-1]), *calls, length=ends[-1]))
    assert line.startswith("pose is unstable: p99 60.00 ms is 12.0 times p50 5.00 ms")


def test_warns_of_runs_that_differ() -> None:
    lines = warnings(calm_run(), calm_run(scale=1.3))
    assert [line.partition(" is ")[0] for line in lines] == ["the run", "sample"]
    assert "0.100 to 0.130 s, 26%" in lines[0]


def test_what_is_rare_raises_no_warning() -> None:
    blips = [piece("blip", "engine", 10 * i, 10 * i + (0.5 if i else 5)) for i in range(10)]
    calm = piece("sample", "stage", 200, 10_000)
    work = piece("denoiser", "engine", 200, 10_000)
    assert warnings(run_of(*blips, calm, work, length=10_000)) == ()


@pytest.fixture
def measured() -> tuple[Measurement, list[tuple[str, int]]]:
    """Two fakes in turn, the second with an odd name; what was called, in order."""
    order: list[tuple[str, int]] = []

    def job(name: str) -> Job:
        def work(batch: int) -> None:
            order.append((name, batch))
            for _ in range(batch):
                with span("crop"):
                    pass
                with span("sample"), span("denoiser", "engine"):
                    torch.ones(50, 50).matmul(torch.ones(50, 50))

        return Job(name, torch.device("cpu"), work)

    settings = ProfileSettings(AvatarOptions(steps=2), batches=(1, 3), warmup=1, runs=2)
    return measure([job("one"), job("</script><b>")], settings), order


def test_backends_take_turns_and_ratios_are_pair_by_pair(measured: tuple[Measurement, list[tuple[str, int]]]) -> None:
    found, order = measured
    assert order == [(name, batch) for batch in (1, 3) for _ in range(3) for name in ("one", "</script><b>")]
    for index, comparison in enumerate(found.comparisons):
        first, second = (profile.batches[index] for profile in found.profiles)
        assert comparison.batch == (1, 3)[index] == first.batch
        expected = [b.seconds / a.seconds for a, b in zip(first.runs, second.runs, strict=True)]
        assert comparison.ratios == pytest.approx(expected) and len(expected) == 2
        assert comparison.median == pytest.approx(np.mean(expected))
        assert first.avatars_per_second == pytest.approx(first.batch / np.mean([r.seconds for r in first.runs]))
        assert f"ratio {expected[0]:.3f}" in comparison_lines(comparison)[0]
    (calls,) = {row.calls for row in found.profiles[0].batches[1].work}
    assert calls == 3


def test_json_holds_the_tables(measured: tuple[Measurement, list[tuple[str, int]]]) -> None:
    text = json_from_measurement(measured[0])
    assert "\n" not in text
    value = json.loads(text)
    batch = value["backends"][0]["batches"][1]
    assert [row["name"] for row in batch["stages"]] == ["crop", "sample"]
    assert [row["name"] for row in batch["work"]] == ["denoiser"]
    assert len(batch["run_seconds"]) == 2 and value["environment"]["torch"]
    assert value["comparisons"][0]["median_ratio"] == pytest.approx(measured[0].comparisons[0].median)


def assert_nested(events: list[dict[str, float]]) -> None:
    """Events of one thread, in order: each lies wholly in, or wholly after, the one before."""
    around: list[float] = []
    for event in events:
        while around and around[-1] <= event["ts"]:
            around.pop()
        end = event["ts"] + event["dur"]
        assert not around or end <= around[-1] + 1e-3
        around.append(end)


def test_trace_is_monotone_and_nested(measured: tuple[Measurement, list[tuple[str, int]]], tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text(json.dumps(chrome_trace(measured[0])))
    value = json.loads(file.read_text())
    events = [event for event in value["traceEvents"] if event["ph"] == "X"]
    assert len(events) == 2 * 2 * (1 + 3 + 1 + 9)  # backends, runs, and of each the run itself and its spans
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in events)
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    for process in (1, 2):
        for thread in (0, 1):
            mine = [event for event in events if (event["pid"], event["tid"]) == (process, thread)]
            assert mine
            assert_nested(mine)
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in value["traceEvents"] if e["name"] == "thread_name"}
    assert named == {(1, 0): "runs", (1, 1): "host", (2, 0): "runs", (2, 1): "host"}


def test_trace_shows_the_gpu_on_a_line_of_its_own(measured: tuple[Measurement, list[tuple[str, int]]]) -> None:
    from dataclasses import replace

    found, _ = measured
    profile = found.profiles[0]
    launched = piece("denoiser", "engine", 10, 11, device_begin=12 * MS, device_end=72 * MS)
    batch = replace(profile.batches[0], runs=(run_of(piece("sample", "stage", 0, 100), launched, length=100),))
    value = chrome_trace(replace(found, profiles=(replace(profile, batches=(batch,)),)))
    (event,) = (event for event in value["traceEvents"] if event["ph"] == "X" and event["tid"] == DEVICE_THREAD)
    assert (event["name"], event["ts"], event["dur"]) == ("denoiser", 12_000, 60_000)


def test_page_holds_everything_and_loads_nothing(measured: tuple[Measurement, list[tuple[str, int]]]) -> None:
    found, _ = measured
    page = html_from_measurement(found)
    for name in ("crop", "sample", "denoiser", UNNAMED, *found.environment.values(), *warning_lines(found)):
        assert name.replace("<", "&lt;").replace(">", "&gt;") in page
    assert not re.search(r"(https?:)?//[a-z]|\bsrc=|@import|url\(", page.partition("<script>")[0])
    assert not re.search(r"https?:|fetch\(|import\(", page)
    assert "</script><b>" not in page and "<!--" not in page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    timeline = json.loads(data)["timelines"][0]
    assert [timeline["names"][row[0]] for row in timeline["spans"]] == ["crop", "sample", "denoiser"]
    assert [row[2] for row in timeline["spans"]] == [0, 0, 1]


def test_a_batch_is_made_together_with_a_seed_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from fitdiff.runtime import profile as profile_module

    made: list[tuple[list[str], list[int]]] = []
    loaded: list[int] = []

    def avatars(crops: list[str], options: list[AvatarOptions]) -> None:
        made.append((crops, [own.seed for own in options]))

    def load(**options: int) -> SimpleNamespace:
        loaded.append(options["max_batch"])
        models = SimpleNamespace(occlusion=torch.nn.Identity(), face_mesh=None)
        return SimpleNamespace(
            avatars=avatars, models=models, detector=None, engines="some", backend="some", device=torch.device("cpu")
        )

    monkeypatch.setattr(profile_module, "load_pipeline", load)
    monkeypatch.setattr(profile_module, "crop_face", lambda *_: "crop")
    monkeypatch.setattr(profile_module, "load_photo", lambda _: "photo")
    settings = ProfileSettings(AvatarOptions(seed=7), batches=(1, 3), warmup=0, runs=1)
    profile_module.profile_photo(Path("photo.jpg"), settings, ["some"])
    assert made == [(["crop"], [7]), (["crop"] * 3, [7, 8, 9])] and loaded == [3]


def test_command_on_the_example_photo(default_models: Path, astronaut: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"profile.{name}" for name in ("trace", "html")}
    arguments = ["--debug", "profile", astronaut, "--steps", 2, "--guidance", "latent", "--warmup", 0, "--runs", 1]
    arguments += ["--backend", "eager", "--json", "-", "--trace", files["trace"], "--html", files["html"]]
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    value = json.loads(result.stdout.splitlines()[-1])
    (batch,) = value["backends"][0]["batches"]
    stages = {row["name"]: row for row in batch["stages"]}
    work = {row["name"]: row for row in batch["work"]}
    assert list(stages) == ["crop", "condition", "sample", "decode"]
    assert work["denoiser"]["calls"] == 2 and work["gradient"]["calls"] == 1
    assert work["conditioner"]["calls"] in (2, 3)  # the photo, its views, and in a pipeline's first run nobody
    assert {"recogniser", "landmarks", "perceptual", "texture_half", "texture_decoder", "render", "pose"} <= set(work)
    assert sum(row["seconds"] for row in stages.values()) == pytest.approx(batch["seconds"], rel=0.1)
    assert all(row["host_peak_mib"] > 100 for row in stages.values())
    assert "outside engines" in result.stderr and "through one loop together" in result.stderr
    assert json.loads(files["trace"].read_text())["traceEvents"]
    assert all(name in files["html"].read_text() for name in (*stages, *work))


@pytest.mark.parametrize("option", [("--batch", "1,0"), ("--batch", "a"), ("--runs", "0")])
def test_wrong_usage(astronaut: Path, option: tuple[str, str]) -> None:
    result = CliRunner().invoke(main, ["profile", str(astronaut), *option])
    assert result.exit_code == 2 and option[0] in result.stderr


def test_unknown_backend(small_models: Path, astronaut: Path) -> None:
    result = CliRunner().invoke(main, ["profile", str(astronaut), "--backend", "abacus"])
    assert result.exit_code in (2, 5) and "abacus" in result.stderr
