"""How light a sampled face's skin is, of which hue, and how its lightness varies: settled by what the prior expects.

A photo does not tell a light skin from much light, and guidance makes the latent say of light what it likes: a bright
forehead, a cast of colour. So all of that comes from the expected face, and what the skin gives up goes to the light.
Knows nothing of the sampling loop and of what a photo shows more finely than the latent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..models.delighting import COLUMNS, ROWS, SIDE
from ..models.latent import LatentParts
from ..rendering.even_skin import evening
from ..rendering.lightness import DARKEST, DISPLAY_GAMMA, lightness, lightness_bands
from ..rendering.shader import light_from_latent, linear_from_srgb, luminance, srgb_from_linear
from .residual import alike, like_hair

if TYPE_CHECKING:
    from .detail import DetailConfig
    from .guidance import PhotoGuidance

BRIGHTEST_LIGHT = 2.2  # times that in which a white surface is white: photos are hardly exposed for more
YELLOW, MAGENTA = (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5)  # of log linear RGB; lights vary along
# the first, from blue to yellow, and hardly along the second
PORTRAITS = ((0.302, 0.657), (0.058, 0.414))  # a skin's hue along both: constant, and times the expected one


def with_photographed_hue(expected: Tensor) -> Tensor:
    """Expected faces as yellow and as magenta as photographed skins are, which vary less.

    One regression for each axis, on 62 portraits in colour of 61 people whose light guidance found to be grey
    (docs/log.md). Luminance stays.

    Args:
        expected: (B, 9, S, S), S a multiple of 256, in [0, 1].
    """
    linear = linear_from_srgb(expected[:, :3])
    rows, columns = (
        slice(part.start * expected.shape[-1] // SIDE, part.stop * expected.shape[-1] // SIDE)
        for part in (ROWS, COLUMNS)
    )
    axes = linear.new_tensor([YELLOW, MAGENTA])
    found = linear[..., rows, columns].mean((2, 3)).clamp_min(1e-4).log() @ axes.T  # (B, 2)
    constant, times = linear.new_tensor(PORTRAITS).unbind(1)
    hued = linear * ((constant + times * found - found) @ axes).exp()[:, :, None, None]
    hued = hued * (luminance(linear) / luminance(hued).clamp_min(1e-6))
    return torch.cat([srgb_from_linear(hued).clamp(0, 1), expected[:, 3:]], 1)


def calmed_chroma(face_maps: Tensor, expected: Tensor, is_grey: Tensor) -> Tensor:
    """The albedo's residual (B, 3, S, S) that takes blotches of colour away: hue is off the expected only as a whole.

    Guidance looks for lightness in the latent, and colours move along with it. A monochrome photo says nothing of them:
    there the expected ones are taken as they are.

    Args:
        face_maps, expected: (B, 9, S, S) in [0, 1].
        is_grey: (B, 1, 1, 1) bool, of a monochrome photo.
    """
    ours, theirs = (maps[:, :3].clamp_min(0.02).log() for maps in (face_maps, expected))
    difference = (ours - ours.mean(1, keepdim=True)) - (theirs - theirs.mean(1, keepdim=True))
    return torch.where(is_grey, 0.0, difference.mean((2, 3), keepdim=True)) - difference


def expected_tone(
    face_maps: Tensor, expected: Tensor, shown: Tensor, config: DetailConfig, bright: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The residual (B, 4, 1, 1) that takes a skin's hue towards the expected one, and how light it is to be.

    The latter (B, 1, 1, 1) is by how much lighter than expected, in logarithms of sRGB values. A photo does not tell a
    light skin from much light, nor a yellow one from yellow light; a magenta one it does, see `MAGENTA`. What the
    recogniser sees of a person tells more of the skin than the photo's brightness does (docs/guidance.md), until the
    light would have to be stronger than anybody exposes a photo for.

    Args:
        face_maps, expected: (B, 9, S, S) in [0, 1].
        shown: (B, 1, S, S), the texels that count.
        bright: (B, 1), the light on a face of `face_maps`; see `brightness`. None asks nothing of it.
    """
    weight = shown + 1e-6  # a face that is hidden altogether is compared as a whole
    ours, theirs = (mean_linear(maps[:, :3], weight) for maps in (face_maps, expected))
    grey = (_luminance(theirs) / _luminance(ours)).log()
    away = (theirs / ours).log()
    away = away - away.mean(1, keepdim=True)
    axis = away.new_tensor(MAGENTA)
    magenta = (away @ axis)[:, None] * axis
    hue = config.hue * (away - magenta) + config.magenta * magenta
    hue = (hue - (_luminance(ours * hue.exp()) / _luminance(ours)).log())[:, :, None, None] / DISPLAY_GAMMA
    lighter = torch.zeros_like(grey)
    if bright is not None:  # the light on an expected skin is less by as much as that is lighter
        lighter = config.overexposed * (bright.log() - grey - math.log(BRIGHTEST_LIGHT)).clamp_min(0)
    return torch.cat([hue, torch.zeros_like(hue[:, :1])], 1), lighter[:, :, None, None] / DISPLAY_GAMMA


def brightness(guide: PhotoGuidance, face_maps: Tensor, parts: LatentParts) -> Tensor:
    """(B, 1): luminance of a white surface in the photo's light, mean over the bare skin; 1 is the photo's white."""
    rendering = guide.estimate(face_maps, parts).rendering
    light = light_from_latent(parts.light)
    facing = (rendering.normal * light.direction[:, :, None, None]).sum(1, keepdim=True).clamp_min(0)
    ambient, directional = (_luminance(radiance)[:, :, None, None] for radiance in (light.ambient, light.directional))
    on_skin = guide.target.skin * (rendering.part == 0)[:, None] + 1e-6
    return ((ambient + directional * facing) * on_skin).sum((2, 3)) / on_skin.sum((2, 3))


def calmed_lightness(
    face_maps: Tensor, expected: Tensor, shown: Tensor, kept: Tensor, level: Tensor | float = 0.0
) -> Tensor:
    """The residual (B, 4, S, S) that makes lightness vary over the face as it does on faces, about the expected one.

    What guidance moves broadly is mostly the light's: a bright forehead, a dark side. What departs from the expected
    face more finely by more than faces do is light and shade as well, of folds, of hair, of a smile. So is what differs
    between its sides: their mean is taken, by how well each is shown. No part of the face says how light it is as a
    whole, or that would hang on what the photo shows.

    Args:
        face_maps, expected: (B, 9, S, S) in [0, 1].
        shown: (B, 1, S, S), how well the photo shows each texel.
        kept: (1, 2, S, S): departures in the fine and the middle band come no further; small ones stay as they are.
        level: (B, 1, 1, 1), by how much the whole is lighter than the expected face; see `expected_tone`.
    """
    departure = lightness(face_maps[:, :3]) - lightness(expected[:, :3])
    bands = lightness_bands(departure)[:, : kept.shape[1]]
    bands = alike(kept * (bands / kept).tanh(), shown)
    change = bands.sum(1, keepdim=True) + level - departure
    return torch.cat([change.expand(-1, 3, -1, -1), torch.zeros_like(change)], 1)


def even_surround(face_maps: Tensor) -> Tensor:
    """The residual (B, 4, S, S) by which temples, ears and what lies under the jaw get the face's colour.

    See `evening`.

    Args:
        face_maps: (B, 9, S, S) in [0, 1], S a multiple of 32.
    """
    change = evening(linear_from_srgb(face_maps[:, :3]).clamp_min(DARKEST).log()) / DISPLAY_GAMMA
    return torch.cat([change, torch.zeros_like(change[:, :1])], 1)


def without_hair(delit: Tensor, expected: Tensor, depth: Tensor) -> Tensor:
    """Delit faces (B, 9, S, S), nowhere so much darker than the expected ones as no face is there: that is a fringe.

    depth: (B or 1, 1, S, S), see `depth_of_faces`.
    """
    change = lightness(delit[:, :3]) - lightness(expected[:, :3])
    lighter = (like_hair(depth) - change).clamp_min(0)
    return torch.cat([(delit[:, :3] * lighter.exp()).clamp(0, 1), delit[:, 3:]], 1)


def mean_linear(albedo: Tensor, weight: Tensor) -> Tensor:
    """(B, 3, S, S) sRGB -> (B, 3) linear."""
    return (linear_from_srgb(albedo) * weight).sum((2, 3)) / weight.sum((2, 3))


def _luminance(color: Tensor) -> Tensor:
    """(B, 3) linear -> (B, 1)."""
    return luminance(color[..., None, None])[..., 0, 0]


def divided_light(light: Tensor, gain: Tensor, skin: Tensor, is_grey: Tensor) -> Tensor:
    """Light (B, 9) by which a skin, now (B, 3) linear and brighter by `gain` (B, 3), looks as before.

    In a monochrome photo nothing tells a colour of light: there it is white, and as bright on this skin.
    """
    log = light[:, :6].unflatten(1, (2, 3)) - gain.log()[:, None]
    white = torch.stack([_luminance(lamp * skin) / _luminance(skin) for lamp in log.exp().unbind(1)], 1).log()
    log = torch.where(is_grey[:, 0], white, log)
    return torch.cat([log.flatten(1), light[:, 6:]], 1)
