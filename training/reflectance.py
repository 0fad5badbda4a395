"""The skin appearance model: random diffuse albedo, specular albedo and normals over the face chart.

Photographic skins are recombined (pigment of one, detail of another), moved along a two-pigment skin colour line over
the whole human range, and given brows, lips, stubble, freckles, moles, lines and make-up. Colour lives in the log of
linear albedo, where pigments add. Knows nothing of networks, light or cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from ..models.morphable import MorphableModel
from .skins import CHART, Skin, face_weight

# Linear albedo of facial skin from the least to the most melanin, and what more blood changes in its logarithm.
_MELANIN_LINE = np.log([[0.68, 0.48, 0.39], [0.58, 0.36, 0.26], [0.42, 0.235, 0.15], [0.23, 0.115, 0.065],
                        [0.085, 0.042, 0.026]])  # fmt: skip
_BLOOD = np.array([-0.02, -0.22, -0.16])
_TEXEL_MM = 0.57  # of the face chart on the mean head
_HAIR = {"black": (0.012, 0.010, 0.009), "brown": (0.045, 0.026, 0.015), "blond": (0.20, 0.13, 0.065),
         "red": (0.13, 0.045, 0.018), "grey": (0.20, 0.19, 0.18)}  # linear albedo  # fmt: skip


@dataclass(frozen=True)
class PersonTraits:
    """What a face's textures follow; all in [0, 1] but the colours, which are linear RGB."""

    melanin: float
    blood: float
    male: float
    age: float
    hair: np.ndarray  # (3,)


def sample_traits(attributes: np.ndarray, rng: np.random.Generator) -> PersonTraits:
    """Traits that go with a head's (male, age, african, asian, caucasian)."""
    male, age, african, asian, caucasian = attributes
    centre = 0.78 * african + 0.36 * asian + 0.15 * caucasian
    melanin = float(np.clip(rng.normal(centre / (african + asian + caucasian + 1e-6), 0.14), 0, 1))
    grey = age > 0.45 and rng.random() < 1.6 * (age - 0.4)
    dark = melanin > 0.33 or rng.random() < 0.35
    if grey:
        name = "grey"
    elif dark:
        name = str(rng.choice(["black", "brown"]))
    else:
        name = str(rng.choice(["brown", "blond", "red"], p=[0.55, 0.33, 0.12]))
    hair = np.array(_HAIR[name]) * np.exp(rng.normal(0, 0.25))
    return PersonTraits(melanin, float(rng.normal(0, 1)), float(male), float(age), hair)


class SkinAppearanceModel:
    """Draws triplets of maps. Give every face its own generator: results do not depend on the order."""

    def __init__(self, skins: list[Skin], model: MorphableModel) -> None:
        self.skins = skins
        self.detailed = [skin for skin in skins if skin.detail is not None]
        uv = (model.corner_uv[model.landmark_triangles] * model.landmark_barycentrics[..., None]).sum(1)
        x, y, _ = model.config.face_block
        self.points = uv.numpy() * model.config.atlas_size - np.array([x, y])  # (468, 2) chart pixels
        self.face = face_weight(model)
        self.lips = self._area(LIPS_OUTER, 2.5)
        self.beard = self._beard()

    def sample(self, traits: PersonTraits, rng: np.random.Generator) -> np.ndarray:
        """(9, 512, 512) uint8: diffuse albedo (sRGB), specular albedo (F0 / 0.08), normal (+Y up, (n + 1) / 2)."""
        tone = self._tone(traits)
        colour, detail = self._pick(tone, rng)
        strength = (
            float(np.clip(0.10 / max(detail.std(), 0.02), 0.4, 1.2)) * rng.uniform(0.7, 1.1) * (0.9 + 0.35 * traits.age)
        )
        log = tone + colour.astype(np.float32) * rng.uniform(0.75, 1.1) + detail * strength
        relief = cv2.GaussianBlur(detail.mean(2), (0, 0), 0.8) * strength * 0.5  # mm: pores are dark and deep
        self._mottle(log, traits, rng)
        self._lips(log, traits, rng)
        self._spots(log, traits, rng)
        relief += self._lines(log, traits, rng)
        relief += self._beard_growth(log, traits, rng)
        self._lids(log, traits, rng)
        albedo = np.exp(log)
        self._brows(albedo, traits, rng)
        specular = self._specular(detail.mean(2) * strength, rng)
        normal = normals_from_height(relief + _noise(rng, 0.7, 0.012))
        encoded = srgb_from_linear(albedo.clip(0, 1))
        maps = np.concatenate([encoded, np.repeat(specular[..., None], 3, 2), normal * 0.5 + 0.5], 2)
        return (maps.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1)

    def _tone(self, traits: PersonTraits) -> np.ndarray:
        place = traits.melanin * (len(_MELANIN_LINE) - 1)
        line = np.array([np.interp(place, range(len(_MELANIN_LINE)), _MELANIN_LINE[:, c]) for c in range(3)])
        return (line + 0.45 * _BLOOD * traits.blood * (1 - 0.6 * traits.melanin)).astype(np.float32)

    def _pick(self, tone: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Low-frequency colour and detail (512, 512, 3), of skins whose tone is not too far, each maybe mirrored."""

        def near(skins: list[Skin]) -> Skin:
            weight = np.array([np.exp(-abs(float((skin.tone - tone).mean())) / 0.6) for skin in skins])
            return skins[rng.choice(len(skins), p=weight / weight.sum())]

        first, second, fine = near(self.skins), near(self.skins), near(self.detailed)
        share = rng.uniform(0, 1)
        contrast = [np.clip(0.17 / skin.low.std(), 0.3, 1) for skin in (first, second)]
        low = share * first.low * contrast[0] + (1 - share) * second.low * contrast[1]
        detail = fine.detail
        assert detail is not None
        mirror = [slice(None, None, -1) if rng.random() < 0.5 else slice(None) for _ in range(2)]
        return low[:, mirror[0]], detail[:, mirror[1]].copy()

    def _mottle(self, log: np.ndarray, traits: PersonTraits, rng: np.random.Generator) -> None:
        """Uneven pigment and blood: soft clouds, red cheeks and nose, dark rings under the eyes."""
        log += _noise(rng, 18, 0.035)[..., None] * np.array([0.6, 1, 1.2], np.float32)
        log += _noise(rng, 5, 0.015)[..., None] * _BLOOD.astype(np.float32) * 4
        flush = rng.gamma(1.5, 0.35) * (1 - 0.7 * traits.melanin)
        for index, radius in ((50, 34), (280, 34), (4, 18)):
            log += self._blob(index, radius)[..., None] * (flush * _BLOOD * 0.55).astype(np.float32)
        rings = rng.gamma(1.5, 0.5)
        for index in (230, 450):
            log -= self._blob(index, 13)[..., None] * np.float32(rings * 0.09) * np.array([1, 1.1, 1], np.float32)

    def _lips(self, log: np.ndarray, traits: PersonTraits, rng: np.random.Generator) -> None:
        made_up = traits.male < 0.5 and rng.random() < 0.45
        shift = rng.uniform(0.2, 1.3) if made_up else rng.normal(0.1, 0.25)
        dark = rng.normal(-0.08 - (0.2 if made_up else 0), 0.1)
        hue = np.array([rng.normal(0.03, 0.05), -0.32, rng.normal(-0.2, 0.08)])
        log += self.lips[..., None] * (shift * hue + dark).astype(np.float32)

    def _spots(self, log: np.ndarray, traits: PersonTraits, rng: np.random.Generator) -> None:
        """Freckles, moles and age spots."""
        pigment = np.array([0.35, 0.7, 1.0], np.float32)
        if traits.melanin < 0.4 and rng.random() < 0.3:
            centres = [self.points[i] for i in (50, 280, 4, 195, 9)]
            layer = np.zeros((CHART, CHART), np.float32)
            for _ in range(int(rng.integers(40, 350))):
                at = centres[rng.integers(len(centres))] + rng.normal(0, 34, 2)
                _dot(layer, at, rng.uniform(0.7, 2.0), rng.uniform(0.2, 1))
            log -= (layer * self.face)[..., None] * pigment * rng.uniform(0.15, 0.5)
        layer = np.zeros((CHART, CHART), np.float32)
        for _ in range(int(rng.poisson(1.5 + 5 * traits.age))):
            _dot(layer, rng.uniform(110, 400, 2), rng.uniform(1.0, 3.2), rng.uniform(0.3, 1))
        log -= layer[..., None] * pigment * 0.9

    def _lines(self, log: np.ndarray, traits: PersonTraits, rng: np.random.Generator) -> np.ndarray:
        """Wrinkles: darkens them a little and returns their relief in mm (512, 512)."""
        depth = np.clip(traits.age - 0.15, 0, 1) * rng.uniform(0.4, 1.2)
        layer = np.zeros((CHART, CHART), np.float32)
        p = self.points
        for _ in range(int(rng.integers(2, 6))):  # forehead
            y = rng.uniform(p[10][1] + 12, p[9][1] - 8)
            half, bend = rng.uniform(40, 85), rng.normal(0, 5)
            x = np.linspace(-half, half, 20)
            _stroke(layer, np.stack([p[9][0] + x, y + bend * (x / half) ** 2 + rng.normal(0, 0.7, 20)], 1), 2, 0.8)
        for wing, corner, side in ((129, 61, -1), (358, 291, 1)):  # beside nose and mouth
            start, end = p[wing] + [side * 4, 2], p[corner] + [side * rng.uniform(8, 16), rng.uniform(0, 14)]
            middle = (start + end) / 2 + [side * 8, 0]
            _stroke(layer, _curve(start, middle, end), 3, 1)
        for corner, side in ((33, -1), (263, 1)):  # crow's feet
            for angle in rng.normal(0, 0.5, int(rng.integers(2, 5))):
                end = p[corner] + [side * rng.uniform(14, 30), 24 * np.sin(angle)]
                _stroke(layer, _curve(p[corner] + [side * 6, 0], (p[corner] + end) / 2, end), 1.5, 0.7)
        layer = cv2.GaussianBlur(layer, (0, 0), 1.6) * depth
        log -= layer[..., None] * np.array([0.10, 0.16, 0.17], np.float32)
        return -0.55 * layer

    def _beard(self) -> np.ndarray:
        """(512, 512) in [0, 1]: where a beard grows."""
        p, field = self.points, np.zeros((CHART, CHART), np.float32)
        jaw = p[[132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361]]
        _stroke(field, jaw, 46, 1)
        _stroke(
            field,
            p[[61, 37, 0, 267, 291]] * 0.6 + p[[2, 2, 2, 2, 2]] * [0, 0.4] + p[[61, 37, 0, 267, 291]] * [0.4, 0],
            15,
            1,
        )
        _stroke(field, p[[17, 18, 200, 199, 175, 152]], 70, 1)
        _stroke(field, p[[61, 43, 106, 182]], 26, 1)
        _stroke(field, p[[291, 273, 335, 406]], 26, 1)
        return cv2.GaussianBlur(field, (0, 0), 9) * (1 - self.lips)

    def _beard_growth(self, log: np.ndarray, traits: PersonTraits, rng: np.random.Generator) -> np.ndarray:
        """Shaven shadow to short beard; returns its relief in mm."""
        if traits.male < 0.5:
            return np.zeros((CHART, CHART), np.float32)
        growth = rng.choice([rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.7), rng.uniform(0.7, 1)], p=[0.65, 0.2, 0.15])
        grain = _noise(rng, 0.8, 1.0)
        cover = self.beard * np.clip(growth * (0.75 + 0.55 * grain * growth), 0, 1) * 0.85
        log += cover[..., None] * (np.log(traits.hair).astype(np.float32) * 0.6 + 0.4 * log - log) * np.float32(0.75)
        return cover * grain * 0.12

    def _lids(self, log: np.ndarray, traits: PersonTraits, rng: np.random.Generator) -> None:
        liner = rng.uniform(0.15, 0.5) + (rng.uniform(0, 1.0) if traits.male < 0.5 else 0)
        layer, shadow = np.zeros((CHART, CHART), np.float32), np.zeros((CHART, CHART), np.float32)
        for eye in (RIGHT_EYE, LEFT_EYE):
            _stroke(layer, self.points[[*eye, eye[0]]], 2, 1)
            _stroke(shadow, self.points[list(eye[8:])] - [0, 5], 9, 1)
        log -= cv2.GaussianBlur(layer, (0, 0), 1.0)[..., None] * np.float32(liner)
        if traits.male < 0.5 and rng.random() < 0.4:
            tint = rng.uniform([0.0, 0.1, 0.0], [0.3, 0.5, 0.4]).astype(np.float32)
            log -= cv2.GaussianBlur(shadow, (0, 0), 4)[..., None] * tint

    def _brows(self, albedo: np.ndarray, traits: PersonTraits, rng: np.random.Generator) -> None:
        """Paint brow hairs over the linear albedo."""
        thick, dense = rng.uniform(0.55, 1.15) * (1.1 if traits.male > 0.5 else 0.8), rng.uniform(0.3, 1)
        lift, arch = rng.normal(0, 2.5), rng.normal(0, 2.0)
        cover = np.zeros((CHART * 2, CHART * 2), np.float32)
        for brow, side in ((RIGHT_BROW, -1), (LEFT_BROW, 1)):
            upper, lower = self.points[list(brow[:5])][::-1], self.points[list(brow[5:])]  # nose to temple
            for _ in range(int(420 * dense)):
                s = rng.beta(1.15, 1.25)
                place = np.array(
                    [[np.interp(s, np.linspace(0, 1, 5), edge[:, c]) for c in range(2)] for edge in (upper, lower)]
                )
                width = thick * (1 - 0.55 * s**2) * min(1, 0.65 + 3 * s)
                centre = place.mean(0) - [0, lift + arch * np.sin(np.pi * s)]
                root = centre + (place[1] - place[0]) * width * np.clip(rng.normal(0.1, 0.27), -0.55, 0.55)
                angle = np.deg2rad(np.interp(s, [0, 0.3, 1], [78, 38, 4]) + rng.normal(0, 10))
                tip = root + rng.uniform(4, 8) * np.array([side * np.cos(angle), -np.sin(angle)])
                _stroke(cover, np.stack([root, tip]) * 2, 1, rng.uniform(0.5, 1.0))
        cover = cv2.resize(cover, (CHART, CHART), interpolation=cv2.INTER_AREA)
        cover = np.clip(cover + 0.35 * cv2.GaussianBlur(cover, (0, 0), 2.5), 0, 0.92)[..., None]
        albedo *= 1 - cover
        albedo += cover * (0.75 * traits.hair + 0.25 * np.exp(self._tone(traits)) * 0.4)

    def _specular(self, detail: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(512, 512) F0 / 0.08: about .028 / .08 for skin, more on lips and nose, less in pores and creases."""
        region = 1 + 0.18 * self.lips + 0.10 * (self._blob(4, 24) + self._blob(9, 50)) - 0.10 * self.beard
        cavity = np.exp(np.clip(detail * 0.8, -0.5, 0.25))
        return (0.35 * rng.uniform(0.85, 1.15) * region * cavity * (1 + _noise(rng, 10, 0.04))).clip(0.05, 0.8)

    def _blob(self, landmark: int, radius: float) -> np.ndarray:
        """(512, 512): a Gaussian hill of height 1 about a landmark."""
        x, y = self.points[landmark]
        along = [np.exp(-(((np.arange(CHART) - c) / radius) ** 2) / 2) for c in (x, y)]
        return np.outer(along[1], along[0]).astype(np.float32)

    def _area(self, contour: tuple[int, ...], feather: float) -> np.ndarray:
        area = np.zeros((CHART, CHART), np.float32)
        outline = np.concatenate(
            [self.points[list(contour)], self.points[list(LIPS_INNER)][:1] * 0 + self.points[contour[0]]]
        )
        cv2.fillPoly(area, [np.round(outline).astype(np.int32)], 1.0)
        return cv2.GaussianBlur(area, (0, 0), feather)


def normals_from_height(height: np.ndarray) -> np.ndarray:
    """(H, W) relief in mm over the face chart -> (H, W, 3) unit normals, x right, +Y up (rows run down)."""
    down, right = np.gradient(height / _TEXEL_MM)
    normal = np.stack([-right, down, np.ones_like(right)], -1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def srgb_from_linear(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1 encoding."""
    return np.where(linear > 0.0031308, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055, 12.92 * linear)


def _noise(rng: np.random.Generator, sigma: float, amplitude: float) -> np.ndarray:
    """(512, 512) smooth noise of the given standard deviation; drawn at the scale it needs."""
    step = max(1, int(sigma // 1.5))
    small = rng.standard_normal((CHART // step + 2, CHART // step + 2)).astype(np.float32)
    field = cv2.resize(
        cv2.GaussianBlur(small, (0, 0), max(sigma / step, 0.3)), (CHART, CHART), interpolation=cv2.INTER_CUBIC
    )
    return field * (amplitude / max(float(field.std()), 1e-6))


def _dot(layer: np.ndarray, at: np.ndarray, radius: float, value: float) -> None:
    cv2.circle(layer, (round(at[0] * 16), round(at[1] * 16)), round(radius * 16), value, -1, cv2.LINE_AA, 4)


def _stroke(layer: np.ndarray, points: np.ndarray, width: float, value: float) -> None:
    pixels = np.round(np.asarray(points) * 16).astype(np.int32)
    cv2.polylines(layer, [pixels], False, value, max(1, round(width)), cv2.LINE_8, 4)


def _curve(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, 16)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
