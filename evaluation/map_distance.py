"""How far apart reflectance charts are, and what something in the photo changes of one.

Arithmetic on arrays: knows nothing of files, of pipelines and of how the charts were made.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 256  # texels of a chart that is compared
BLUR = 1.0  # texels of SIDE: pores and the last pixel of alignment are not what is asked for


def reduced_albedo(albedo: np.ndarray) -> np.ndarray:
    """(S, S, 3) sRGB albedo in [0, 1], S a multiple of 256 -> (256, 256, 3) uint8, slightly blurred."""
    small = cv2.resize(albedo.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (cv2.GaussianBlur(small, (0, 0), BLUR).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def reduced_weight(weight: np.ndarray) -> np.ndarray:
    """(S, S) weights of texels -> (256, 256) float32."""
    return cv2.resize(weight.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def lab_distance(first: np.ndarray, second: np.ndarray, weight: np.ndarray, lightness_only: bool) -> float:
    """Weighted mean CIE 1976 colour difference of two charts (S, S, 3) uint8 sRGB under D65.

    weight: (S, S). lightness_only: the difference of L* alone, for photos that hold no colour.
    """
    lab = [cv2.cvtColor(chart.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for chart in (first, second)]
    difference = (lab[0] - lab[1])[..., : 1 if lightness_only else 3]
    return float((np.linalg.norm(difference, axis=-1) * weight).sum() / weight.sum())


@dataclass(frozen=True)
class Reduced:
    """A person's albedo from one photo: (256, 256, 3) uint8, and whether that photo was monochrome."""

    person: Hashable
    albedo: np.ndarray
    is_monochrome: bool


@dataclass(frozen=True)
class KindOfPair:
    """Distances of one kind of comparison: those in colour, or those of lightness alone."""

    within: tuple[float, ...]
    between: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """Mean within people over mean between people; None where either has no pair, or people do not differ."""
        if not self.within or not self.between or not any(self.between):
            return None
        return float(np.mean(self.within) / np.mean(self.between))


def pair_distances(charts: Sequence[Reduced], weight: np.ndarray) -> dict[str, KindOfPair]:
    """Distances of all pairs of charts, by kind: "lightness" where either photo is monochrome, else "colour"."""
    found: dict[str, tuple[list[float], list[float]]] = {"colour": ([], []), "lightness": ([], [])}
    for index, first in enumerate(charts):
        for second in charts[index + 1 :]:
            grey = first.is_monochrome or second.is_monochrome
            distance = lab_distance(first.albedo, second.albedo, weight, grey)
            found["lightness" if grey else "colour"][first.person != second.person].append(distance)
    return {kind: KindOfPair(tuple(within), tuple(between)) for kind, (within, between) in found.items()}


def mean_ratio(kinds: dict[str, KindOfPair]) -> tuple[float | None, int]:
    """The kinds' ratios, averaged by their number of pairs within people, and that number.

    The kinds never meet in one ratio: a distance of lightness alone is smaller than one of colours.
    """
    rated = [(kind.ratio, len(kind.within)) for kind in kinds.values() if kind.ratio is not None]
    count = sum(pairs for _, pairs in rated)
    return (sum(ratio * pairs for ratio, pairs in rated) / count if count else None), count


@dataclass(frozen=True)
class OccluderChange:
    """What an occluder on the photo did to the albedo, mean absolute differences of sRGB values.

    covered, rest: of the albedo, over the texels of the face that it covers and over the face's other texels.
    contrast: of the photo at the covered texels. texels: how many those are, of SIDE x SIDE.
    """

    covered: float
    rest: float
    contrast: float
    texels: float

    @property
    def share(self) -> float:
        """Change of the covered texels over the contrast: 0 for maps that ignore it, 1 for maps that show it."""
        return self.covered / self.contrast

    @property
    def rest_share(self) -> float:
        return self.rest / self.contrast


def occluder_change(
    albedos: tuple[np.ndarray, np.ndarray], photos: tuple[np.ndarray, np.ndarray], cover: np.ndarray, weight: np.ndarray
) -> OccluderChange | None:
    """Compare without and with an occluder.

    Args:
        albedos: (S, S, 3) sRGB in [0, 1], without and with it.
        photos: the photo's colours at the texels, (SIDE, SIDE, 3), without and with it.
        cover: (SIDE, SIDE) in [0, 1], the share of a texel that it hides in the photo.
        weight: (SIDE, SIDE) of the face.

    Returns:
        None where it covers less than 20 texels of the face, or does not differ from the skin by 1/255.
    """
    sides = [cv2.resize(albedo, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for albedo in albedos]
    change = np.abs(sides[1] - sides[0]).mean(-1)
    contrast = np.abs(photos[1] - photos[0]).mean(-1)
    covered, rest = cover * weight, (1 - cover) * weight
    texels = float(covered.sum())
    mean_contrast = float((contrast * covered).sum() / max(texels, 1e-6))
    if texels < 20 or mean_contrast < 1 / 255:
        return None
    return OccluderChange(
        covered=float((change * covered).sum() / texels),
        rest=float((change * rest).sum() / rest.sum()),
        contrast=mean_contrast,
        texels=texels,
    )
