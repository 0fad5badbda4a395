"""New weights for an engine built with `PlanOptions.refit`: a checkpoint of the same architecture needs no build.

`architecture_sha256` says whether two ONNX files are the same network but for their weights; only then may one refit
the other's engine. Knows nothing of caches or of how weights were trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .loader import EngineError, Flavour

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, TensorProto


def refit_engine(engine: Any, onnx_path: Path, flavour: Flavour) -> None:
    """Put the weights of an ONNX file into a deserialised engine. Contexts that exist see them from their next run.

    Raises EngineError where the engine is not refittable, or where names, counts or types of weights differ: a part
    of the weights may then have been replaced, so let go of the engine.
    """
    if not engine.refittable:
        remedy = "build it with PlanOptions(refit=True), or build a plan for these weights"
        raise EngineError(f"engine {engine.name}", "one with fixed weights", "a refittable one", remedy)
    with flavour.log.messages() as said:
        refitter = flavour.trt.Refitter(engine, flavour.log.logger)
        parser = flavour.trt.OnnxParserRefitter(refitter, flavour.log.logger)
        fits = parser.refit_from_file(str(onnx_path)) and refitter.refit_cuda_engine()
        missing = [] if fits else list(refitter.get_missing_weights())
    if not fits:
        errors = [" ".join(parser.get_error(index).desc().split()) for index in range(parser.num_errors)]
        lacking = [f"no weights for {', '.join(missing[:5])}"] if missing else []
        got = "; ".join(dict.fromkeys([*errors, *lacking, *said[:2]])) or "no reason given"
        remedy = "build a plan for this file: its architecture is another"
        raise EngineError(f"weights of {onnx_path}", got, "those of the engine's own architecture", remedy)


def refittable_weights(onnx_path: Path, flavour: Flavour) -> tuple[str, ...]:
    """Initialisers of an ONNX file that TensorRT keeps under their own names, so that new ones can take their place.

    Needs no GPU. Raises EngineError where the file does not parse.
    """
    import onnx

    trt = flavour.trt
    with flavour.log.messages() as said:
        builder = trt.Builder(flavour.log.logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, flavour.log.logger)
        parsed = parser.parse_from_file(str(onnx_path))
    if not parsed:
        raise EngineError(str(onnx_path), "; ".join(said[:3]), "a network that TensorRT takes", "export it again")
    names = [weights.name for weights in onnx.load(onnx_path, load_external_data=False).graph.initializer]
    return tuple(name for name in names if network.mark_weights_refittable(name))


def architecture_sha256(onnx_path: Path) -> str:
    """Hash of all that a refit leaves as it is: operators, their settings, wiring, names, types and shapes.

    Values of floating-point weights are left out. Integers stay in, for they are axes, shapes and indices, and so do
    floating-point scalars and scales of a resize, for they are settings that an engine has built in.
    """
    import onnx

    model = onnx.load(onnx_path)
    digest = hashlib.sha256()
    for opset in model.opset_import:
        digest.update(f"{opset.domain} {opset.version}\n".encode())
    for line in _graph_lines(model.graph):
        digest.update(line)
    for function in model.functions:
        digest.update(function.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _graph_lines(graph: GraphProto) -> Iterator[bytes]:
    for tensor in (*graph.input, *graph.output):
        yield f"{tensor.name} ".encode() + tensor.type.SerializeToString(deterministic=True)
    built_in = {name for node in graph.node if node.op_type == "Resize" for name in node.input}
    for weights in sorted(graph.initializer, key=lambda each: each.name):
        yield _weights_line(weights, with_values=weights.name in built_in)
    for node in graph.node:
        yield f"{node.domain}.{node.op_type} {node.name} {list(node.input)} {list(node.output)}\n".encode()
        for attribute in sorted(node.attribute, key=lambda each: each.name):
            yield from _attribute_lines(attribute)


def _attribute_lines(attribute: AttributeProto) -> Iterator[bytes]:
    if attribute.HasField("t"):
        yield attribute.name.encode() + _weights_line(attribute.t, with_values=True)  # a literal, not a weight
    elif attribute.HasField("g"):
        yield attribute.name.encode()
        yield from _graph_lines(attribute.g)
    else:
        yield attribute.SerializeToString(deterministic=True)


def _weights_line(weights: TensorProto, *, with_values: bool = False) -> bytes:
    from onnx import TensorProto, numpy_helper

    line = f"{weights.name} {weights.data_type} {list(weights.dims)}\n".encode()
    floating = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    if weights.dims and weights.data_type in floating and not with_values:
        return line
    return line + numpy_helper.to_array(weights).tobytes()
