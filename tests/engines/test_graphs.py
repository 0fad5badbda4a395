"""Every graph by name: its specs are what its module does, and each gradient is autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines.graph import Graph
from fitdiff.engines.graphs import GRAPH_NAMES, GUIDED, GraphSources, build_graph, build_pair
from fitdiff.engines.parity import parities, parity
from fitdiff.engines.vjp import TRACED_BATCH, vjp_pair
from fitdiff.errors import UsageError


def gradient_error(network: nn.Module, inputs: Tensor, forward: nn.Module, gradient: nn.Module, outputs: int) -> float:
    """Of the pair against autograd, relative to the largest gradient; random cotangents."""
    generator = torch.Generator().manual_seed(1)
    leaf = inputs.clone().requires_grad_(True)
    expected_outputs = network(leaf)[:outputs]
    cotangents = [torch.randn(o.shape, generator=generator) for o in expected_outputs]
    (expected,) = torch.autograd.grad(expected_outputs, leaf, cotangents)
    with torch.inference_mode():
        answers = forward(inputs)
        for a, b in zip(expected_outputs, answers[:outputs], strict=True):
            assert torch.equal(a, b)
        (got,) = gradient(*answers[outputs:], *cotangents)
    error = (got - expected).abs()
    print(f"gradient: largest error {error.max():.2e}, mean {error.mean():.2e} of {expected.abs().max():.2e}")
    assert expected.abs().max() > 0 and got.shape == inputs.shape
    return float(error.max() / expected.abs().max())


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_specs_are_what_the_module_does(name: str, small_sources: GraphSources) -> None:
    graph = build_graph(name, small_sources)
    assert graph.name == name and graph.summary.endswith(".")
    names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    assert all(spec.meaning for spec in (*graph.inputs, *graph.outputs))
    for batch in (1, 3):
        inputs = graph.example(batch)
        assert [tuple(i.shape) for i in inputs] == [spec.sized(batch) for spec in graph.inputs]
        assert [i.dtype for i in inputs] == [spec.dtype for spec in graph.inputs]
        with torch.inference_mode():
            outputs = graph.module(*inputs)
        assert [tuple(o.shape) for o in outputs] == [spec.sized(batch) for spec in graph.outputs]
        assert [o.dtype for o in outputs] == [spec.dtype for spec in graph.outputs]
        assert all(o.isfinite().all() for o in outputs)


@pytest.mark.parametrize("network", GUIDED)
@pytest.mark.parametrize("batch", [1, 3])
def test_gradient_is_autograds(network: str, batch: int, small_sources: GraphSources) -> None:
    forward, gradient = build_pair(network, small_sources)
    assert [spec.name for spec in gradient.inputs if spec.name.startswith("saved_")] == [
        spec.name for spec in forward.outputs if spec.name.startswith("saved_")
    ]
    outputs = sum(spec.name.endswith("_cotangent") for spec in gradient.inputs)
    plain = build_graph(network, small_sources)
    (inputs,) = plain.example(batch, seed=2)
    assert gradient_error(plain.module, inputs, forward.module, gradient.module, outputs) < 2e-6


@pytest.mark.parametrize("network", ["recogniser", "landmarks", "perceptual", "texture_face"])
def test_gradient_of_the_embedded_networks(network: str, embedded_sources: GraphSources) -> None:
    forward, gradient = build_pair(network, embedded_sources)
    outputs = sum(spec.name.endswith("_cotangent") for spec in gradient.inputs)
    plain = build_graph(network, embedded_sources)
    (inputs,) = plain.example(1)
    assert gradient_error(plain.module, inputs, forward.module, gradient.module, outputs) < 5e-6


def test_a_flat_picture_has_the_same_gradient(small_sources: GraphSources) -> None:
    """Where a window of a pooling holds equal values, only the first of them takes the gradient."""
    forward, gradient = build_pair("landmarks", small_sources)
    plain = build_graph("landmarks", small_sources)
    image = torch.full((1, 3, 64, 64), 0.25)
    image[:, :, 20:40, 30:50] = 0.75
    assert gradient_error(plain.module, image, forward.module, gradient.module, len(plain.outputs)) < 2e-6


class Strided(nn.Module):
    """One convolution."""

    def __init__(self, kernel: int, stride: int, padding: int, groups: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 8, kernel, stride, padding, groups=groups)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.convolution(x),)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 0), (3, 1, 1), (3, 1, 0), (1, 2, 0), (2, 2, 0), (3, 2, 0), (3, 2, 1), (4, 2, 1), (7, 2, 0), (5, 3, 1)],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gradient_of_a_convolution(shape: tuple[int, int, int], groups: int) -> None:
    """shape: kernel, stride, padding."""
    torch.manual_seed(0)
    network = Strided(*shape, groups)
    for height, width in ((12, 15), (13, 14)):
        forward, gradient = vjp_pair(network, (torch.rand(TRACED_BATCH, 4, height, width),))
        assert gradient_error(network, torch.rand(1, 4, height, width), forward, gradient, 1) < 2e-6


@pytest.mark.parametrize("kernel, stride", [(2, 2), (3, 2), (3, 3), (3, 1)])
def test_gradient_of_max_pooling(kernel: int, stride: int) -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (nn.functional.max_pool2d(x, kernel, stride),)

    for height, width in ((12, 15), (13, 14)):
        forward, gradient = vjp_pair(Pooled(), (torch.rand(TRACED_BATCH, 2, height, width),))
        picture = torch.randint(0, 3, (1, 2, height, width)).float()  # many are equal
        assert gradient_error(Pooled(), picture, forward, gradient, 1) < 2e-6


def test_an_operation_without_a_rule_is_named() -> None:
    class Sine(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (torch.sin(x),)

    with pytest.raises(NotImplementedError, match="sin"):
        vjp_pair(Sine(), (torch.rand(TRACED_BATCH, 3),))


@pytest.mark.parametrize("name", ["nobody", "denoiser_vjp", "recogniser_backward"])
def test_an_unknown_name(name: str, small_sources: GraphSources) -> None:
    with pytest.raises(UsageError, match="texture_face_vjp"):
        build_graph(name, small_sources)


def test_parity_sees_an_error(small_sources: GraphSources) -> None:
    graph: Graph = build_graph("landmarks", small_sources)

    def wrong(image: Tensor) -> tuple[Tensor, ...]:
        points, logit = graph.module(image)
        return points * 1.01, logit

    assert parity(graph, graph.module).relative == 0
    worst = parity(graph, wrong)
    assert worst.name == "landmarks.points" and worst.relative == pytest.approx(0.01, rel=1e-3)
    assert parities(graph, lambda image: (graph.module(image)[0] * float("nan"), graph.module(image)[1]))[
        0
    ].relative == float("inf")
