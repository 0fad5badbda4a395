"""Interpolation over covered pixels: exact on planes, perspective-correct, differentiable."""

import torch

from fitdiff.native.raster_torch import rasterise_torch
from fitdiff.rendering.camera import camera_from_world, camera_front, project
from fitdiff.rendering.interpolation import (
    fragments_from_index,
    image_from_fragments,
    interpolate_corners,
    interpolate_vertices,
)


def test_positions_reproject_to_pixel_centres(sheet) -> None:
    """Interpolating the vertices' own positions gives points that project back to their pixels."""
    camera = camera_front(torch.tensor([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0]]), 0.4, 100.0, (60, 50), yaw=0.5)
    vertices = sheet.vertices.expand(2, -1, -1)
    pixels = project(camera, vertices)
    index = rasterise_torch(pixels, sheet.triangles, 60, 50)
    fragments = fragments_from_index(pixels, sheet.triangles, index)
    points = interpolate_vertices(fragments, sheet.triangles, vertices.permute(2, 0, 1))  # (3, N)
    for number in range(2):
        own = fragments.image == number
        again = project(camera, points[:, own].T[None].expand(2, -1, -1))[number]
        torch.testing.assert_close(again[:, :2].T, fragments.centre[:, own], atol=2e-3, rtol=0)
        torch.testing.assert_close(again[:, 2], fragments.depth[own], atol=1e-5, rtol=0)
    depth = interpolate_vertices(fragments, sheet.triangles, camera_from_world(camera, vertices).permute(2, 0, 1))[2]
    torch.testing.assert_close(depth, fragments.depth, atol=1e-5, rtol=0)


def test_corner_values_equal_vertex_values_where_they_agree(sheet) -> None:
    pixels = project(camera_front(torch.zeros(3), 0.4, 100.0, 48), sheet.vertices)
    fragments = fragments_from_index(pixels, sheet.triangles, rasterise_torch(pixels, sheet.triangles, 48, 48))
    uv = torch.stack([sheet.vertices[..., 0] / 0.2 + 0.5, 0.5 - sheet.vertices[..., 1] / 0.2])  # (2, 1, V)
    torch.testing.assert_close(
        interpolate_corners(fragments, sheet.corner_uv), interpolate_vertices(fragments, sheet.triangles, uv)
    )


def test_image_keeps_rows_columns_and_images_apart(sheet) -> None:
    index = torch.full((2, 3, 4), -1, dtype=torch.int32)
    index[0, 1, 2], index[1, 2, 0] = 5, 7
    pixels = project(camera_front(torch.zeros(3), 0.4, 100.0, 48), sheet.vertices).expand(2, -1, -1)
    fragments = fragments_from_index(pixels, sheet.triangles, index)
    image = image_from_fragments(fragments, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert image.shape == (2, 2, 3, 4)
    assert image[0, :, 1, 2].tolist() == [1, 3] and image[1, :, 2, 0].tolist() == [2, 4]
    assert (image != 0).sum() == 4
    assert fragments.centre.T.tolist() == [[2.5, 1.5], [0.5, 2.5]]


def test_weights_gradient(sheet) -> None:
    pixels = project(camera_front(torch.zeros(3), 0.4, 20.0, 10), sheet.vertices)
    index = rasterise_torch(pixels, sheet.triangles, 10, 10)
    values = torch.randn(2, 1, pixels.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = sheet.triangles[index[index >= 0].long()].unique()

    def at_pixels(moved: torch.Tensor) -> torch.Tensor:
        whole = pixels.double().index_copy(1, seen, moved)
        fragments = fragments_from_index(whole, sheet.triangles, index)
        return interpolate_vertices(fragments, sheet.triangles, values)

    some = pixels[:, seen].double().requires_grad_()
    assert torch.autograd.gradcheck(at_pixels, (some,), eps=1e-5, atol=1e-5, fast_mode=True)
