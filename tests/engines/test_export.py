"""Every graph as ONNX, checked, run by ONNX Runtime and compared with PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fitdiff import __version__
from fitdiff.engines.export import OPSET, export_onnx
from fitdiff.engines.graph import Graph
from fitdiff.engines.graphs import GRAPH_NAMES, GraphSources, build_graph, build_pair
from fitdiff.engines.half import half_from_module
from fitdiff.engines.parity import pair_parity, parity

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def onnxruntime_runs(path: Path) -> Callable[..., list[Tensor]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feeds)]

    return run


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_onnx_runtime_agrees(name: str, small_sources: GraphSources, tmp_path: Path) -> None:
    graph = build_graph(name, small_sources)
    path = tmp_path / f"{name}.onnx"
    export_onnx(graph, path, dynamic_batch=True)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == [spec.name for spec in graph.inputs]
    assert [value.name for value in model.graph.output] == [spec.name for spec in graph.outputs]
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == OPSET
    assert not {"ConvTranspose", "ScatterND", "ScatterElements"} & {node.op_type for node in model.graph.node}
    assert_documented(graph, model)
    run = onnxruntime_runs(path)
    for batch in (1, 3):
        worst = parity(graph, run, batch)
        print(f"batch {batch}: {worst}")
        assert worst.relative <= graph.tolerance
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def assert_documented(graph: Graph, model: onnx.ModelProto) -> None:  # type: ignore[name-defined]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["fitdiff_version"] == __version__ and metadata["summary"] == graph.summary == model.doc_string
    for key, specs in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        described = json.loads(metadata[key])
        assert [entry["name"] for entry in described] == [spec.name for spec in specs]
        assert [entry["shape"] for entry in described] == [["batch", *spec.shape[1:]] for spec in specs]
        assert all(entry["meaning"] for entry in described)


@pytest.mark.parametrize("name", ["texture_face", "recogniser_forward", "recogniser_vjp"])
def test_a_static_batch_is_one(name: str, small_sources: GraphSources, tmp_path: Path) -> None:
    graph = build_graph(name, small_sources)
    export_onnx(graph, tmp_path / "graph.onnx", dynamic_batch=False)
    model = onnx.load(tmp_path / "graph.onnx")
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1
    worst = parity(graph, onnxruntime_runs(tmp_path / "graph.onnx"))
    print(worst)
    assert worst.relative <= graph.tolerance


@pytest.mark.parametrize("name", ["denoiser", "conditioner", "texture_decoder", "texture_face_vjp", "recogniser"])
def test_half_is_near_and_keeps_its_border(name: str, small_sources: GraphSources, tmp_path: Path) -> None:
    graph = build_graph(name, small_sources)
    export_onnx(graph, tmp_path / "half.onnx", dynamic_batch=False, half=True)
    export_onnx(graph, tmp_path / "full.onnx", dynamic_batch=False)
    model, full = onnx.load(tmp_path / "half.onnx"), onnx.load(tmp_path / "full.onnx")
    for a, b in zip((*model.graph.input, *model.graph.output), (*full.graph.input, *full.graph.output), strict=True):
        assert a.type.tensor_type.elem_type == b.type.tensor_type.elem_type
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[2] == 3]
    assert kernels and all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in kernels)
    worst = parity(graph, onnxruntime_runs(tmp_path / "half.onnx"))
    print(worst)
    assert 0 < worst.relative <= graph.half_tolerance


@pytest.mark.parametrize(
    "network, half",
    [("recogniser", False), ("recogniser", True), ("landmarks", True), ("perceptual", True), ("texture_face", True)],
)
def test_a_pair_passes_on_what_it_saved(network: str, half: bool, small_sources: GraphSources, tmp_path: Path) -> None:
    graphs = build_pair(network, small_sources)
    for graph in graphs:
        export_onnx(graph, tmp_path / graph.name, dynamic_batch=False, half=half)
    forward, vjp = (onnxruntime_runs(tmp_path / graph.name) for graph in graphs)
    error = pair_parity(graphs[1], forward, vjp)
    print(error)
    assert error.relative <= (graphs[1].half_tolerance if half else graphs[1].tolerance)


def test_half_leaves_out_what_is_kept(small_sources: GraphSources, tmp_path: Path) -> None:
    graph = build_graph("texture_face", small_sources)
    export_onnx(graph, tmp_path / "half.onnx", dynamic_batch=False, half=True, keep_float32=("*.decoder.stem",))
    types = [(tuple(t.dims), t.data_type) for t in onnx.load(tmp_path / "half.onnx").graph.initializer]
    stem = tuple(small_sources.autoencoder.decoder.stem.weight.shape)
    assert (stem, onnx.TensorProto.FLOAT) in types
    with pytest.raises(ValueError, match="no_such_part"):
        half_from_module(graph.module, ("no_such_part",), ())


MAKE_ANOTHER = """
import sys, torch
from pathlib import Path
from fitdiff.engines.export import export_onnx
from fitdiff.engines.graphs import pair_from_graph
from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.models.perceptual import EfficientNetLite0Config, EfficientNetLite0Features, StageConfig
torch.manual_seed(0)
stages = (StageConfig(1, 3, 1, 1, 4), StageConfig(2, 5, 2, 2, 6))
network = EfficientNetLite0Features(EfficientNetLite0Config(stem_width=4, stages=stages)).eval().requires_grad_(False)
image = TensorSpec("image", (None, 3, 32, 32), meaning="a picture", low=0.0)
outputs = TensorSpec("a", (None, 4, 16, 16)), TensorSpec("b", (None, 6, 8, 8))
graph = Graph("small", "Small.", network, (image,), outputs)
for graph, name in zip((graph, *pair_from_graph(graph)), ("plain", "forward", "vjp")):
    export_onnx(graph, Path(sys.argv[1]) / name, dynamic_batch=True)
"""


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    hashes: list[dict[str, str]] = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", MAKE_ANOTHER, folder], env=environment, check=True, capture_output=True)
        hashes.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()})
        assert not any(str(Path.cwd()).encode() in file.read_bytes() for file in folder.iterdir())
    assert hashes[0] == hashes[1] and set(hashes[0]) == {"plain", "forward", "vjp"}


def test_a_failed_export_leaves_the_old_file(small_sources: GraphSources, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"before")
    graph = build_graph("landmarks", small_sources)

    class Broken(torch.nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            raise RuntimeError("broken")

    with pytest.raises(Exception, match="broken"):
        export_onnx(replace(graph, network=Broken()), path, dynamic_batch=False)
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1
