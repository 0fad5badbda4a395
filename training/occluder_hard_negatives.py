"""What on a face hides nothing of it: cast shadows, highlights, make-up, beards; and what surrounds the photographed.

Nothing here adds coverage: a network that looks for occluders has to learn to leave it alone.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from ..models.landmark_indices import FACE_OVAL, LEFT_BROW, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from .occluder_hair import bundle, hair_colour
from .occluder_scene import Scene, any_colour, blurred, fabric, sigmoid, smooth_noise


def paint_harmless(scene: Scene, rng: np.random.Generator) -> None:
    """Some of: a cast shadow, highlights, coloured light, make-up, stubble or a beard, other brows, wrinkles."""
    if not scene.effects:
        return
    for paint, chance in ((_cast_shadow, 0.3), (_highlights, 0.2), (_coloured_light, 0.08), (_make_up, 0.2),
                          (_beard, 0.17), (_brows, 0.3), (_stains, 0.1),
                          (_wrinkles, 0.35)):  # fmt: skip
        if rng.random() < chance:
            paint(scene, rng)


def _cast_shadow(scene: Scene, rng: np.random.Generator) -> None:
    """An edge, bars of a blind, leaves: sharp or soft."""
    angle, size = rng.uniform(0, np.pi), scene.size
    away = scene.x * np.cos(angle) + scene.y * np.sin(angle) + rng.uniform(0.02, 0.2) * smooth_noise(rng, size, 4)
    kind = rng.random()
    if kind < 0.5:
        away = away - rng.uniform(-0.8, 0.8)
    elif kind < 0.75:
        away = 0.2 * np.sin(away * rng.uniform(5, 20)) + rng.uniform(-0.1, 0.1)
    else:
        away = 0.3 * smooth_noise(rng, size, int(rng.integers(3, 14))) + rng.uniform(-0.2, 0.2)
    share = sigmoid(-(away / rng.uniform(0.008, 0.15)))
    scene.shade(1 - rng.uniform(0.2, 0.75) * share)


def _highlights(scene: Scene, rng: np.random.Generator) -> None:
    alpha = np.zeros_like(scene.coverage)
    for index in rng.choice([50, 280, 4, 151, 9, 152, 205, 425, 10], int(rng.integers(1, 4)), replace=False):
        x, y = scene.points[index] + rng.normal(0, 0.06, 2)
        wide, high = rng.uniform(0.04, 0.3, 2)
        spot = np.exp(-((((scene.x - x) / wide) ** 2 + ((scene.y - y) / high) ** 2) ** rng.uniform(0.7, 2)))
        alpha = np.maximum(alpha, rng.uniform(0.2, 0.9) * spot)
    scene.tint(np.array([1.0, 0.98, 0.95]), (alpha * scene.hull).astype(np.float32))


def _coloured_light(scene: Scene, rng: np.random.Generator) -> None:
    colour = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 1), 1.0))
    angle = rng.uniform(0, 2 * np.pi)
    share = sigmoid((scene.x * np.cos(angle) + scene.y * np.sin(angle)) / rng.uniform(0.1, 0.8))
    factor = 1 + share[..., None] * (colour * rng.uniform(0.8, 1.5) - 1) * rng.uniform(0.3, 1)
    scene.picture = (scene.picture * factor).clip(0, 1).astype(np.float32)


def _make_up(scene: Scene, rng: np.random.Generator) -> None:
    """Lips, lids, cheeks; now and then paint over half the face, through which its shading is seen."""
    p = scene.points
    red = np.array(
        colorsys.hsv_to_rgb(rng.choice([0.97, 0.02, 0.9, rng.random()]), rng.uniform(0.5, 0.95), rng.uniform(0.2, 0.85))
    )
    lips = scene.polygon(p[list(LIPS_OUTER)]) - scene.polygon(p[list(LIPS_INNER)])
    grey = (scene.picture.mean(-1) / max(float(scene.skin.mean()), 0.05))[..., None]
    if rng.random() < 0.8:
        scene.tint(red * grey, np.clip(lips, 0, 1) * rng.uniform(0.3, 0.9))
    if rng.random() < 0.4:
        shadow = any_colour(rng) * 0.8
        for eye, brow in ((RIGHT_EYE, RIGHT_BROW), (LEFT_EYE, LEFT_BROW)):
            lid = np.concatenate([p[list(eye[8:])], p[list(brow[5:])]])
            soft = blurred(scene.polygon(cv2.convexHull(lid.astype(np.float32))[:, 0]), 0.03 * scene.unit)
            scene.tint(shadow * grey, soft * rng.uniform(0.2, 0.7) * (1 - scene.polygon(p[list(eye)])))
    if rng.random() < 0.3:
        for cheek in (50, 280):
            away = np.hypot(scene.x - p[cheek, 0], scene.y - p[cheek, 1]) / rng.uniform(0.15, 0.35)
            scene.tint(red * grey, (rng.uniform(0.1, 0.45) * np.exp(-(away**2))).astype(np.float32))
    if rng.random() < 0.12:
        pattern = np.clip(0.5 + 3 * smooth_noise(rng, scene.size, int(rng.integers(2, 8))), 0, 1)
        scene.tint(
            any_colour(rng) * grey, (pattern * blurred(scene.hull, 2) * rng.uniform(0.4, 0.85)).astype(np.float32)
        )


def _beard(scene: Scene, rng: np.random.Generator) -> None:
    """Hairs rooted in the skin of the lower face."""
    p = scene.points
    ring = p[[132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361]]
    mouth = p[[61, 291]].mean(0)
    upper, long = rng.uniform(0.2, 0.75), rng.uniform(0.02, 0.22)
    count = int(rng.integers(200, 650))
    at = rng.uniform(0, len(ring) - 1, count)
    edge = np.stack([np.interp(at, np.arange(len(ring)), ring[:, i]) for i in range(2)], 1)
    root = mouth + (edge - mouth) * rng.uniform(upper, 1, (count, 1))
    if rng.random() < 0.7:  # a moustache
        lip = (
            rng.uniform(0.3, 0.6, (count // 4, 1)) * (p[2] - p[0])
            + p[0]
            + rng.uniform(-0.36, 0.36, (count // 4, 1)) * [1, 0]
        )
        root = np.concatenate([root, lip + [0, 0.02]])
    fall = np.stack([(root[:, 0] - mouth[0]) * 0.5 + rng.normal(0, 0.4, len(root)), np.ones(len(root))], 1)
    step = fall * long * rng.uniform(0.4, 1, (len(root), 1))
    controls = np.stack([root, root + step * 0.3, root + step * 0.7, root + step], 1)
    drawn = scene.smaller(bundle(scene, controls, hair_colour(scene, rng), rng, width=(0.006, 0.016)))
    lips = scene.polygon(p[list(LIPS_OUTER)])
    scene.tint(drawn[..., :3] / np.maximum(drawn[..., 3:], 1e-3), drawn[..., 3] * (1 - lips) * rng.uniform(0.4, 1))


def _brows(scene: Scene, rng: np.random.Generator) -> None:
    """Other hairs than the face's own: pale or dark, thin or bushy, straight or arched, near the eyes or far above."""
    colour, canvas, count = hair_colour(scene, rng), scene.canvas(), int(rng.integers(40, 220))
    if rng.random() < 0.5:
        colour = colour * rng.uniform(0.1, 0.6)
    long, rise, arch = rng.uniform(0.05, 0.13), rng.normal(0, 0.03), rng.uniform(-0.03, 0.12)
    above, below = -rng.uniform(0, 0.7), 1 + rng.uniform(0, 0.5)
    for brow, sign in ((RIGHT_BROW, -1), (LEFT_BROW, 1)):
        upper, lower = scene.points[list(brow[:5])], scene.points[list(brow[9:4:-1])]
        at, share = rng.uniform(0, 4, count), rng.uniform(above, below, (count, 1))
        ends = [np.stack([np.interp(at, range(5), e[:, i]) for i in range(2)], 1) for e in (upper, lower)]
        root = ends[0] + share * (ends[1] - ends[0])
        root[:, 1] -= rise + arch * np.sin(np.pi * at / 4)
        step = np.array([sign * long, -0.3 * long]) + rng.normal(0, 0.02, (count, 2))
        bundle(scene, np.stack([root, root + step * 0.3, root + step * 0.7, root + step], 1), colour, rng,
               width=(0.008, 0.02), canvas=canvas)  # fmt: skip
    drawn = scene.smaller(canvas)
    scene.tint(drawn[..., :3] / np.maximum(drawn[..., 3:], 1e-3), drawn[..., 3])


def _wrinkles(scene: Scene, rng: np.random.Generator) -> None:
    """Folds from nose to mouth and below it, under the eyes and beside them, between the brows and over them."""
    p, canvas = scene.points, scene.canvas()
    middle = p[[168, 4, 152], 0].mean()
    for sign, nose, corner, outer in ((-1, 129, 61, 33), (1, 358, 291, 263)):
        beside, mouth, eye = p[nose] + [0.04 * sign, -0.04], p[corner] + [0.1 * sign, 0], p[outer]
        fan = rng.uniform(-0.6, 0.9, (3, 1))
        lines = [
            [beside, beside + [0.12 * sign, 0.1], mouth - [0, 0.12], mouth + [0, rng.uniform(0, 0.25)]],
            [mouth + [0, 0.08], mouth + [0, 0.15], mouth + [0.02 * sign, 0.22], mouth + [0.05 * sign, 0.3]],
            [eye + [-0.34 * sign, 0.1], eye + [-0.25 * sign, 0.2], eye + [-0.1 * sign, 0.2], eye + [0.03 * sign, 0.12]],
            [[middle + 0.06 * sign, y] for y in eye[1] - np.array([0.1, 0.15, 0.2, 0.27])],
            *(
                [eye + [0.06 * sign, 0.1 * f], *(eye + [step * sign, step * f] for step in (0.12, 0.18, 0.24))]
                for f in fan[:, 0]
            ),
        ]
        kept = np.array(lines)[rng.random(len(lines)) < 0.5]
        if len(kept):
            kept = kept + rng.normal(0, 0.012, kept.shape)
            bundle(scene, kept, np.ones(3), rng, width=(0.008, 0.035), canvas=canvas)
    if rng.random() < 0.4:
        low, high = p[[105, 334], 1].mean() - 0.08, p[10, 1] + 0.1
        across = np.linspace(-0.5, 0.5, 4) * rng.uniform(0.5, 1)
        for y in rng.uniform(high, max(low, high + 0.05), int(rng.integers(1, 4))):
            line = np.stack([middle + across, y + rng.normal(0, 0.015, 4)], 1)[None]
            bundle(scene, line, np.ones(3), rng, width=(0.008, 0.02), canvas=canvas)
    alpha = blurred(scene.smaller(canvas)[..., 3] * scene.hull, rng.uniform(0.01, 0.03) * scene.unit)
    scene.shade(1 - rng.uniform(0.2, 0.7) * alpha)


def _stains(scene: Scene, rng: np.random.Generator) -> None:
    """Freckles, moles, redness, birthmarks, and lines."""
    size = scene.size
    spots = np.clip(
        rng.uniform(1, 4) * (smooth_noise(rng, size, int(rng.choice([6, 25, 60]))) - rng.uniform(0.9, 2)), 0, 1
    )
    brown = np.clip(scene.skin * rng.uniform([0.5, 0.25, 0.2], [1.0, 0.7, 0.7]), 0, 1)
    scene.tint(brown, (spots * scene.hull * rng.uniform(0.3, 0.9)).astype(np.float32))


def repaint_background(scene: Scene, rng: np.random.Generator) -> None:
    """Another place behind the head, and clothes under it; the head is told from the plain wall by its colours."""
    if not scene.effects:
        return
    small = 44
    picture = cv2.resize(scene.picture, (small, small), interpolation=cv2.INTER_AREA)
    hull = cv2.resize(scene.hull, (small, small), interpolation=cv2.INTER_AREA)
    x, y = (cv2.resize(f, (small, small), interpolation=cv2.INTER_AREA) for f in (scene.x, scene.y))
    p = scene.points
    middle, half = (p[127] + p[356]) / 2, np.ptp(p[list(FACE_OVAL)], axis=0) / 2
    far = np.hypot((x - middle[0]) / (half[0] + 0.75), (y - p[:, 1].mean() + 0.3) / (half[1] + 0.95))
    marks = np.full((small, small), cv2.GC_PR_BGD, np.uint8)
    marks[(far < 0.8) | ((np.abs(x - p[152, 0] * 0.8) < 0.6) & (y > p[152, 1] - 0.5))] = cv2.GC_PR_FGD
    marks[hull > 0.5] = cv2.GC_FGD
    marks[(far > 1.12) & ~((np.abs(x) < 1.3) & (y > 0))] = cv2.GC_BGD
    if (marks == cv2.GC_BGD).sum() < 20:
        return
    bgd, fgd = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut((picture * 255).astype(np.uint8), marks, (0, 0, small, small), bgd, fgd, 1, cv2.GC_INIT_WITH_MASK)
    kept = ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).astype(np.float32)
    head = cv2.resize(cv2.GaussianBlur(kept, (0, 0), 0.8), (scene.size,) * 2, interpolation=cv2.INTER_CUBIC)
    head = np.maximum(np.clip((head - 0.5) * 4 + 0.5, 0, 1), scene.hull)
    scene.tint(_place(scene, rng), 1 - head)


def _place(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3): walls, things, foliage, in and out of focus."""
    size = scene.size
    place = any_colour(rng) + 0.12 * np.stack([smooth_noise(rng, size, 2)] * 3, -1)
    place = place.clip(0, 1).astype(np.float32)
    for _ in range(int(rng.integers(0, 14))):
        corners = (rng.uniform(-0.2, 1.2, 2) * size + rng.normal(0, 0.25 * size, (int(rng.integers(3, 6)), 2))).astype(
            np.int32
        )
        colour = tuple(float(v) for v in any_colour(rng))
        if rng.random() < 0.6:
            cv2.fillPoly(place, [cv2.convexHull(corners)], colour, cv2.LINE_AA)
        else:
            cv2.polylines(place, [corners], False, colour, int(rng.integers(1, 12)), cv2.LINE_AA)
    if rng.random() < 0.4:
        share = np.clip(0.5 + smooth_noise(rng, size, int(rng.integers(5, 50))), 0, 1)[..., None]
        place = place + 0.7 * share * (fabric(scene, rng) - place)
    return blurred(place.astype(np.float32), rng.uniform(0.3, 6))


def clothes(scene: Scene, rng: np.random.Generator) -> None:
    """Shoulders and a collar below the chin: they cover, far outside the face."""
    x, chin = scene.points[152] * [0.8, 1]
    top, wide = chin + rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.8)
    outline = [(x - wide, top - 0.12), (x - 0.3, top + 0.12), (x, top + rng.uniform(0.1, 0.6)), (x + 0.3, top + 0.12),
               (x + wide, top - 0.12), (x + 2.2, top + 0.5), (x + 2.6, top + 4), (x - 2.6, top + 4),
               (x - 2.2, top + 0.5)]  # fmt: skip
    alpha = scene.polygon(np.array(outline))
    scene.cast_shadow(alpha, rng, 0.05)
    scene.lay(fabric(scene, rng) * scene.rounded(alpha, 0.15, rng)[..., None], alpha)
