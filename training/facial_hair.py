"""Brows and beards on the face chart: hairs along their growth, a soft border, relief and duller gloss with them.

Knows the traits of a person and the brushes; nothing of skin colour, networks or light.
"""

from __future__ import annotations

import numpy as np

from ..models.landmark_indices import LEFT_BROW, RIGHT_BROW
from .chart_painting import Canvas, FaceChart, area, blank, hairs, noise, soft, stroke
from .skins import CHART
from .traits import PersonTraits

# Parts of a beard in each style: moustache, chin, jaw, cheeks, sideburns, below the jaw.
_STYLES = {
    "full": (1, 1, 1, 1, 1, 1), "short cheeks": (1, 1, 1, 0.35, 0.8, 0.8), "goatee": (0.9, 1, 0, 0, 0, 0.2),
    "moustache": (1, 0, 0, 0, 0.3, 0), "strap": (0.15, 0.9, 1, 0.1, 1, 0.5), "chin": (0.1, 1, 0, 0, 0, 0.2),
    "sideburns": (0.1, 0.1, 0.1, 0.1, 1, 0),
}  # fmt: skip
# Outlines by landmark on the right; the left mirrors them.
_CHEEK_LINE = (127, 234, 137, 177, 213, 207, 206, 98)
_MIRROR = {127: 356, 234: 454, 137: 366, 177: 401, 213: 433, 207: 427, 206: 426, 98: 327, 132: 361, 58: 288,
           172: 397, 136: 365, 150: 379, 149: 378, 176: 400, 148: 377, 61: 291, 216: 436, 202: 422, 43: 273,
           106: 335, 182: 406, 210: 430, 169: 394, 93: 323}  # fmt: skip
_JAW = (132, 58, 172, 136, 150, 149, 176, 148)


def paint_brows(canvas: Canvas, chart: FaceChart, traits: PersonTraits, rng: np.random.Generator) -> None:
    """Both brows: alike but not the same."""
    man = traits.male > 0.5
    thickness = float(np.clip(rng.lognormal(0.12 if man else -0.22, 0.3), 0.4, 1.9))
    density = float(np.clip(rng.normal(0.8 if man else 0.68, 0.28) - 0.2 * max(traits.age - 0.6, 0), 0.08, 1.2))
    lift, arch, slant = rng.normal(0, 2.2), rng.normal(0 if man else 1.2, 2.0), rng.normal(0, 1.8)
    start = -rng.uniform(0.12, 0.45) if rng.random() < (0.07 if man else 0.02) else rng.normal(0.02, 0.04)
    shaped = not man and rng.random() < 0.5  # plucked or drawn: a firm lower edge
    strands, under = blank(), blank()
    for brow, side in ((RIGHT_BROW, -1), (LEFT_BROW, 1)):
        own = np.exp(rng.normal(0, 0.06, 2))
        points = chart.points
        line = (points[list(brow[:5])][::-1] + points[list(brow[5:])]) / 2  # nose to temple
        half = 5.2 * thickness * own[0]

        def centre(s: np.ndarray, line: np.ndarray = line, side: int = side) -> np.ndarray:
            at = np.stack([np.interp(s, np.linspace(0, 1, 5), line[:, c]) for c in range(2)], -1)
            at[..., 0] -= side * 50 * np.clip(-s, 0, None)
            at[..., 1] -= lift + arch * np.sin(np.pi * s.clip(0, 1)) + slant * (s - 0.4)
            return at

        def width(s: np.ndarray, half: float = half) -> np.ndarray:
            return half * np.interp(
                s, [start, start + 0.12, 0.4, 0.7, 1.04], [0.62 if start > -0.1 else 0.4, 1, 0.92, 0.66, 0.12]
            )

        count = int(760 * density * own[1] * (0.55 + 0.45 * thickness))
        s = start + (1.02 - start) * rng.beta(1.05, 1.15, count)
        across = np.clip(rng.normal(0.05, 0.42, count), -0.9, 0.75 if shaped else 1.0)  # -1 upper edge, 1 lower edge
        roots = centre(s) + np.stack([np.zeros(count), across * width(s)], 1)
        angle = np.interp(s, [start, start + 0.12, 0.35, 0.65, 1], np.deg2rad([82, 62, 30, 6, -16]))
        angle += np.deg2rad(16) * across + rng.normal(0, 0.17, count)
        angle = angle if side > 0 else np.pi - angle
        length = rng.uniform(5, 10.5, count) * (0.75 + 0.25 * thickness) * (1 - 0.35 * s.clip(0, 1))
        strands = np.maximum(strands, hairs(roots, angle, length, -side * rng.normal(0.25, 0.2, count), rng))
        t = np.linspace(start + 0.05, 0.97, 24)
        upper, lower = (centre(t) + np.stack([0 * t, sign * 0.62 * width(t)], 1) for sign in (-1, 1))
        under += area(np.concatenate([upper, lower[::-1]]), 1.2 if shaped else 2.4)
    base = under * min(0.62, 0.5 * density) * (0.8 + (0.25 if shaped else 0))
    share = np.clip(1 - (1 - base) * (1 - 0.8 * strands), 0, 0.94)
    colour = traits.hair * np.where(traits.hair.mean() > 0.08, 0.62, 0.9)  # brows are darker than pale heads of hair
    canvas.cover(share, colour)
    canvas.relief += 0.16 * strands + 0.12 * soft(under, 3)
    canvas.gloss -= 0.35 * share


def beard_region(chart: FaceChart, style: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """(512, 512) in [0, 1]: where this person's beard grows, its border soft and a little ragged."""
    p = chart.points
    upper = {i: rng.normal(0, 4, 2) for i in _CHEEK_LINE}
    rise = rng.normal(0, 9)  # of the cheek line
    low = rng.uniform(12, 44)  # texels that it reaches below the jaw

    def both(indices: tuple[int, ...]) -> list[np.ndarray]:
        return [p[list(indices)], p[[_MIRROR[i] for i in indices]]]

    moustache, chin, jaw, cheeks, sides, below = (blank() for _ in range(6))
    for side, flip in ((0, 1), (1, -1)):
        line = both(_CHEEK_LINE)[side] + np.stack([upper[i] for i in _CHEEK_LINE]) * [flip, 1]
        line[:2] += [flip * 14, 0]
        line[2:6, 1] -= rise
        edge = both(_JAW)[side]
        cheek = np.concatenate([line[1:7], both((61, 202, 210))[side], edge[::-1]])
        cheeks += area(cheek, 8)
        stroke(jaw, edge + [flip * 8, -4], 34, 1)
        stroke(sides, line[:5] + [[0, 0], [flip * 2, 0], [flip * 12, 0], [flip * 20, 0], [0, 0]], 26, 1)
        reach = edge + [0, low]
        below += area(np.concatenate([edge, reach[::-1]]), 8)
        corner = both((61,))[side][0]
        wing = both((98,))[side][0] + [0, 5]
        droop = corner + [-flip * rng.uniform(6, 13), rng.uniform(-4, 16)]
        outline = [p[2] + [0, 5], wing, droop, corner + [-flip * 1, 1], both((61,))[side][0] * 0.5 + p[0] * 0.5, p[0]]
        moustache += area(np.array(outline), 2.2)
    radius = rng.uniform(16, 34)
    stroke(chin, p[[17, 18, 200, 199, 175, 152]] + [0, 5], 2 * radius, 1)
    if style[0] > 0.5:  # joins the moustache beside the mouth
        for side in (0, 1):
            stroke(chin, both((61, 43, 106, 182))[side] + [(-7, 7)[side], 0], 14, 1)
    fields = (moustache.clip(0, 1), soft(chin, 6), soft(jaw, 7), cheeks.clip(0, 1), soft(sides, 6), below.clip(0, 1))
    region = np.max([np.float32(share) * field for share, field in zip(style, fields, strict=True)], axis=0)
    ragged = np.clip(region * (1 + noise(rng, 6, 0.22)), 0, 1)
    gap = 1 - 0.75 * chart.blob(18, 5) * float(rng.random() < 0.6)  # bare skin beside the tuft under the lip
    return soft(ragged, 2.5) * (1 - chart.lips).clip(0, 1) * gap


def paint_beard(canvas: Canvas, chart: FaceChart, traits: PersonTraits, rng: np.random.Generator) -> None:
    """Shaven shadow, stubble or beard of a man; at most a faint shade over a woman's lip."""
    pale = 1 - traits.melanin
    dark = np.clip(-np.log(traits.hair.mean() / 0.3) / 3, 0, 1)
    if traits.male < 0.5:
        if rng.random() < 0.2:
            region = beard_region(chart, _STYLES["moustache"], rng)
            canvas.tint(region, -np.array([0.10, 0.12, 0.12]) * rng.uniform(0.2, 0.9) * dark)
        return
    full = beard_region(chart, _STYLES["full"], rng)
    kind = rng.choice(["shaven", "stubble", "beard"], p=[0.48, 0.2, 0.32] if traits.age > 0.25 else [0.7, 0.18, 0.12])
    # Hair roots under the skin look blue-grey: red is lost most.
    shadow = rng.beta(1.6, 2.4) if kind == "shaven" else rng.uniform(0.3, 0.9)
    canvas.tint(full, -np.array([0.34, 0.27, 0.20]) * shadow * dark * (0.35 + 0.65 * pale))
    canvas.relief += full * noise(rng, 0.8, 0.012 * shadow)
    if kind == "shaven":
        return
    name = str(rng.choice(list(_STYLES), p=[0.4, 0.16, 0.17, 0.11, 0.06, 0.06, 0.04]))
    region = beard_region(chart, _STYLES[name], rng)
    if rng.random() < 0.25:  # patchy
        region *= np.clip(0.7 + noise(rng, 9, 0.5), 0, 1)
    growth = rng.uniform(0.15, 0.4) if kind == "stubble" else rng.uniform(0.45, 1)
    count = int(region.sum() * np.interp(growth, [0.15, 0.4, 1], [0.10, 0.18, 0.24]))
    if not count:
        return
    density = np.cumsum(region.ravel(), dtype=np.float64)
    cell = np.searchsorted(density, rng.random(count) * density[-1]).clip(0, CHART**2 - 1)
    roots = np.stack([cell % CHART, cell // CHART], 1) + rng.random((count, 2))
    middle, mouth = chart.points[152][0], chart.points[0][1]
    outward = (roots[:, 0] - middle) / 130
    lip = (roots[:, 1] < mouth + 6) & (np.abs(roots[:, 0] - middle) < 45)
    angle = -np.pi / 2 + np.where(lip, np.clip(outward * 4, -0.9, 0.9), np.clip(outward, -1, 1) * -0.25)
    angle += rng.normal(0, 0.22 + 0.3 * float(traits.melanin > 0.65), count)  # tight curls lie every way
    length = np.where(lip, 0.8, 1) * np.interp(growth, [0.15, 0.4, 1], [1.2, 3, 11]) * rng.uniform(0.6, 1.3, count)
    strands = hairs(roots, angle, length, rng.normal(0, 0.3, count), rng)
    base = region**0.8 * np.interp(growth, [0.15, 0.4, 1], [0.1, 0.32, 0.86]) * (1 + noise(rng, 3, 0.08))
    share = np.clip(1 - (1 - base) * (1 - (0.35 + 0.35 * growth) * strands), 0, 0.93)
    grey = traits.beard_grey * np.clip(0.6 + 0.8 * chart.blob(152, 45) + noise(rng, 2, 0.25), 0, 1)[..., None]
    colour = traits.hair * (1 - grey) + np.array([0.34, 0.325, 0.31]) * grey
    light = np.exp(0.55 * (strands - 0.35) + noise(rng, 1.2, 0.22))  # between the strands it is darker
    canvas.cover(share, colour * light[..., None])
    canvas.relief += growth * (0.10 * strands + 0.25 * soft(region, 3))
    canvas.gloss -= 0.4 * share
