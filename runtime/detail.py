"""Skin detail finer than the latent can hold: the last touch of guidance, on the face maps themselves.

One latent cell stands for 8 x 8 texels, so moles, wrinkles and the hairs of a brow are beyond it. After sampling, the
losses of equation 2 move a residual of the diffuse albedo, in log space, where the photo shows bare skin and nowhere
else. It is held small, grey and free of low frequencies: broad colour and light stay the prior's. Shape, expression
and light settle with it. Knows nothing of the sampling loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..models.latent import LatentLayout, LatentParts
from .trace import span

if TYPE_CHECKING:
    from .guidance import PhotoGuidance


LIGHTNESS_BLUR, CHROMA_BLUR, HUE_BLUR = 0.9, 16.0, 16.0  # texels of 256


@dataclass(frozen=True)
class DetailConfig:
    """Adam steps on the residual, and what holds it. `steps` 0: the maps are the decoder's alone."""

    steps: int = 20
    rate: float = 0.06  # of the logarithm of sRGB albedo, a step
    coefficients_rate: float = 0.04  # of the 192 normalised shape, expression and light numbers
    size: float = 1.0  # penalty of the mean squared residual
    chroma: float = 4.0  # the same for its departure from grey, times `size`
    broad: float = 30.0  # penalty of what of it is smoother than `broad_sigma`
    broad_sigma: float = 6.0  # texels of 256
    tone_rate: float = 0.01  # of the undertone's three logarithms
    tone_spread: float = 0.15  # their standard deviation among people, as `hold` counts it
    light_spread: float = 0.05  # the same for the logarithm of a channel of the light over their mean
    hold: float = 0.002  # penalty of a unit change of one of the 192 numbers
    settle: float = 0.4  # from this share of the steps on the rates shrink
    decay: float = 0.8  # by so much a step


def refine_detail(
    guide: PhotoGuidance, z_0: Tensor, config: DetailConfig, expected: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Normalised z_0 (1, 1, 67, 64) -> z_0 with settled shape and light, residual (1, 3, 256, 256) for `with_detail`.

    Every step's terms are added to `guide.history`, as steps that follow the sampler's.

    Args:
        expected: (1, 9, 256, 256), the face that the prior expects of this person, whose colours calm the others (see
            `calmed_chroma`); None leaves the decoder's colours as they are.
    """
    layout = LatentLayout()
    with torch.no_grad():
        parts = layout.split(guide.statistics.denormalise(z_0))
        base = guide.models.face_maps(parts.texture)
        calm = torch.zeros_like(base[:, :3])
        if expected is not None:
            calm = calmed_chroma(base, expected, guide.target.is_monochrome)
            base = with_detail(base, calm)
    shown = texels_shown(guide, base, parts)
    texture, start = z_0.flatten(1).split([layout.texture, layout.size - layout.texture], 1)
    numbers = start.clone().requires_grad_()
    free = torch.zeros_like(base[:, :3]).requires_grad_()
    tone = torch.zeros_like(base[:, :3, :1, :1]).requires_grad_(not guide.target.is_monochrome)
    rates = [(free, config.rate), (numbers, config.coefficients_rate), (tone, config.tone_rate)]
    optimiser = torch.optim.Adam(
        [{"params": [x], "lr": rate} for x, rate in rates if x.requires_grad], betas=(0.8, 0.95)
    )
    begun = int(guide.history[-1]["step"]) + 1 if guide.history else 0
    with torch.enable_grad():
        for step in range(config.steps):
            if step > config.settle * config.steps:
                for group in optimiser.param_groups:
                    group["lr"] *= config.decay
            detail = _residual(free, shown, guide.target.is_monochrome)
            z = torch.cat([texture, numbers], 1).view_as(z_0)
            moved = layout.split(guide.statistics.denormalise(z))
            estimate = guide.estimate(with_detail(base, detail + tone), moved)
            total, terms = guide.objective(estimate)
            held = (numbers - start).square().sum() + (tone / config.tone_spread).square().sum()
            held = held + (_light_colour(moved.light) / config.light_spread).square().sum()
            total = total + _penalty(detail, config) + config.hold * held
            optimiser.zero_grad()
            with span("gradient", "engine"):
                total.backward()
            with span("optimiser", "host"):
                optimiser.step()
            guide.record(begun + step, 0.0, terms)
    with torch.no_grad():
        z = torch.cat([texture, numbers], 1).view_as(z_0)
        return z, calm + _residual(free, shown, guide.target.is_monochrome) + tone


def calmed_chroma(face_maps: Tensor, expected: Tensor, is_monochrome: bool) -> Tensor:
    """The residual (1, 3, S, S) that takes blotches of colour away: hue departs from the expected one only broadly.

    Guidance looks for lightness in the latent, and colours move along with it. A monochrome photo says nothing of them:
    there the expected ones are taken as they are.

    Args:
        face_maps, expected: (1, 9, S, S) in [0, 1].
    """
    ours, theirs = (maps[:, :3].clamp_min(0.02).log() for maps in (face_maps, expected))
    difference = (ours - ours.mean(1, keepdim=True)) - (theirs - theirs.mean(1, keepdim=True))
    return -difference if is_monochrome else blurred(difference, HUE_BLUR) - difference


def with_detail(face_maps: Tensor, residual: Tensor) -> Tensor:
    """Maps (1, 9, S, S) in [0, 1] with the diffuse albedo times exp(residual), which is enlarged to them."""
    if residual.shape[-1] != face_maps.shape[-1]:
        residual = functional.interpolate(residual, face_maps.shape[-1], mode="bicubic", align_corners=False)
    albedo = (face_maps[:, :3] * residual.exp()).clamp(0.0, 1.0)
    return torch.cat([albedo, face_maps[:, 3:]], 1)


def texels_shown(guide: PhotoGuidance, face_maps: Tensor, parts: LatentParts) -> Tensor:
    """(1, 1, 256, 256) in [0, 1]: how well the photo shows each texel of the face as bare skin.

    The renderer's own gradient says which texels a pixel is made of.
    """
    maps = face_maps.clone().requires_grad_()
    with torch.enable_grad():
        estimate = guide.estimate(maps, parts)
        on_skin = estimate.image * (estimate.rendering.part == 0)[:, None]
        (bare,) = torch.autograd.grad((on_skin * guide.target.skin).sum(), maps, retain_graph=True)
        (all_skin,) = torch.autograd.grad(on_skin.sum(), maps)
    bare, all_skin = (blurred(g[:, :3].sum(1, keepdim=True).clamp_min(0), 2.0) for g in (bare, all_skin))
    typical = all_skin[all_skin > all_skin.mean()].median()
    dense = (2 * all_skin / typical - 0.2).clamp(0, 1)  # grazing views show little
    share = bare / (all_skin + 1e-6) * dense
    return (1.5 * blurred(share, 3.0) - 0.5).clamp(0, 1)  # fades out inside the border


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), borders repeated."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    x = functional.conv2d(functional.pad(x, (reach, reach, reach, reach), mode="replicate"), weights, groups=x.shape[1])
    return functional.conv2d(x, weights.transpose(2, 3), groups=x.shape[1])


def _residual(free: Tensor, shown: Tensor, is_monochrome: bool) -> Tensor:
    """What is free (1, 3, 256, 256), smoothed, colour far more than lightness: speckle is no skin."""
    grey = free.mean(1, keepdim=True)
    residual = blurred(grey, LIGHTNESS_BLUR).expand_as(free)
    if not is_monochrome:
        residual = residual + blurred(free - grey, CHROMA_BLUR)
    return residual * shown


def _light_colour(light: Tensor) -> Tensor:
    """(1, 9) log ambient, log directional, direction -> (1, 2, 3) each channel's logarithm less their mean."""
    both = light[:, :6].unflatten(1, (2, 3))
    return both - both.mean(2, keepdim=True)


def _penalty(residual: Tensor, config: DetailConfig) -> Tensor:
    grey = residual.mean(1, keepdim=True)
    chroma = (residual - grey).square().mean()
    broad = blurred(residual, config.broad_sigma).square().mean()
    return config.size * (grey.square().mean() + config.chroma * chroma) + config.broad * broad
