"""How light a skin is, and how its lightness varies, put in the place of what the prior's latents decode to.

The one was told by labelled photographs; of the other this photo tells, once the light is taken out. It is laid out on
the face chart by the shape and the pose that guidance has found. Knows nothing of losses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models.delighting import COLUMNS, ROWS, SIDE, DelightingNet, about_zero, delighting_inputs
from ..models.latent import LatentParts
from ..rendering.blur import blurred
from ..rendering.camera import Camera
from ..rendering.lightness import BROADEST, lightness
from ..rendering.shader import linear_from_srgb, luminance, srgb_from_linear
from ..rendering.unwrap import chart_in_photo
from .devices import array_from_tensor, device_from_host
from .trace import span

if TYPE_CHECKING:
    from .guidance import PhotoGuidance


def delit_faces(guide: PhotoGuidance, parts: LatentParts, expected: Tensor) -> Tensor:
    """The expected faces (B, 9, S, S) with skins that vary in lightness as the photos say.

    How light a face is as a whole, its hue and all other maps stay the expected ones, and so does the scalp.

    Args:
        parts: denormalised latents of the faces that the photos show, whose shapes lay them out.
    """
    network = guide.models.delighting
    if network is None:
        return expected
    with span("unwrap", "host"):
        inputs = torch.cat(_unwrapped(guide, parts))
    with span("delighting", "pytorch"):
        return with_lightness(expected, network(inputs), network)


def with_lightness(expected: Tensor, varying: Tensor, network: DelightingNet) -> Tensor:
    """Maps (B, 9, S, S), S a multiple of 256, whose lightness varies within the face's window as told (B, 1, H, W).

    At the face's border it goes over into that of the maps. What is finer than a texel of 256 stays theirs, and what is
    broader than all bands: between two photos of a person that differs as much as between two people.
    """
    window = lightness(_reduced(expected[:, :3]))[..., ROWS, COLUMNS]
    change, within = varying - about_zero(window, network.weight), (2 * network.weight).clamp(0, 1)
    broad = blurred(change * within, BROADEST) / blurred(within, BROADEST).clamp_min(1e-3)
    change = (change - broad) * within
    top, left = ROWS.start, COLUMNS.start
    change = functional.pad(change, (left, SIDE - COLUMNS.stop, top, SIDE - ROWS.stop))
    if expected.shape[-1] != SIDE:
        change = functional.interpolate(change, expected.shape[-1], mode="bilinear", align_corners=False)
    return torch.cat([(expected[:, :3] * change.exp()).clamp(0, 1), expected[:, 3:]], 1)


def with_tone(expected: Tensor, tone: Tensor, believed: Tensor, network: DelightingNet | None) -> Tensor:
    """Maps (B, 9, S, S), S a multiple of 256, that are, over the face and on average, as light as told.

    Args:
        tone: (B,) logarithms of linear luminance.
        believed: (B,) in [0, 1], the share of the way.
        network: it knows where the face is; None leaves the maps as they are.
    """
    if network is None:
        return expected
    light = luminance(_reduced(linear_from_srgb(expected[:, :3])))[..., ROWS, COLUMNS]
    present = ((light * network.weight).sum((1, 2, 3)) / network.weight.sum()).log()
    gain = (believed * (tone - present)).exp()[:, None, None, None]
    albedo = srgb_from_linear(linear_from_srgb(expected[:, :3]) * gain)
    return torch.cat([albedo.clamp(0, 1), expected[:, 3:]], 1)


def _reduced(texels: Tensor) -> Tensor:
    """(B, C, S, S) -> (B, C, 256, 256), averages."""
    return functional.avg_pool2d(texels, texels.shape[-1] // SIDE)


def _unwrapped(guide: PhotoGuidance, parts: LatentParts) -> list[Tensor]:
    """The network's inputs (1, 7, H, W) for each photo."""
    models, target = guide.models, guide.target
    vertices = models.morphable(parts.identity, parts.expression)
    camera = guide.camera_of(vertices)
    pictures = array_from_tensor(torch.cat([target.image, target.skin], 1).permute(0, 2, 3, 1))
    inputs = []
    for row, picture in enumerate(pictures):
        place = chart_in_photo(
            models.renderer, vertices[row : row + 1], _of_photo(camera, row), models.morphable.config.face_block, SIDE
        )
        sampled = place.sampled(np.ascontiguousarray(picture))
        window = np.concatenate([sampled[..., :3], sampled[..., 3:] * place.visible[..., None], place.normal], -1)
        window = torch.from_numpy(window[ROWS, COLUMNS].transpose(2, 0, 1).copy())[None].float()
        (window,) = device_from_host(models.device, window)
        colours, shown, normal = window.split([3, 1, 3], 1)
        inputs.append(delighting_inputs(colours, shown, normal))
    return inputs


def _of_photo(camera: Camera, row: int) -> Camera:
    """The camera of one photo."""
    parts = ("focal", "principal", "rotation", "translation")
    return replace(camera, **{name: getattr(camera, name)[row : row + 1] for name in parts})
