"""What vertices hold, put onto the face chart: the square of the atlas that the face maps cover. Knows no model."""

from __future__ import annotations

import torch
from torch import Tensor

from .interpolation import Fragments, fragments_from_index
from .renderer import HeadRenderer

ATLAS_SIDE = 1024  # texels in which a face block is told


def chart_fragments(
    renderer: HeadRenderer, face_block: tuple[int, int, int], side: int
) -> tuple[Fragments, Tensor, Tensor]:
    """Lay the skin out on the face chart, where each triangle's corners are its own.

    Args:
        face_block: x, y and side of the chart in an atlas of 1024.
        side: texels of the chart.

    Returns:
        the chart's fragments, of triangles 0 to F' - 1 with the corners 3 f to 3 f + 2; (F',) which triangles of the
        renderer those are; (1, side, side) bool, where the chart is covered.
    """
    x, y, size = face_block
    uv = (renderer.corner_uv * ATLAS_SIDE - renderer.corner_uv.new_tensor([x, y])) / size  # (F, 3, 2)
    skin = (renderer.triangle_part == renderer.part_names.index("skin")).nonzero().squeeze(1)
    flat = torch.cat([uv[skin] * side, uv.new_ones(len(skin), 3, 1)], -1).reshape(1, -1, 3)
    own = torch.arange(flat.shape[1], device=flat.device).view(-1, 3)
    index = renderer.rasteriser(flat, own, side, side, False)
    return fragments_from_index(flat, own, index), skin, index >= 0
