"""Colour and size of the irises, measured on the photo; brown where it does not show them.

The eye white beside the iris stands in the same light, in the shade of the same lids: it balances colour and
exposure. It knows nothing of textures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..models.landmark_indices import LEFT_EYE, RIGHT_EYE
from ..rendering.shader import linear_from_srgb, srgb_from_linear
from .avatar import BROWN_IRIS, Avatar, Iris
from .face_crop import FaceCrop
from .iris_circle import EYE_WIDTH, EyePatch, IrisCircle, cut_eye, find_iris

_CONTOURS = {"left": LEFT_EYE, "right": RIGHT_EYE}  # the character's
_LEAST_CONFIDENCE = 0.15  # below it the measured colour is not believed
_SURE_TOGETHER = 0.45  # confidence in two small eyes that show the same colour, and no brown
_BROWN_CONFIDENCE = 0.02  # what brown counts in a picture of the eyes, beside what is measured
_WHITE = np.array([0.52, 0.48, 0.455])  # linear albedo of a sclera
_DARK, _BRIGHT = 0.008, 0.22  # luminance of irises, linear
_DARK_SKIN, _FAIR_SKIN = 0.15, 0.24  # linear luminance (L* 46 and 56): irises of dark-skinned people are brown
_DIAMETERS = (0.0094, 0.0120)  # metres
_DIAMETER_SPREAD = 0.0005  # metres, between people
_DIAMETER_ERROR = 0.0012  # metres, of one sure measurement
_BROWN = linear_from_srgb(torch.tensor(BROWN_IRIS.color, dtype=torch.float64)).numpy()
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class EyeMeasurement:
    """What one eye shows.

    Attributes:
        color: (3,) linear albedo of the iris.
        radius: px of the photo.
        confidence: 0 (hidden, closed, too small) to 1.
    """

    color: npt.NDArray[np.float64]
    radius: float
    confidence: float


def iris_from_crop(crop: FaceCrop, avatar: Avatar) -> Iris:
    """The iris of the person in the photo.

    Args:
        avatar: gives the size of things: its pose is the head's in the crop; the darker its skin, the less is a
            colour believed that is not brown.

    Returns:
        `BROWN_IRIS` where the photo is monochrome, or its eyes are closed, hidden or a few pixels wide.
    """
    if crop.is_monochrome or avatar.pose is None:
        return BROWN_IRIS
    eyes = _eyes(crop)
    color, best = _believed_color(eyes, _ramp(_skin_luminance(avatar), _DARK_SKIN, _FAIR_SKIN))
    if best < _LEAST_CONFIDENCE:
        return BROWN_IRIS
    sure = sum(eye.confidence for eye in eyes)
    crop_px = sum(eye.confidence * eye.radius for eye in eyes) / sure * crop.crop_from_photo[0, 0]
    seen = 2 * crop_px * _eye_depth(avatar) / float(_pose(avatar)["focal_px"])
    share = 1 / (1 + (_DIAMETER_ERROR / _DIAMETER_SPREAD) ** 2 / best)
    diameter = np.clip(BROWN_IRIS.diameter + share * (seen - BROWN_IRIS.diameter), *_DIAMETERS)
    r, g, b = srgb_from_linear(torch.from_numpy(color)).tolist()
    return Iris((r, g, b), float(diameter), float(best))


def iris_shade(crop: FaceCrop) -> npt.NDArray[np.float64]:
    """(3,) linear albedo of the irises as the photo shows them, grey on a monochrome one; brown where it does not.

    For pictures beside the photo: an eye a few pixels wide is believed here, where `iris_from_crop` takes brown.
    """
    eyes = _eyes(crop)
    weights = np.array([*(eye.confidence for eye in eyes), _BROWN_CONFIDENCE])
    color = np.exp(np.average(np.log([*(eye.color for eye in eyes), _BROWN]), axis=0, weights=weights))
    return np.full(3, color @ _LUMINANCE) if crop.is_monochrome else color


def _eyes(crop: FaceCrop) -> list[EyeMeasurement]:
    return [measure_eye(crop, side) for side in _CONTOURS]


def _believed_color(eyes: list[EyeMeasurement], fair: float) -> tuple[npt.NDArray[np.float64], float]:
    """Linear colour, the browner the less is seen of the irises, and the confidence in the better eye.

    fair: 0 to 1, how far they may be of another colour than brown.
    """
    best = max(*(eye.confidence for eye in eyes), _SURE_TOGETHER * _both_blue(eyes))
    if best < _LEAST_CONFIDENCE:
        return _BROWN, best
    log_color = sum(eye.confidence * np.log(eye.color) for eye in eyes) / sum(eye.confidence for eye in eyes)
    believed = _ramp(best, _LEAST_CONFIDENCE, 0.45)  # most people's irises are brown
    color = np.exp(log_color) ** believed * _BROWN ** (1 - believed)
    return color**fair * (_BROWN * min(1.0, float(color @ _LUMINANCE / (_BROWN @ _LUMINANCE)))) ** (1 - fair), best


def _both_blue(eyes: list[EyeMeasurement]) -> float:
    """0 to 1: do eyes a few pixels wide show the same blue or green? Neither skin nor lashes mix to that by chance."""
    first, second = (np.log(eye.color) - np.log(eye.color).mean() for eye in eyes)
    blue = min(eye.color[2] / eye.color[0] for eye in eyes)
    seen = min(eye.confidence for eye in eyes)
    apart = float(np.linalg.norm(first - second))
    return _ramp(-apart, -0.35, -0.15) * _ramp(blue, 0.85, 1.0) * _ramp(seen, 0.02, 0.05)


def _skin_luminance(avatar: Avatar) -> float:
    """Of the middle of the face, linear: the median, which brows, eyes and lips do not move."""
    albedo = avatar.face_maps.diffuse_albedo
    side = len(albedo)
    middle = albedo[round(0.35 * side) : round(0.7 * side), round(0.35 * side) : round(0.65 * side)]
    linear = linear_from_srgb(torch.from_numpy(np.ascontiguousarray(middle))).numpy()
    return float(np.median(linear @ _LUMINANCE))


def measure_eye(crop: FaceCrop, side: str) -> EyeMeasurement:
    """One eye of the photo; `side` is "left" or "right", the character's."""
    contour = crop.landmarks[list(_CONTOURS[side]), :2] - crop.crop_from_photo[:, 2]
    contour = contour / crop.crop_from_photo[0, 0]
    patch = cut_eye(crop.photo, contour)
    circle = find_iris(patch)
    iris, pixels = _iris_color(patch, circle)
    white, whiteness = _white_color(patch, circle)
    color = _plausible(_albedo(iris, white, whiteness))
    confidence = (
        _ramp(EYE_WIDTH / patch.scale, 11, 28)
        * _ramp(patch.openness, 0.13, 0.24)
        * _ramp(circle.contrast, 0.08, 0.3)
        * _ramp(pixels, 0.15, 0.4)
        * (0.5 + 0.5 * whiteness)
    )
    return EyeMeasurement(color, circle.radius / patch.scale, float(confidence))


def _iris_color(patch: EyePatch, circle: IrisCircle) -> tuple[npt.NDArray[np.float64], float]:
    """Mean linear colour between pupil and limbal ring, away from lids and highlights; share of the ring seen."""
    distance = _distance(circle)
    ring = (distance > 0.42 * circle.radius) & (distance < 0.86 * circle.radius)
    # The upper lid's shadow and lashes reach further into the eye than the lower lid's.
    open_eye = patch.opening.astype(np.uint8)
    clear = cv2.erode(open_eye, np.ones((7, 3), np.uint8), anchor=(1, 6), borderValue=0)
    clear = cv2.erode(clear, np.ones((3, 3), np.uint8), borderValue=0).astype(bool) & ring
    values = patch.pixels[clear].astype(np.float64)
    share = float(clear.sum() / max(ring.sum(), 1))
    if len(values) < 12:
        return np.full(3, 0.05), 0.0
    light = values @ _LUMINANCE
    low, high = np.quantile(light, [0.15, 0.75])
    kept = (light >= low) & (light <= min(high, 2.5 * np.median(light)))
    return values[kept].mean(0), share


def _white_color(patch: EyePatch, circle: IrisCircle) -> tuple[npt.NDArray[np.float64], float]:
    """Linear colour of the eye white, and 0..1 how sure it is one."""
    core = cv2.erode(patch.opening.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=0).astype(bool)
    values = patch.pixels[core & (_distance(circle) > 1.2 * circle.radius)].astype(np.float64)
    if len(values) < 20:
        return np.full(3, np.quantile(patch.luminance, 0.9) + 1e-3), 0.0
    light = values @ _LUMINANCE
    bright = values[light >= np.quantile(light, 0.6)]
    white = np.median(bright, axis=0)
    tint = float(white.max() - white.min()) / max(float(white.max()), 1e-3)
    return white, _ramp(0.75 - tint, 0.0, 0.4) * _ramp(float(len(values)), 20, 120)


def _albedo(iris: npt.NDArray[np.float64], white: npt.NDArray[np.float64], whiteness: float) -> npt.NDArray[np.float64]:
    """The iris by the eye white's light: its strength wholly, its tint in part: skin shines into small whites."""
    strength = max(float(white @ _LUMINANCE) / float(_WHITE @ _LUMINANCE), 1e-3)
    tint = np.clip(white / _WHITE / strength, 0.85, 1.18)
    return iris / strength / tint ** (0.4 + 0.4 * whiteness)


def _plausible(color: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest colour that irises have: from dark brown over green to blue, never purple.

    What is dark is full of melanin, so a dark iris that looks blue mirrors the sky.
    """
    light = float(np.clip(color @ _LUMINANCE, _DARK, _BRIGHT))
    color = np.maximum(color, 1e-4)
    color[1] = max(color[1], 0.95 * np.sqrt(color[0] * color[2]))
    dark = 0.7 * _ramp(-light, -0.06, -0.025)
    color = color / float(color @ _LUMINANCE) * (1 - dark) + _BROWN / float(_BROWN @ _LUMINANCE) * dark
    return np.clip(color * light, 0.002, 0.6)


def _distance(circle: IrisCircle) -> npt.NDArray[np.float64]:
    """(96, 160) px from the middle of the iris."""
    rows, columns = np.mgrid[0:96, 0:160] + 0.5
    return np.hypot(columns - circle.x, rows - circle.y)


def _ramp(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))


def _pose(avatar: Avatar) -> Mapping[str, Any]:
    assert avatar.pose is not None
    return avatar.pose


def _eye_depth(avatar: Avatar) -> float:
    """Metres from the camera to the front of the eyes, along its axis."""
    pose, topology = _pose(avatar), avatar.topology
    turn = cv2.Rodrigues(np.asarray(pose["rvec"], np.float64))[0]
    parts = [part for part in ("eye_left", "eye_right") if part in topology.part_names]
    triangles = topology.triangles[topology.triangles_of(*parts)] if parts else topology.triangles
    points = (avatar.vertices + avatar.expression_offset)[np.unique(triangles)]
    front = points[points[:, 2] >= np.quantile(points[:, 2], 0.8)].mean(0)
    return float(turn[2] @ front + np.asarray(pose["tvec_metres"], np.float64)[2])
