"""Every runner is checked against the graph's module; shapes, types, ownership and closing are one contract."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.options import EngineOptions
from fitdiff.engines.pytorch.runner import CompiledRunner, EagerRunner, compile_availability
from fitdiff.engines.runner import CheckedRunner, check_inputs
from fitdiff.errors import MissingError, UsageError

needs_compiler = pytest.mark.skipif(not compile_availability().ok, reason=compile_availability().reason)


class _Blend(nn.Module):
    """A convolution of an image, scaled by a number for each sample; and the sum over that sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        blended = nn.functional.silu(self.conv(image)) * scale[:, :, None, None]
        return blended, blended.flatten(1).sum(1, keepdim=True)


def _blend() -> Graph:
    inputs = (TensorSpec("image", (None, 3, 8, 10)), TensorSpec("scale", (None, 1)))
    outputs = (TensorSpec("blended", (None, 8, 8, 10)), TensorSpec("total", (None, 1)))
    return Graph("blend", "a small network", _Blend(), inputs, outputs)


def _export(graph: Graph, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra 'engines' is not installed")
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(
        copy.deepcopy(graph.module).to(dtype),
        tuple(tensor.to(dtype) for tensor in graph.example(2)),
        path,
        dynamo=True,
        input_names=[spec.name for spec in graph.inputs],
        output_names=[spec.name for spec in graph.outputs],
        dynamic_shapes=tuple({0: batch} for _ in graph.inputs),
        verbose=False,
    )
    return path


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(_blend(), tmp_path_factory.mktemp("onnx") / "blend.onnx")


def _onnx_runner(path: Path, options: EngineOptions) -> CheckedRunner:
    from fitdiff.engines.onnxrt import OnnxRuntimeRunner, session_from_onnx

    return OnnxRuntimeRunner(_blend(), session_from_onnx(path, options), options)


@pytest.fixture(
    scope="module",
    params=["eager", pytest.param("compile", marks=needs_compiler), "onnxruntime"],
)
def runner(request: pytest.FixtureRequest) -> CheckedRunner:
    """A runner of `_blend` for batches of 1 to 3."""
    options = EngineOptions(max_batch=3)
    if request.param == "onnxruntime":
        return _onnx_runner(request.getfixturevalue("onnx_path"), options)
    return {"eager": EagerRunner, "compile": CompiledRunner}[request.param](_blend(), options)


def test_answers_as_the_module_for_every_batch(runner: CheckedRunner) -> None:
    graph = _blend()
    for batch in (1, 3, 2):
        inputs = graph.example(batch, seed=batch)
        found, expected = runner(*inputs), graph.module(*inputs)
        errors = [(a - b).abs() for a, b in zip(found, expected, strict=True)]
        print(runner.backend, batch, *(f"max {error.max():.1e} mean {error.mean():.1e}" for error in errors))
        assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
        assert max(float(error.max()) for error in errors) < 1e-4


def test_outputs_belong_to_the_caller_and_inputs_are_left_alone(runner: CheckedRunner) -> None:
    first, second = _blend().example(seed=1), _blend().example(seed=2)
    copies = [tensor.clone() for tensor in first]
    kept = runner(*first)
    values = [tensor.clone() for tensor in kept]
    other = runner(*second)
    assert not runner.reuses_outputs
    assert all(torch.equal(a, b) for a, b in zip(kept, values, strict=True))
    assert not torch.allclose(kept[0], other[0])
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))


def test_takes_strided_inputs_and_ones_that_require_gradients(runner: CheckedRunner) -> None:
    image, scale = _blend().example(2, seed=3)
    strided = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).requires_grad_()
    expanded = scale[:1].expand(2, 1)
    found = runner(strided, expanded)
    assert not found[0].requires_grad
    torch.testing.assert_close(found, _blend().module(image, expanded), atol=1e-4, rtol=1e-4)


def test_outputs_may_go_on_into_autograd(runner: CheckedRunner) -> None:
    (blended, _) = runner(*_blend().example(2))
    weight = torch.ones((), requires_grad=True)
    (blended * weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, blended.sum())


def test_a_wrong_call_names_tensor_and_shapes(runner: CheckedRunner) -> None:
    image, scale = _blend().example(2)
    with pytest.raises(UsageError, match=r"input scale of blend: got batch 1; expected 2, that of image"):
        runner(image, scale[:1])
    with pytest.raises(UsageError, match=r"input image of blend: got shape \(2, 3, 8, 9\).*\(batch, 3, 8, 10\)"):
        runner(image[..., :9], scale)
    with pytest.raises(UsageError, match=r"input scale of blend: got torch.float64; expected torch.float32"):
        runner(image, scale.double())
    with pytest.raises(UsageError, match=r"got 1 tensors; expected 2 \(image, scale\)"):
        runner(image)
    with pytest.raises(UsageError, match="batch of blend: got 4; expected 1 to 3"):
        runner(*_blend().example(4))
    with pytest.raises(UsageError, match="on meta; expected one on cpu"):
        runner(image.to("meta"), scale)
    runner(image, scale)


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_a_closed_runner_does_not_run(backend: str, request: pytest.FixtureRequest) -> None:
    options = EngineOptions()
    if backend == "eager":
        opened: CheckedRunner = EagerRunner(_blend(), options)
    else:
        opened = _onnx_runner(request.getfixturevalue("onnx_path"), options)
    with opened as runner:
        runner(*_blend().example())
    opened.close()
    with pytest.raises(UsageError, match=r"runner of blend: got a call after close\(\)"):
        opened(*_blend().example())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_eager_in_half_precision_is_close_and_keeps_the_types(precision: str) -> None:
    graph = _blend()
    inputs = graph.example()
    runner = EagerRunner(graph, EngineOptions(precision=precision, channels_last=True))  # pyright: ignore[reportArgumentType]
    found, expected = runner(*inputs)[0], graph.module(*inputs)[0]
    assert found.dtype == torch.float32
    error = float((found - expected).abs().max() / expected.abs().max())
    assert 1e-6 < error < 2e-2  # it did run in fewer bits


def test_channels_last_leaves_the_module_as_it_was() -> None:
    graph = _blend()
    runner = EagerRunner(graph, EngineOptions(channels_last=True))
    torch.testing.assert_close(runner(*graph.example()), graph.module(*graph.example()), atol=1e-5, rtol=1e-4)
    assert graph.module.conv.weight.is_contiguous()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


def test_onnx_runtime_converts_for_a_file_in_half_precision(tmp_path: Path) -> None:
    graph = _blend()
    runner = _onnx_runner(_export(graph, tmp_path / "half.onnx", torch.float16), EngineOptions(precision="fp16"))
    found, expected = runner(*graph.example())[0], graph.module(*graph.example())[0]
    assert found.dtype == torch.float32
    assert 1e-6 < float((found - expected).abs().max() / expected.abs().max()) < 1e-2


def test_onnx_runtime_refuses_the_file_of_another_graph(onnx_path: Path) -> None:
    from fitdiff.engines.onnxrt import OnnxRuntimeRunner, session_from_onnx

    graph = _blend()
    session = session_from_onnx(onnx_path, EngineOptions())
    other = Graph("other", "", graph.module, (TensorSpec("z", (None, 3, 8, 10)), graph.inputs[1]), graph.outputs)
    with pytest.raises(UsageError, match="inputs of the ONNX file of other: got image, scale; expected z, scale"):
        OnnxRuntimeRunner(other, session, EngineOptions())
    with pytest.raises(UsageError, match="bf16 for ONNX Runtime"):
        session_from_onnx(onnx_path, EngineOptions(precision="bf16"))


def test_a_missing_onnxruntime_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fitdiff.engines.onnxrt import loader

    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install 'fitdiff\[engines\]'"):
        loader.session_from_onnx(tmp_path / "graph.onnx", EngineOptions())


def test_compile_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not compile_availability().ok
    with pytest.raises(MissingError, match="no-such-compiler"):
        CompiledRunner(_blend(), EngineOptions())


@needs_compiler
def test_graphs_of_one_class_do_not_push_each_other_out_of_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = partial(torch.compile, backend="eager")  # counts and traces as ever, without the minutes of C++

    def without_mode(function: Callable, *, mode: None, options: dict, **rest: Any) -> Callable:
        return compiled(function, **rest)

    monkeypatch.setattr(torch, "compile", without_mode)
    widths = range(1, torch._dynamo.config.recompile_limit + 4)
    output = TensorSpec("y", (1, 2))
    torch._dynamo.utils.counters.clear()
    for width in widths:
        module = nn.Sequential(nn.Linear(width, 2), _Tuple())
        CompiledRunner(Graph("linear", "", module, (), (output,)), EngineOptions()).infer((torch.ones(1, width),))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(widths)


class _Tuple(nn.Module):
    def forward(self, tensor: Tensor) -> tuple[Tensor]:
        return (tensor,)


def test_check_inputs_knows_graphs_without_a_batch() -> None:
    specs = (TensorSpec("table", (4, 2)), TensorSpec("index", (), torch.int64))
    assert check_inputs(specs, (torch.zeros(4, 2), torch.tensor(1)), max_batch=1) == 1
    with pytest.raises(UsageError, match="input index of graph: got shape"):
        check_inputs(specs, (torch.zeros(4, 2), torch.tensor([1])))


@pytest.mark.parametrize("wrong", [{"precision": "int8"}, {"max_batch": 0}, {"threads": 0}])
def test_options_refuse_what_cannot_be(wrong: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        EngineOptions(**wrong)
