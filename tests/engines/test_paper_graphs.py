"""The paper preset's networks as pairs of graphs: the gradient that an engine runs is autograd's."""

from dataclasses import replace

import pytest
import torch

from fitdiff.engines.graphs import GraphSources, build_graph, build_pair
from fitdiff.models.arcface import ArcFace, IResNetConfig
from fitdiff.models.lpips import LPIPS, VGGConfig


@pytest.mark.parametrize("network", ["recogniser", "perceptual"])
def test_gradient_is_autograds(network: str, small_sources: GraphSources) -> None:
    torch.manual_seed(0)
    arcface = ArcFace(IResNetConfig((1, 2, 1, 1), (8, 12, 16, 20), 8, 24)).eval().requires_grad_(False)
    lpips = LPIPS(VGGConfig((8, 8, 8, 8, 8))).eval().requires_grad_(False)
    sources = replace(small_sources, recogniser=arcface, perceptual=lpips)
    forward, gradient = build_pair(network, sources)
    plain = build_graph(network, sources)
    (image,) = plain.example(2)
    x = image.clone().requires_grad_()
    outputs = plain.module(x)
    assert [tuple(o.shape[1:]) for o in outputs] == [tuple(spec.shape[1:]) for spec in plain.outputs]
    cotangents = [torch.randn_like(output) for output in outputs]
    (wanted,) = torch.autograd.grad(outputs, x, cotangents)
    found = forward.module(image)
    (got,) = gradient.module(*found[len(outputs) :], *cotangents)
    error = float((got - wanted).abs().max() / wanted.abs().max())
    print(f"{network}: gradient by the pair against autograd, {error:.1e} of the largest")
    assert error < 1e-5
