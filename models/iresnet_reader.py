"""Reads the weights of an iresnet out of an ONNX graph, however its exporter has folded the batch norms.

Walks from the input: what scales and shifts channels is taken into the convolution or the linear layer before it, in
float64; what stands before a padded convolution stays a scale and a shift of its own. It makes no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import MissingError
from .onnx_weights import OnnxGraph, OnnxNode, load_onnx_graph

Affine = tuple[np.ndarray, np.ndarray]  # scale and shift, (C,) or (1,)
UNTOUCHED: Affine = (np.ones(1), np.zeros(1))


@dataclass(frozen=True)
class Convolution:
    weight: np.ndarray  # (O, I, k, k)
    bias: np.ndarray  # (O,)
    stride: int


@dataclass(frozen=True)
class Block:
    entry: Affine  # (C,) scale and shift before the first convolution
    conv1: Convolution
    slope: np.ndarray  # (O,) of the PReLU
    conv2: Convolution
    shortcut: Convolution | None


@dataclass(frozen=True)
class IResNetWeights:
    """Everything of an iresnet; `input` is what the file itself does to pixels of 255, None where it does nothing."""

    input: Affine | None
    stem: Convolution
    slope: np.ndarray
    blocks: tuple[Block, ...]
    embed: tuple[np.ndarray, np.ndarray]  # (D, C H W) on maps flattened in that order, (D,)

    @property
    def stages(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks from one that halves the map to the next."""
        starts = [i for i, block in enumerate(self.blocks) if block.conv2.stride == 2]
        return tuple(self.blocks[a:b] for a, b in zip(starts, [*starts[1:], len(self.blocks)], strict=True))


def read_iresnet(path: Path) -> tuple[IResNetWeights, str]:
    """The weights in an ONNX file, and its SHA-256.

    Raises:
        MissingError: as `load_onnx_graph`, or the graph is not that of an iresnet; the message names the node.
    """
    graph, sha256 = load_onnx_graph(path)
    try:
        return _Walk(graph).network(), sha256
    except _Unexpected as problem:
        expected = "an iresnet, such as w600k_r50.onnx of buffalo_l or glintr100.onnx of antelopev2"
        remedy = "give the recogniser of an InsightFace pack; its other files are detectors and landmark networks"
        raise MissingError(f"recogniser {path}", str(problem), expected, remedy) from problem


class _Unexpected(Exception):
    """The graph goes on otherwise than an iresnet does."""


class _Walk:
    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph

    def network(self) -> IResNetWeights:
        before, at = self._affine(self.graph.input)
        stem, at = self._convolution(self._only(at, "Conv"))
        slope, at = self._prelu(at)
        blocks: list[Block] = []
        while len(self.graph.consumers(at)) == 2:
            block, at = self._block(at)
            blocks.append(block)
        embed = self._embedding(at, blocks[-1].conv2.weight.shape[0] if blocks else 0)
        given = None if before is UNTOUCHED else before
        network = IResNetWeights(given, stem, _full(slope, stem), tuple(blocks), embed)
        if stem.stride != 1 or not blocks or blocks[0].conv2.stride != 2 or len(network.stages) != 4:
            raise _Unexpected(f"{len(blocks)} residual blocks in {len(network.stages)} stages, a stem of {stem.stride}")
        return network

    def _block(self, at: str) -> tuple[Block, str]:
        readers = self.graph.consumers(at)
        entries = [node for node in readers if self._as_affine(node, at)]
        if len(entries) != 1:
            raise _Unexpected(f"{_said(readers)} after {at!r}, where a residual block should begin")
        entry, inside = self._affine(at, entries[0])
        conv1, inside = self._convolution(self._only(inside, "Conv"))
        slope, inside = self._prelu(inside)
        conv2, inside = self._convolution(self._only(inside, "Conv"))
        join = self._only(inside, "Add")
        (other,) = [node for node in readers if node is not entries[0]]
        shortcut = None
        if other is not join:
            if other.op != "Conv":
                raise _Unexpected(f"{_said([other])} as a shortcut")
            shortcut, end = self._convolution(other)
            if end not in join.inputs:
                raise _Unexpected(f"a shortcut that does not end in {_said([join])}")
        width = conv1.weight.shape[1]
        scale, shift = (np.broadcast_to(value, width) for value in entry)
        return Block((scale, shift), conv1, _full(slope, conv1), conv2, shortcut), join.output

    def _embedding(self, at: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
        (scale, shift), at = self._affine(at)
        node = self._only(at, "Flatten", "Reshape")
        if node.op == "Flatten" and node.attributes.get("axis", 1) != 1:
            raise _Unexpected(f"{_said([node])} of axis {node.attributes['axis']}")
        node = self._only(node.output, "Gemm", "MatMul")
        weight, bias = self._linear(node)
        if not channels or weight.shape[1] % channels:
            raise _Unexpected(f"{_said([node])} of {weight.shape[1]} inputs after {channels} channels")
        size = weight.shape[1] // channels
        scale, shift = (np.broadcast_to(value, channels).repeat(size) for value in (scale, shift))
        weight, bias = weight * scale, bias + weight @ shift
        (scale, shift), at = self._affine(node.output)
        if at != self.graph.output:
            raise _Unexpected(f"{_said(self.graph.consumers(at))} after the embedding")
        rows = np.broadcast_to(scale, len(weight))
        return weight * rows[:, None], bias * rows + shift

    def _linear(self, node: OnnxNode) -> tuple[np.ndarray, np.ndarray]:
        """(O, I) and (O,)."""
        weight = self._weight(node, 1)
        if node.op == "MatMul":
            return weight.T, np.zeros(weight.shape[1])
        if node.attributes.get("transA", 0):
            raise _Unexpected(f"{_said([node])} with transA")
        rows = weight if node.attributes.get("transB", 0) else weight.T
        bias = self._weight(node, 2).reshape(-1) if len(node.inputs) > 2 else np.zeros(1)
        factors = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
        return rows * factors[0], np.broadcast_to(bias * factors[1], len(rows))

    def _convolution(self, node: OnnxNode) -> tuple[Convolution, str]:
        """A convolution with what scales its channels after it, and where that ends."""
        weight = self._weight(node, 1)
        kernel, given = weight.shape[2], node.attributes
        strides, pads = given.get("strides", [1, 1]), given.get("pads", [0, 0, 0, 0])
        plain = set(given.get("dilations", [1, 1])) == {1} and given.get("group", 1) == 1
        if not plain or set(pads) != {kernel // 2} or strides not in ([1, 1], [2, 2]) or kernel not in (1, 3):
            raise _Unexpected(f"{_said([node])} of kernel {kernel}, strides {strides}, pads {pads}")
        bias = self._weight(node, 2) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(len(weight))
        (scale, shift), at = self._affine(node.output)
        scale = np.broadcast_to(scale, len(weight))
        return Convolution(weight * scale[:, None, None, None], bias * scale + shift, strides[0]), at

    def _prelu(self, at: str) -> tuple[np.ndarray, str]:
        node = self._only(at, "PRelu")
        return self._weight(node, 1).reshape(-1), node.output

    def _affine(self, at: str, first: OnnxNode | None = None) -> tuple[Affine, str]:
        """All that scales and shifts the channels of a value, and the value after it."""
        found, node = UNTOUCHED, first or self._single(at)
        while node is not None and (step := self._as_affine(node, at)):
            found = found[0] * step[0], found[1] * step[0] + step[1]
            at = node.output
            node = self._single(at)
        return found, at

    def _as_affine(self, node: OnnxNode, at: str) -> Affine | None:
        """Scale and shift (C,) or (1,) of a node that reads `at`, if that is all it does."""
        if node.op == "BatchNormalization" and node.inputs[0] == at:
            gamma, beta, mean, variance = (self._weight(node, index) for index in range(1, 5))
            scale = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
            return scale, beta - mean * scale
        if node.op not in ("Mul", "Add", "Sub", "Div") or len(node.inputs) != 2:
            return None
        right = node.inputs[0] == at
        constant = self.graph.constant(node.inputs[1 if right else 0])
        if constant is None or not _of_channels(constant):
            return None
        value = constant.reshape(-1).astype(np.float64)
        one, zero = np.ones_like(value), np.zeros_like(value)
        if node.op == "Mul":
            return value, zero
        if node.op == "Add":
            return one, value
        if node.op == "Sub":
            return (one, -value) if right else (-one, value)
        return (1 / value, zero) if right else None

    def _weight(self, node: OnnxNode, index: int) -> np.ndarray:
        value = self.graph.constant(node.inputs[index]) if index < len(node.inputs) else None
        if value is None:
            raise _Unexpected(f"{_said([node])} whose input {index} is no constant")
        return value.astype(np.float64)

    def _single(self, at: str) -> OnnxNode | None:
        """The one node that reads a value, None where there are more or it is the output."""
        readers = self.graph.consumers(at)
        return readers[0] if len(readers) == 1 else None

    def _only(self, at: str, *ops: str) -> OnnxNode:
        node = self._single(at)
        if node is None or node.op not in ops:
            raise _Unexpected(f"{_said(self.graph.consumers(at))} after {at!r}, not {' or '.join(ops)}")
        return node


def _of_channels(constant: np.ndarray) -> bool:
    """Is it one number, or one for each channel of (B, C, H, W) or of (B, C)?"""
    shape = constant.shape
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return constant.size == 1 or shape[1:] in ((), (1, 1))


def _full(slope: np.ndarray, before: Convolution) -> np.ndarray:
    return np.broadcast_to(slope, len(before.weight))


def _said(nodes: list[OnnxNode]) -> str:
    return ", ".join(f"{node.op} {node.name or node.output!r}" for node in nodes) or "nothing"
