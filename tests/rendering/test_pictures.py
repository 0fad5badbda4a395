"""Pictures: any size, smooth edges, the same in one piece or in tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitdiff.rendering import pictures
from fitdiff.rendering.camera import camera_front
from fitdiff.rendering.pictures import over, picture_of_head
from fitdiff.rendering.renderer import HeadMapsTensor, HeadRenderer
from fitdiff.rendering.shader import Light

CENTER = torch.zeros(3)


def white_light() -> Light:
    return Light(torch.full((1, 3), 0.5), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))


@pytest.fixture
def square() -> tuple[HeadRenderer, torch.Tensor, HeadMapsTensor]:
    """A square of 0.2 m that faces +Z, its left half (the character's) white, the other half black."""
    vertices = torch.tensor([[[-0.1, 0.1, 0], [0.1, 0.1, 0], [-0.1, -0.1, 0], [0.1, -0.1, 0]]])
    triangles = torch.tensor([[0, 2, 3], [0, 3, 1]])
    uv = torch.tensor([[0.0, 0.0], [1, 0], [0, 1], [1, 1]])[triangles]
    renderer = HeadRenderer(triangles, uv, torch.zeros(2, dtype=torch.long), ("skin",))
    albedo = torch.zeros(1, 3, 8, 8)
    albedo[..., 4:] = 1
    return renderer, vertices, HeadMapsTensor(albedo)


def test_colours_sides_and_edges(square: tuple[HeadRenderer, torch.Tensor, HeadMapsTensor]) -> None:
    renderer, vertices, maps = square
    camera = camera_front(CENTER, 1.0, 305.0, (100, 120))  # the square is 61 px wide
    picture = picture_of_head(renderer, vertices, maps, camera, white_light())
    assert picture.shape == (100, 120, 4)
    alpha = picture[..., 3].astype(float) / 255
    assert alpha.sum() == pytest.approx(61**2, rel=0.03)
    assert alpha[50, 29] == pytest.approx(0.5, abs=0.01)  # half of it is covered
    assert picture[50, 80, :3].tolist() == [188] * 3  # linear 0.5
    assert picture[50, 35, :3].max() < 5
    assert not picture[alpha == 0].any()
    assert over(picture, 178)[0, 0].tolist() == [178] * 3


def test_tiles_make_no_difference(
    square: tuple[HeadRenderer, torch.Tensor, HeadMapsTensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer, vertices, maps = square
    camera = camera_front(CENTER, 1.0, 300.0, (100, 120), yaw=0.4)
    whole = picture_of_head(renderer, vertices, maps, camera, white_light())
    monkeypatch.setattr(pictures, "TILE", 17)
    tiled = picture_of_head(renderer, vertices, maps, camera, white_light())
    difference = np.abs(whole.astype(int) - tiled)
    print(f"largest {difference.max()}, mean {difference.mean():.2e}")
    assert difference.max() <= 1


def test_a_head_larger_than_its_detail_is_enlarged(
    square: tuple[HeadRenderer, torch.Tensor, HeadMapsTensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer, vertices, maps = square
    camera = camera_front(CENTER, 1.0, 400.0, (100, 120))
    sharp = picture_of_head(renderer, vertices, maps, camera, white_light())
    monkeypatch.setattr(pictures, "SHARPEST", 40)
    enlarged = picture_of_head(renderer, vertices, maps, camera, white_light())
    assert enlarged.shape == sharp.shape
    assert np.abs(enlarged.astype(int) - sharp).mean() < 6


def test_out_of_the_picture(square: tuple[HeadRenderer, torch.Tensor, HeadMapsTensor]) -> None:
    renderer, vertices, maps = square
    camera = camera_front(CENTER, 1.0, 300.0, (40, 50))
    away = replace(camera, principal=camera.principal + 500)
    behind = replace(camera, translation=-camera.translation)
    for other in (away, behind):
        assert not picture_of_head(renderer, vertices, maps, other, white_light()).any()
    cut = replace(camera, principal=camera.principal + torch.tensor([40.0, 0.0]))
    assert picture_of_head(renderer, vertices, maps, cut, white_light())[:, -1, 3].any()
