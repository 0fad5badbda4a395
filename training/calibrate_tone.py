"""The lightness of a skin as real photographs show it: the closed-form prior's own guess, set right.

The prior learns from drawn faces, and a recogniser sees real ones elsewhere: it took fair people for brown ones, by
eight L*. How light a skin is cannot be read off one photo, because nobody knows the light; but people can say it who
have seen somebody in many pictures. So one ridge regression of the skin's tone alone is fitted to drawn faces, whose
tone is known, and to photographs with such labels, together. It replaces what the prior says along the one direction
of the texture's latents that goes with tone; all else stays.

Knows nothing of how photographs become features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.denoiser import FitDiffDenoiser

FOLDS = 10


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
class ToneCalibration:
    """Root mean square errors in L*: of photographs as it was, of people that the fit did not see, of drawn faces."""

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
    model: FitDiffDenoiser, latents: Tensor, drawn: ToneSamples, photos: ToneSamples, ridge: float = 3.0
) -> ToneCalibration:
    """Change the closed form of `model` in place, so that it expects the tone that photographs have.

    Drawn faces and photographs count alike in sum.

    Args:
        latents: (N, ...) normalised z_0 of the drawn faces.
        ridge: penalty, in units of the mean variance of a standardised input.
    """
    prior = model.conditioner.prior
    basis = model.denoiser.linear.basis
    coefficients = latents.flatten(1) @ basis.T
    told = _ToneOfLatents(coefficients, drawn.tone, basis[:, : model.config.layout.texture])
    before = [told(prior.mean(samples.inputs)) for samples in (photos, drawn)]

    def standardised(samples: ToneSamples) -> Tensor:
        return (samples.inputs - prior.input_mean) / prior.input_std

    x, y = standardised(photos), photos.tone
    weights, bias = _fitted(standardised(drawn), drawn.tone, x, y, ridge)
    predicted = torch.empty_like(y)
    people = photos.person.unique()
    order = people[torch.randperm(len(people), generator=torch.Generator().manual_seed(0))]
    for fold in range(min(FOLDS, len(people))):
        test = torch.isin(photos.person, order[fold::FOLDS])
        slope, level = _fitted(standardised(drawn), drawn.tone, x[~test], y[~test], ridge)
        predicted[test] = x[test] @ slope + level

    # m + d (tone wanted - tone of m) is linear in the inputs again, so it is another regression and bias.
    prior.regression += torch.outer(told.direction, weights - told.weights @ prior.regression)
    prior.bias += told.direction * (bias - told(prior.bias[None]))
    after = told(prior.mean(drawn.inputs))
    return ToneCalibration(
        people=len(people),
        before=_error(before[0], y),
        left_out=_error(predicted, y),
        drawn_before=_error(before[1], drawn.tone),
        drawn=_error(after, drawn.tone),
    )


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


def _fitted(x: Tensor, y: Tensor, more_x: Tensor, more_y: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Ridge regression on two sets that weigh alike: slopes (D,) and the level, which no penalty holds."""
    inputs, targets = torch.cat([x, more_x]).double(), torch.cat([y, more_y]).double()
    share = torch.cat([torch.full((len(one),), 0.5 / len(one), dtype=torch.float64) for one in (y, more_y)])
    middle, level = share @ inputs, share @ targets
    centred = inputs - middle
    moment = centred.T @ (centred * share[:, None]) + ridge * torch.eye(len(middle), dtype=torch.float64)
    slope = torch.linalg.solve(moment, centred.T @ (share * (targets - level)))
    return slope.float(), (level - middle @ slope).float()


def _error(found: Tensor, tone: Tensor) -> float:
    difference = lightness_from_tone(found) - lightness_from_tone(tone)
    return float(difference.square().mean().sqrt())
