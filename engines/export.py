"""A graph as one ONNX file, documented within, the same bytes whenever it is written from the same weights."""

from __future__ import annotations

import inspect
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from .. import __version__
from ..errors import MissingError
from .graph import Graph, TensorSpec
from .half import half_from_graph

OPSET = 21
TRACED_BATCH = 2  # torch.export takes a batch of 1 for a constant
LARGEST_BATCH = 1024


def export_onnx(
    graph: Graph, path: Path, *, dynamic_batch: bool, half: bool = False, keep_float32: Sequence[str] = ()
) -> None:
    """Write `graph` to `path`, whole or not at all; weights inside.

    The file's `metadata_props` hold the summary, the inputs and outputs as JSON, and the version of fitdiff.

    Args:
        dynamic_batch: axis 0 is `batch`; otherwise it is 1.
        half: arithmetic in float16 but for what the graph says; inputs and outputs stay float32. A graph with nothing
            in half is written as without it.
        keep_float32: more submodules to keep in float32, as `Graph.float32` names them.

    Raises:
        MissingError: the packages `onnx` and `onnxscript` are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        got = f"no module {error.name!r}"
        raise MissingError("ONNX export", got, "onnx and onnxscript", "pip install onnx onnxscript") from error
    model = _model(graph, dynamic_batch, half and graph.has_half, keep_float32)
    data = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(data, full_check=True)
    _write_whole(path, data)


def _model(graph: Graph, dynamic_batch: bool, half: bool, keep_float32: Sequence[str]) -> Any:
    module = half_from_graph(graph, keep_float32) if half else graph.module
    with torch.no_grad(), _without_remarks():
        program = torch.onnx.export(
            module.eval(),
            graph.example(TRACED_BATCH if dynamic_batch else 1),
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            dynamic_shapes=_dynamic_shapes(graph) if dynamic_batch else None,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # PyTorch notes the lines of source that a node comes from
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    model.producer_name, model.producer_version = "fitdiff", __version__
    model.graph.name, model.doc_string = graph.name, graph.summary
    for key, value in _metadata(graph, half).items():
        model.metadata_props.add(key=key, value=value)
    return model


@contextmanager
def _without_remarks() -> Iterator[None]:
    """The exporter remarks on standard error that torchvision, which nothing here needs, is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PyTorch's own use of its own trees
            yield
    finally:
        logger.setLevel(level)


def _dynamic_shapes(graph: Graph) -> tuple[Any, ...]:
    """One for each parameter of `forward`; those of `*args` are a tuple."""
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    shapes = tuple({0: batch} for _ in graph.inputs)
    parameters = inspect.signature(graph.module.forward).parameters.values()
    named = sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)
    return shapes if named == len(parameters) else (*shapes[:named], shapes[named:])


def _metadata(graph: Graph, half: bool) -> dict[str, str]:
    return {
        "fitdiff_version": __version__,
        "graph": graph.name,
        "summary": graph.summary,
        "precision": "fp16" if half else "fp32",
        "inputs": json.dumps([_described(spec) for spec in graph.inputs]),
        "outputs": json.dumps([_described(spec) for spec in graph.outputs]),
    }


def _described(spec: TensorSpec) -> dict[str, Any]:
    shape = ["batch" if side is None else side for side in spec.shape]
    dtype = str(spec.dtype).removeprefix("torch.")
    return {"name": spec.name, "shape": shape, "dtype": dtype, "meaning": spec.meaning}


def _write_whole(path: Path, data: bytes) -> None:
    # Beside the target, because os.replace is atomic only within one file system.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
