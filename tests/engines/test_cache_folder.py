"""The engine cache's folder: two processes in it, what is left over, what is removed, and who may write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fitdiff.engines.cache import KERNELS, CacheEntry, EngineCache
from fitdiff.engines.cache_key import OnnxKey
from fitdiff.errors import UsageError

from .cache_samples import KEY, ONNX_KEY, PLAN, Builder

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


def test_remove_leaves_alone_what_is_being_built(cache: EngineCache) -> None:
    path = cache.get_or_build(KEY, Builder())
    removed: list[int | None] = []

    def build(made: Path) -> None:
        removed.append(cache.remove(CacheEntry(KEY.digest(), path, 0, None, "")))
        made.write_bytes(PLAN)

    path.write_bytes(PLAN[:-1])  # no longer what its manifest says
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
