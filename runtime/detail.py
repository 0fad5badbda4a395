"""Skin detail finer than the latent can hold: the last touch of guidance, on the face maps themselves.

One latent cell stands for 8 x 8 texels, so moles, wrinkles and the hairs of a brow are beyond it. After sampling, the
losses of equation 2 move a residual of the diffuse albedo's lightness, in log space, where the photo shows bare skin
and nowhere else. It is held small and has no low frequencies; how light the skin is, of which hue and how its
lightness varies broadly is first moved towards what the prior expects, and a photo's cast of colour goes to the light.
The specular albedo is a guess of the prior's: a photo hardly tells it. Shape, expression and light settle with it.
Knows nothing of the sampling loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..models.latent import LatentLayout, LatentParts
from ..rendering.blur import blurred
from ..rendering.shader import linear_from_srgb, luminance
from .trace import span

if TYPE_CHECKING:
    from .guidance import PhotoGuidance


DISPLAY_GAMMA = 2.2  # linear light goes about with this power of sRGB values
DARKEST = 0.003  # linear luminance that logarithms still tell apart
SHINE = 0.2  # logarithm of sRGB albedo: a residual comes no further above the skin around it
LIGHTNESS_BLUR = 0.9  # texels of 256: speckle is no skin


@dataclass(frozen=True)
class DetailConfig:
    """Adam steps on the residual, and what holds it. `steps` 0: the maps are the decoder's alone."""

    steps: int = 40
    views: int = 2  # in which the recogniser sees the face at one step; see `identity_views`
    rate: float = 0.06  # of the logarithm of sRGB albedo, a step
    coefficients_rate: float = 0.04  # of the 192 normalised shape, expression and light numbers
    size: float = 1.0  # penalty of the mean squared residual
    broad: float = 30.0  # penalty of what of it is smoother than `broad_sigma`
    broad_sigma: float = 6.0  # texels of 256
    lightness: float = 0.7  # share of the way to the prior's expected skin, see `expected_tone`
    hue: float = 0.7  # the same for its hue
    shading_sigma: float = 16.0  # texels of 256: broader changes of lightness over the face are the expected face's
    specular: float = 0.5  # share of the expected specular albedo, the rest being the mean chart's: both are guesses
    light_spread: float = 0.3  # of the logarithm of a channel of the light over their mean, as `hold` counts it
    hold: float = 0.002  # penalty of a unit change of one of the 192 numbers
    settle: float = 0.4  # from this share of the steps on the rates shrink
    decay: float = 0.88  # by so much a step


@dataclass(frozen=True)
class Detail:
    """What the detail stage found.

    z: (B, 1, 67, 64) normalised, its shape and light settled. residual: (B, 4, 256, 256) for `with_detail`.
    face_maps: (B, 9, 256, 256) in [0, 1], those of z with the residual.
    """

    z: Tensor
    residual: Tensor
    face_maps: Tensor


def refine_detail(guide: PhotoGuidance, z_0: Tensor, config: DetailConfig, expected: Tensor | None = None) -> Detail:
    """Normalised z_0 (B, 1, 67, 64) -> settled shape and light, and what the maps gain.

    Every step's terms are added to `guide.histories`, as steps that follow the sampler's. Adam and every penalty work
    number by number or photo by photo: the batch changes nothing.

    Args:
        expected: (B, 9, 256, 256), the faces that the prior expects of these people: colours go towards them (see
            `calmed_chroma`, `expected_tone` and `broad_lightness`), specular albedo is theirs. None leaves the
            decoder's as they are.
    """
    layout = LatentLayout()
    with torch.no_grad():
        parts = layout.split(guide.statistics.denormalise(z_0))
        base = decoded = guide.models.face_maps(parts.texture)
        calm = torch.zeros_like(base[:, :4])
        if expected is not None:
            mean = guide.models.autoencoder.chart_mean[None, 3:6]
            mean = functional.avg_pool2d(mean, mean.shape[-1] // base.shape[-1])
            specular = torch.lerp(mean, expected[:, 3:6], config.specular) - base[:, 3:6]
            calm = torch.cat([calmed_chroma(base, expected, guide.is_grey), specular.mean(1, keepdim=True)], 1)
            base = with_detail(decoded, calm)
    shown = texels_shown(guide, base, parts)
    if expected is not None:
        with torch.no_grad():
            tone, gain = expected_tone(base, expected, shown, config)
            calm = calm + tone
            calm = calm + broad_lightness(with_detail(decoded, calm), expected, shown, config.shading_sigma)
            base = with_detail(decoded, calm)
            light = torch.cat([parts.light[:, :6] - gain.log().repeat(1, 2), parts.light[:, 6:]], 1)
            parts = replace(parts, light=light)
            z_0 = guide.statistics.normalise(layout.join(parts))
        shown = texels_shown(guide, base, parts)  # nothing of what is burnt out now
    around = blurred(shown, config.shading_sigma).clamp_min(1e-3)
    texture, start = z_0.flatten(1).split([layout.texture, layout.size - layout.texture], 1)
    numbers = start.clone().requires_grad_()
    free = torch.zeros_like(base[:, :1]).requires_grad_()
    rates = [(free, config.rate), (numbers, config.coefficients_rate)]
    optimiser = torch.optim.Adam([{"params": [x], "lr": rate} for x, rate in rates], betas=(0.8, 0.95))
    begun = guide.last_step + 1
    with torch.enable_grad():
        for step in range(config.steps):
            if step > config.settle * config.steps:
                for group in optimiser.param_groups:
                    group["lr"] *= config.decay
            with span("residual", "pytorch"):
                detail = _residual(free, shown, around, config.shading_sigma)
                penalty = _penalty(detail, config).sum()
            z = torch.cat([texture, numbers], 1).view_as(z_0)
            moved = layout.split(guide.statistics.denormalise(z))
            guide.views.advance(config.views)
            total, terms = guide.objective(guide.estimate(with_detail(base, detail), moved))
            held = (numbers - start).square().sum()
            held = held + (_light_colour(moved.light) / config.light_spread).square().sum()
            total = total + penalty + config.hold * held
            optimiser.zero_grad()
            with span("gradient", "pytorch"):
                total.backward()
            with span("optimiser", "host"):
                optimiser.step()
            guide.record(begun + step, 0.0, terms)
    with torch.no_grad():
        z = torch.cat([texture, numbers], 1).view_as(z_0)
        detail = _residual(free, shown, around, config.shading_sigma)
        return Detail(z, calm + detail, with_detail(base, detail))


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


def expected_tone(face_maps: Tensor, expected: Tensor, shown: Tensor, config: DetailConfig) -> tuple[Tensor, Tensor]:
    """The residual (B, 4, 1, 1) that takes a skin towards the expected one, and the gain (B, 3) of its linear channels.

    A photo does not tell a light skin from much light, nor a red one from red light; the light divided by the gain
    leaves the picture as it was. What the recogniser sees of a person tells more of the skin than the photo's
    brightness does (docs/guidance.md).

    Args:
        face_maps, expected: (B, 9, S, S) in [0, 1].
        shown: (B, 1, S, S), the texels that count.
    """
    weight = shown + 1e-6  # a face that is hidden altogether is compared as a whole
    ours, theirs = (_mean_linear(maps[:, :3], weight) for maps in (face_maps, expected))
    wanted = (theirs / ours).log()
    grey = (_luminance(theirs) / _luminance(ours)).log()
    lift = (config.lightness * grey + config.hue * (wanted - grey))[:, :, None, None] / DISPLAY_GAMMA
    lift = torch.cat([lift, torch.zeros_like(lift[:, :1])], 1)
    return lift, _mean_linear(with_detail(face_maps, lift)[:, :3], weight) / ours


def broad_lightness(face_maps: Tensor, expected: Tensor, shown: Tensor, sigma: float) -> Tensor:
    """The residual (B, 4, S, S) that makes lightness vary broadly over the face as it does on the expected one.

    What guidance moves there is mostly the light's: a bright forehead, a dark side. The mean over `shown` stays.

    Args:
        face_maps, expected: (B, 9, S, S) in [0, 1].
        shown: (B, 1, S, S), the texels that count for the mean.
        sigma: texels; what is finer stays as it is.
    """
    ours, theirs = (
        luminance(linear_from_srgb(maps[:, :3])).clamp_min(DARKEST).log() / DISPLAY_GAMMA
        for maps in (face_maps, expected)
    )
    broad = blurred(theirs - ours, sigma)
    weight = shown + 1e-6
    broad = broad - (broad * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)
    return torch.cat([broad.expand(-1, 3, -1, -1), torch.zeros_like(broad)], 1)


def _mean_linear(albedo: Tensor, weight: Tensor) -> Tensor:
    """(B, 3, S, S) sRGB -> (B, 3) linear."""
    return (linear_from_srgb(albedo) * weight).sum((2, 3)) / weight.sum((2, 3))


def _luminance(color: Tensor) -> Tensor:
    """(B, 3) linear -> (B, 1)."""
    return luminance(color[..., None, None])[..., 0, 0]


def with_detail(face_maps: Tensor, residual: Tensor) -> Tensor:
    """Maps (B, 9, S, S) in [0, 1] with a residual, which is enlarged to them.

    residual: (B, 4, S', S') or (B, 4, 1, 1); the diffuse albedo is times exp of the first three channels, the specular
    albedo plus the fourth.
    """
    if residual.shape[-1] not in (1, face_maps.shape[-1]):
        residual = functional.interpolate(residual, face_maps.shape[-1], mode="bicubic", align_corners=False)
    albedo = (face_maps[:, :3] * residual[:, :3].exp()).clamp(0.0, 1.0)
    return torch.cat([albedo, (face_maps[:, 3:6] + residual[:, 3:]).clamp(0.0, 1.0), face_maps[:, 6:]], 1)


def texels_shown(guide: PhotoGuidance, face_maps: Tensor, parts: LatentParts) -> Tensor:
    """(B, 1, 256, 256) in [0, 1]: how well the photo shows each texel of the face as bare skin.

    The renderer's own gradient says which texels a pixel is made of.
    """
    maps = face_maps.clone().requires_grad_()
    with torch.enable_grad():
        estimate = guide.estimate(maps, parts)
        on_skin = estimate.image * (estimate.rendering.part == 0)[:, None]
        (bare,) = torch.autograd.grad((on_skin * guide.target.skin).sum(), maps, retain_graph=True)
        (all_skin,) = torch.autograd.grad(on_skin.sum(), maps)
    bare, all_skin = (blurred(g[:, :3].sum(1, keepdim=True).clamp_min(0), 2.0) for g in (bare, all_skin))
    above_mean = all_skin > all_skin.mean((1, 2, 3), keepdim=True)
    typical = all_skin.masked_fill(~above_mean, torch.nan).flatten(1).nanmedian(1).values[:, None, None, None]
    dense = (2 * all_skin / typical - 0.2).clamp(0, 1)  # grazing views show little
    share = bare / (all_skin + 1e-6) * dense
    return (1.5 * blurred(share, 3.0) - 0.5).clamp(0, 1)  # fades out inside the border


def _residual(free: Tensor, shown: Tensor, around: Tensor, sigma: float) -> Tensor:
    """What is free (B, 1, 256, 256), smoothed, where it shows; the same for all of the albedo (B, 4, 256, 256).

    Without what is broader than `sigma`: the face would be a mask, lighter or darker than the skin that does not show.
    What is far lighter than the skin around it is shine, and held back. around: `shown`, blurred by `sigma`.
    """
    fine = blurred(free, LIGHTNESS_BLUR)
    fine = torch.where(fine > 0, SHINE * (fine / SHINE).tanh(), fine)
    broad = blurred(fine * shown, sigma) / around
    lightness = (fine - broad) * shown
    return torch.cat([lightness.expand(-1, 3, -1, -1), torch.zeros_like(lightness)], 1)


def _light_colour(light: Tensor) -> Tensor:
    """(1, 9) log ambient, log directional, direction -> (1, 2, 3) each channel's logarithm less their mean."""
    both = light[:, :6].unflatten(1, (2, 3))
    return both - both.mean(2, keepdim=True)


def _penalty(residual: Tensor, config: DetailConfig) -> Tensor:
    """(B,)."""
    lightness = residual[:, :1]
    broad = blurred(lightness, config.broad_sigma).square().mean((1, 2, 3))
    return config.size * lightness.square().mean((1, 2, 3)) + config.broad * broad
