"""ONNX files out of the cache: exported once, again when anything that they depend on changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines import installed, onnx_files
from fitdiff.engines.cache import EngineCache
from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.installed import is_of_installed_version, source_sha256
from fitdiff.engines.onnx_files import onnx_file, onnx_key
from fitdiff.errors import MissingError


class Doubler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.factor = 2.0

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layer(x) * self.factor,)


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(0)
    spec_in, spec_out = TensorSpec("x", (None, 3), meaning="numbers"), TensorSpec("y", (None, 2), meaning="numbers")
    return Graph("doubler", "Doubles.", Doubler().eval().requires_grad_(False), (spec_in,), (spec_out,))


class CountingExport:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, graph: Graph, path: Path, **options: Any) -> None:
        self.calls.append(options)
        path.write_bytes(b"an ONNX file")


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> CountingExport:
    counting = CountingExport()
    monkeypatch.setattr(onnx_files, "export_onnx", counting)
    return counting


def change_weight(graph: Graph, _: pytest.MonkeyPatch) -> Graph:
    graph.module.layer.bias[0] += 1e-6  # type: ignore[union-attr,index]
    return graph


def change_attribute(graph: Graph, _: pytest.MonkeyPatch) -> Graph:
    graph.module.factor = 3.0  # type: ignore[assignment]
    return graph


def change_meaning(graph: Graph, _: pytest.MonkeyPatch) -> Graph:
    return replace(graph, inputs=(replace(graph.inputs[0], meaning="other numbers"),))


def change_half(graph: Graph, _: pytest.MonkeyPatch) -> Graph:
    return replace(graph, half=("layer",))


def change_source(graph: Graph, patch: pytest.MonkeyPatch) -> Graph:
    patch.setattr(onnx_files, "source_sha256", lambda: "0" * 64)
    return graph


def change_version(graph: Graph, patch: pytest.MonkeyPatch) -> Graph:
    patch.setattr(installed, "version", lambda _: "99.0")
    return graph


CHANGES = (change_weight, change_attribute, change_meaning, change_half, change_source, change_version)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_exported_again(
    change: Callable[[Graph, pytest.MonkeyPatch], Graph], graph: Graph, cache: EngineCache, export: CountingExport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    first = onnx_file(cache, graph, dynamic_batch=False)
    assert onnx_file(cache, graph, dynamic_batch=False) == first
    assert len(export.calls) == 1
    assert onnx_file(cache, change(graph, monkeypatch), dynamic_batch=False) != first
    assert len(export.calls) == 2


def test_options_are_exported_apart_and_passed_on(graph: Graph, cache: EngineCache, export: CountingExport) -> None:
    plain: dict[str, Any] = {"dynamic_batch": False, "half": False, "keep_float32": ()}
    variants = [plain, plain | {"dynamic_batch": True}, plain | {"half": True}, plain | {"keep_float32": ("layer",)}]
    paths = {onnx_file(cache, graph, **options) for options in variants * 2}
    assert len(paths) == len(variants) and export.calls == variants


def test_source_hash_covers_models_and_graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("models/unet.py", "engines/graphs.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(installed, "_PACKAGE", tmp_path)
    hashes = [source_sha256.__wrapped__()]
    for name in ("models/unet.py", "engines/graphs.py"):
        (tmp_path / name).write_text("two")
        hashes.append(source_sha256.__wrapped__())
    assert len(set(hashes)) == 3
    monkeypatch.undo()
    assert source_sha256.__wrapped__() not in hashes


def test_missing_exporter_is_named(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "EXPORTERS", ("torch", "no-such-package"))
    with pytest.raises(MissingError, match=r"no-such-package.*fitdiff\[engines\]"):
        onnx_key(graph, dynamic_batch=False, half=False)


def test_versions_of_files(
    graph: Graph, cache: EngineCache, export: CountingExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_file(cache, graph, dynamic_batch=False)
    (entry,) = cache.entries()
    assert entry.manifest and is_of_installed_version(entry.manifest)
    older = replace(entry.manifest, key=entry.manifest.key | {"source_sha256": "0" * 64})
    assert not is_of_installed_version(older)
    plan = replace(entry.manifest, kind="engine", key={"backend": "none", "backend_version": "1"})
    assert not is_of_installed_version(plan)
    plan = replace(plan, key={"backend": "eager", "backend_version": torch.__version__})
    assert is_of_installed_version(plan)
    monkeypatch.setattr(installed, "EXPORTERS", ("no-such-package",))
    assert not is_of_installed_version(entry.manifest)


def test_real_export_is_one_file_that_runs(graph: Graph, cache: EngineCache) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    told: list[str] = []
    path = onnx_file(cache, graph, dynamic_batch=True, progress=told.append)
    assert told == ["exporting"]
    assert {file.suffix for file in cache.root.iterdir()} == {".onnx", ".json", ".lock"}
    x = torch.randn(4, 3)
    (found,) = onnxruntime.InferenceSession(path.read_bytes()).run(None, {"x": x.numpy()})
    error = (torch.from_numpy(found) - graph.module(x)[0]).abs()
    print(f"error: largest {error.max():.1e}, mean {error.mean():.1e}")
    assert error.max() < 1e-5
