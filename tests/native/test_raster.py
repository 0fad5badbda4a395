"""The compiled rasteriser against its PyTorch twin, and both against what a z-buffer must do."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fitdiff.native.raster_torch import rasterise_torch

raster = pytest.importorskip("fitdiff.native.raster", reason="the extension _raster is not built: `pip install .`")

Draw = Callable[..., NDArray[np.int32]]


def draw_native(vertices: torch.Tensor, triangles: torch.Tensor, height: int, width: int, **options: bool) -> NDArray:
    return raster.rasterise(vertices.numpy(), triangles.int().numpy(), height, width, **options)


def draw_torch(vertices: torch.Tensor, triangles: torch.Tensor, height: int, width: int, **options: bool) -> NDArray:
    return rasterise_torch(vertices, triangles, height, width, **options).numpy()


@pytest.fixture(params=[draw_native, draw_torch], ids=["native", "torch"])
def draw(request: pytest.FixtureRequest) -> Draw:
    return request.param


def grid(side: int, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A bumpy face-like sheet over the image: (1, side^2, 3) px and (2 (side - 1)^2, 3)."""
    span = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(span, span, indexing="ij")
    depth = 1 + 0.3 * ((x - 0.5) ** 2 + (y - 0.5) ** 2) - 0.1 * torch.exp(-30 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    vertices = torch.stack([x * size, y * size, depth], -1).reshape(1, -1, 3)
    number = torch.arange(side * side).reshape(side, side)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = torch.cat([torch.stack([a, c, b], -1).reshape(-1, 3), torch.stack([b, c, d], -1).reshape(-1, 3)])
    return vertices, triangles


def soup(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random triangles, many off the image or behind it, some corners on pixel centres (edge ties)."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 600, 3, generator=generator) * torch.tensor([100.0, 80.0, 1.0])
    vertices -= torch.tensor([20.0, 10.0, 0.1])
    vertices[:, :200, :2] = vertices[:, :200, :2].round() + 0.5
    return vertices, torch.randint(0, 600, (300, 3), generator=generator)


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_native_equals_twin_on_triangle_soup(seed: int, cull: bool) -> None:
    """Tolerance: none, ties on edges and in depth included, for both compute in float64 in one order."""
    vertices, triangles = soup(seed)
    native, twin = (f(vertices, triangles, 63, 71, cull=cull) for f in (draw_native, draw_torch))
    print(f"differing pixels: {(native != twin).sum()} of {native.size}")
    assert (native >= 0).mean() > 0.5
    np.testing.assert_array_equal(native, twin)


@pytest.mark.parametrize("size", [96.0, 60.5])
def test_native_equals_twin_on_a_face_like_sheet(size: float) -> None:
    vertices, triangles = grid(49, size)
    np.testing.assert_array_equal(draw_native(vertices, triangles, 96, 96), draw_torch(vertices, triangles, 96, 96))


def test_twin_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, triangles = soup(9)
    whole = draw_torch(vertices, triangles, 63, 71)
    monkeypatch.setattr("fitdiff.native.raster_torch.PAIRS_PER_CHUNK", 5000)
    np.testing.assert_array_equal(whole, draw_torch(vertices, triangles, 63, 71))


def test_threads_do_not_change_the_result() -> None:
    vertices, triangles = soup(5)
    one, many = (
        raster.rasterise(vertices.numpy(), triangles.int().numpy(), 63, 71, threads=threads) for threads in (1, 5)
    )
    np.testing.assert_array_equal(one, many)


def test_batch_equals_single(draw: Draw) -> None:
    vertices, triangles = soup(6)
    single = np.concatenate([draw(vertices[i : i + 1], triangles, 40, 50) for i in range(2)])
    np.testing.assert_array_equal(draw(vertices, triangles, 40, 50), single)


def test_shared_edges_leave_no_crack_and_no_double_hit(draw: Draw) -> None:
    """A fan with its corners and hub on pixel centres: each pixel belongs to one triangle."""
    ring = torch.tensor([[0.5, 0.5], [8.5, 0.5], [8.5, 8.5], [0.5, 8.5]])
    xy = torch.cat([ring, torch.tensor([[3.5, 5.5]])])
    vertices = torch.cat([xy, torch.ones(5, 1)], 1)[None]
    triangles = torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    hits = sum((draw(vertices, triangles[i : i + 1], 10, 10)[0] >= 0).astype(int) for i in range(4))
    expected = np.zeros((10, 10), int)
    expected[:8, :8] = 1  # the top-left rule keeps the left and top edges, drops the right and bottom ones
    np.testing.assert_array_equal(hits, expected)


def test_nearer_triangle_wins_and_depth_is_perspective(draw: Draw) -> None:
    """A plane from depth 1 (left) to 3 (right) against one at depth 1.5: they cross where 1/z is 1/1.5."""
    xy = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 4.0], [100.0, 4.0]])
    tilted = torch.cat([xy, torch.tensor([[1.0], [3.0], [1.0], [3.0]])], 1)
    flat = torch.cat([xy, torch.full((4, 1), 1.5)], 1)
    triangles = torch.tensor([[0, 1, 2], [1, 3, 2], [4, 5, 6], [5, 7, 6]])
    index = draw(torch.cat([tilted, flat])[None], triangles, 4, 100)[0]
    boundary = int((index[1] < 2).sum())
    assert boundary == 50  # 1 - t 2/3 = 2/3 at t = 0.5; a depth linear on the screen would give 25


def test_culling_keeps_counter_clockwise(draw: Draw) -> None:
    vertices = torch.tensor([[[1.0, 9.0, 1.0], [9.0, 9.0, 1.0], [1.0, 1.0, 1.0]]])  # counter-clockwise to the eye
    front, back = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]])
    assert (draw(vertices, front, 10, 10, cull=True) >= 0).any()
    assert (draw(vertices, back, 10, 10, cull=True) == -1).all()
    np.testing.assert_array_equal(draw(vertices, back, 10, 10), draw(vertices, front, 10, 10))


@pytest.mark.parametrize("depth", [0.0, -1.0, float("nan")])
def test_triangle_through_the_near_plane_is_dropped(draw: Draw, depth: float) -> None:
    vertices = torch.tensor([[[1.0, 9.0, 1.0], [9.0, 9.0, 1.0], [1.0, 1.0, depth]]])
    assert (draw(vertices, torch.tensor([[0, 1, 2]]), 10, 10) == -1).all()


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan")])
def test_wild_coordinates_are_harmless(draw: Draw, value: float) -> None:
    vertices = torch.tensor([[[-value, -value, 1.0], [value, 5.0, 1.0], [1.0, value, 1.0], [1.0, 1.0, 1.0]]])
    draw(vertices, torch.tensor([[0, 1, 2], [0, 2, 1], [3, 1, 2]]), 10, 10)


def test_nothing_to_draw(draw: Draw) -> None:
    assert (draw(torch.zeros(1, 3, 3), torch.zeros(0, 3, dtype=torch.long), 4, 5) == -1).all()


def test_errors_name_what_came_and_what_was_expected() -> None:
    vertices, triangles = np.zeros((1, 3, 3), np.float32), np.array([[0, 1, 2]], np.int32)
    with pytest.raises(TypeError, match="vertices: got float64; expected float32"):
        raster.rasterise(vertices.astype(np.float64), triangles, 4, 4)
    with pytest.raises(TypeError, match="triangles: got int64; expected int32"):
        raster.rasterise(vertices, triangles.astype(np.int64), 4, 4)
    with pytest.raises(ValueError, match=r"vertices: got shape \(3, 3\); expected \(B, V, 3\)"):
        raster.rasterise(vertices[0], triangles, 4, 4)
    with pytest.raises(ValueError, match=r"triangles: got shape \(1, 1, 3\); expected \(F, 3\)"):
        raster.rasterise(vertices, triangles[None], 4, 4)
    with pytest.raises(ValueError, match="image size: got 0 x 4"):
        raster.rasterise(vertices, triangles, 0, 4)
    with pytest.raises(ValueError, match="a vertex index lies outside"):
        raster.rasterise(vertices, triangles + 1, 4, 4)
