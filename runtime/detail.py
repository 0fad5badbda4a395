"""Skin detail finer than the latent can hold: the last touch of guidance, on the face maps themselves.

One latent cell stands for 8 x 8 texels, so moles, wrinkles and the hairs of a brow are beyond it. After sampling, the
losses of equation 2 move a residual of the diffuse albedo's lightness, in log space, where the photo shows bare skin
and nowhere else (`residual.py`). Before that the sampled face is settled (`settled_face.py`). The specular albedo is a
guess of the prior's: a photo hardly tells it. Shape and light settle with the residual, the expression hardly. Knows
nothing of the sampling loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..models.latent import LatentLayout, LatentParts
from .delighting import delit_faces
from .folds import expression_folds
from .residual import LEAST_SPREAD, Residual, depth_of_faces, spread_of_faces, spread_of_residual, texels_shown
from .settled_face import (
    brightness,
    calmed_chroma,
    calmed_lightness,
    divided_light,
    even_surround,
    expected_tone,
    mean_linear,
    with_photographed_hue,
    without_hair,
)
from .trace import span

if TYPE_CHECKING:
    from .guidance import PhotoGuidance


LOOKS_FOR_HAIR = (0.3, 0.6)  # shares of the steps


@dataclass(frozen=True)
class DetailConfig:
    """Adam steps on the residual, and what holds it. `steps` 0: the maps are the decoder's alone.

    A spread is how far faces differ in a band, see `spread_of_faces`.
    """

    steps: int = 64
    views: int = 2  # in which the recogniser sees the face at one step; see `identity_views`
    identity_perceptual: float = 16.0  # lambda 1 of these steps
    rate: float = 1.5  # spreads, a step
    coefficients_rate: float = 0.04  # of the 192 normalised shape, expression and light numbers
    size: float = 0.03  # penalty of a residual of a spread in one band
    asymmetric: float = 12.0  # times that penalty for what differs between the face's sides
    brightest: float = 3.0  # spreads: a residual gets no lighter than that; what would is shine
    kept: float = 1.0  # spreads: what the sampled face departs from the expected one by; more is light
    hue: float = 0.5  # share of the way to the prior's expected hue between blue and yellow, see `expected_tone`
    magenta: float = 0.3  # the same between green and magenta
    overexposed: float = 0.65  # share of a light above BRIGHTEST_LIGHT that a lighter skin takes the place of
    specular: float = 0.25  # share of the expected specular albedo, the rest being the mean chart's: both are guesses
    light_spread: float = 0.3  # of the logarithm of a channel of the light over their mean, as `hold` counts it
    hold: float = 0.002  # penalty of a unit change of one of the 192 numbers
    hold_expression: float = 0.02  # of those of the expression: a smile that closes is like no photo, and likely
    settle: float = 0.65  # from this share of the steps on the rates shrink, to
    final_rate: float = 0.05  # of what they were


@dataclass(frozen=True)
class Detail:
    """What the detail stage found.

    z: (B, 1, 67, 64) normalised, its shape and light settled. residual: (B, 4, 256, 256) for `with_detail`.
    face_maps: (B, 9, 256, 256) in [0, 1], those of z with the residual. shown: (B, 1, 256, 256) in [0, 1], how well
    the photo shows each texel as bare skin. folds: (B, 1, 256, 256), what of the maps is the expression's alone, see
    `expression_folds`; None where nobody said what face is expected.
    """

    z: Tensor
    residual: Tensor
    face_maps: Tensor
    shown: Tensor
    folds: Tensor | None


def refine_detail(guide: PhotoGuidance, z_0: Tensor, config: DetailConfig, expected: Tensor | None = None) -> Detail:
    """Normalised z_0 (B, 1, 67, 64) -> settled shape and light, and what the maps gain.

    Every step's terms are added to `guide.histories`, as steps that follow the sampler's. Adam and every penalty work
    number by number or photo by photo: the batch changes nothing.

    Args:
        expected: (B, 9, 256, 256), the faces that the prior expects of these people: colours go towards them (see
            `calmed_chroma`, `expected_tone` and `calmed_lightness`), specular albedo is theirs. None leaves the
            decoder's as they are.
    """
    layout = LatentLayout()
    with torch.no_grad():
        parts = layout.split(guide.statistics.denormalise(z_0))
        base = decoded = guide.models.face_maps(parts.texture)
        calm = torch.zeros_like(base[:, :4])
        depth = depth_of_faces(guide, base.shape[-1])
        if expected is not None:
            expected = with_photographed_hue(expected)
            usual, expected = expected, without_hair(delit_faces(guide, parts, expected), expected, depth)
            mean = guide.models.autoencoder.chart_mean[None, 3:6]
            mean = functional.avg_pool2d(mean, mean.shape[-1] // base.shape[-1])
            specular = torch.lerp(mean, expected[:, 3:6], config.specular) - base[:, 3:6]
            calm = torch.cat([calmed_chroma(base, expected, guide.is_grey), specular.mean(1, keepdim=True)], 1)
            base = with_detail(decoded, calm)
    shown, rims = texels_shown(guide, base, parts)
    if expected is not None:
        with torch.no_grad():
            tone, level = expected_tone(base, expected, shown, config, brightness(guide, base, parts))
            calm = calm + tone
            kept = config.kept * spread_of_faces(guide, base.shape[-1])
            calm = calm + calmed_lightness(with_detail(decoded, calm), expected, shown, kept, level)
            calm = calm + even_surround(with_detail(decoded, calm))
            sampled, base = base, with_detail(decoded, calm)
            before, skin = (mean_linear(maps[:, :3], shown + 1e-6) for maps in (sampled, base))
            parts = replace(parts, light=divided_light(parts.light, skin / before, skin, guide.is_grey))
            z_0 = guide.statistics.normalise(layout.join(parts))
        shown, rims = texels_shown(guide, base, parts)  # nothing of what is burnt out now
    residual = Residual(shown, rims, spread_of_residual(guide, base.shape[-1]), depth, config)
    looks = {round(share * config.steps) for share in LOOKS_FOR_HAIR}
    texture, start = z_0.flatten(1).split([layout.texture, layout.size - layout.texture], 1)
    numbers = start.clone().requires_grad_()
    holds = (config.hold, layout.identity), (config.hold_expression, layout.expression), (config.hold, layout.light)
    firmly = torch.cat([start.new_full((size,), hold) for hold, size in holds])
    free = torch.zeros_like(base[:, : len(LEAST_SPREAD)]).requires_grad_()
    rates = [(free, config.rate), (numbers, config.coefficients_rate)]
    optimiser = torch.optim.Adam([{"params": [x], "lr": rate} for x, rate in rates], betas=(0.8, 0.95))
    begun = guide.last_step + 1
    with torch.enable_grad():
        for step in range(config.steps):
            if step in looks:
                residual.leave_out_hair(free.detach())
            if step > config.settle * config.steps:
                for group in optimiser.param_groups:
                    group["lr"] *= config.final_rate ** (1 / (config.steps * (1 - config.settle)))
            with span("residual", "pytorch"):
                detail, penalty = residual(free)
            z = torch.cat([texture, numbers], 1).view_as(z_0)
            moved = _with_white_light(layout.split(guide.statistics.denormalise(z)), guide.is_grey)
            guide.views.advance(config.views)
            estimate = guide.estimate(with_detail(base, detail), moved)
            total, terms = guide.objective(estimate, identity_perceptual=config.identity_perceptual)
            held = (firmly * (numbers - start).square()).sum()
            held = held + config.hold * (_light_colour(moved.light) / config.light_spread).square().sum()
            total = total + penalty.sum() + held
            optimiser.zero_grad()
            with span("gradient", "pytorch"):
                total.backward()
            with span("optimiser", "host"):
                optimiser.step()
            guide.record(begun + step, 0.0, terms)
    with torch.no_grad():
        parts = layout.split(guide.statistics.denormalise(torch.cat([texture, numbers], 1).view_as(z_0)))
        z = guide.statistics.normalise(layout.join(_with_white_light(parts, guide.is_grey)))
        detail, _ = residual(free)
        maps, folds = with_detail(base, detail), None
        if expected is not None:
            model, renderer = guide.models.morphable, guide.models.renderer
            shapes = model(parts.identity), model(parts.identity, parts.expression)
            folds = expression_folds(maps, usual, *shapes, model, renderer)
        return Detail(z, calm + detail, maps, residual.shown, folds)


def with_detail(face_maps: Tensor, residual: Tensor) -> Tensor:
    """Maps (B, 9, S, S) in [0, 1] with a residual, which is enlarged to them.

    residual: (B, 4, S', S') or (B, 4, 1, 1); the diffuse albedo is times exp of the first three channels, the specular
    albedo plus the fourth.
    """
    if residual.shape[-1] not in (1, face_maps.shape[-1]):
        residual = functional.interpolate(residual, face_maps.shape[-1], mode="bicubic", align_corners=False)
    albedo = (face_maps[:, :3] * residual[:, :3].exp()).clamp(0.0, 1.0)
    return torch.cat([albedo, (face_maps[:, 3:6] + residual[:, 3:]).clamp(0.0, 1.0), face_maps[:, 6:]], 1)


def _with_white_light(parts: LatentParts, is_grey: Tensor) -> LatentParts:
    """The same with colourless light for monochrome photos: a step on each channel alone would colour it."""
    lamps = parts.light[:, :6].unflatten(1, (2, 3))
    lamps = torch.where(is_grey[:, 0], lamps.mean(2, keepdim=True), lamps)
    return replace(parts, light=torch.cat([lamps.flatten(1), parts.light[:, 6:]], 1))


def _light_colour(light: Tensor) -> Tensor:
    """(1, 9) log ambient, log directional, direction -> (1, 2, 3) each channel's logarithm less their mean."""
    both = light[:, :6].unflatten(1, (2, 3))
    return both - both.mean(2, keepdim=True)
