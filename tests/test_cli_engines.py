"""`fitdiff engines ...`: what it builds, shows, finds damaged and deletes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from fitdiff import cli_engines
from fitdiff.cli import main
from fitdiff.cli_engines import BACKENDS, engines
from fitdiff.engines import build as engine_build
from fitdiff.engines import installed
from fitdiff.engines.backends import AUTO
from fitdiff.engines.build import BUILDABLE, BuiltEngine
from fitdiff.engines.cache import EngineCache
from fitdiff.engines.cache_key import EngineKey
from fitdiff.engines.options import EngineOptions
from fitdiff.errors import FitDiffError, UsageError

PLAN = b"a plan" * 1000


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FITDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fitdiff(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["engines", *(str(argument) for argument in arguments)])


def key(graph: str, version: str = "1.0") -> EngineKey:
    return EngineKey(
        graph=graph, onnx_sha256="ab" * 32, precision="fp16", profile="static", backend="tensorrt",
        backend_version=version, compute_capability="9.0", gpu_name="NVIDIA H100", cuda_driver="13.0", flags=(),
        platform="linux-x86_64",
    )  # fmt: skip


def add(root: Path, graph: str, version: str = "1.0") -> Path:
    def build(path: Path) -> None:
        path.write_bytes(PLAN)

    return EngineCache(root).get_or_build(key(graph, version), build)


def age(path: Path, created: str = "2020-01-01T00:00:00+00:00") -> None:
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"created": created}))


@pytest.mark.parametrize("name", engines.commands)
def test_help_shows_an_example(name: str) -> None:
    result = fitdiff(name, "--help")
    assert result.exit_code == 0 and f"fitdiff engines {name}" in result.output.partition("Example")[2]


def test_backends_are_the_librarys() -> None:
    assert BACKENDS == (AUTO, *BUILDABLE)
    defaults = {option.name: option.default for option in engines.commands["build"].params}
    assert (defaults["precision"], defaults["max_batch"]) == (EngineOptions().precision, EngineOptions().max_batch)


def test_empty_cache(root: Path) -> None:
    for command in (["list"], ["verify"], ["prune", "--all"]):
        result = fitdiff(*command)
        assert result.exit_code == 0 and str(root) in result.output
    assert json.loads(fitdiff("list", "--json").stdout) == []
    assert not root.exists()


def test_list_shows_every_file(root: Path) -> None:
    add(root, "denoiser")
    age(add(root, "recogniser"))
    broken = add(root, "landmarks")
    broken.write_bytes(PLAN[1:])
    (root / "notes.txt").write_text("not an engine")
    result = fitdiff("list")
    assert result.exit_code == 0
    lines = {name: next(line for line in result.stdout.splitlines() if name in line) for name in
             ("denoiser", "recogniser", "landmarks")}  # fmt: skip
    for text in ("tensorrt 1.0", "fp16", "static", "NVIDIA H100 9.0", "0 min", "ok"):
        assert text in lines["denoiser"]
    assert " d " in lines["recogniser"]
    assert f"{len(PLAN) - 1} bytes instead of {len(PLAN)}" in lines["landmarks"]
    entries = json.loads(fitdiff("list", "--json").stdout)
    states = {entry["manifest"]["key"]["graph"]: entry["state"] for entry in entries}
    assert states["denoiser"] == "ok" and "bytes" in states["landmarks"]
    assert [entry["manifest"]["key"]["graph"] for entry in entries][-1] == "recogniser"  # the oldest


def test_another_folder_is_named(root: Path, tmp_path: Path) -> None:
    add(tmp_path / "other", "denoiser")
    assert len(json.loads(fitdiff("list", "--json", "--cache", tmp_path / "other").stdout)) == 1
    assert not root.exists()


def test_verify_names_the_damaged_and_repairs(root: Path) -> None:
    whole, broken = add(root, "denoiser"), add(root, "landmarks")
    assert fitdiff("verify").exit_code == 0
    broken.write_bytes(b"b" + PLAN[1:])
    result = fitdiff("verify")
    assert result.exit_code == 1
    assert "landmarks" in result.stdout and "SHA-256" in result.stdout
    assert broken.name in result.stderr and "--repair" in result.stderr and whole.name not in result.output
    assert fitdiff("verify", "--repair").exit_code == 0
    assert whole.exists() and not broken.exists() and not broken.with_suffix(".json").exists()
    assert fitdiff("verify").exit_code == 0


def test_repair_leaves_what_is_being_built(root: Path) -> None:
    broken = add(root, "landmarks")
    broken.write_bytes(PLAN[1:])
    with FileLock(root / f"{broken.stem}.lock"):
        result = fitdiff("verify", "--repair")
    assert result.exit_code == 1 and broken.exists()
    assert "another process is building it" in result.stderr


def test_prune_wants_to_be_told_what(root: Path) -> None:
    add(root, "denoiser")
    result = fitdiff("prune")
    assert result.exit_code == 2 and "--older-than" in result.stderr
    assert len(EngineCache(root).entries()) == 1


def test_prune_by_age(root: Path) -> None:
    new, old = add(root, "denoiser"), add(root, "landmarks")
    age(old)
    result = fitdiff("prune", "--older-than", 30)
    assert result.exit_code == 0 and "landmarks" in result.stdout and "1 engine removed" in result.stdout
    assert new.exists() and not old.exists()


def test_prune_by_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused = add(root, "denoiser", "2.0"), add(root, "denoiser", "1.0")
    nameless = add(root, "landmarks", "2.0")
    nameless.with_suffix(".json").unlink()
    monkeypatch.setattr(installed, "_backend_version", {"tensorrt": "2.0"}.get)
    assert fitdiff("prune", "--unused-versions").exit_code == 0
    assert used.exists() and not unused.exists() and not nameless.exists()


def test_prune_all_leaves_what_is_being_built(root: Path) -> None:
    taken, busy = add(root, "denoiser"), add(root, "landmarks")
    taken.with_suffix(".jit").write_bytes(b"kernels")
    (root / f".{'0' * 64}.building-x").mkdir()
    with FileLock(root / f"{busy.stem}.lock"):
        result = fitdiff("prune", "--all")
    assert result.exit_code == 0 and "note" in result.stderr and "landmarks" in result.stderr
    assert busy.exists() and busy.with_suffix(".json").exists()
    assert {path.suffix for path in root.iterdir()} == {".plan", ".json", ".lock"}
    assert not list(root.glob(f"{taken.stem}.[!l]*"))


def test_prune_takes_finished_kernels_along_and_says_so(root: Path) -> None:
    old, new = add(root, "denoiser"), add(root, "landmarks")
    age(old)
    for path in (old, new):
        path.with_suffix(".jit").write_bytes(b"k" * 2**20)
    left = root / f"{'0' * 64}.jit"  # its plan is gone
    left.write_bytes(b"k" * 2**19)
    listed = {Path(entry["path"]).stem: entry["kernel_bytes"] for entry in json.loads(fitdiff("list", "--json").stdout)}
    assert listed == {old.stem: 2**20, new.stem: 2**20, left.stem: 2**19}
    result = fitdiff("prune", "--older-than", 30)
    assert result.exit_code == 0 and "with kernels for its GPU, 1.0 MiB" in result.stdout
    assert not old.with_suffix(".jit").exists() and new.with_suffix(".jit").exists() and left.exists()
    assert fitdiff("verify").exit_code == 1
    result = fitdiff("prune", "--all")
    assert "2 engines removed, 1.5 MiB freed" in result.stdout and "0.5 MiB" in result.stdout
    assert {path.suffix for path in root.iterdir()} == {".lock"}


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """`build` without models: a graph is its name."""
    monkeypatch.setattr("fitdiff.runtime.loading.load_pipeline", lambda: type("P", (), {"denoiser": 0, "models": 0}))
    monkeypatch.setattr("fitdiff.runtime.graph_sources.graph_sources", lambda *_: None)
    monkeypatch.setattr(engine_build, "graphs_named", lambda names, *_: iter(names))


def test_build_goes_on_after_a_graph_that_cannot_be_built(
    root: Path, no_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def build_engine(graph: str, backend: str, options: EngineOptions, progress: Any) -> BuiltEngine:
        seen.append((graph, backend, options.precision, options.max_batch, options.cache_dir))
        if graph == "landmarks":
            raise FitDiffError("landmarks", "an operator", "another", "choose another backend")
        return BuiltEngine(add(root, graph))

    monkeypatch.setattr(engine_build, "build_engine", build_engine)
    names = ("recogniser", "landmarks", "denoiser")
    options = ("--backend", "onnxruntime", "--precision", "fp16", "--max-batch", 4)
    result = fitdiff("build", *options, *(word for name in names for word in ("--graph", name)))
    assert seen == [(name, "onnxruntime", "fp16", 4, root) for name in names]
    assert result.exit_code == 1
    assert "an operator" in result.stderr and "none of landmarks" in result.stderr
    assert "recogniser:" in result.stdout and "denoiser:" in result.stdout


def test_build_tells_which_plans_are_refitted(root: Path, no_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def build_engine(graph: str, backend: str, options: EngineOptions, progress: Any) -> BuiltEngine:
        asked.append(options.refit)
        return BuiltEngine(add(root, graph), needs_refit=graph == "denoiser")

    monkeypatch.setattr(engine_build, "build_engine", build_engine)
    monkeypatch.setattr(engine_build, "backend_to_build", lambda name: name)
    options = ("--backend", "tensorrt-rtx", "--graph", "denoiser", "--graph", "landmarks")
    result = fitdiff("build", *options, "--refittable")
    assert result.exit_code == 0 and asked == [True, True]
    lines = result.stdout.splitlines()
    assert "in the cache, takes its weights when it is loaded" in lines[0] and lines[1].endswith("in the cache")
    assert fitdiff("build", *options).exit_code == 0 and asked[2:] == [False, False]
    refused = fitdiff("build", "--backend", "onnxruntime", "--refittable")
    assert refused.exit_code == 2 and "--refittable" in refused.stderr


def test_build_stops_where_no_graph_can_be_built(root: Path, no_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_engine(*_: Any) -> Path:
        raise UsageError("engine cache", "Read-only file system", "a folder to write engines to", "choose another")

    monkeypatch.setattr(engine_build, "build_engine", build_engine)
    result = fitdiff("build", "--backend", "onnxruntime")
    assert result.exit_code == 2 and result.stderr.count("Read-only") == 1


def test_build_refuses_unknown_names(root: Path) -> None:
    result = fitdiff("build", "--graph", "no_such")
    assert result.exit_code == 2 and "no_such" in result.stderr and "denoiser" in result.stderr
    assert fitdiff("build", "--backend", "eager").exit_code == 2


def test_build_exports_once(root: Path, small_models: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    arguments = ("build", "--backend", "onnxruntime", "--graph", "perceptual")
    first, second = fitdiff(*arguments), fitdiff(*arguments)
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert "made in" in first.stdout and "in the cache" in second.stdout
    (entry,) = EngineCache(root).entries()
    assert entry.manifest and entry.manifest.key["graph"] == "perceptual" and not entry.problem
    assert cli_engines._cells(entry)[1] == "onnx"
    assert installed.is_of_installed_version(entry.manifest)
