"""Plain PyTorch twin of the compiled z-buffer rasteriser: the oracle of its tests and the fallback without
it.

It follows `raster.cpp` operation by operation in float64, so both give the same index for every pixel.
Slower, but it runs on any device. It knows neither cameras nor gradients.
"""

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 1 << 20  # (triangle, pixel) pairs held at once: about 100 MiB


def rasterise_torch(vertices: Tensor, triangles: Tensor, height: int, width: int, *, cull: bool = False) -> Tensor:
    """Index of the nearest triangle under every pixel centre; the contract of `raster.rasterise`.

    Args:
        vertices: (B, V, 3) float32: x px, y px, depth.
        triangles: (F, 3) integer indices into V.
        height: rows of the image.
        width: columns of the image.
        cull: drop triangles that show their back.

    Returns:
        (B, height, width) int32 on the device of `vertices`, -1 where no triangle covers the pixel.
    """
    corners = triangles.long()
    images = [_rasterise_image(image.double()[corners], height, width, cull) for image in vertices.detach()]
    return torch.stack(images) if images else vertices.new_empty((0, height, width), dtype=torch.int32)


def _rasterise_image(corners: Tensor, height: int, width: int, cull: bool) -> Tensor:
    """(F, 3, 3) float64 corners of one image -> (height, width) int32."""
    device = corners.device
    area = _signed_area(corners)  # (F,)
    seen = (corners[:, :, 2] > 0).all(1) & area.isfinite() & (area != 0)
    if cull:
        seen &= area < 0
    low = (corners[:, :, :2].amin(1) - 0.5).ceil()  # (F, 2) x, y
    high = (corners[:, :, :2].amax(1) - 0.5).floor()
    limit = torch.tensor([width - 1, height - 1], dtype=torch.float64, device=device)
    seen &= ((low <= high) & (high >= 0) & (low <= limit)).all(1)

    triangle = seen.nonzero().squeeze(1)  # (S,) ascending: ties go to the first
    first = low[triangle].clamp(min=0).long()
    size = torch.minimum(high[triangle], limit).long() - first + 1  # (S, 2) columns, rows
    pairs = size[:, 0] * size[:, 1]
    chunk = (pairs.cumsum(0) - pairs) // PAIRS_PER_CHUNK
    nearest = torch.zeros(height * width, dtype=torch.float64, device=device)  # 1 / depth
    index = torch.full((height * width,), -1, dtype=torch.long, device=device)
    for number in chunk.unique().tolist():
        part = chunk == number
        _draw(corners, triangle[part], first[part], size[part], width, nearest, index)
    return index.reshape(height, width).to(torch.int32)


def _draw(
    corners: Tensor, triangle: Tensor, first: Tensor, size: Tensor, width: int, nearest: Tensor, index: Tensor
) -> None:
    """Draw one run of triangles into `nearest` (H*W,) and `index` (H*W,), in place."""
    pairs = size[:, 0] * size[:, 1]
    owner = torch.repeat_interleave(torch.arange(len(triangle), device=triangle.device), pairs)  # (P,)
    offset = torch.arange(len(owner), device=owner.device) - (pairs.cumsum(0) - pairs)[owner]
    column = first[owner, 0] + offset % size[owner, 0]
    row = first[owner, 1] + offset // size[owner, 0]
    a, b, c = corners[triangle].unbind(1)  # (S, 3) each
    orientation = torch.where(_signed_area(corners[triangle]) > 0, 1.0, -1.0).double()  # (S,)
    centre = torch.stack([column, row], 1).double() + 0.5  # (P, 2)
    edges: list[Tensor] = []
    inside = torch.ones_like(owner, dtype=torch.bool)
    for start, end in ((b, c), (c, a), (a, b)):
        value = orientation[owner] * _edge(start[owner], end[owner], centre)
        inside &= (value > 0) | ((value == 0) & _owns_edge(start, end, orientation)[owner])
        edges.append(value)

    inverse_a, inverse_b, inverse_c = (1.0 / corners[triangle][:, :, 2])[owner].unbind(1)
    ea, eb, ec = edges
    inverse = (ea * inverse_a + eb * inverse_b + ec * inverse_c) / (ea + eb + ec)
    pixel, inverse, candidate = (row * width + column)[inside], inverse[inside], triangle[owner[inside]]
    best = nearest.scatter_reduce(0, pixel, inverse, "amax")
    winner = (inverse == best[pixel]) & (inverse > nearest[pixel])
    taken = pixel[winner]
    index[taken] = torch.iinfo(torch.long).max
    index.scatter_reduce_(0, taken, candidate[winner], "amin")
    nearest.copy_(best)


def _signed_area(corners: Tensor) -> Tensor:
    a, b, c = corners.unbind(1)
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def _edge(start: Tensor, end: Tensor, centre: Tensor) -> Tensor:
    """Twice the signed area of (centre, start, end); exactly negated when start and end swap."""
    from_start, to_end = start[:, :2] - centre, end[:, :2] - centre
    return from_start[:, 0] * to_end[:, 1] - from_start[:, 1] * to_end[:, 0]


def _owns_edge(start: Tensor, end: Tensor, orientation: Tensor) -> Tensor:
    """Top-left rule: does a pixel centre exactly on this edge belong to the triangle?"""
    dx, dy = (orientation[:, None] * (end[:, :2] - start[:, :2])).unbind(1)
    return (dy < 0) | ((dy == 0) & (dx > 0))
