"""The skin appearance model: random diffuse albedo, specular albedo and normals over the face chart.

Photographic skins are recombined (pigment of one, detail of another), moved along a pigment line over the whole
human range, and given brows, lips, beards, freckles, moles, folds and make-up. Colour lives in the log of linear
albedo, where pigments add. Pores and wrinkles are one field: dark in the albedo, deep in the relief, dull in the
specular albedo. Knows nothing of networks, light or cameras.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from ..models.morphable import MorphableModel
from ..rendering.even_skin import evening
from .chart_painting import TEXEL_MM, Canvas, FaceChart, blank, noise
from .facial_hair import paint_beard, paint_brows
from .skin_marks import paint_folds, paint_lids, paint_lips, paint_mottle, paint_spots, paint_wide
from .skins import Skin
from .traits import PersonTraits, sample_traits

__all__ = ["PersonTraits", "SkinAppearanceModel", "normals_from_height", "sample_traits", "srgb_from_linear"]

_DRY_F0 = 0.34  # of skin, in units of the largest F0 that the maps hold: .027
_MIN_ALBEDO = np.log(0.006)


class SkinAppearanceModel:
    """Draws triplets of maps. Give every face its own generator: results do not depend on the order."""

    def __init__(self, skins: list[Skin], model: MorphableModel) -> None:
        """The skins give colour; those of them with detail give detail (at least one must)."""
        self.skins = skins
        self.detailed = [skin for skin in skins if skin.detail is not None]
        self.chart = FaceChart(model)
        self.points = self.chart.points

    def sample(self, traits: PersonTraits, rng: np.random.Generator) -> np.ndarray:
        """(9, 512, 512) uint8: diffuse albedo (sRGB), specular albedo (F0 / 0.08), normal (+Y up, (n + 1) / 2)."""
        canvas = self._bare(traits, rng)
        chart = self.chart
        paint_mottle(canvas, chart, traits, rng)
        paint_lips(canvas, chart, traits, rng)
        paint_spots(canvas, chart, traits, rng)
        paint_folds(canvas, chart, traits, rng)
        if traits.wide:
            paint_wide(canvas, chart, rng)
        paint_lids(canvas, chart, traits, rng)
        paint_beard(canvas, chart, traits, rng)
        paint_brows(canvas, chart, traits, rng)
        albedo = srgb_from_linear(np.exp(canvas.log.clip(_MIN_ALBEDO, -0.12)))
        specular = (_DRY_F0 * np.exp(canvas.gloss.clip(-1.2, 0.8))).clip(0.05, 0.8)
        normal = normals_from_height(canvas.relief)
        maps = np.concatenate([albedo, np.repeat(specular[..., None], 3, 2), normal * 0.5 + 0.5], 2)
        return (maps.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1)

    def _bare(self, traits: PersonTraits, rng: np.random.Generator) -> Canvas:
        """Tone, the skins' colour and pores, and the oil on them."""
        tone = traits.tone().astype(np.float32)
        colour, detail = self._pick(tone, rng)
        strength = float(np.clip(0.10 / max(detail.std(), 0.02), 0.4, 1.3)) * rng.uniform(0.55, 1.2)
        strength *= 0.85 + 0.4 * traits.age
        face = self.chart.face
        # Scalp and ears keep little of the skin's own hue under another tone; lips get a colour of their own later.
        colour = colour * ((0.35 + 0.65 * face) * (1 - 0.85 * self.chart.lips))[..., None]
        grey = detail.mean(2, keepdims=True)
        own = (face * (1 - self.chart.lips))[..., None]
        detail = grey.clip(-0.5, 0.3) * (1 - own) * np.float32(0.7) + detail * own
        pores = _pores(rng) * (0.4 + 0.6 * face) * rng.uniform(0.2, 1) * (1 + 0.4 * traits.age)
        fine = detail.mean(2) - cv2.GaussianBlur(detail.mean(2), (0, 0), 4)
        height = cv2.GaussianBlur(fine * strength, (0, 0), 0.7).clip(-0.25, 0.15) + 0.035 * pores
        log = tone + colour * np.float32(rng.uniform(0.6, 1.05)) + detail * np.float32(strength)
        planes = torch.from_numpy(np.ascontiguousarray(log.transpose(2, 0, 1), np.float32))
        planes = planes + evening(planes[None])[0]
        canvas = Canvas(planes.numpy().transpose(1, 2, 0), blank(), blank())
        canvas.tint(pores, [0.015, 0.022, 0.022])
        slope = np.hypot(*np.gradient(height / TEXEL_MM))[face > 0.5]
        wanted = rng.uniform(0.025, 0.06) * (1 + 0.5 * traits.age)  # root mean square slope of the relief
        canvas.relief += height * (wanted / max(float(np.sqrt((slope**2).mean())), 1e-4))
        tzone = self.chart.blob(4, 26) + 0.8 * self.chart.blob(9, 46) + 0.3 * self.chart.blob(152, 28)
        canvas.gloss += rng.normal(0, 0.16) + rng.normal(0.12, 0.12) * tzone + noise(rng, 16, 0.05)
        canvas.gloss += np.clip(1.1 * height, -0.5, 0.2) * rng.uniform(0.6, 1.4)
        return canvas

    def _pick(self, tone: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Low-frequency colour and detail (512, 512, 3), of skins whose tone is not too far, each maybe mirrored."""

        def near(skins: list[Skin]) -> Skin:
            weight = np.array([np.exp(-abs(float((skin.tone - tone).mean())) / 0.7) for skin in skins])
            return skins[rng.choice(len(skins), p=weight / weight.sum())]

        first, second, fine = near(self.skins), near(self.skins), near(self.detailed)
        share = rng.uniform(0, 1)
        contrast = [np.clip(0.17 / skin.low.std(), 0.3, 1) for skin in (first, second)]
        low = share * first.low * contrast[0] + (1 - share) * second.low * contrast[1]
        detail = fine.detail
        assert detail is not None
        mirror = [slice(None, None, -1) if rng.random() < 0.5 else slice(None) for _ in range(2)]
        return low[:, mirror[0]], detail[:, mirror[1]].copy()


def _pores(rng: np.random.Generator) -> np.ndarray:
    """(512, 512): pits some 1.5 mm apart, deeper here and there; standard deviation 1, mean 0."""
    field = noise(rng, 0.75, 1.0) - noise(rng, 2.2, 0.4)
    field = np.minimum(field, 0.5) * np.exp(noise(rng, 14, 0.35))
    return (field - field.mean()) / field.std()


def normals_from_height(height: np.ndarray) -> np.ndarray:
    """(H, W) relief in mm over the face chart -> (H, W, 3) unit normals, x right, +Y up (rows run down)."""
    down, right = np.gradient(height / TEXEL_MM)
    normal = np.stack([-right, down, np.ones_like(right)], -1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def srgb_from_linear(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1 encoding."""
    return np.where(linear > 0.0031308, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055, 12.92 * linear)
