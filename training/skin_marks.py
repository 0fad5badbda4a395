"""What lies on and in the skin: uneven pigment, lips, lids, spots, folds, and wide variations beyond the common.

Every function paints one thing on the canvas. Knows the traits of a person and the brushes; nothing of hair,
networks or light.
"""

from __future__ import annotations

import numpy as np

from ..models.landmark_indices import LEFT_EYE, RIGHT_EYE
from .chart_painting import Canvas, FaceChart, area, blank, curve, dot, hill, noise, soft, stroke
from .traits import BLOOD, PersonTraits

_PIGMENT = np.array([0.45, 0.75, 1.0])  # what more melanin takes off the log of albedo


def paint_mottle(canvas: Canvas, chart: FaceChart, traits: PersonTraits, rng: np.random.Generator) -> None:
    """Clouds of pigment and blood, red cheeks, tan, dark eye sockets and mouth surround."""
    canvas.tint(noise(rng, 22, rng.uniform(0.02, 0.07)), _PIGMENT)
    canvas.tint(noise(rng, 6, 0.02 * (1 + traits.age)), BLOOD * 3)
    canvas.tint(noise(rng, 2, 0.012 * (1 + traits.age)), _PIGMENT)
    flush = rng.gamma(1.4, 0.45) * (1 - 0.75 * traits.melanin)
    for index, radius, share in ((50, 32, 1), (280, 32, 1), (4, 17, 1), (152, 22, 0.5), (9, 30, 0.3)):
        canvas.tint(
            chart.blob(index, radius) * (1 + noise(rng, 5, 0.25)), flush * rng.uniform(0.6, 1.3) * share * BLOOD
        )
    rings, sockets = rng.gamma(1.5, 0.05), rng.gamma(1.2, 0.05 + 0.13 * traits.melanin)
    hue = np.array([1, 1.1, 1]) if traits.melanin > 0.35 else np.array([0.9, 1.15, 0.75])
    for lower, upper in ((230, 223), (450, 443)):
        at = chart.points[lower]
        canvas.tint(hill(at, (17, 8)), -rings * hue * 1.6)
        canvas.tint(hill((at + chart.points[upper]) / 2, (26, 22)), -sockets * _PIGMENT)
    around = chart.blob(0, 34, (0, 22)) * (1 - chart.lips)
    canvas.tint(around, -rng.gamma(1.0, 0.03 + 0.12 * traits.melanin) * _PIGMENT)
    canvas.tint(chart.blob(10, 60), -rng.gamma(1.2, 0.03 + 0.12 * traits.melanin) * _PIGMENT)
    if traits.melanin > 0.25 and rng.random() < 0.12:  # melasma
        for index in (50, 280, 9):
            canvas.tint((chart.blob(index, 26) * (0.4 + noise(rng, 5, 0.6))).clip(0, 1), -0.3 * _PIGMENT)
    if traits.melanin < 0.6 and rng.random() < 0.2:  # tan below a hat, or round the eyes of who wears glasses
        below = 1 / (1 + np.exp(-(np.arange(512)[:, None] - rng.uniform(110, 165)) / 6)) * np.ones((1, 512))
        canvas.tint(below.astype(np.float32), -rng.uniform(0.05, 0.3) * _PIGMENT)


def paint_lips(canvas: Canvas, chart: FaceChart, traits: PersonTraits, rng: np.random.Generator) -> None:
    """Lips from pale to plum with their lines; sometimes lipstick."""
    blood = rng.normal(1.2, 0.35) * (1 - 0.45 * traits.melanin)
    canvas.tint(chart.lips, np.array([rng.normal(0.0, 0.05), -0.36, -0.29]) * blood - rng.normal(0.1, 0.12))
    if traits.melanin > 0.45:  # pigment at the rim, pink within
        canvas.tint(chart.lips * (1 - chart.mouth), -rng.gamma(1.5, 0.12) * np.array([1, 0.9, 0.8]))
        canvas.tint(chart.mouth, np.array([0.3, 0.12, 0.14]) * rng.uniform(0, 1.3))
    lines = soft(noise(rng, 0.7, 1.0), 0.7) * chart.lips
    canvas.tint(lines, [-0.05, -0.08, -0.08])
    canvas.relief += 0.05 * lines + 0.1 * soft(chart.lips, 3)
    wet = rng.uniform(0.1, 0.4)
    if traits.male < 0.5 and rng.random() < 0.4:
        hues = [(0.44, 0.06, 0.06), (0.3, 0.04, 0.07), (0.5, 0.2, 0.17), (0.18, 0.03, 0.04), (0.48, 0.17, 0.19)]
        colour = np.array(hues[rng.integers(len(hues))]) * np.exp(rng.normal(0, 0.2, 3)) * (1 - 0.5 * traits.melanin)
        canvas.cover(chart.lips * rng.uniform(0.2, 0.7), colour * np.exp(-0.1 * lines[..., None]))
        wet += rng.uniform(-0.2, 0.25)
    canvas.gloss += wet * chart.lips + 0.2 * chart.mouth


def paint_lids(canvas: Canvas, chart: FaceChart, traits: PersonTraits, rng: np.random.Generator) -> None:
    """Lash lines, the crease above the eye, eyeshadow."""
    woman = traits.male < 0.5
    rim = rng.uniform(0.1, 0.45) * (1 - 0.4 * traits.melanin)
    liner = rng.uniform(0.3, 1.6) if woman and rng.random() < 0.5 else 0.0
    line, upper, crease, shadow = blank(), blank(), blank(), blank()
    height, colour = rng.uniform(6, 11), rng.uniform([0.0, 0.1, 0.0], [0.6, 0.9, 0.8])
    for eye in (RIGHT_EYE, LEFT_EYE):
        lid = chart.points[list(eye[8:]) + [eye[0]]]
        stroke(line, chart.points[[*eye, eye[0]]], 2, 1)
        stroke(upper, lid - [0, 1], 2, 1)
        stroke(crease, lid - [0, height], 1, 1)
        shadow += area(np.concatenate([lid, (lid - [0, height * 1.5])[::-1]]), 3)
    canvas.tint(soft(line, 1.2), -rim * np.array([1, 1.15, 1.1]))
    canvas.tint(soft(upper, 0.9), -np.full(3, 0.25 + liner))
    depth = rng.uniform(0, 1) * (1 + traits.age)
    canvas.tint(soft(crease, 1.2), -np.array([0.22, 0.32, 0.32]) * depth)
    canvas.relief -= 0.15 * depth * soft(crease, 1.5)
    if woman and rng.random() < 0.3:
        canvas.tint(shadow, -colour * rng.uniform(0.2, 0.8))


def paint_spots(canvas: Canvas, chart: FaceChart, traits: PersonTraits, rng: np.random.Generator) -> None:
    """Freckles, moles, age spots, acne and its marks, scars, birthmarks, rarely vitiligo."""
    face, p = chart.face, chart.points
    if traits.melanin < 0.42 and rng.random() < 0.3:
        layer, dense = blank(), rng.gamma(1.2, 300)
        centres = p[[50, 280, 4, 195, 9, 205, 425]]
        for _ in range(int(min(dense, 1500))):
            at = centres[rng.integers(len(centres))] + rng.normal(0, 34, 2)
            dot(layer, at, rng.uniform(0.5, 1.7), rng.uniform(0.2, 1))
        canvas.tint(soft(layer, 0.5) * face, -_PIGMENT * rng.uniform(0.2, 0.7))
    moles, reds, brown = blank(), blank(), blank()
    for _ in range(int(rng.poisson(rng.gamma(1.5, 1.3)))):
        dot(moles, rng.uniform((120, 90), (400, 430)), rng.uniform(0.8, 2.8), rng.uniform(0.3, 1))
    for _ in range(int(rng.poisson(22 * max(traits.age - 0.5, 0) * (1.1 - traits.melanin)))):
        dot(brown, rng.uniform((130, 70), (390, 420)), rng.uniform(1.5, 6), rng.uniform(0.2, 1))
    if rng.random() < 0.3 - 0.2 * traits.age:
        for _ in range(int(rng.gamma(1.3, 14))):
            dot(reds, p[[50, 280, 9, 152][rng.integers(4)]] + rng.normal(0, 26, 2), rng.uniform(1, 3.2), rng.random())
    canvas.tint(soft(moles, 0.7), -_PIGMENT * 1.1)
    canvas.relief += 0.25 * soft(moles, 1.2)
    canvas.tint(soft(brown, 1.5) * face, -_PIGMENT * 0.3)
    reds = soft(reds, 1.2) * face
    canvas.tint(reds, BLOOD * 1.6 if traits.melanin < 0.5 else -_PIGMENT * 0.5)
    canvas.relief += 0.2 * reds
    if rng.random() < 0.06:  # a scar
        at, turn = rng.uniform((150, 110), (362, 400)), rng.normal(0, 10, (2, 2))
        layer = blank()
        stroke(layer, curve(at, at + turn[0], at + turn.sum(0)), 2, 1)
        canvas.tint(soft(layer, 1), np.array([0.12, 0.05, 0.08]) * (1 + traits.melanin))
        canvas.relief -= 0.2 * soft(layer, 1)
    if rng.random() < 0.03:  # a birthmark, red or brown
        patch = hill(rng.uniform((140, 90), (372, 420)), tuple(rng.uniform(7, 30, 2)))
        patch = 1 / (1 + np.exp(-(patch - 0.5 + noise(rng, 5, 0.15)) * 18))
        canvas.tint(patch, BLOOD * 2 if rng.random() < 0.5 else -_PIGMENT * 0.5)
    if rng.random() < 0.003:  # vitiligo: about the eyes and the mouth first, alike on both sides
        patch = noise(rng, 16, 0.35)
        patch = (patch + patch[:, ::-1]) * 0.7 + chart.blob(17, 30) + chart.blob(159, 28) + chart.blob(386, 28) - 0.5
        mask = 1 / (1 + np.exp(-patch * 14)) * face * (1 - chart.lips)
        canvas.cover(mask * 0.9, np.array([0.60, 0.42, 0.34]))


def paint_folds(canvas: Canvas, chart: FaceChart, traits: PersonTraits, rng: np.random.Generator) -> None:
    """Wrinkles as fine lines, folds as soft shade, both with their relief."""
    strength = (0.08 + 1.25 * max(traits.age - 0.2, 0)) * rng.lognormal(-0.1, 0.5)
    fine, fold = blank(), blank()
    p = chart.points
    forehead, eyes, mouth, bags = rng.uniform(0.1, 1.3, 4)
    for y in np.linspace(p[10][1] + 4, p[9][1] - 16, int(rng.integers(3, 6))) + rng.normal(0, 3):
        half, bend, shift = rng.uniform(35, 75), rng.normal(4, 4), rng.normal(0, 8)
        x = np.linspace(-half, half, 24)
        wave = 2.2 * np.cos(x / 26 + rng.uniform(-0.5, 0.5))
        path = np.stack([p[9][0] + shift + x, y + bend * (x / half) ** 2 + wave + rng.normal(0, 0.5, 24)], 1)
        stroke(fine, path, 1, forehead * rng.uniform(0.5, 1))
        stroke(fold, path[3:-3], 2, 0.45 * forehead)
    for x in (-7, 7):  # between the brows
        start = p[9] + [x + rng.normal(0, 1.5), 14]
        stroke(fine, curve(start, start + [rng.normal(0, 2), -9], start + [x * 0.3, -rng.uniform(14, 24)]), 1, forehead)
    for side, wing, corner, eye, under in ((-1, 129, 61, 33, 230), (1, 358, 291, 263, 450)):
        start, end = p[wing] + [side * 3, -3], p[corner] + [side * rng.uniform(9, 18), rng.uniform(-4, 16)]
        groove = curve(start, (start + end) / 2 + [side * rng.uniform(3, 10), -4], end)
        stroke(fine, groove, 1, 0.7 * mouth)
        stroke(fold, groove, 5, 1.15 * mouth)
        down = curve(p[corner] + [side * 4, 3], p[corner] + [side * 8, 16], p[corner] + [side * 9, rng.uniform(22, 42)])
        stroke(fine, down, 1, 0.4 * mouth)
        stroke(fold, down, 4, 0.6 * mouth)
        for angle in np.linspace(-0.7, 0.75, int(rng.integers(3, 7))) + rng.normal(0, 0.1):
            reach = rng.uniform(12, 28)
            start = p[eye] + [side * 7, 12 * np.sin(angle) * 0.4]
            end = start + [side * reach, reach * np.sin(angle)]
            stroke(fine, curve(start, (start + end) / 2 + [0, 1.5], end), 1, eyes * rng.uniform(0.4, 0.9))
        for drop in rng.uniform(6, 17, int(rng.integers(2, 5))):
            arc = curve(p[under] + [-16, drop - 12], p[under] + [0, drop - 4], p[under] + [16, drop - 13])
            stroke(fine, arc, 1, eyes * rng.uniform(0.2, 0.6))
        bag = curve(p[under] + [-17, -2], p[under] + [0, rng.uniform(6, 10)], p[under] + [18, -4])
        stroke(fold, bag, 3, 0.8 * bags)
    fine, fold = soft(fine, 0.9) * strength, soft(fold, 3.2) * strength
    canvas.tint(fine, [-0.20, -0.27, -0.28])
    canvas.tint(fold, [-0.28, -0.38, -0.40])
    canvas.relief -= 0.28 * fine + 0.55 * fold
    canvas.gloss -= 0.3 * fine + 0.1 * fold


def paint_wide(canvas: Canvas, chart: FaceChart, rng: np.random.Generator) -> None:
    """Beyond the common: stronger contrast, soft strokes and patches of skin-like colour, one side unlike the other."""
    canvas.log += (canvas.log - soft(canvas.log, 24)) * np.float32(rng.uniform(0, 0.6)) * chart.face[..., None]
    side = np.clip((np.arange(512, dtype=np.float32) - 256) / 120, -1, 1)[None] * np.ones((512, 1), np.float32)
    canvas.tint(side, rng.normal(0, 0.07) + rng.normal(0, 0.025, 3))
    for _ in range(int(rng.integers(2, 7))):
        patch = hill(rng.uniform((110, 60), (402, 440)), tuple(np.exp(rng.uniform(np.log(5), np.log(60), 2))))
        canvas.tint(patch, rng.normal(0, 0.16) * np.exp(rng.normal(0, 0.3, 3)) + rng.normal(0, 0.03, 3))
    for _ in range(int(rng.integers(2, 9))):
        layer, at = blank(), rng.uniform((120, 70), (392, 430))
        stroke(layer, curve(at, at + rng.normal(0, 25, 2), at + rng.normal(0, 40, 2)), rng.uniform(1, 8), 1)
        canvas.tint(soft(layer, rng.uniform(0.8, 4)), rng.normal(0, 0.2) * np.exp(rng.normal(0, 0.2, 3)))
