"""A forward and a gradient engine in autograd, against autograd through the network itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines.differentiable import differentiable
from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.options import EngineOptions
from fitdiff.engines.pytorch.runner import EagerRunner
from fitdiff.engines.runner import Runner
from fitdiff.errors import UsageError

WIDTH = 5
Pair = tuple[Runner, Runner]


class _Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, WIDTH * WIDTH).reshape(WIDTH, WIDTH), requires_grad=False)


class _Network(_Weighted):
    """y = sin(x w) scale, and its energy; x: (B, 5), scale: (B, 5)."""

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sin(x @ self.weight) * scale
        return y, (y * y).sum(1, keepdim=True)


class _Forward(_Weighted):
    """Saves the derivative of y by x w, and y."""

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        angle = x @ self.weight
        y = torch.sin(angle) * scale
        return y, (y * y).sum(1, keepdim=True), torch.cos(angle) * scale, y * 1.0


class _Vjp(_Weighted):
    def forward(self, slope: Tensor, y: Tensor, y_cotangent: Tensor, energy_cotangent: Tensor) -> tuple[Tensor]:
        return (((y_cotangent + 2 * y * energy_cotangent) * slope) @ self.weight.T,)


def _spec(name: str, width: int = WIDTH) -> TensorSpec:
    return TensorSpec(name, (None, width))


def _graphs() -> tuple[Graph, Graph]:
    saved = (_spec("saved_00"), _spec("saved_01"))
    outputs = (_spec("y"), _spec("energy", 1), *saved)
    cotangents = (_spec("y_cotangent"), _spec("energy_cotangent", 1))
    return (
        Graph("wave_forward", "", _Forward(), (_spec("x"), _spec("scale")), outputs),
        Graph("wave_vjp", "", _Vjp(), (*saved, *cotangents), (_spec("x_gradient"),)),
    )


class _Reusing:
    """A runner whose outputs are overwritten by its next call, as TensorRT's are."""

    reuses_outputs = True

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.graph_name, self.backend, self.device = runner.graph_name, runner.backend, runner.device
        self.buffers: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        results = self.runner(*inputs)
        self.buffers = self.buffers or tuple(torch.empty_like(result) for result in results)
        for buffer, result in zip(self.buffers, results, strict=True):
            buffer.data.copy_(result)  # past autograd's version counters, as an engine writes
        return self.buffers

    def close(self) -> None:
        self.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _eager(_: Path) -> Pair:
    forward, vjp = (EagerRunner(graph, EngineOptions(max_batch=4)) for graph in _graphs())
    return forward, vjp


def _reusing(folder: Path) -> Pair:
    forward, vjp = _eager(folder)
    return _Reusing(forward), _Reusing(vjp)


def _onnx(folder: Path) -> Pair:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra 'engines' is not installed")
    from onnx import TensorProto, helper, numpy_helper, save

    from fitdiff.engines.onnxrt import OnnxRuntimeRunner, session_from_onnx

    nodes = {
        "wave_forward": (
            ("MatMul", "x weight", "angle"), ("Sin", "angle", "sine"), ("Mul", "sine scale", "y"),
            ("Mul", "y y", "square"), ("ReduceSum", "square axis", "energy"),
            ("Cos", "angle", "cosine"), ("Mul", "cosine scale", "saved_00"), ("Identity", "y", "saved_01"),
        ),
        "wave_vjp": (
            ("Mul", "saved_01 energy_cotangent", "half"), ("Add", "half half", "from_energy"),
            ("Add", "y_cotangent from_energy", "total"), ("Mul", "total saved_00", "by_angle"),
            ("Transpose", "weight", "transposed"), ("MatMul", "by_angle transposed", "x_gradient"),
        ),
    }  # fmt: skip
    runners = []
    options = EngineOptions(max_batch=4)
    for graph in _graphs():
        weight = numpy_helper.from_array(graph.module.weight.numpy(), "weight")  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        values = [
            [helper.make_tensor_value_info(s.name, TensorProto.FLOAT, ["batch", s.shape[1]]) for s in specs]
            for specs in (graph.inputs, graph.outputs)
        ]
        axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
        steps = [helper.make_node(kind, takes.split(), [gives]) for kind, takes, gives in nodes[graph.name]]
        body = helper.make_graph(steps, graph.name, *values, initializer=[weight, axis])
        path = folder / f"{graph.name}.onnx"
        save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
        runners.append(OnnxRuntimeRunner(graph, session_from_onnx(path, options), options))
    return runners[0], runners[1]


@pytest.fixture(params=[_eager, _reusing, _onnx], ids=["eager", "reusing", "onnxruntime"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    return request.param(tmp_path)


def _inputs(batch: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, WIDTH, generator=generator), torch.rand(batch, WIDTH, generator=generator)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "both outputs": lambda y, energy: (y.exp() + energy).sum(),
    "first output": lambda y, energy: (y * y * y).mean(),
    "second output": lambda y, energy: energy.sqrt().sum(),
    "one number": lambda y, energy: y[0, 1],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_autograd(pair: Pair, loss: str) -> None:
    function = differentiable(*pair, outputs=2)
    x, scale = _inputs()
    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = function(found * 2, scale)
    LOSSES[loss](*outputs).backward()
    reference = _Network()(expected * 2, scale)
    LOSSES[loss](*reference).backward()
    assert found.grad is not None and expected.grad is not None
    error = (found.grad - expected.grad).abs()
    print(f"{loss}: max {error.max():.1e} mean {error.mean():.1e}")
    assert expected.grad.abs().max() > 1e-2
    assert error.max() < 1e-5
    torch.testing.assert_close(outputs, reference, atol=1e-5, rtol=1e-5)


def test_engines_may_run_again_between_a_call_and_its_gradient(pair: Pair) -> None:
    function = differentiable(*pair, outputs=2)
    runs = [(_inputs(seed=seed)[0].requires_grad_(), _inputs(seed=seed)[1]) for seed in range(3)]
    losses = [LOSSES["both outputs"](*function(x, scale)) for x, scale in runs]
    gradients = [torch.autograd.grad(loss, x)[0] for loss, (x, _) in zip(losses, runs, strict=True)]
    for (x, scale), gradient in zip(runs, gradients, strict=True):
        (expected,) = torch.autograd.grad(LOSSES["both outputs"](*_Network()(x, scale)), x)
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)


def test_outputs_of_a_call_without_gradient_are_the_callers(pair: Pair) -> None:
    function = differentiable(*pair, outputs=2)
    x, scale = _inputs()
    kept = function(x, scale)
    function(*_inputs(seed=1))
    torch.testing.assert_close(kept, _Network()(x, scale), atol=1e-5, rtol=1e-5)
    assert not any(tensor.requires_grad for tensor in kept)
    with torch.no_grad():
        found = function(x.clone().requires_grad_(), scale)
    assert len(found) == 2 and not any(tensor.requires_grad for tensor in found)


def test_without_a_wanted_gradient_the_second_engine_does_not_run(tmp_path: Path) -> None:
    forward, vjp = _eager(tmp_path)
    function = differentiable(forward, vjp, outputs=2)
    vjp.close()
    x, scale = _inputs()
    weight = torch.ones((), requires_grad=True)
    (function(x, scale)[0] * weight).sum().backward()
    with pytest.raises(UsageError, match="wave_vjp"):
        function(x.requires_grad_(), scale)[0].sum().backward()


def test_a_second_derivative_is_refused(pair: Pair) -> None:
    x, scale = _inputs()
    x.requires_grad_()
    y, _ = differentiable(*pair, outputs=2)(x, scale)
    (gradient,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_second_input_that_wants_a_gradient_is_refused(tmp_path: Path) -> None:
    x, scale = _inputs()
    function = differentiable(*_eager(tmp_path), outputs=2)
    with pytest.raises(UsageError, match=r"input 1 of wave_forward.*\.detach\(\)"):
        function(x.requires_grad_(), scale.requires_grad_())


class _WithIndex(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * x, x.argmax(1, keepdim=True), x * 2


class _WithIndexVjp(nn.Module):
    def forward(self, slope: Tensor, cotangent: Tensor) -> tuple[Tensor]:
        return (slope * cotangent,)


def test_an_output_of_whole_numbers_has_no_cotangent() -> None:
    index = TensorSpec("index", (None, 1), torch.int64)
    forward = Graph("f", "", _WithIndex(), (_spec("x"),), (_spec("y"), index, _spec("saved_00")))
    vjp = Graph("g", "", _WithIndexVjp(), (_spec("saved_00"), _spec("y_cotangent")), (_spec("x_gradient"),))
    options = EngineOptions(max_batch=4)
    x = _inputs()[0].requires_grad_()
    y, found = differentiable(EagerRunner(forward, options), EagerRunner(vjp, options), outputs=2)(x)
    y.sum().backward()
    assert torch.equal(found, x.argmax(1, keepdim=True)) and not found.requires_grad
    torch.testing.assert_close(x.grad, 2 * x.detach())
