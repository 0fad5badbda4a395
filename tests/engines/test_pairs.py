"""A pair whose saved tensors are known is not traced again, and its files are found without a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines import onnx_files, pairs
from fitdiff.engines.cache import EngineCache
from fitdiff.engines.export import export_onnx
from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.half import half_from_graph
from fitdiff.engines.installed import is_of_installed_version
from fitdiff.engines.onnx_files import onnx_file, onnx_key
from fitdiff.engines.pairs import pair_from_graph


class Network(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, channels, 3)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (nn.functional.silu(self.layer(x)),)


def graph(channels: int = 4, seed: int = 0) -> Graph:
    torch.manual_seed(seed)
    network = Network(channels).eval().requires_grad_(False)
    image, out = TensorSpec("image", (None, 3, 8, 8)), TensorSpec("out", (None, channels, 6, 6))
    return Graph("small", "Small.", network, (image,), (out,))


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks that were traced."""
    traced: list[nn.Module] = []

    def counting(module: nn.Module, example: Any) -> Any:
        traced.append(module)
        return trace(module, example)

    trace = pairs.vjp_pair
    monkeypatch.setattr(pairs, "vjp_pair", counting)
    return traced


def specs(pair: tuple[Graph, Graph]) -> list[tuple[TensorSpec, ...]]:
    return [tensors for each in pair for tensors in (each.inputs, each.outputs)]


def test_a_known_pair_is_traced_when_its_module_is_asked_for(cache: EngineCache, traces: list[nn.Module]) -> None:
    first = pair_from_graph(graph(), cache)
    assert len(traces) == 1
    again = pair_from_graph(graph(), cache)
    assert specs(again) == specs(first) == specs(pair_from_graph(graph()))
    assert any(spec.name == "saved_00" for spec in again[1].inputs)
    assert len(traces) == 2  # of the one without a cache
    (image,) = again[0].example(3)
    saved = again[0].module(image)[1:]
    assert [tuple(tensor.shape) for tensor in saved] == [spec.sized(3) for spec in again[0].outputs[1:]]
    again[1].module(*again[1].example(3))
    assert len(traces) == 3  # both passes of one trace


def test_the_key_of_a_pair_needs_no_trace(
    cache: EngineCache, traces: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Graph] = []

    def export(made: Graph, path: Path, **_: Any) -> None:
        exported.append(made)
        path.write_bytes(b"an ONNX file")

    monkeypatch.setattr(onnx_files, "export_onnx", export)
    paths = [onnx_file(cache, each, dynamic_batch=False) for each in pair_from_graph(graph(), cache)]
    assert len(set(paths)) == len(exported) == 2
    traces.clear()
    assert [onnx_file(cache, each, dynamic_batch=False) for each in pair_from_graph(graph(), cache)] == paths
    assert len(exported) == 2 and not traces


def test_with_and_without_a_cache_the_key_is_the_same(cache: EngineCache) -> None:
    for plain, cached in zip(pair_from_graph(graph()), pair_from_graph(graph(), cache), strict=True):
        assert onnx_key(plain, dynamic_batch=False, half=False) == onnx_key(cached, dynamic_batch=False, half=False)


def test_a_pair_with_nothing_in_half_is_one_file_for_both_precisions(tmp_path: Path) -> None:
    in_half, kept = (pair_from_graph(replace(graph(), half_in_pair=half))[1] for half in (("layer",), ()))
    keys = [onnx_key(made, dynamic_batch=False, half=half) for made in (kept, in_half) for half in (False, True)]
    assert keys[0] == keys[1] and len({key.digest() for key in keys}) == 3
    for half in (False, True):
        export_onnx(kept, tmp_path / str(half), dynamic_batch=False, half=half)
    assert (tmp_path / "True").read_bytes() == (tmp_path / "False").read_bytes()
    assert half_from_graph(kept) is kept.module and half_from_graph(in_half) is not in_half.module


def test_other_weights_or_shapes_are_traced(cache: EngineCache, traces: list[nn.Module]) -> None:
    keys = set()
    for network in (graph(), graph(seed=1), graph(channels=5)):
        for made in pair_from_graph(network, cache):
            keys.add(onnx_key(made, dynamic_batch=False, half=False))
    assert len(traces) == 3 and len(keys) == 6


def test_what_is_kept_is_json_that_versions_outlive(cache: EngineCache, traces: list[nn.Module]) -> None:
    pair_from_graph(graph(), cache)
    (entry,) = cache.entries()
    assert entry.manifest and entry.manifest.kind == "trace" and is_of_installed_version(entry.manifest)
    assert all(dtype == "float32" and shape for shape, dtype in json.loads(entry.path.read_text()))
    entry.path.write_text('[[[1], "float32"]]')  # tampered with: made again
    assert len(pair_from_graph(graph(), cache)[0].outputs) == len(pair_from_graph(graph())[0].outputs)
    assert len(traces) == 3
