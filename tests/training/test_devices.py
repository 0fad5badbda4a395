"""Several processes train as one: two on the CPU over gloo, against one that sees all samples."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fitdiff.errors import MissingError, UsageError
from fitdiff.training.devices import Workers, start_workers
from fitdiff.training.state import TrainingState

SCRIPT = Path(__file__).with_name("two_processes.py")
NAMES = ("autoencoder", "judge", "diffusion")


def run(out: Path, data: Path, processes: int, *arguments: str) -> Path:
    out.mkdir()
    launcher: Sequence[str] = ()
    if processes > 1:
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    command = [sys.executable, *launcher, str(SCRIPT), str(data), str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of results: one process, two that share the batch, one that sees half of it."""
    pytest.importorskip("accelerate", reason="several processes need the package accelerate")
    folder = tmp_path_factory.mktemp("processes")
    coarse = np.random.default_rng(0).integers(40, 220, (6, 9, 16, 16), np.uint8)
    np.save(folder / "maps.npy", coarse.repeat(8, 2).repeat(8, 3))
    (folder / "index.json").write_text(json.dumps({"held_out": [5]}))
    return {
        "one": run(folder / "one", folder, 1),
        "two": run(folder / "two", folder, 2),
        "half": run(folder / "half", folder, 1, "half"),
    }


def distance(a: Path, b: Path, name: str) -> float:
    """Largest difference of two results' weights, over all tensors."""
    first, second = (load_file(folder / f"{name}.safetensors") for folder in (a, b))
    return max(float((first[key] - second[key]).abs().max()) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_with_half_the_batch_each_step_like_one_with_all_of_it(runs: dict[str, Path], name: str) -> None:
    shared, silent = distance(runs["one"], runs["two"], name), distance(runs["one"], runs["half"], name)
    print(f"{name}: largest difference after 3 steps {shared:.2e}; of a process that sees half alone {silent:.2e}")
    assert silent > 1e-3
    assert shared < 0.005 * silent


def test_all_processes_have_the_same_weights(runs: dict[str, Path]) -> None:
    first, second = (json.loads((runs["two"] / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert (first["count"], first["rank"], second["rank"]) == (2, 0, 1)
    for name in ("autoencoder", "autoencoder average", "diffusion", "diffusion average"):
        assert first[name] == second[name], name


def test_the_first_process_decides_and_writes(runs: dict[str, Path]) -> None:
    first, second = (json.loads((runs["two"] / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["steps"] == second["steps"]  # although the first budget was by the clock
    assert first["steps"][1] == first["steps"][0] + 2  # and the run was resumed
    assert first["ratio"] == second["ratio"]
    assert second["written"] == []
    assert first["written"].count("denoiser") == 2 and first["written"].count("state") == 2
    document = torch.load(runs["two"] / "run" / "state.pt", weights_only=True)
    assert len(document["other_generators"]) == 1
    assert not torch.equal(document["generator"], document["other_generators"][0])


def test_a_state_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """One written by a single process, read by the second of two; and one of before there were several."""
    state = TrainingState({}, Workers().generator(0))
    torch.rand(5, generator=state.generator)
    state.step = 3
    state.save(tmp_path / "state.pt")
    second = Workers(rank=1, count=2)
    resumed = TrainingState({}, second.generator(0), workers=second)
    fresh = second.generator(0)
    resumed.load(tmp_path / "state.pt")
    assert resumed.step == 3
    draws = [torch.rand(4, generator=g) for g in (resumed.generator, fresh, state.generator)]
    assert not any(torch.equal(draws[0], other) for other in draws[1:])
    document = torch.load(tmp_path / "state.pt", weights_only=True)
    del document["other_generators"]
    torch.save(document, tmp_path / "old.pt")
    TrainingState({}, Workers().generator(0)).load(tmp_path / "old.pt")


def test_one_process_needs_nothing_and_changes_nothing() -> None:
    workers = start_workers("cpu")
    assert workers == Workers(torch.device("cpu"), 0, 1)
    tensor = torch.rand(3, requires_grad=True)
    assert workers.gathered(tensor) is tensor and workers.mean(tensor) is tensor and workers.moved(tensor) is tensor
    assert torch.equal(workers.own(tensor), tensor)
    expected = torch.rand(4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.rand(4, generator=workers.generator(5)), expected)
    assert not torch.equal(torch.rand(4, generator=Workers(rank=1, count=2).generator(5)), expected)


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="batch: got 5 samples for 2 processes"):
        Workers(count=2).part("batch", 5)
    with pytest.raises(UsageError, match="device: got 'tpu'"):
        start_workers("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="device cuda"):
        start_workers("cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingError, match="package accelerate"):
        start_workers("cpu")
