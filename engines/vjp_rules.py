"""One rule an operation: from the gradient of its result to the gradients of its operands.

A rule is written in forward operations that every back end has and runs fast: no scatter and no gather. The gradient of
a convolution is a convolution with the flipped, transposed kernel; that of a strided one gives the phases of the larger
picture as channels, which are then interleaved.

A gradient may be smaller than the result where it is the same all along an axis. Shapes below are of one sample:
the batch, axis 0, is unknown.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

if TYPE_CHECKING:
    from .vjp import Walk

aten = torch.ops.aten
Compute = Callable[..., Tensor]
Gradients = Iterable[tuple[fx.Node, Tensor]]


@dataclass(frozen=True)
class Site:
    """A call that a gradient passes through."""

    node: fx.Node
    differentiable: set[fx.Node]
    walk: Walk

    def arg(self, index: int, default: Any = None) -> Any:
        """The call's argument; a node where that is a tensor."""
        args = self.node.args
        return args[index] if index < len(args) and args[index] is not None else default

    def wants(self, arg: Any) -> bool:
        return isinstance(arg, fx.Node) and arg in self.differentiable

    def value(self, arg: Any) -> Any:
        """An argument's value in the forward pass."""
        return self.walk.value(arg) if isinstance(arg, fx.Node) else arg

    def derivative(self, compute: Compute, *operands: fx.Node) -> Tensor:
        """What the forward pass computes from its values, and saves."""
        return self.walk.derivative(self.node, compute, operands)

    def constant(self, compute: Compute, weight: fx.Node | None = None) -> Tensor:
        """What depends on a weight alone; computed once."""
        return self.walk.constant(self.node, compute, weight)

    def weight(self, index: int) -> fx.Node:
        """The argument as a frozen weight."""
        node = self.arg(index)
        if node not in self.walk.frozen:
            raise NotImplementedError(f"gradient of {self.node.target}: got a computed weight; expected a frozen one")
        return node

    def full(self, gradient: Tensor) -> Tensor:
        """The gradient in the result's shape."""
        return gradient.expand(-1, *shape_of(self.node)[1:])


Rule = Callable[[Site, Tensor], Gradients]
RULES: dict[Any, Rule] = {}


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Sides of a tensor, the batch as -1."""
    return tuple(side if isinstance(side, int) else -1 for side in node.meta["val"].shape)


def _rule(*targets: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


def _fitted(site: Site, operand: fx.Node, gradient: Tensor) -> Tensor:
    """Summed over the axes along which the operand was broadcast."""
    result, wanted = shape_of(site.node), shape_of(operand)
    if len(result) != len(wanted):
        raise NotImplementedError(f"gradient of {site.node.target}: got operands of unequal rank; expected equal ones")
    axes = [axis for axis, side in enumerate(wanted) if side == 1 and result[axis] != 1]
    if not axes:
        return gradient
    repeated = math.prod(result[axis] for axis in axes if gradient.shape[axis] == 1)
    summed = gradient.sum([axis for axis in axes if gradient.shape[axis] != 1], keepdim=True)
    return summed * repeated if repeated != 1 else summed


# Arithmetic


@_rule(aten.add.Tensor)
def _add(site: Site, gradient: Tensor) -> Gradients:
    for operand in site.node.args[:2]:
        if site.wants(operand):
            yield operand, _fitted(site, operand, gradient)  # type: ignore[misc]


@_rule(aten.sub.Tensor)
def _sub(site: Site, gradient: Tensor) -> Gradients:
    left, right = site.node.args[:2]
    if site.wants(left):
        yield left, _fitted(site, left, gradient)  # type: ignore[misc, arg-type]
    if site.wants(right):
        yield right, _fitted(site, right, -gradient)  # type: ignore[misc, arg-type]


@_rule(aten.mul.Tensor)
def _mul(site: Site, gradient: Tensor) -> Gradients:
    left, right = site.node.args[:2]
    if left is right:
        yield left, gradient * (2 * site.value(left))  # type: ignore[misc]
        return
    for operand, other in ((left, right), (right, left)):
        if site.wants(operand):
            yield operand, _fitted(site, operand, gradient * site.value(other))  # type: ignore[misc, arg-type]


@_rule(aten.div.Tensor)
def _div(site: Site, gradient: Tensor) -> Gradients:
    over, under = site.node.args[:2]
    divided = gradient / site.value(under)
    if site.wants(over):
        yield over, _fitted(site, over, divided)  # type: ignore[misc, arg-type]
    if site.wants(under):
        yield under, -_fitted(site, under, divided * site.value(over)) / site.value(under)  # type: ignore[misc, arg-type]


@_rule(aten.rsqrt.default)
def _rsqrt(site: Site, gradient: Tensor) -> Gradients:
    root = site.value(site.node)
    yield site.arg(0), gradient * (-0.5 * root * root * root)


@_rule(aten.sqrt.default)
def _sqrt(site: Site, gradient: Tensor) -> Gradients:
    yield site.arg(0), gradient * (0.5 / site.value(site.node))


@_rule(aten.to.dtype, aten._to_copy.default)
def _to(site: Site, gradient: Tensor) -> Gradients:
    yield site.arg(0), gradient.to(site.arg(0).meta["val"].dtype)


# Activations


@_rule(aten.relu.default)
def _relu(site: Site, gradient: Tensor) -> Gradients:
    yield site.arg(0), gradient * site.derivative(lambda y: (y > 0).to(y.dtype), site.node)


@_rule(aten.relu6.default)
def _relu6(site: Site, gradient: Tensor) -> Gradients:
    yield site.arg(0), gradient * site.derivative(lambda y: ((y > 0) & (y < 6)).to(y.dtype), site.node)


@_rule(aten.clamp.default)
def _clamp(site: Site, gradient: Tensor) -> Gradients:
    low, high = site.arg(1, -math.inf), site.arg(2, math.inf)
    yield site.arg(0), gradient * site.derivative(lambda x: ((x >= low) & (x <= high)).to(x.dtype), site.arg(0))


@_rule(aten.silu.default)
def _silu(site: Site, gradient: Tensor) -> Gradients:
    def derivative(x: Tensor, y: Tensor) -> Tensor:
        return y + torch.sigmoid(x) * (1 - y)

    yield site.arg(0), gradient * site.derivative(derivative, site.arg(0), site.node)


@_rule(aten.prelu.default)
def _prelu(site: Site, gradient: Tensor) -> Gradients:
    def derivative(x: Tensor, slope: Tensor) -> Tensor:
        slope = slope.view(1, -1, 1, 1)
        return (x > 0).to(x.dtype) * (1 - slope) + slope

    yield site.arg(0), gradient * site.derivative(derivative, site.arg(0), site.weight(1))


# Reductions and shapes


@_rule(aten.mean.dim)
def _mean(site: Site, gradient: Tensor) -> Gradients:
    source, axes, keeps = site.arg(0), site.arg(1), site.arg(2, False)
    count = math.prod(shape_of(source)[axis] for axis in axes)
    yield source, _unsqueezed(gradient, shape_of(source), axes, keeps) / count


@_rule(aten.sum.dim_IntList)
def _sum(site: Site, gradient: Tensor) -> Gradients:
    source = site.arg(0)
    yield source, _unsqueezed(gradient, shape_of(source), site.arg(1), site.arg(2, False))


def _unsqueezed(gradient: Tensor, source: Sequence[int], axes: Sequence[int], kept: bool) -> Tensor:
    for axis in () if kept else sorted(axis % len(source) for axis in axes):
        gradient = gradient.unsqueeze(axis)
    return gradient


@_rule(aten.reshape.default, aten.view.default, aten.flatten.using_ints)
def _reshape(site: Site, gradient: Tensor) -> Gradients:
    yield site.arg(0), site.full(gradient).reshape(-1, *shape_of(site.arg(0))[1:])


@_rule(aten.cat.default)
def _cat(site: Site, gradient: Tensor) -> Gradients:
    sources, axis, start = site.arg(0), site.arg(1, 0), 0
    gradient = site.full(gradient)
    for source in sources:
        length = shape_of(source)[axis]
        if site.wants(source):
            yield source, gradient.narrow(axis, start, length)
        start += length


@_rule(aten.slice.Tensor)
def _slice(site: Site, gradient: Tensor) -> Gradients:
    source, axis, step = site.arg(0), site.arg(1, 0), site.arg(4, 1)
    side = shape_of(source)[axis]
    start, stop, _ = slice(site.arg(2, 0), min(site.arg(3, side), side)).indices(side)
    if step != 1:
        raise NotImplementedError(f"gradient of a slice: got step {step}; expected 1")
    after = len(shape_of(source)) - 1 - axis % len(shape_of(source))
    yield source, F.pad(site.full(gradient), [0, 0] * after + [start, side - stop])


@_rule(aten.pad.default)
def _pad(site: Site, gradient: Tensor) -> Gradients:
    if site.arg(2, "constant") != "constant":
        raise NotImplementedError(f"gradient of padding: got mode {site.arg(2)}; expected constant")
    yield site.arg(0), F.pad(site.full(gradient), [-width for width in site.arg(1)])


# Linear maps


@_rule(aten.linear.default)
def _linear(site: Site, gradient: Tensor) -> Gradients:
    yield site.arg(0), gradient @ site.constant(lambda weight: weight, site.weight(1))


@_rule(aten.conv2d.default)
def _conv2d(site: Site, gradient: Tensor) -> Gradients:
    source, weight = site.arg(0), site.weight(1)
    (stride, step_x), (pad_y, pad_x) = _pair(site.arg(3, 1)), _pair(site.arg(4, 0))
    dilation, groups = _pair(site.arg(5, 1)), site.arg(6, 1)
    kernel = shape_of(weight)[2:]
    if dilation != (1, 1) or stride != step_x or pad_y >= kernel[0] or pad_x >= kernel[1]:
        got = f"stride {(stride, step_x)}, padding {(pad_y, pad_x)}, dilation {dilation}, kernel {kernel}"
        raise NotImplementedError(f"gradient of conv2d: got {got}; expected one stride, no dilation, little padding")
    gradient = site.full(gradient)
    if stride == 1:
        transposed = site.constant(lambda w: _transposed(w, groups), weight)
        padding = (kernel[0] - 1 - pad_y, kernel[1] - 1 - pad_x)
        yield source, F.conv2d(gradient, transposed, padding=padding, groups=groups)
        return
    phases = site.constant(lambda w: _phases(_transposed(w, groups), stride), weight)
    taps = phases.shape[2] - 1, phases.shape[3] - 1
    height, width = shape_of(source)[2:]
    rows, columns = (side + n for side, n in zip(shape_of(site.node)[2:], taps, strict=True))
    larger = _interleaved(F.conv2d(gradient, phases, padding=taps, groups=groups), stride, rows, columns)
    got_y, got_x = rows * stride, columns * stride
    yield source, F.pad(larger, [-pad_x, width + pad_x - got_x, -pad_y, height + pad_y - got_y])


def _transposed(weight: Tensor, groups: int) -> Tensor:
    """(O, I / groups, h, w) -> (I, O / groups, h, w), flipped: the convolution that is its adjoint."""
    outputs, inputs, height, width = weight.shape
    grouped = weight.view(groups, outputs // groups, inputs, height, width).transpose(1, 2)
    return grouped.reshape(groups * inputs, outputs // groups, height, width).flip(2, 3)


def _phases(flipped: Tensor, stride: int) -> Tensor:
    """(I, O, h, w) -> (I * stride^2, O, ceil(h / stride), ceil(w / stride)): a kernel for each place modulo stride."""
    inputs, outputs, height, width = flipped.shape
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    padded = F.pad(flipped.flip(2, 3), (0, columns * stride - width, 0, rows * stride - height))
    split = padded.view(inputs, outputs, rows, stride, columns, stride).permute(0, 3, 5, 1, 2, 4)
    return split.reshape(inputs * stride**2, outputs, rows, columns).flip(2, 3)


def _interleaved(phases: Tensor, stride: int, rows: int, columns: int) -> Tensor:
    """(B, C * stride^2, rows, columns) -> (B, C, rows * stride, columns * stride), as `pixel_shuffle` does.

    In two steps, columns and then rows, because each moves one axis: ONNX Runtime has a fast way for that, and none
    for both at once.
    """
    wider = phases.reshape(-1, phases.shape[1] // stride, stride, rows * columns).transpose(2, 3)
    wider = wider.reshape(-1, phases.shape[1] // stride**2, stride, rows, columns * stride)
    return wider.transpose(2, 3).reshape(-1, phases.shape[1] // stride**2, rows * stride, columns * stride)


# Pooling and resizing


@_rule(aten.avg_pool2d.default)
def _avg_pool2d(site: Site, gradient: Tensor) -> Gradients:
    source, kernel = site.arg(0), _pair(site.arg(1))
    if _pair(site.arg(2) or kernel) != kernel or _pair(site.arg(3, 0)) != (0, 0) or kernel[0] != kernel[1]:
        raise NotImplementedError("gradient of avg_pool2d: got overlapping or padded windows; expected square tiles")
    spread = F.interpolate(site.full(gradient) / kernel[0] ** 2, scale_factor=float(kernel[0]), mode="nearest")
    (height, width), (rows, columns) = shape_of(source)[2:], shape_of(site.node)[2:]
    yield source, F.pad(spread, [0, width - columns * kernel[0], 0, height - rows * kernel[0]])


@_rule(aten.max_pool2d.default)
def _max_pool2d(site: Site, gradient: Tensor) -> Gradients:
    """The first of equal values takes the gradient, as in PyTorch."""
    source, (kernel, kernel_x) = site.arg(0), _pair(site.arg(1))
    stride, step_x = _pair(site.arg(2) or kernel)
    if (
        kernel != kernel_x
        or stride != step_x
        or stride > kernel
        or _pair(site.arg(3, 0)) != (0, 0)
        or site.arg(5, False)
    ):
        raise NotImplementedError("gradient of max_pool2d: got padding or gaps; expected plain squares")
    height, width = shape_of(source)[2:]
    rows, columns = shape_of(site.node)[2:]

    def winners(x: Tensor) -> Tensor:
        """(B, kernel^2, C, rows, columns): which place of the window won.

        Places are compared with each other and not with the result, which half precision may round in another way.
        """
        reach_y, reach_x = (rows - 1) * stride + 1, (columns - 1) * stride + 1
        places = [
            x[:, :, down : down + reach_y : stride, across : across + reach_x : stride]
            for down in range(kernel)
            for across in range(kernel)
        ]
        before = [None, *accumulate(places[:-1], torch.maximum)]
        after = [*accumulate(places[:0:-1], torch.maximum)][::-1] + [None]
        won: list[Tensor] = []
        for place, earlier, later in zip(places, before, after, strict=True):
            tests = [place > earlier] if earlier is not None else []
            tests += [place >= later] if later is not None else []
            won.append(
                functools.reduce(torch.logical_and, tests) if tests else torch.ones_like(place, dtype=torch.bool)
            )
        return torch.stack(won, 1)

    shares = site.derivative(winners, source).to(gradient.dtype) * site.full(gradient).unsqueeze(1)
    later = math.ceil(kernel / stride) - 1  # windows further on that still reach a place

    def moved(down: int, across: int) -> Tensor:
        """What this place of every window gets, at the first row and column that can."""
        y, x = down // stride, across // stride
        return F.pad(shares[:, down * kernel + across], (x, later - x, y, later - y))

    phases: list[Tensor] = []
    for row in range(stride):
        for column in range(stride):
            places = [(y, x) for y in range(row, kernel, stride) for x in range(column, kernel, stride)]
            phases.append(functools.reduce(torch.add, (moved(y, x) for y, x in places)))
    larger = _interleaved(torch.stack(phases, 2).flatten(1, 2), stride, rows + later, columns + later)
    yield source, F.pad(larger, [0, width - (columns + later) * stride, 0, height - (rows + later) * stride])


@_rule(aten.upsample_bilinear2d.vec)
def _upsample_bilinear2d(site: Site, gradient: Tensor) -> Gradients:
    """Doubling only: with its edges repeated, the gradient is filtered by 1 3 3 1 down and across, at every other."""
    source, channels = site.arg(0), shape_of(site.arg(0))[1]
    doubled = tuple(2 * side for side in shape_of(source)[2:])
    if site.arg(2, False) or shape_of(site.node)[2:] != doubled:
        raise NotImplementedError("gradient of bilinear resizing: got another factor; expected 2, corners not aligned")

    def kernel() -> Tensor:
        row = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=source.meta["val"].dtype)
        return (row[:, None] * row).expand(channels, 1, 4, 4)

    padded = F.pad(site.full(gradient), (1, 1, 1, 1), mode="replicate")
    yield source, F.conv2d(padded, site.constant(kernel), stride=2, groups=channels)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])
