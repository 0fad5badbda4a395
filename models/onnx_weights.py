"""An ONNX file as nodes to walk along: constants worked out, and what does nothing at run time taken away.

For networks that are rebuilt in PyTorch from somebody's ONNX file. Knows no network; runs none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingError

PASSING = ("Identity", "Dropout", "Cast")  # hand their first input on, in a network that is evaluated
ASKING = ("Shape",)  # read no numbers: they serve batches of any size


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """A node whose first output alone counts; "" among `inputs` is one that was left out."""

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class OnnxGraph:
    """input, output: names of the first ones. constants: every value that does not depend on the input."""

    def __init__(
        self, input_name: str, output_name: str, nodes: Sequence[OnnxNode], constants: dict[str, np.ndarray]
    ) -> None:
        self.input, self.nodes, self.constants = input_name, nodes, constants
        handed_on = {node.output: node.inputs[0] for node in nodes if node.op in PASSING}

        def origin(name: str) -> str:
            while name in handed_on:
                name = handed_on[name]
            return name

        self.output = origin(output_name)
        self._consumers: dict[str, list[OnnxNode]] = {}
        for node in nodes:
            if node.op in PASSING:
                continue
            node = OnnxNode(node.op, node.name, tuple(map(origin, node.inputs)), node.output, node.attributes)
            for name in dict.fromkeys(node.inputs):
                if name not in constants and node.op not in ASKING:
                    self._consumers.setdefault(name, []).append(node)

    def consumers(self, name: str) -> list[OnnxNode]:
        """The nodes that read a value, in the file's order; each once."""
        return self._consumers.get(name, [])

    def constant(self, name: str) -> np.ndarray | None:
        return self.constants.get(name)


def load_onnx_graph(path: Path) -> tuple[OnnxGraph, str]:
    """The graph of a file, and the SHA-256 of that and of the files of weights beside it, if it has any.

    Raises:
        MissingError: no such file, no ONNX file, or the package `onnx` is not installed.
    """
    try:
        import onnx
        from onnx import external_data_helper, helper, numpy_helper
    except ImportError as error:
        remedy = "pip install onnx"
        raise MissingError("package onnx", "not installed", f"it, to read {path}", remedy) from error
    thing = f"ONNX file {path}"
    if not path.is_file():
        raise MissingError(thing, "no such file", "an ONNX file", "check the path")
    data = path.read_bytes()
    digest = hashlib.sha256(data)
    try:
        model = onnx.load_model_from_string(data)
        beside = {
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        for name in sorted(beside):
            digest.update((path.parent / name).read_bytes())
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        graph = model.graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "CastLike":  # the second input gives a type, no numbers
                node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output, node.name))
        _fold_constants(model, constants)
        nodes = [_node(node) for node in graph.node if node.output[0] not in constants]
        inputs = [value.name for value in graph.input if value.name not in constants]
        read = OnnxGraph(inputs[0], graph.output[0].name, nodes, constants)
    except Exception as error:  # protobuf, onnx and the file system have no error in common
        got = f"{type(error).__name__}: {error}"
        raise MissingError(thing, got, "a whole ONNX file", "download it again") from error
    return read, digest.hexdigest()


def _node(proto: Any) -> OnnxNode:
    from onnx import helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute}
    return OnnxNode(proto.op_type, proto.name, tuple(proto.input), proto.output[0], attributes)


def _fold_constants(model: Any, constants: dict[str, np.ndarray]) -> None:
    """Add to `constants` what follows from them alone: exporters leave reshaped or repeated weights to the graph."""
    from onnx import TypeProto, ValueInfoProto, helper
    from onnx.reference import ReferenceEvaluator

    known, foldable = set(constants), []
    for node in model.graph.node:
        if all(name == "" or name in known for name in node.input) and len(node.output) == 1:
            foldable.append(node)
            known.add(node.output[0])
    if not foldable:
        return
    outputs = [ValueInfoProto(name=node.output[0], type=TypeProto()) for node in foldable]
    graph = helper.make_graph(foldable, "constants", [], outputs, list(model.graph.initializer))
    values = ReferenceEvaluator(helper.make_model(graph, opset_imports=model.opset_import)).run(None, {})
    constants.update({node.output[0]: np.asarray(value) for node, value in zip(foldable, values, strict=True)})
