"""The eye as a photo of a face shows it, over the azimuthal chart of an eyeball, for an iris of any colour.

Soft, because an eye in the photo is a tenth as wide as in the atlas, and dim, because nothing else here knows of the
lids' shade. The eye that is exported, with its fibres and veins, is another: `exporter/textures/eye_texture.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..assets.atlas_layout import ATLAS_SIZE, EYE_EXPONENT
from .blur import blurred

_MARGIN = 4  # texels of a 1024 atlas between the chart and its rectangle
_IRIS, _PUPIL = 0.42, 0.14  # radians from the gaze: 11.8 mm across on the model's eyeball of 29 mm, a third of it pupil
_SCLERA = (0.52, 0.48, 0.455)  # linear albedo in front
_CORNER = (0.42, 0.26, 0.22)  # and towards the corners
_SHADE = 0.62  # of the face's light reaches the eye between its lids
_BLUR = 2.5  # texels


def drawn_eye(side: int, atlas_size: int) -> tuple[Tensor, Tensor]:
    """A picture of eye white and pupil (1, 3, side, side), linear RGB, and what an iris adds (1, 1, side, side).

    The eye is the first plus the second times the iris' linear colour.

    Args:
        side: of the chart's rectangle, in texels of an atlas of `atlas_size`.
    """
    grid = torch.arange(side) + 0.5 - side / 2
    radius = torch.hypot(grid[:, None], grid[None]) / (side / 2 - _MARGIN * atlas_size / ATLAS_SIZE)
    angle = math.pi * radius.clamp(0, 1) ** (1 / EYE_EXPONENT)
    white = ((angle - _IRIS) / 0.045 + 0.5).clamp(0, 1)
    pupil = 1 - ((angle - _PUPIL) / 0.03 + 0.5).clamp(0, 1)
    limbal_ring = 1 - 0.65 * ((angle / _IRIS - 0.75) / 0.25).clamp(0, 1)
    rear = ((angle - 0.6) / 0.6).clamp(0, 1)
    front, corner = (torch.tensor(color)[:, None, None] for color in (_SCLERA, _CORNER))
    eye = torch.lerp(front, corner, rear) * white + 0.004 * pupil
    iris = (1 - white) * (1 - pupil) * limbal_ring
    return blurred(_SHADE * eye[None], _BLUR), blurred(_SHADE * iris[None, None], _BLUR)
