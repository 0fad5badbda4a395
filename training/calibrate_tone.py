"""The lightness of a skin as real photographs show it: the closed-form prior's own guess, set right.

The prior learns from drawn faces, and a recogniser sees real ones elsewhere: it took fair people for brown ones, by
eight L*. How light a skin is cannot be read off one photo, because nobody knows the light; but people can say it who
have seen somebody in many pictures. So a ridge regression of the skin's tone alone is fitted to photographs with such
labels and, with a little of its weight, to drawn faces, whose tone is known; and a linear discriminant tells the two
kinds apart. For a photographed face this replaces what the prior says along the one direction of the texture's latents
that goes with tone; all else stays, and so does what the prior says of a drawn face. What is decoded from such latents,
where no drawn face lies, was lighter by five L* than they had been told: so the tone is kept beside them as it is, too,
by a regression on features of faces that are partly covered, which glasses and hair change little.

Knows nothing of how photographs become features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.denoiser import FitDiffDenoiser

FOLDS = 10
DRAWN_SHARE = 0.05  # of the regression's weight is on drawn faces: they hold what photographs leave open
TONE_RIDGE, KIND_RIDGE = 2.0, 1.0  # in units of the mean variance of a standardised input
TOLD_SHARE, TOLD_RIDGE = 0.01, 0.5  # the same of the regression on faces that are partly covered
SURE = 12.0  # slope of the logistic in what the discriminant says, 1 for photographs and -1 for drawn faces on average


@dataclass(frozen=True)
class ToneSamples:
    """Faces whose tone is known.

    inputs: (N, D) of `pooled_inputs`. tone: (N,) log of the linear luminance of the face's albedo, on average.
    person: (N,) integer; samples of one person are never split between fit and test.
    """

    inputs: Tensor
    tone: Tensor
    person: Tensor


@dataclass(frozen=True)
class FacesSeenTwice:
    """Faces whose tone is known, as they are and, though not necessarily the same ones, partly covered."""

    plain: ToneSamples
    covered: ToneSamples


@dataclass(frozen=True)
class ToneCalibration:
    """Root mean square errors in L*: of photographs as it was, of people that the fit did not see, of drawn faces.

    left_out: by the regression on faces that are partly covered.
    """

    people: int
    before: float
    left_out: float
    drawn_before: float
    drawn: float


def tone_from_lightness(lightness: Tensor) -> Tensor:
    """CIE L* (above 8) -> log of the linear luminance."""
    return 3 * ((lightness + 16) / 116).log()


def lightness_from_tone(tone: Tensor) -> Tensor:
    """The inverse of `tone_from_lightness`."""
    return 116 * (tone / 3).exp() - 16


def calibrate_tone(
    model: FitDiffDenoiser,
    latents: Tensor,
    drawn: FacesSeenTwice,
    photos: FacesSeenTwice,
    ridge: float = TONE_RIDGE,
    told_ridge: float = TOLD_RIDGE,
) -> ToneCalibration:
    """Change the closed form of `model` in place, so that it expects the tone that photographs have.

    Args:
        latents: (N, ...) normalised z_0 of the drawn faces as they are.
        ridge, told_ridge: penalties of the tone's regressions on faces as they are and partly covered.
    """
    prior = model.conditioner.prior
    basis = model.denoiser.linear.basis
    coefficients = latents.flatten(1) @ basis.T
    told = _ToneOfLatents(coefficients, drawn.plain.tone, basis[:, : model.config.layout.texture])
    before = [told(prior.mean(faces.plain.inputs)) for faces in (photos, drawn)]
    usual = _Line(told.weights @ prior.regression, told(prior.bias[None])[0])  # of a face that is no photograph

    def standardised(samples: ToneSamples) -> tuple[Tensor, Tensor]:
        return (samples.inputs - prior.input_mean) / prior.input_std, samples.tone

    real, pictures = standardised(photos.plain), standardised(drawn.plain)
    line = _fitted(real, pictures, DRAWN_SHARE, ridge)
    sides = ((x, sign * torch.ones_like(tone)) for (x, tone), sign in ((real, 1), (pictures, -1)))
    kind = _fitted(*sides, 0.5, KIND_RIDGE)
    real, pictures = standardised(photos.covered), standardised(drawn.covered)
    by_cover = _fitted(real, pictures, TOLD_SHARE, told_ridge)
    predicted, person = torch.empty_like(real[1]), photos.covered.person
    people = person.unique()
    order = people[torch.randperm(len(people), generator=torch.Generator().manual_seed(0))]
    for fold in range(min(FOLDS, len(people))):
        test = torch.isin(person, order[fold::FOLDS])
        without = _fitted((real[0][~test], real[1][~test]), pictures, TOLD_SHARE, told_ridge)
        predicted[test] = without(real[0][test])

    prior.tone_direction.copy_(told.direction)
    prior.tone_weights.copy_(line.slope - usual.slope)
    prior.tone_level.copy_(line.level - usual.level)
    prior.told_weights.copy_(by_cover.slope)
    prior.told_level.copy_(by_cover.level)
    prior.photo_weights.copy_(SURE * kind.slope)
    prior.photo_level.copy_(SURE * kind.level)
    after = told(prior.mean(drawn.plain.inputs))
    return ToneCalibration(
        people=len(people),
        before=_error(before[0], photos.plain.tone),
        left_out=_error(predicted, photos.covered.tone),
        drawn_before=_error(before[1], drawn.plain.tone),
        drawn=_error(after, drawn.plain.tone),
    )


@dataclass(frozen=True)
class _Line:
    """A linear function of standardised inputs (N, D) -> (N,)."""

    slope: Tensor
    level: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.slope + self.level


class _ToneOfLatents:
    """The tone of faces with these coefficients along the basis, as a linear function, and what changes with it.

    weights, direction: (K,); a step along `direction` by 1 changes the tone by 1 and the texture as it goes with tone.
    """

    def __init__(self, coefficients: Tensor, tone: Tensor, texture: Tensor) -> None:
        """`texture`: (K, T), the basis' part in the texture's latents; by chance alone goes the rest with tone."""
        self.mean, self.level = coefficients.mean(0), tone.mean()
        c, t = coefficients - self.mean, tone - self.level
        along = c.T @ t / len(c)
        moment = c.T @ c / len(c)
        self.weights = torch.linalg.solve(moment + 1e-3 * torch.eye(len(moment)), along)
        along = (along @ texture) @ texture.T
        self.direction = along / (self.weights @ along)

    def __call__(self, coefficients: Tensor) -> Tensor:
        """(N, K) -> (N,)."""
        return (coefficients - self.mean) @ self.weights + self.level


def _fitted(own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], share: float, ridge: float) -> _Line:
    """Ridge regression on two sets of inputs (N, D) and targets (N,), `share` of the weight being the other's.

    No penalty holds the level.
    """
    inputs, targets = (torch.cat(pair).double() for pair in zip(own, other, strict=True))
    counts = [len(own[1]), len(other[1])]
    weights = torch.tensor([(1 - share) / counts[0], share / counts[1]], dtype=torch.float64)
    weights = weights.repeat_interleave(torch.tensor(counts))
    middle, level = weights @ inputs, weights @ targets
    centred = inputs - middle
    moment = centred.T @ (centred * weights[:, None]) + ridge * torch.eye(len(middle), dtype=torch.float64)
    slope = torch.linalg.solve(moment, centred.T @ (weights * (targets - level)))
    return _Line(slope.float(), (level - middle @ slope).float())


def _error(found: Tensor, tone: Tensor) -> float:
    difference = lightness_from_tone(found) - lightness_from_tone(tone)
    return float(difference.square().mean().sqrt())
