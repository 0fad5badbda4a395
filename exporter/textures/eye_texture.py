"""The picture of an eye: sclera with faint veins, limbus, iris with fibres and collarette, pupil.

Drawn over the azimuthal chart of an eyeball at the texture's own resolution, the iris as wide on the ball as the
avatar's. The same iris gives the same pixels. It knows nothing of files and materials.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar, Iris
from ..anatomy.eyeball import SIDES, EyeChart, find_eyeball, fit_eye_chart
from ..maps import srgb_from_linear

FloatArray = np.ndarray  # of float32: what OpenCV returns is annotated without a type

TRUSTED_CHART = 0.05  # error of a chart up to which an eye is drawn over it
PUPIL = 0.34  # of the iris' radius
COLLARETTE = 0.46
MEASURED_RING = (0.42, 0.86)  # between these radii the mean colour is that of the avatar's iris
_LIMBUS = 0.13  # of the iris' radius: how far it blends into the white
_WIDEST = 0.55  # sine of the largest angle between the gaze and the iris' border
_SCLERA = np.array([0.52, 0.48, 0.455], np.float32)  # linear albedo beside the iris
_CORNER = np.array([0.42, 0.26, 0.22], np.float32)  # and towards the lids' corners
# What the lids leave of the light: engines have no shade there, and an eye without it is a ball in a mask.
# Radians above and below the gaze where the shade begins and where it is full.
_UPPER_LID, _LOWER_LID = (0.02, 0.42), (0.16, 0.46)
_UPPER_SHADE, _LOWER_SHADE, _CORNER_SHADE = 0.62, 0.25, 0.45  # of the light that it takes away
_VEIN = np.array([0.36, 0.12, 0.10], np.float32)
_PUPIL_COLOR = 0.004
_HEADINGS, _DEPTHS = 1024, 128  # samples of the polar picture of the iris
_SCLERA_ROUGHNESS, _IRIS_ROUGHNESS = 0.14, 0.22


@dataclass(frozen=True, eq=False)
class EyePicture:
    """A rectangle of the texture with an eye on it.

    Attributes:
        rows, columns: where it lies.
        color: (h, w, 3) float32 sRGB-encoded in [0, 1].
        roughness: (h, w) float32.
    """

    rows: slice
    columns: slice
    color: FloatArray
    roughness: FloatArray


def eye_pictures(avatar: Avatar, size: int) -> list[EyePicture]:
    """The avatar's eyes on a texture of `size` texels; one picture where both share their place.

    An eye whose texture coordinates are no azimuthal chart about the gaze is left out: what its texture shows where,
    is not known.
    """
    charts: list[tuple[EyeChart, float]] = []
    for side in SIDES:
        eye = find_eyeball(avatar, side)
        if eye is None:
            continue
        chart = fit_eye_chart(avatar, eye)
        if chart.error > TRUSTED_CHART:
            continue
        sine = min(avatar.iris.diameter / 2 / eye.radius, _WIDEST)
        same = [i for i, (other, _) in enumerate(charts) if np.abs(other.centre - chart.centre).max() < 0.02]
        if same:
            other, other_sine = charts[same[0]]
            charts[same[0]] = (_between(other, chart), (other_sine + sine) / 2)
        else:
            charts.append((chart, sine))
    return [_picture(chart, float(np.arcsin(sine)), avatar.iris, size) for chart, sine in charts]


def _between(first: EyeChart, second: EyeChart) -> EyeChart:
    return EyeChart(
        (first.centre + second.centre) / 2,
        (first.scale + second.scale) / 2,
        (first.power + second.power) / 2,
        max(first.error, second.error),
    )


def _picture(chart: EyeChart, edge: float, iris: Iris, size: int) -> EyePicture:
    """`edge`: radians between the gaze and the iris' border."""
    low = np.clip(np.floor((chart.centre - np.abs(chart.scale) * 1.04) * size), 0, size).astype(int)
    high = np.clip(np.ceil((chart.centre + np.abs(chart.scale) * 1.04) * size), 0, size).astype(int)
    x = ((np.arange(low[0], high[0]) + 0.5) / size - chart.centre[0]) / chart.scale[0]
    y = ((np.arange(low[1], high[1]) + 0.5) / size - chart.centre[1]) / chart.scale[1]
    across, up = (grid.astype(np.float32) for grid in np.meshgrid(x, y))
    disc = np.hypot(across, up)
    angle = np.pi * np.minimum(disc, 1) ** np.float32(1 / chart.power)
    depth = np.sin(np.minimum(angle, np.pi / 2)) / np.float32(np.sin(edge))  # 1 at the iris' border, seen from ahead

    color = _sclera(angle, across, up)
    polar = _iris_linear(np.array(iris.color, np.float64))
    heading = np.arctan2(up, across) / (2 * np.pi) % 1
    iris_color = cv2.remap(
        np.pad(polar, ((0, 0), (0, 1), (0, 0)), mode="wrap"),
        heading * np.float32(_HEADINGS),
        np.minimum(depth, 1.2) / np.float32(1.2) * np.float32(_DEPTHS - 1),
        cv2.INTER_LINEAR,
    )
    texel = np.float32(1.2 / (size * np.abs(chart.scale).mean() * (edge / np.pi) ** chart.power))  # in iris radii
    white = _smooth((depth - 1 + _LIMBUS / 2) / max(_LIMBUS, texel))[..., None]
    # Light that enters beside the iris makes the white next to it bluish grey.
    color = color * (1 - 0.25 * np.exp(-(((depth - 1) / 0.12) ** 2))[..., None])
    color = iris_color * (1 - white) + color * white
    pupil = _smooth((depth - PUPIL) / max(0.06, 2 * texel) + 0.5)[..., None]
    color = color * pupil + _PUPIL_COLOR * (1 - pupil)
    color = color * _lids_leave(angle, across, up, disc)[..., None]
    roughness = _IRIS_ROUGHNESS + (_SCLERA_ROUGHNESS - _IRIS_ROUGHNESS) * white[..., 0]
    return EyePicture(
        slice(int(low[1]), int(high[1])),
        slice(int(low[0]), int(high[0])),
        srgb_from_linear(color).astype(np.float32),
        roughness.astype(np.float32),
    )


def _sclera(angle: FloatArray, across: FloatArray, up: FloatArray) -> FloatArray:
    """(h, w, 3) linear: white in front, pink and with more veins towards the corners and the rear."""
    rear = _smooth((angle - 0.50) / 1.0)[..., None]
    color = _SCLERA * (1 - rear) + _CORNER * rear
    veins = _veins(len(angle))
    strength = cv2.resize(veins, angle.shape[::-1], interpolation=cv2.INTER_LINEAR)
    strength = strength * np.float32(0.7) * _smooth((angle - 0.38) / 0.6)
    return color + (_VEIN - color) * strength[..., None]


def _lids_leave(angle: FloatArray, across: FloatArray, up: FloatArray, disc: FloatArray) -> FloatArray:
    """(h, w) share of the light that reaches an eye between its lids, looking ahead."""
    high, aside = (angle * part / np.maximum(disc, 1e-6) for part in (up, across))
    upper = _smooth((high - _UPPER_LID[0]) / (_UPPER_LID[1] - _UPPER_LID[0]))
    lower = _smooth((-high - _LOWER_LID[0]) / (_LOWER_LID[1] - _LOWER_LID[0]))
    corner = _smooth((np.abs(aside) - 0.4) / 0.5)
    return (1 - _UPPER_SHADE * upper) * (1 - _LOWER_SHADE * lower) * (1 - _CORNER_SHADE * corner)


def _veins(size: int) -> FloatArray:
    """(size, size) in [0, 1]: branching lines from the rim of the disc towards its middle."""
    rng = np.random.default_rng(7)
    canvas = np.zeros((size, size), np.uint8)

    def grow(heading: float, radius: float, strength: float, depth: int) -> None:
        points, drift = [], rng.normal(0, 0.015)
        for _ in range(int(rng.integers(14, 30))):
            points.append(0.5 * size * (1 + radius * np.array([np.cos(heading), np.sin(heading)])))
            drift = 0.8 * drift + rng.normal(0, 0.012)
            heading += drift
            radius -= rng.uniform(0.006, 0.016)
            if radius < 0.3:
                break
            if depth < 3 and rng.random() < 0.09:
                grow(heading + rng.normal(0, 0.03), radius, strength * 0.65, depth + 1)
        if len(points) > 1:
            line = np.round(np.array(points) * 16).astype(np.int32)
            cv2.polylines(canvas, [line], False, int(255 * strength), max(1, size // 400), cv2.LINE_AA, 4)

    for heading in rng.uniform(0, 2 * np.pi, 46):
        grow(float(heading), float(rng.uniform(0.5, 0.95)), float(rng.uniform(0.25, 0.9)), 0)
    return cv2.GaussianBlur(canvas, (0, 0), max(0.6, size / 700)).astype(np.float32) / 255


def _iris_linear(srgb: npt.NDArray[np.float64]) -> FloatArray:
    """(_DEPTHS, _HEADINGS, 3) linear: rows from the middle to 1.2 radii, columns once round."""
    color = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    rng = np.random.default_rng(11)
    depth = (np.arange(_DEPTHS) / (_DEPTHS - 1) * 1.2)[:, None]
    heading = np.arange(_HEADINGS)[None] / _HEADINGS * 2 * np.pi
    fine = _streaks(rng, 2.0, 22.0)
    broad = _streaks(rng, 7.0, 30.0)
    wave = _streaks(rng, 22.0, 60.0)[_DEPTHS // 2][None]  # the collarette's own outline
    collarette = COLLARETTE + 0.035 * wave + 0.008 * np.sin(9 * heading)
    outer = _smooth((depth - collarette) / 0.06 + 0.5)
    crypts = np.clip(broad - 0.9, 0, 1) * np.exp(-(((depth - collarette - 0.12) / 0.10) ** 2))
    furrows = 1 - 0.06 * np.cos(2 * np.pi * (depth + 0.01 * wave) / 0.16) * outer
    light = (1 + 0.20 * fine + 0.14 * broad) * (1 - 0.55 * crypts) * furrows
    light *= 0.80 + 0.25 * outer + 0.30 * np.exp(-(((depth - collarette) / 0.05) ** 2))
    light *= 1 - 0.72 * _smooth((depth - 0.80) / 0.20)  # limbal ring
    light *= 1 - 0.35 * np.exp(-(((depth - PUPIL) / 0.05) ** 2))
    # The pupillary zone holds more melanin; in a brown iris that is hardly seen.
    melanin = color * np.array([1.15, 0.92, 0.68])
    tone = melanin + (color - melanin) * outer[..., None]
    pixels = np.clip(light, 0.08, 2.2)[..., None] * tone
    ring = (depth[:, 0] > MEASURED_RING[0]) & (depth[:, 0] < MEASURED_RING[1])
    weight = depth[ring, 0][:, None]
    mean = (pixels[ring].mean(1) * weight).sum(0) / weight.sum()
    return np.clip(pixels * (color / np.maximum(mean, 1e-4)), 0, 1).astype(np.float32)


def _streaks(rng: np.random.Generator, across: float, along: float) -> npt.NDArray[np.float64]:
    """(_DEPTHS, _HEADINGS) noise of deviation 1, periodic in heading, stretched along the depth; sigmas in samples."""
    noise = rng.standard_normal((_DEPTHS, _HEADINGS)).astype(np.float32)
    margin = int(4 * across) + 1
    wrapped = np.pad(noise, ((0, 0), (margin, margin)), mode="wrap")
    smooth = cv2.GaussianBlur(wrapped, (0, 0), sigmaX=across, sigmaY=along)[:, margin:-margin]
    return (smooth / smooth.std()).astype(np.float64)


def _smooth(ramp: npt.NDArray) -> npt.NDArray:
    """0 below 0, 1 above 1, an even step between."""
    clipped = np.clip(ramp, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)
