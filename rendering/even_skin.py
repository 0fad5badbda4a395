"""One colour of skin for face, ears and neck: where a chart shows it plainly, and what the rest is told of it.

Places are those of the face chart, which every morphable model shares. Knows no model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .blur import blurred
from .lightness import BROADEST
from .shader import luminance

PLAIN_SKIN = ((13, 7, 6, 3), (10, 15, 3, 3), (19, 15, 3, 3))  # x, y, width, height in 32nds: forehead, both cheeks
OVAL = (0.497, 0.5, 0.2, 0.305)  # the face on its chart: its middle, half its width and height, in shares of the side
SURROUND = 1.35  # times the oval, from where on a skin has one colour


def mean_of_plain_skin(texels: Tensor) -> Tensor:
    """(B, C, S, S) over the face chart, S a multiple of 32 -> (B, C), the mean where skin has no brows, beard, lips."""
    at = texels.shape[-1] // 32
    parts = [texels[..., y * at : (y + h) * at, x * at : (x + w) * at].flatten(2) for x, y, w, h in PLAIN_SKIN]
    return torch.cat(parts, 2).mean(2)


def evening(log: Tensor) -> Tensor:
    """What gives temples, ears and what lies under the jaw, broadly, the colour of forehead and cheeks.

    Skins recombined from photographs were paler and greyer there, dark ones most, and a face on them looked like a
    mask. What is darker stays so: stubble, a beard.

    Args:
        log: (B, 3, S, S), logarithms of linear albedo over the face chart; S a multiple of 32.

    Returns:
        (B, 3, S, S), to be added to `log`; 0 on the face.
    """
    side = log.shape[-1]
    plain, broad = mean_of_plain_skin(log)[..., None, None], blurred(log, BROADEST * side / 256)
    lighter = (luminance(plain.exp()) / luminance(broad.exp())).log().clamp_min(0)
    at = (torch.arange(side, device=log.device) + 0.5) / side
    x, y, half_width, half_height = OVAL
    from_middle = (((at - x) / half_width).square() + ((at[:, None] - y) / half_height).square()).sqrt()
    return ((from_middle - 1) / (SURROUND - 1)).clamp(0, 1) * (plain - broad - lighter)
