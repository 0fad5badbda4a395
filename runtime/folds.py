"""The folds of the photo's expression, told apart from the skin: a smile's creases are no part of a face at rest.

Skin folds where an expression leaves it less room. How much room that is comes from the fitted shape itself: the area
of the skin around each vertex with the expression, over that without. What darkens or lightens both sides of the face
alike there goes into a map of its own, which belongs to the expression as its offset of the vertices does; a mole,
which is on one side, stays on the skin. Knows no photo and no network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models.landmark_indices import LEFT_EYE, LIPS_OUTER, RIGHT_EYE
from ..models.morphable import MorphableModel
from ..rendering.blur import blurred
from ..rendering.chart import chart_fragments
from ..rendering.interpolation import image_from_fragments, interpolate_corners
from ..rendering.lightness import DISPLAY_GAMMA, lightness, lightness_bands
from ..rendering.renderer import HeadRenderer
from .chart_areas import hull_on_chart, landmarks_on_chart

LEAST_LOSS, FULL_LOSS = 0.03, 0.12  # of the skin's area: from here on it folds, and here it surely does
FINE_SHARE, SHARE = 0.5, 0.9  # of the fine band, where half are lines that stay, and of the broader ones
MOUSTACHE = (0.12, 0.18)  # log sRGB that skin above the lip is darker than expected by: perhaps hair, and surely
MOUSTACHE_SHARE = 0.75  # of that skin may be lighter
ABOVE_LIP = (129, 358, 291, 61)  # of the mesh: the nose's wings, the corners of the mouth
_REACH, _BLUR, _ABOUT = 7, 3.0, 2  # texels of 256
LIMITS = (0.0, 255 / 128)  # of the factors that a map holds, see `fold_factors`


def expression_folds(
    face_maps: Tensor,
    expected: Tensor,
    neutral: Tensor,
    vertices: Tensor,
    model: MorphableModel,
    renderer: HeadRenderer,
) -> Tensor:
    """(B, 1, S, S): what the expression adds to the logarithm of the albedo's sRGB values; 0 where nothing folds.

    Args:
        face_maps: (B, 9, S, S) in [0, 1], of the face as the photo shows it.
        expected: (B, 9, S, S), the faces that the prior expects: what departs from them may be a fold.
        neutral, vertices: (B, V, 3) metres, without and with the photo's expression.
    """
    side = face_maps.shape[-1]
    loss = 1 - area_ratio(neutral, vertices, renderer.triangles)
    fragments, skin, _ = chart_fragments(renderer, model.config.face_block, side)
    loss = torch.cat([
        image_from_fragments(fragments, interpolate_corners(fragments, row[renderer.triangles[skin], None]))
        for row in loss
    ])  # fmt: skip
    bands = lightness_bands(lightness(face_maps[:, :3]) - lightness(expected[:, :3]))
    fine, broader = bands[:, :1], bands[:, 1:].sum(1, keepdim=True)
    pressed = ((loss - LEAST_LOSS) / (FULL_LOSS - LEAST_LOSS)).clamp(0, 1)
    above_lip, lips = (hull_on_chart(model, landmarks, side) for landmarks in (ABOVE_LIP, LIPS_OUTER))
    hair = _moustache(broader, np.flatnonzero(above_lip & ~lips))
    above_lip = torch.from_numpy(above_lip).to(loss)
    below_lids = int(landmarks_on_chart(model, RIGHT_EYE + LEFT_EYE, side)[:, 1].max()) + _REACH * side // 256
    cheeks = (1 - above_lip) * (torch.arange(side, device=loss.device)[:, None] >= below_lids)  # lashes are no creases
    folded = pressed.lerp(_beside(pressed), cheeks * (1 - hair)) * (1 - hair * above_lip)
    folded = blurred(folded, _BLUR * side / 256)
    return folded * (FINE_SHARE * _on_both_sides(fine) + SHARE * _on_both_sides(broader))


def _beside(pressed: Tensor) -> Tensor:
    """(B, 1, S, S): a crease runs along the edge of the skin that is pressed together, and beyond it."""
    reach = _REACH * pressed.shape[-1] // 256
    return functional.max_pool2d(pressed, 2 * reach + 1, 1, reach)


def _moustache(broader: Tensor, above_lip: np.ndarray) -> Tensor:
    """(B, 1, 1, 1) in [0, 1], how surely hair grows above the lip: then what is dark beside the mouth is hair, too.

    broader: (B, 1, S, S), departures from the expected lightness; above_lip: (N,) places of texels in the flat chart.
    """
    dark = -broader.flatten(1)[:, torch.from_numpy(above_lip).to(broader.device)]
    dark = dark.quantile(MOUSTACHE_SHARE, 1)[:, None, None, None]
    return ((dark - MOUSTACHE[0]) / (MOUSTACHE[1] - MOUSTACHE[0])).clamp(0, 1)


def area_ratio(neutral: Tensor, vertices: Tensor, triangles: Tensor) -> Tensor:
    """(B, V): area of the triangles around each vertex in `vertices` (B, V, 3) over that in `neutral`."""
    around = []
    for shape in (vertices, neutral):
        first, second, third = shape[:, triangles].unbind(2)
        area = torch.linalg.cross(second - first, third - first).norm(dim=2)
        total = area.new_zeros(shape.shape[:2])
        around.append(total.index_add(1, triangles.flatten(), area.repeat_interleave(3, 1)))
    return around[0] / around[1].clamp_min(1e-12)


def without_folds(face_maps: Tensor, folds: Tensor) -> Tensor:
    """Maps (B, 9, S, S) in [0, 1] of the face at rest; folds: (B, 1, s, s) of `expression_folds`, enlarged to them."""
    folds = _enlarged(folds, face_maps.shape[-1])
    return torch.cat([(face_maps[:, :3] * (-folds).exp()).clamp(0, 1), face_maps[:, 3:]], 1)


def fold_factors(folds: Tensor, side: int) -> Tensor:
    """Folds (B, 1, s, s) -> (B, 1, side, side) in [0, 2): what they multiply the linear diffuse albedo with."""
    return (DISPLAY_GAMMA * _enlarged(folds, side)).exp().clamp(*LIMITS)


def _enlarged(folds: Tensor, side: int) -> Tensor:
    return functional.interpolate(folds, side, mode="bilinear", align_corners=False)


def _on_both_sides(x: Tensor) -> Tensor:
    """(B, 1, S, S): as much of x as the face's other side has, too, at about the same place."""
    about = 2 * (_ABOUT * x.shape[-1] // 256) + 1
    shares = [
        part.minimum(functional.max_pool2d(part.flip(-1), about, 1, about // 2))
        for part in (x.clamp_min(0), (-x).clamp_min(0))
    ]
    return shares[0] - shares[1]
