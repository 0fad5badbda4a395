"""The engine cache: which file a key means, what is handed out, and what is made again."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fitdiff.engines import cache_key
from fitdiff.engines.cache import EngineCache, Manifest, default_cache_root
from fitdiff.engines.cache_key import (
    CacheKey,
    EngineKey,
    GpuFacts,
    TraceKey,
    cuda_driver_version,
    engine_key,
    gpu_facts,
    shape_profile,
)
from fitdiff.errors import FitDiffError

from .cache_samples import KEY, ONNX_KEY, PLAN, Builder

TRACE_KEY = TraceKey("landmarks", "cd" * 32, "image (1, 2)", "ef" * 32, ("torch=2.13",))


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


def test_find_hands_out_what_agrees_and_builds_nothing(cache: EngineCache) -> None:
    assert cache.find(KEY) is None and not cache.root.exists()
    path = cache.get_or_build(KEY, Builder())
    assert cache.find(KEY) == path and cache.find(ONNX_KEY) is None
    tamper(path)
    assert cache.find(KEY) is None
