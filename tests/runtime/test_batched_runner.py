"""An engine for few photos that takes many: piece by piece, in order, without mixing them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines.backends import backend_named
from fitdiff.engines.compiled_models import compile_models
from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.options import EngineOptions
from fitdiff.engines.runner import Runner
from fitdiff.runtime.batched_runner import in_batches
from fitdiff.runtime.graph_sources import graph_sources
from fitdiff.runtime.pipeline import FitDiffPipeline


class Engine:
    """Answers x + offset in a buffer that its next call overwrites, and notes its batches."""

    graph_name, backend, device, reuses_outputs = "sum", "test", torch.device("cpu"), True

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.buffer = torch.zeros(4, 3)
        self.closed = False

    def __call__(self, x: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
        self.batches.append(len(x))
        self.buffer[: len(x)] = x + offset
        return self.buffer[: len(x)], 2 * x[:, :1]

    def close(self) -> None:
        self.closed = True


def graph() -> Graph:
    inputs = (TensorSpec("x", (None, 3)), TensorSpec("offset", (3,)))
    return Graph("sum", "adds", nn.Identity(), inputs, (TensorSpec("y", (None, 3)), TensorSpec("z", (None, 1))))


@pytest.mark.parametrize(("most", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5])])
def test_many_photos_go_through_piece_by_piece(most: int, batches: list[int]) -> None:
    engine: Any = Engine()
    engine.buffer = torch.zeros(5, 3)
    runner = in_batches(engine, graph(), most)
    x, offset = torch.arange(15.0).view(5, 3), torch.tensor([100.0, 200.0, 300.0])
    y, z = runner(x, offset)
    assert torch.equal(y, x + offset) and torch.equal(z, 2 * x[:, :1]) and engine.batches == batches


def test_what_fits_is_handed_on_untouched() -> None:
    engine: Any = Engine()
    runner = in_batches(engine, graph(), 4)
    y, _ = runner(torch.ones(3, 3), torch.zeros(3))
    assert y.data_ptr() == engine.buffer.data_ptr() and runner.reuses_outputs
    assert (runner.graph_name, runner.backend, runner.device) == ("sum", "test", torch.device("cpu"))
    runner.close()
    assert engine.closed


def test_a_missing_input_is_the_runners_to_report() -> None:
    def refuse(*inputs: Tensor) -> tuple[Tensor, ...]:
        raise KeyError(len(inputs))

    engine: Any = SimpleNamespace(graph_name="sum", backend="test", device=None, reuses_outputs=False)
    runner = in_batches(engine, graph(), 1)
    runner._runner = refuse  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        runner(torch.ones(1, 3))


def test_networks_on_engines_for_one_photo_take_three(small_pipeline: FitDiffPipeline) -> None:
    """Values and gradients, those of a decoder and of a network that guidance looks through."""

    def make_runner(graph: Graph) -> Runner:
        return in_batches(backend_named("eager").make_runner(graph, EngineOptions()), graph, 1)

    plain = small_pipeline.models
    compiled = compile_models(graph_sources(small_pipeline.denoiser, plain), make_runner)
    generator = torch.Generator().manual_seed(0)
    latent, image = torch.randn(3, 1, 64, 64, generator=generator), torch.rand(3, 3, 150, 150, generator=generator)
    pairs = [
        (lambda z: compiled.autoencoder.decode(z, 256), lambda z: plain.autoencoder.decode(z, 256), latent),
        (lambda x: compiled.recogniser(x).embedding, lambda x: plain.recogniser(x).embedding, image),
    ]
    for found, expected, given in pairs:
        results = []
        for function in (found, expected):
            x = given.clone().requires_grad_()
            y = function(x)
            weight = torch.linspace(-1, 1, y.numel()).view_as(y)
            (gradient,) = torch.autograd.grad((y * weight).sum(), x)
            results.append((y.detach(), gradient))
        (y, gradient), (wanted, wanted_gradient) = results
        assert torch.allclose(y, wanted, atol=1e-4)
        assert (gradient - wanted_gradient).norm() < 1e-3 * wanted_gradient.norm()
    compiled.close()
