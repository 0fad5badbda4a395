"""Half precision only where the gradient bears it: pairs of networks with ReLUs and poolings stay in float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fitdiff.engines.graph import Graph
from fitdiff.engines.graphs import GraphSources, build_graph
from fitdiff.engines.half import half_from_graph
from fitdiff.engines.pairs import pair_from_graph

WITH_SIGNS = ("recogniser", "landmarks", "perceptual")  # ReLUs, PReLUs and poolings: signs decide the gradient
COTANGENT = 1e-5  # the guided loop's are mostly 1e-6 to 1e-4, where half precision has few digits


def half_gradient_error(graph: Graph) -> float:
    """Of the pair in half precision against autograd: length of the difference over the gradient's."""
    forward, vjp = pair_from_graph(graph)
    (image,) = graph.example(seed=1)
    leaf = image.clone().requires_grad_()
    outputs = graph.module(leaf)
    generator = torch.Generator().manual_seed(0)
    cotangents = [COTANGENT * torch.randn(output.shape, generator=generator) for output in outputs]
    (expected,) = torch.autograd.grad(outputs, leaf, cotangents)
    with torch.no_grad():
        saved = half_from_graph(forward)(image)[len(outputs) :]
        (got,) = half_from_graph(vjp)(*saved, *cotangents)
    error = float((got - expected).norm() / expected.norm())
    print(f"{graph.name}: gradient off by {error:.1e}")
    return error


@pytest.mark.parametrize("network", WITH_SIGNS)
def test_the_gradient_of_a_half_precision_pair(network: str, embedded_sources: GraphSources) -> None:
    graph = build_graph(network, embedded_sources)
    assert half_gradient_error(graph) <= graph.half_tolerance
    assert half_gradient_error(replace(graph, half_in_pair=None)) > graph.half_tolerance  # why it is as it is


@pytest.mark.parametrize("network", WITH_SIGNS)
def test_the_network_itself_is_in_half(network: str, small_sources: GraphSources) -> None:
    module = half_from_graph(build_graph(network, small_sources))
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float16}
