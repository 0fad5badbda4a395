"""The engine cache: what it hands out, what it makes again, and what happens when two want the same file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fitdiff.engines import cache_key
from fitdiff.engines.cache import KERNELS, CacheEntry, EngineCache, Manifest, default_cache_root
from fitdiff.engines.cache_key import (
    CacheKey,
    EngineKey,
    GpuFacts,
    OnnxKey,
    TraceKey,
    cuda_driver_version,
    engine_key,
    gpu_facts,
    shape_profile,
)
from fitdiff.errors import FitDiffError, UsageError

KEY = EngineKey(
    graph="denoiser", onnx_sha256="ab" * 32, precision="fp16", profile="static", backend="tensorrt",
    backend_version="10.1", compute_capability="9.0", gpu_name="H100", cuda_driver="13.0", flags=("refit=True",),
    platform="linux-x86_64",
)  # fmt: skip
ONNX_KEY = OnnxKey(
    graph="denoiser", module_sha256="cd" * 32, description="z (1, 2)", source_sha256="ef" * 32,
    versions=("torch=2.13",),
    profile="static", half=False, keep_float32=("norm",),
)  # fmt: skip
TRACE_KEY = TraceKey("landmarks", "cd" * 32, "image (1, 2)", "ef" * 32, ("torch=2.13",))
PLAN = b"a plan" * 1000


class Builder:
    """Writes a plan and counts."""

    def __init__(self, data: bytes = PLAN) -> None:
        self.data, self.count = data, 0

    def __call__(self, path: Path) -> None:
        self.count += 1
        path.write_bytes(self.data)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def read_only(cache: EngineCache) -> Iterator[EngineCache]:
    """`cache`, filled with `KEY`, where this process may read but not write."""
    if not hasattr(os, "seteuid"):
        pytest.skip("permissions of this system are not POSIX's")
    cache.get_or_build(KEY, Builder())
    cache.root.chmod(0o555)
    user, parents = os.geteuid(), [p for p in cache.root.parents if p.stat().st_uid == os.geteuid()]
    modes = [parent.stat().st_mode for parent in parents]
    if user == 0:  # root writes wherever it likes
        for parent in parents:
            parent.chmod(parent.stat().st_mode | 0o055)
        for file in cache.root.iterdir():
            file.chmod(0o444)
        os.seteuid(65534)
    yield cache
    os.seteuid(user)
    for parent, mode in zip(parents, modes, strict=True):
        parent.chmod(mode & 0o7777)
    cache.root.chmod(0o700)


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    return (*value, "more") if isinstance(value, tuple) else value + type(value)("1")


@pytest.mark.parametrize("key", [KEY, ONNX_KEY, TRACE_KEY], ids=["engine", "onnx", "trace"])
def test_each_field_alone_makes_another_file(key: CacheKey, cache: EngineCache) -> None:
    """Goes over the fields, so that one that is added later is tested too."""
    builder = Builder()
    paths = {cache.get_or_build(key, builder)}
    for field in fields(key):
        changed = replace(key, **{field.name: other(getattr(key, field.name))})
        assert changed.digest() != key.digest(), field.name
        paths.add(cache.get_or_build(changed, builder))
    assert builder.count == len(paths) == len(fields(key)) + 1
    assert cache.get_or_build(replace(key), builder) in paths
    assert builder.count == len(paths)


def test_kinds_do_not_meet() -> None:
    class Other(EngineKey):
        kind = "other"

    assert Other(**vars(KEY)).digest() != KEY.digest()


def test_engine_key_hashes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"

    def made(**changed: Any) -> EngineKey:
        values = {"precision": "fp32", "max_batch": 1, "backend": "tensorrt", "backend_version": "10.1"} | changed
        return engine_key(path, "denoiser", **values)

    path.write_bytes(b"weights")
    first = made(flags={"b": 1, "a": True})
    assert first.flags == ("a=True", "b=1")
    assert first == made(flags={"a": True, "b": 1})
    assert made(max_batch=16).profile == shape_profile(16) != shape_profile(1) == first.profile
    assert made(gpu=GpuFacts("9.0", "H100", "13.0")).gpu_name == "H100"
    path.write_bytes(b"Weights")
    assert made(flags={"a": True, "b": 1}) != first


def test_gpu_facts_without_gpu_are_empty() -> None:
    assert gpu_facts(torch.device("cpu")) == GpuFacts("", "", "")


def test_driver_version_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def cuDriverGetVersion(self, pointer: Any) -> int:
            pointer._obj.value = 12080
            return 0

    monkeypatch.setattr(cache_key.ctypes, "CDLL", lambda _: Driver())
    assert cuda_driver_version() == "12.8"


def test_manifest_says_how_it_came_about(cache: EngineCache) -> None:
    told: list[str] = []
    path = cache.get_or_build(KEY, Builder(), told.append)
    assert path.read_bytes() == PLAN and path.name == f"{KEY.digest()}.plan"
    assert told == ["building"]
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["key"] == KEY.fields() and manifest["bytes"] == len(PLAN)
    assert set(manifest) == {field.name for field in fields(Manifest)}
    if os.name == "posix":
        assert cache.root.stat().st_mode & 0o777 == 0o700
    (entry,) = cache.entries()
    assert entry.problem == "" and entry.path == path
    assert entry.age_days is not None and 0 <= entry.age_days < 0.01


def test_default_root_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FITDIFF_CACHE", str(tmp_path / "named"))
    assert EngineCache().root == default_cache_root() == tmp_path / "named"
    monkeypatch.delenv("FITDIFF_CACHE")
    assert default_cache_root().parts[-2:] == ("fitdiff", "engines")


def cut(path: Path) -> None:
    path.write_bytes(PLAN[:-1])


def tamper(path: Path) -> None:
    path.write_bytes(b"b" + PLAN[1:])


def lose(path: Path) -> None:
    path.unlink()


def lose_manifest(path: Path) -> None:
    path.with_suffix(".json").unlink()


def break_manifest(path: Path) -> None:
    path.with_suffix(".json").write_text('{"key": ')


def naive_time(path: Path) -> None:
    change_manifest(path, created="2026-01-01T00:00:00")


def old_format(path: Path) -> None:
    change_manifest(path, format="fitdiff-engine/0")


def foreign_gpu(path: Path) -> None:
    change_manifest(path, key=KEY.fields() | {"gpu_name": "B200", "compute_capability": "10.0"})


def other_version(path: Path) -> None:
    change_manifest(path, key=KEY.fields() | {"backend_version": "11.0"})


def field_too_many(path: Path) -> None:
    change_manifest(path, key=KEY.fields() | {"extra": 1})


def other_kind(path: Path) -> None:
    change_manifest(path, kind="onnx")


def change_manifest(path: Path, **changes: Any) -> None:
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


DAMAGES = {
    cut: "bytes instead of", tamper: "SHA-256", lose: "gone", lose_manifest: "no manifest",
    break_manifest: "no manifest",
    naive_time: "no manifest", old_format: "no manifest", foreign_gpu: "another compute_capability, gpu_name",
    other_version: "another backend_version", field_too_many: "another extra", other_kind: "another kind",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_does_not_agree_is_made_again(damage: Any, cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    builder = Builder()
    path = cache.get_or_build(KEY, builder)
    damage(path)
    (entry,) = cache.entries()
    assert entry.problem
    with caplog.at_level(logging.WARNING):
        assert cache.get_or_build(KEY, builder) == path
    assert builder.count == 2 and path.read_bytes() == PLAN
    (message,) = caplog.messages
    assert DAMAGES[damage] in message and "\n" not in message
    (entry,) = cache.entries()
    assert entry.problem == ""


def test_what_agrees_is_silent(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        cache.get_or_build(KEY, Builder())
    assert not caplog.messages


def test_builder_that_raises_leaves_nothing(cache: EngineCache) -> None:
    def build(path: Path) -> None:
        path.write_bytes(b"half")
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        cache.get_or_build(KEY, build)
    assert [path.suffix for path in cache.root.iterdir()] == [".lock"]
    with pytest.raises(FitDiffError, match="no file from its builder"):
        cache.get_or_build(KEY, lambda _: None)
    assert cache.get_or_build(KEY, Builder()).read_bytes() == PLAN


def test_a_failed_rebuild_does_not_bring_the_damaged_file_back(cache: EngineCache) -> None:
    path = cache.get_or_build(KEY, Builder())
    tamper(path)
    with pytest.raises(FitDiffError):
        cache.get_or_build(KEY, lambda _: None)
    (entry,) = cache.entries()
    assert entry.problem


WORKER = """
import os, sys, time
from pathlib import Path
from fitdiff.engines.cache import EngineCache
from fitdiff.engines.cache_key import OnnxKey

root, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def build(path):
    with log.open("a") as file:
        file.write("built\\n")
    path.write_bytes(b"half")
    print("building", flush=True)
    time.sleep(seconds)
    path.write_bytes(b"whole")

key = OnnxKey("slow", "a", "b", "c", (), "static", False, ())
print("ready", flush=True)
sys.stdin.readline()
path = EngineCache(root).get_or_build(key, build, lambda text: print(text, flush=True))
assert path.read_bytes() == b"whole"
"""
SLOW_KEY = OnnxKey("slow", "a", "b", "c", (), "static", False, ())


def worker(root: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, str(root), str(log), str(seconds)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_build_once(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [worker(cache.root, log, 1.5) for _ in range(2)]
    for process in processes:
        go(process)
    said = sorted(process.communicate(timeout=60)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert log.read_text() == "built\n"
    assert said == ["another process builds it: waiting\n", "building\nbuilding\n"]


def test_killed_builder_frees_the_lock(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = worker(cache.root, log, 60)
    go(process)
    assert process.stdout and process.stdout.readline() == "building\n"
    assert process.stdout.readline() == "building\n"  # the cache's word, then the builder's
    assert cache.remove_unfinished() == 0  # it is at work
    process.kill()
    process.wait()
    assert not cache.entries()
    assert list(cache.root.glob(".*.building-*"))
    assert cache.get_or_build(SLOW_KEY, Builder()).read_bytes() == PLAN
    assert not list(cache.root.glob(".*.building-*"))


def test_leftovers_are_removed(cache: EngineCache) -> None:
    cache.get_or_build(KEY, Builder())
    left = cache.root / f".{SLOW_KEY.digest()}.building-abc"
    left.mkdir()
    (left / "half").write_bytes(b"12345")
    assert cache.remove_unfinished() == 5
    assert not left.exists() and len(cache.entries()) == 1


def test_remove(cache: EngineCache) -> None:
    path = cache.get_or_build(KEY, Builder())
    (entry,) = cache.entries()
    size = path.stat().st_size + path.with_suffix(".json").stat().st_size
    assert cache.remove(entry) == size
    assert not cache.entries() and not path.exists()


def test_kernels_beside_a_plan_count_and_go_with_it(cache: EngineCache) -> None:
    path = cache.get_or_build(KEY, Builder())
    path.with_suffix(KERNELS).write_bytes(b"kernels")
    (entry,) = cache.entries()
    assert entry.kernel_bytes == 7 and entry.bytes == len(PLAN) and not entry.problem
    cache.remove(entry)
    assert [file.suffix for file in cache.root.iterdir()] == [".lock"]


def test_kernels_whose_plan_is_gone_are_found(cache: EngineCache) -> None:
    cache.root.mkdir()
    left = cache.root / f"{KEY.digest()}{KERNELS}"
    left.write_bytes(b"kernels")
    (entry,) = cache.entries()
    assert entry.kernel_bytes == 7 and "gone" in entry.problem
    assert cache.remove(entry) == 7 and not left.exists()


def test_find_hands_out_what_agrees_and_builds_nothing(cache: EngineCache) -> None:
    assert cache.find(KEY) is None and not cache.root.exists()
    path = cache.get_or_build(KEY, Builder())
    assert cache.find(KEY) == path and cache.find(ONNX_KEY) is None
    tamper(path)
    assert cache.find(KEY) is None


def test_remove_leaves_alone_what_is_being_built(cache: EngineCache) -> None:
    path = cache.get_or_build(KEY, Builder())
    removed: list[int | None] = []

    def build(made: Path) -> None:
        removed.append(cache.remove(CacheEntry(KEY.digest(), path, 0, None, "")))
        made.write_bytes(PLAN)

    tamper(path)
    cache.get_or_build(KEY, build)
    assert removed == [None] and path.read_bytes() == PLAN


def test_read_only_folder_hands_out_and_refuses_to_build(read_only: EngineCache) -> None:
    builder = Builder()
    assert read_only.get_or_build(KEY, builder).read_bytes() == PLAN
    assert builder.count == 0
    with pytest.raises(UsageError, match="Permission denied.*FITDIFF_CACHE"):
        read_only.get_or_build(ONNX_KEY, builder)
    assert builder.count == 0
    with pytest.raises(UsageError, match="Permission denied"):
        read_only.remove(read_only.entries()[0])


def test_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="FITDIFF_CACHE"):
        EngineCache(tmp_path / "file" / "engines").get_or_build(KEY, Builder())


@pytest.mark.skipif(os.name != "posix", reason="permissions of this system are not POSIX's")
def test_folder_of_everybody_is_refused(cache: EngineCache) -> None:
    cache.get_or_build(KEY, Builder())
    cache.root.chmod(0o777)
    with pytest.raises(UsageError, match="chmod o-w"):
        cache.get_or_build(KEY, Builder())
