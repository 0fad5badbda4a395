"""The vector-Jacobian product of a frozen network as two graphs that share saved tensors.

A network is traced once to a list of ATen calls. `ForwardPass` runs the list and hands out, besides the outputs, what
the gradient needs of the way there. `GradientPass` walks the list backwards by the rules of `vjp_rules.py`, from those
saved tensors and the outputs' cotangents to the gradient of the first input. Both are plain modules of forward
operations: they run in PyTorch, and export like any network. Weights get no gradient.

What is saved is the derivative where the operation is pointwise (a SiLU then costs the backward pass one product), and
a value where a product needs it, unless that is cheap to compute again from smaller ones.

Knows nothing of which networks there are, and of ONNX.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram

from .vjp_rules import RULES, Compute, Site

Values = dict[fx.Node, Any]

TRACED_BATCH = 2  # torch.export takes a batch of 1 for a constant
_LARGEST_BATCH = 1024
_CHECKS = ("aten::_assert_tensor_metadata", "aten::_assert_scalar", "aten::sym_constrain_range_for_size")
# Computed again in the backward pass where the operands hold fewer bytes than the result.
_CHEAP = ("aten::mul", "aten::add", "aten::sub", "aten::div", "aten::to", "aten::_to_copy", "aten::expand")


def vjp_pair(module: nn.Module, example: Sequence[Tensor]) -> tuple[ForwardPass, GradientPass]:
    """Forward and gradient of a frozen `module` with respect to its first input.

    Saved tensors pass between the two in the types of the example's, or in float32 where the module has them in half.

    Args:
        module: takes tensors with the batch at axis 0, answers a tuple of such.
        example: its inputs, a batch of `TRACED_BATCH`; the pair takes any batch.

    Raises:
        NotImplementedError: the module calls an operation that `vjp_rules.RULES` lacks.
    """
    with torch.no_grad():
        tape = Tape(module, example)
        # What is asked for depends on shapes alone, and half precision takes a CPU minutes: nothing is computed here.
        with FakeTensorMode(allow_non_fake_inputs=True) as shapes:
            planner = _Planner(tape, tape.run([shapes.from_tensor(each) for each in example], tape.weights))
            ones = [torch.ones_like(planner.values[node]) for node in tape.outputs]
            tape.walk_back(ones, planner)
        return ForwardPass(tape, planner), GradientPass(tape, planner)


class Tape:
    """The calls of a network, in order, and its weights."""

    def __init__(self, module: nn.Module, example: Sequence[Tensor]) -> None:
        self.module, self.example = module, tuple(example)
        batch = {0: Dim("batch", min=1, max=_LARGEST_BATCH)}
        program = torch.export.export(module, self.example, dynamic_shapes=tuple(batch for _ in example))
        constants = _constants(program)
        self.inputs: list[fx.Node] = []
        calls: list[fx.Node] = []
        for node in program.graph.nodes:
            if node.op == "placeholder" and node not in constants:
                self.inputs.append(node)
            elif node.op == "call_function" and node.target._schema.name not in _CHECKS:
                if all(source in constants for source in node.all_input_nodes):
                    constants[node] = _called(node, constants)
                else:
                    calls.append(node)
        self.outputs: list[fx.Node] = list(program.graph.output_node().args[0])  # type: ignore[arg-type]
        self.calls = _leading_to(self.outputs, calls)
        used = {source for node in self.calls for source in node.all_input_nodes}
        self.weights: Values = {node: value.contiguous() for node, value in constants.items() if node in used}
        self.differentiable = _depending_on(self.inputs[0], self.calls)

    def run(self, inputs: Sequence[Tensor], weights: Values) -> Values:
        """The value of every node."""
        values: Values = dict(zip(self.inputs, inputs, strict=True)) | weights
        for node in self.calls:
            values[node] = _called(node, values)
        return values

    def walk_back(self, cotangents: Sequence[Tensor], walk: Walk) -> Tensor:
        """The first input's gradient."""
        gradients: dict[fx.Node, Tensor] = {}
        _accumulate(gradients, zip(self.outputs, cotangents, strict=True))
        for node in reversed(self.calls):
            if node in gradients:
                if node.target not in RULES:
                    raise NotImplementedError(f"gradient: got {node.target}; expected an operation of vjp_rules.RULES")
                site = Site(node, self.differentiable, walk)
                _accumulate(gradients, RULES[node.target](site, gradients.pop(node)))
        start = self.inputs[0]
        return gradients[start].expand(-1, *start.meta["val"].shape[1:])


class Walk(ABC):
    """What a rule may ask for on the way back."""

    frozen: Collection[fx.Node]  # the network's weights

    @abstractmethod
    def value(self, node: fx.Node) -> Tensor:
        """What the node was in the forward pass."""

    @abstractmethod
    def derivative(self, node: fx.Node, compute: Compute, operands: Sequence[fx.Node]) -> Tensor:
        """What `compute` made of the operands' values in the forward pass."""

    @abstractmethod
    def constant(self, node: fx.Node, compute: Compute, weight: fx.Node | None) -> Tensor:
        """What `compute` makes of a weight, once and for all."""


class _Planner(Walk):
    """Walks back through the shapes of an example, and notes what is asked for."""

    def __init__(self, tape: Tape, values: Values) -> None:
        self.values, self.weights = values, tape.weights
        self.frozen = tape.weights.keys()
        self.saved: dict[str, Callable[[Values], Tensor]] = {}
        self.made: dict[str, Callable[[], Tensor]] = {}
        self.weights_used: set[fx.Node] = set()

    def value(self, node: fx.Node) -> Tensor:
        sources = [source for source in node.all_input_nodes if source not in self.weights]
        if node in self.weights:
            self.weights_used.add(node)
        elif _schema_name(node) in _CHEAP and self._bytes(sources) < self._bytes([node]):
            for source in node.all_input_nodes:
                self.value(source)
        else:
            self.saved.setdefault(node.name, operator.itemgetter(node))
        return self.values[node]

    def derivative(self, node: fx.Node, compute: Compute, operands: Sequence[fx.Node]) -> Tensor:
        def saved(values: Values) -> Tensor:
            return compute(*(values[operand] for operand in operands))

        self.saved[f"{node.name}_derivative"] = saved
        return saved(self.values)

    def constant(self, node: fx.Node, compute: Compute, weight: fx.Node | None) -> Tensor:
        def made() -> Tensor:
            return compute(*(() if weight is None else (self.weights[weight],))).contiguous()

        self.made[f"{node.name}_constant"] = made
        return made()

    def constants(self) -> dict[str, Tensor]:
        """What `constant` was asked for, in numbers."""
        return {name: made() for name, made in self.made.items()}

    def _bytes(self, nodes: Iterable[fx.Node]) -> int:
        return sum(value.numel() * value.element_size() for value in (self.values[n] for n in nodes) if _is(value))


class _Replay(Walk):
    """Walks back through saved tensors."""

    def __init__(self, tape: Tape, saved: dict[str, Tensor], constants: dict[str, Tensor], weights: Values) -> None:
        self.saved, self.constants, self.weights = saved, constants, weights
        self.frozen = tape.weights.keys()
        self.values: Values = {}

    def value(self, node: fx.Node) -> Tensor:
        if node in self.weights:
            return self.weights[node]
        if node.name in self.saved:
            return self.saved[node.name]
        if node not in self.values:
            self.values[node] = _called(node, {source: self.value(source) for source in node.all_input_nodes})
        return self.values[node]

    def derivative(self, node: fx.Node, compute: Compute, operands: Sequence[fx.Node]) -> Tensor:
        return self.saved[f"{node.name}_derivative"]

    def constant(self, node: fx.Node, compute: Compute, weight: fx.Node | None) -> Tensor:
        return self.constants[f"{node.name}_constant"]


class NetworkPass(nn.Module):
    """A walk over the tape. Its constants are buffers: they move with it and are its state."""

    def __init__(self, tape: Tape, planner: _Planner, constants: dict[str, Tensor]) -> None:
        super().__init__()
        self.tape, self.saved = tape, planner.saved
        self.saved_types = tuple(compute(planner.values).dtype for compute in planner.saved.values())
        self._constant_names = tuple(constants)
        for name, constant in constants.items():
            self.register_buffer(name, constant)
        self.eval()

    def converted(self, convert: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """The same pass of `convert(network)`."""
        forward, gradient = vjp_pair(convert(self.tape.module), self.tape.example)
        return forward if isinstance(self, ForwardPass) else gradient

    def _weights(self) -> Values:
        return {node: self._buffers[node.name] for node in self.tape.weights if node.name in self._buffers}


class ForwardPass(NetworkPass):
    """The network's inputs to its outputs and, after them, the saved tensors."""

    def __init__(self, tape: Tape, planner: _Planner) -> None:
        super().__init__(tape, planner, {node.name: value for node, value in tape.weights.items()})
        self.saved_examples = tuple(_widened(compute(planner.values)) for compute in planner.saved.values())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = self.tape.run(inputs, self._weights())
        outputs = tuple(values[node] for node in self.tape.outputs)
        return outputs + tuple(_widened(compute(values)) for compute in self.saved.values())


class GradientPass(NetworkPass):
    """The saved tensors and, after them, one cotangent an output, to the first input's gradient."""

    def __init__(self, tape: Tape, planner: _Planner) -> None:
        weights = {node.name: tape.weights[node] for node in tape.weights if node in planner.weights_used}
        super().__init__(tape, planner, weights | planner.constants())

    def forward(self, *tensors: Tensor) -> tuple[Tensor]:
        narrow = (t if t.dtype == dtype else t.to(dtype) for t, dtype in zip(tensors, self.saved_types, strict=False))
        saved = dict(zip(self.saved, narrow, strict=True))
        constants = {name: self.get_buffer(name) for name in self._constant_names}
        walk = _Replay(self.tape, saved, constants, self._weights())
        return (self.tape.walk_back(tensors[len(self.saved) :], walk),)


def _constants(program: ExportedProgram) -> Values:
    """Parameters, buffers and literal tensors by their placeholder."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    tensors = {**program.constants, **program.state_dict}
    return {node: tensors[names[node.name]].detach() for node in program.graph.nodes if node.name in names}


def _leading_to(outputs: Iterable[fx.Node], calls: Sequence[fx.Node]) -> list[fx.Node]:
    needed = set(outputs)
    for node in reversed(calls):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in calls if node in needed]


def _depending_on(start: fx.Node, calls: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes through which a gradient flows to `start`."""
    reached = {start}
    for node in calls:
        value = node.meta["val"]
        if _is(value) and value.is_floating_point() and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
    return reached


def _accumulate(gradients: dict[fx.Node, Tensor], new: Iterable[tuple[fx.Node, Tensor]]) -> None:
    for node, gradient in new:
        gradients[node] = gradients[node] + gradient if node in gradients else gradient


def _called(node: fx.Node, values: Values) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)  # type: ignore[misc]
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _schema_name(node: fx.Node) -> str:
    return node.target._schema.name if node.op == "call_function" else ""  # type: ignore[union-attr]


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)
