"""Skin detail finer than the latent can hold: the last touch of guidance, on the face maps themselves.

One latent cell stands for 8 x 8 texels, so moles, wrinkles and the hairs of a brow are beyond it. After sampling, the
losses of equation 2 move a residual of the diffuse albedo's lightness, in log space, where the photo shows bare skin
and nowhere else. It is measured in what faces differ by, place by place, in the fine and the middle band of
`rendering.lightness`: a brow is free, a blotch on a cheek is not, and what varies more broadly is light. Before that
the sampled face is settled in the same way: how light the skin is, of which hue and how its lightness varies broadly
comes from the prior, and a photo's cast of colour goes to the light. The specular albedo is a guess of the prior's: a
photo hardly tells it. Shape, expression and light settle with it. Knows nothing of the sampling loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models.landmark_indices import LEFT_BROW, LIPS_OUTER, RIGHT_BROW
from ..models.latent import LatentLayout, LatentParts
from ..rendering.blur import blurred
from ..rendering.lightness import BROADEST, DISPLAY_GAMMA, EDGES, lightness, lightness_bands
from ..rendering.shader import light_from_latent, linear_from_srgb, luminance
from .delighting import delit_faces
from .folds import expression_folds
from .trace import span

if TYPE_CHECKING:
    from .guidance import PhotoGuidance


BRIGHTEST_LIGHT = 2.2  # times that in which a white surface is white: photos are hardly exposed for more
OPENING = 25  # texels of 256: eyes and an open mouth are no larger
LEAST_SPREAD = (0.008, 0.006)  # of the fine and the middle band: faces that were drawn have few wrinkles
BLURS = (0.7, EDGES[0])  # texels of 256: what is finer in a band is speckle, or another band's
NEVER_DARK = 0.1  # log sRGB: where one face in a hundred is no darker than that, what is dark is hair; see `HAIR`
HAIR, LEAST_HAIR = 1.2, 0.06  # times that face's darkness, and at least so much
LOOKS_FOR_HAIR = (0.3, 0.6)  # shares of the steps
SEEN_AT_LEAST = 0.05  # of a side that does not show, beside one that does
OFTEN = 2.0  # spreads: what departs by more costs no more than in proportion


@dataclass(frozen=True)
class DetailConfig:
    """Adam steps on the residual, and what holds it. `steps` 0: the maps are the decoder's alone.

    A spread is how far faces differ in a band, see `spread_of_faces`.
    """

    steps: int = 64
    views: int = 2  # in which the recogniser sees the face at one step; see `identity_views`
    identity_perceptual: float = 8.0  # lambda 1 of these steps
    rate: float = 1.5  # spreads, a step
    coefficients_rate: float = 0.04  # of the 192 normalised shape, expression and light numbers
    size: float = 0.04  # penalty of a residual of a spread in one band
    asymmetric: float = 12.0  # times that penalty for what differs between the face's sides
    brightest: float = 3.0  # spreads: a residual gets no lighter than that; what would is shine
    kept: float = 1.0  # spreads: what the sampled face departs from the expected one by; more is light
    hue: float = 0.7  # share of the way to the prior's expected hue, see `expected_tone`
    overexposed: float = 0.65  # share of a light above BRIGHTEST_LIGHT that a lighter skin takes the place of
    specular: float = 0.5  # share of the expected specular albedo, the rest being the mean chart's: both are guesses
    light_spread: float = 0.3  # of the logarithm of a channel of the light over their mean, as `hold` counts it
    hold: float = 0.01  # penalty of a unit change of one of the 192 numbers
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
            usual, expected = expected, without_hair(delit_faces(guide, parts, expected), expected, depth)
            mean = guide.models.autoencoder.chart_mean[None, 3:6]
            mean = functional.avg_pool2d(mean, mean.shape[-1] // base.shape[-1])
            specular = torch.lerp(mean, expected[:, 3:6], config.specular) - base[:, 3:6]
            calm = torch.cat([calmed_chroma(base, expected, guide.is_grey), specular.mean(1, keepdim=True)], 1)
            base = with_detail(decoded, calm)
    spread = spread_of_faces(guide, base.shape[-1])
    shown = texels_shown(guide, base, parts)
    if expected is not None:
        with torch.no_grad():
            tone, level = expected_tone(base, expected, shown, config, brightness(guide, base, parts))
            calm = calm + tone
            kept = config.kept * spread
            calm = calm + calmed_lightness(with_detail(decoded, calm), expected, shown, kept, level)
            sampled, base = base, with_detail(decoded, calm)
            before, skin = (_mean_linear(maps[:, :3], shown + 1e-6) for maps in (sampled, base))
            parts = replace(parts, light=_divided_light(parts.light, skin / before, skin, guide.is_grey))
            z_0 = guide.statistics.normalise(layout.join(parts))
        shown = texels_shown(guide, base, parts)  # nothing of what is burnt out now
    residual = Residual(shown, spread, depth, config)
    looks = {round(share * config.steps) for share in LOOKS_FOR_HAIR}
    texture, start = z_0.flatten(1).split([layout.texture, layout.size - layout.texture], 1)
    numbers = start.clone().requires_grad_()
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
            held = (numbers - start).square().sum()
            held = held + (_light_colour(moved.light) / config.light_spread).square().sum()
            total = total + penalty.sum() + config.hold * held
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
    light skin from much light, nor a red one from red light. What the recogniser sees of a person tells more of the
    skin than the photo's brightness does (docs/guidance.md), until the light would have to be stronger than anybody
    exposes a photo for.

    Args:
        face_maps, expected: (B, 9, S, S) in [0, 1].
        shown: (B, 1, S, S), the texels that count.
        bright: (B, 1), the light on a face of `face_maps`; see `brightness`. None asks nothing of it.
    """
    weight = shown + 1e-6  # a face that is hidden altogether is compared as a whole
    ours, theirs = (_mean_linear(maps[:, :3], weight) for maps in (face_maps, expected))
    grey = (_luminance(theirs) / _luminance(ours)).log()
    hue = config.hue * ((theirs / ours).log() - grey)[:, :, None, None] / DISPLAY_GAMMA
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
    bands = _alike(kept * (bands / kept).tanh(), shown)
    change = bands.sum(1, keepdim=True) + level - departure
    return torch.cat([change.expand(-1, 3, -1, -1), torch.zeros_like(change)], 1)


def spread_of_faces(guide: PhotoGuidance, size: int) -> Tensor:
    """(1, 2, size, size): how far the lightness of faces departs from the usual in the fine and the middle band."""
    known = guide.models.autoencoder.lightness_spread[None, : len(LEAST_SPREAD)]
    least = known.new_tensor(LEAST_SPREAD)[None, :, None, None]
    return functional.interpolate(known, size, mode="bilinear", align_corners=False).maximum(least)


def depth_of_faces(guide: PhotoGuidance, size: int) -> Tensor:
    """(1, 1, size, size): how much darker than usual one face in a hundred is.

    Infinite between brows and mouth, where hair does not hang and a nose has shade, and where nothing is known.
    """
    known = guide.models.autoencoder.lightness_depth[None]
    known = functional.interpolate(known, size, mode="bilinear", align_corners=False)
    known = torch.where(known.amax() > 0, known, torch.inf)
    points = guide.models.morphable.landmarks_on_chart()[list(LEFT_BROW + RIGHT_BROW + LIPS_OUTER)]
    hull = cv2.convexHull((points.cpu().numpy() * size / guide.models.morphable.config.face_block[2]).astype(np.int32))
    inside = torch.from_numpy(cv2.fillConvexPoly(np.zeros((size, size), np.uint8), hull, 1))
    return known.masked_fill(inside.bool().to(known.device), torch.inf)


def without_hair(delit: Tensor, expected: Tensor, depth: Tensor) -> Tensor:
    """Delit faces (B, 9, S, S), nowhere so much darker than the expected ones as no face is there: that is a fringe.

    depth: (B or 1, 1, S, S), see `depth_of_faces`.
    """
    change = lightness(delit[:, :3]) - lightness(expected[:, :3])
    lighter = (-(HAIR * depth).clamp_min(LEAST_HAIR) - change).clamp_min(0)
    return torch.cat([(delit[:, :3] * lighter.exp()).clamp(0, 1), delit[:, 3:]], 1)


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
    inside = (1.5 * blurred(share, 3.0) - 0.5).clamp(0, 1)  # fades out inside the border
    # Where the face ends, in hair or at its outline, it fades out more slowly: eyes and mouth are no such end.
    whole = -functional.max_pool2d(-functional.max_pool2d(share, OPENING, 1, OPENING // 2), OPENING, 1, OPENING // 2)
    return inside * (3.0 * blurred(whole, 6.0) - 2.0).clamp(0, 1)


class Residual:
    """What is free, in spreads of each band, as a residual where the photo shows skin.

    Faces are nearly alike on both sides, and what light, shade, hair and frames do to them is not: what differs between
    the sides is dear, and what one side alone shows is taken over to the other.
    """

    def __init__(self, shown: Tensor, spread: Tensor, depth: Tensor, config: DetailConfig) -> None:
        self.spread, self.depth, self.config = spread, depth, config
        self._show(shown)

    def _show(self, shown: Tensor) -> None:
        self.shown, self.either, self.both = shown, shown.maximum(shown.flip(-1)), shown.minimum(shown.flip(-1))
        self.around = blurred(self.either, BROADEST).clamp_min(1e-3)

    def leave_out_hair(self, free: Tensor) -> None:
        """Show no longer what would be darker than skin is there: a fringe that the occlusion network did not find."""
        bands = _bands(free)
        broader = torch.cat([torch.zeros_like(bands[:, :1]), bands[:, 1:]], 1)
        hair = self._change(*self._sides(broader)) < -(HAIR * self.depth).clamp_min(LEAST_HAIR)
        hair = hair & (self.depth < NEVER_DARK)
        around = blurred(functional.max_pool2d(hair.to(free.dtype), 9, 1, 4), 3.0)
        self._show(self.shown * (1 - around))

    def _change(self, alike: Tensor, apart: Tensor) -> Tensor:
        """(B, 2, S, S) in spreads, see `_sides` -> (B, 1, S, S) log sRGB, without what is broader than the bands."""
        change = alike * self.either + apart * self.both
        change = (change * self.spread).sum(1, keepdim=True)
        return change - blurred(change, BROADEST) / self.around * self.either

    def _sides(self, bands: Tensor) -> tuple[Tensor, Tensor]:
        """What both sides have in common, and what each has besides."""
        alike = _alike(bands, self.shown)
        return alike, bands - alike

    def __call__(self, free: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2, 256, 256) -> (B, 4, 256, 256), the same for all of the albedo, and its penalty (B,).

        Without what is broader than the bands: the face would be a mask, lighter or darker than what does not show.
        """
        bright = self.config.brightest
        bands = _bands(free)
        bands = torch.where(bands > 0, bright * (bands / bright).tanh(), bands)
        alike, apart = self._sides(bands)
        change = self._change(alike, apart)
        residual = torch.cat([change.expand(-1, 3, -1, -1), torch.zeros_like(change)], 1)
        rare = _rare(alike) + self.config.asymmetric * _rare(apart)
        return residual, self.config.size * rare.mean((2, 3)).sum(1)


def _alike(bands: Tensor, shown: Tensor) -> Tensor:
    """(B, C, S, S): the mean of both sides of a face, by how well each is shown (B, 1, S, S)."""
    weight = shown + SEEN_AT_LEAST
    weighted = bands * weight
    return (weighted + weighted.flip(-1)) / (weight + weight.flip(-1))


def _rare(bands: Tensor) -> Tensor:
    """Squares of spreads, but beyond `OFTEN` no more than in proportion."""
    return OFTEN**2 * 2 * ((1 + (bands / OFTEN).square()).sqrt() - 1)


def _divided_light(light: Tensor, gain: Tensor, skin: Tensor, is_grey: Tensor) -> Tensor:
    """Light (B, 9) by which a skin, now (B, 3) linear and brighter by `gain` (B, 3), looks as before.

    In a monochrome photo nothing tells a colour of light: there it is white, and as bright on this skin.
    """
    log = light[:, :6].unflatten(1, (2, 3)) - gain.log()[:, None]
    white = torch.stack([_luminance(lamp * skin) / _luminance(skin) for lamp in log.exp().unbind(1)], 1).log()
    log = torch.where(is_grey[:, 0], white, log)
    return torch.cat([log.flatten(1), light[:, 6:]], 1)


def _with_white_light(parts: LatentParts, is_grey: Tensor) -> LatentParts:
    """The same with colourless light for monochrome photos: a step on each channel alone would colour it."""
    lamps = parts.light[:, :6].unflatten(1, (2, 3))
    lamps = torch.where(is_grey[:, 0], lamps.mean(2, keepdim=True), lamps)
    return replace(parts, light=torch.cat([lamps.flatten(1), parts.light[:, 6:]], 1))


def _bands(free: Tensor) -> Tensor:
    """(B, 2, S, S): each number spread over the finest that its band holds."""
    return torch.cat([blurred(one, sigma) for one, sigma in zip(free.split(1, 1), BLURS, strict=True)], 1)


def _light_colour(light: Tensor) -> Tensor:
    """(1, 9) log ambient, log directional, direction -> (1, 2, 3) each channel's logarithm less their mean."""
    both = light[:, :6].unflatten(1, (2, 3))
    return both - both.mean(2, keepdim=True)
