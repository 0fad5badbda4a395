"""A small face-like sheet: 0.2 m square, facing +Z, bulging to a nose, UV as a photograph lies on it."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

PARTS = ("skin", "lashes")


@dataclass(frozen=True)
class Mesh:
    vertices: Tensor  # (1, V, 3) metres
    triangles: Tensor  # (F, 3) long
    corner_uv: Tensor  # (F, 3, 2)
    part: Tensor  # (F,) long


def make_sheet(side: int, bulge: float = 0.04) -> Mesh:
    """(side x side) vertices; u runs along +X, v down along -Y; triangles counter-clockwise seen from +Z."""
    span = torch.linspace(-0.1, 0.1, side)
    y, x = torch.meshgrid(span.flip(0), span, indexing="ij")
    z = bulge * torch.exp(-200 * (x**2 + y**2)) + bulge * (1 - 50 * (x**2 + y**2))
    vertices = torch.stack([x, y, z], -1).reshape(1, -1, 3)
    number = torch.arange(side * side).reshape(side, side)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = torch.cat([torch.stack([a, c, b], -1).reshape(-1, 3), torch.stack([b, c, d], -1).reshape(-1, 3)])
    uv = torch.stack([x / 0.2 + 0.5, 0.5 - y / 0.2], -1).reshape(-1, 2)
    return Mesh(vertices, triangles, uv[triangles], torch.zeros(len(triangles), dtype=torch.long))


@pytest.fixture(scope="session")
def sheet() -> Mesh:
    return make_sheet(24)


@pytest.fixture(scope="session")
def plane() -> Mesh:
    return make_sheet(6, bulge=0.0)
