"""Values at covered pixels from values at vertices or corners: perspective-correct and differentiable.

Work is done on the list of covered pixels (N of them), never on the whole image, with components first: (C,
N). Which triangle a pixel sees is constant; where in it the pixel falls is differentiable in the vertices.
Silhouettes give no gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .vectors import columns_at


@dataclass(frozen=True)
class Fragments:
    """Covered pixels of a batch of images, in row-major order of (image, row, column).

    Attributes:
        pixel: (N,) long, (image * H + row) * W + column.
        image: (N,) long.
        centre: (2, N) px, x and y of the pixel's centre.
        triangle: (N,) long.
        barycentric: (3, N) perspective-correct weights of the triangle's corners, summing to 1;
            differentiable.
        depth: (N,) metres; differentiable.
        front: (N,) bool, whether the triangle shows its front, that is, runs counter-clockwise on the screen.
        shape: (B, H, W) of the images.
    """

    pixel: Tensor
    image: Tensor
    centre: Tensor
    triangle: Tensor
    barycentric: Tensor
    depth: Tensor
    front: Tensor
    shape: tuple[int, int, int]


def fragments_from_index(vertices_px: Tensor, triangles: Tensor, index: Tensor) -> Fragments:
    """Where in its triangle does each covered pixel fall?

    Args:
        vertices_px: (B, V, 3) x px, y px, depth; differentiable.
        triangles: (F, 3) long.
        index: (B, H, W) triangle of every pixel, -1 where empty.
    """
    batch, height, width = index.shape
    flat = index.reshape(-1)
    pixel = (flat >= 0).nonzero().squeeze(1)
    triangle = flat[pixel].long()
    image = pixel // (height * width)
    centre = torch.stack([pixel % width, pixel // width % height]).to(vertices_px.dtype) + 0.5  # (2, N)

    corner = _corner_index(triangles, triangle, image, vertices_px.shape[1])
    x, y, depth = columns_at(vertices_px.permute(2, 0, 1).reshape(3, -1), corner)  # (3, N) each
    x, y = x - centre[0], y - centre[1]
    # Twice the area of the triangle (pixel, next corner, last corner), for each corner.
    areas = x.roll(-1, 0) * y.roll(-2, 0) - x.roll(-2, 0) * y.roll(-1, 0)  # (3, N)
    weights = areas / depth  # perspective: affine weights over depth, then normalised
    total = weights.sum(0)
    area = areas.sum(0)
    shape = (batch, height, width)
    return Fragments(pixel, image, centre, triangle, weights / total, area / total, area < 0, shape)


def interpolate_vertices(fragments: Fragments, triangles: Tensor, values: Tensor) -> Tensor:
    """Values at vertices to values at pixels.

    Args:
        fragments: covered pixels of B images.
        triangles: (F, 3) long indices into V.
        values: (C, B, V).

    Returns:
        (C, N).
    """
    corner = _corner_index(triangles, fragments.triangle, fragments.image, values.shape[2])
    return (columns_at(values.flatten(1), corner) * fragments.barycentric).sum(1)


def interpolate_corners(fragments: Fragments, values: Tensor) -> Tensor:
    """(F, 3, C) values at triangle corners, such as UVs, -> (C, N) at pixels."""
    channels = values.shape[2]
    columns = values.permute(2, 1, 0).reshape(channels * 3, -1)
    corners = columns_at(columns, fragments.triangle).reshape(channels, 3, -1)
    return (corners * fragments.barycentric).sum(1)


def image_from_fragments(fragments: Fragments, values: Tensor) -> Tensor:
    """(C, N) at pixels -> (B, C, H, W), zero where no triangle covers the pixel."""
    batch, height, width = fragments.shape
    channels = values.shape[0]
    flat = values.new_zeros(channels, batch * height * width)
    flat = flat.scatter(1, fragments.pixel.expand(channels, -1), values)
    return flat.reshape(channels, batch, height, width).transpose(0, 1)


def _corner_index(triangles: Tensor, triangle: Tensor, image: Tensor, count: int) -> Tensor:
    """(3, N) index of each pixel's three corners into a flat run of B times `count` vertices."""
    return triangles.T.contiguous().index_select(1, triangle) + image * count
