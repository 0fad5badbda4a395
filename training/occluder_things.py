"""What is held before a face or comes between it and the camera: hands, cups, telephones, paper, any shape at all."""

from __future__ import annotations

import cv2
import numpy as np

from .occluder_canvas import finger
from .occluder_scene import Scene, any_colour, blurred, fabric, skin_colour, smooth_noise

TARGETS = (50, 280, 205, 425, 13, 152, 149, 378, 127, 356, 234, 454, 105, 334, 4, 159, 386, 10)
"""Landmarks that fingertips touch: cheeks, mouth, chin, temples, brows, nose, eyes, forehead."""


def hand(scene: Scene, rng: np.random.Generator) -> None:
    """Fingers on the cheek, chin on the fist, a hand over the mouth, a fingertip at the temple."""
    target = scene.points[TARGETS[rng.integers(len(TARGETS))]] + rng.normal(0, 0.12, 2)
    sign = float(np.sign(target[0] + rng.normal(0, 0.3)) or 1.0)  # the side that the arm comes from
    rising = rng.uniform(-0.1, 1.4) if rng.random() < 0.85 else rng.uniform(-1.2, 0)
    toward = np.array([-sign * np.cos(rising), -np.sin(rising)])
    if rng.random() < 0.22:
        _fist(scene, target, toward, rng)
    else:
        _open_hand(scene, target, toward, rng)


def _open_hand(scene: Scene, target: np.ndarray, toward: np.ndarray, rng: np.random.Generator) -> None:
    aside = np.array([-toward[1], toward[0]])
    size, count = rng.uniform(0.8, 1.2), int(rng.choice([1, 2, 3, 4], p=[0.17, 0.13, 0.15, 0.55]))
    spread, gap = rng.uniform(-0.05, 0.16), rng.uniform(0.26, 0.36) * size
    slots = (np.arange(count) - (count - 1) / 2) * rng.choice([-1, 1])
    lengths = np.array([1.05, 1.2, 1.12, 0.85])[:count] * size * rng.uniform(0.75, 1.1)
    tips, knuckles = [], []
    for slot, length in zip(slots, lengths, strict=True):
        turned = toward + aside * slot * spread + rng.normal(0, 0.02, 2)
        tip = target + aside * slot * gap * (1 + spread) + toward * (length - lengths.max())
        tips.append(tip)
        knuckles.append(tip - turned / np.hypot(*turned) * length)
    base = np.mean(knuckles, 0)
    palm = base - toward * rng.uniform(0.55, 0.85) * size
    wide = (max(count, 3) - 0.6) / 2 * gap + 0.1 * size
    parts = [(palm, base - toward * 0.1 * size, (wide, wide * 0.95), False)]
    wrist = palm - toward * 1.6 * size
    parts.insert(0, (wrist, palm, (0.36 * size, 0.4 * size), False))
    if rng.random() < 0.4:
        root = palm + aside * wide * 0.8 * rng.choice([-1, 1])
        end = root + toward * rng.uniform(0.5, 0.9) * size + (root - palm) * rng.uniform(0.1, 0.8)
        parts.append((root, end, (0.2 * size, 0.15 * size), True))
    if count < 3:  # the other fingers are bent
        for slot in (slots.max() + 1, slots.max() + 2) if rng.random() < 0.5 else (slots.min() - 1, slots.min() - 2):
            knuckle = base + aside * slot * gap + toward * 0.12 * size
            parts.append((knuckle, knuckle - toward * 0.3 * size, (0.18 * size, 0.17 * size), False))
    for i in rng.permutation(count):
        thick = rng.uniform(0.15, 0.18) * size
        parts.append((knuckles[i], tips[i], (thick * 1.1, thick * 0.85), True))
    _lay_parts(scene, parts, rng)


def _fist(scene: Scene, target: np.ndarray, toward: np.ndarray, rng: np.random.Generator) -> None:
    aside = np.array([-toward[1], toward[0]])
    size = rng.uniform(0.8, 1.15)
    palm = target - toward * 0.55 * size
    parts = [(palm - toward * 1.8 * size, palm, (0.4 * size, 0.5 * size), False),
             (palm - aside * 0.25 * size, palm + aside * 0.25 * size, (0.5 * size, 0.5 * size), False)]  # fmt: skip
    for slot in np.arange(4) - 1.5:
        knuckle = target + aside * slot * 0.3 * size - toward * (0.1 + 0.03 * slot**2) * size
        parts.append((knuckle, knuckle - toward * rng.uniform(0.35, 0.5) * size, (0.19 * size, 0.17 * size), False))
    if rng.random() < 0.6:
        thumb = palm + aside * 0.55 * size * rng.choice([-1, 1])
        parts.append((thumb - toward * 0.4 * size, thumb + toward * 0.35 * size, (0.19 * size, 0.15 * size), True))
    _lay_parts(scene, parts, rng)


def _lay_parts(
    scene: Scene, parts: list[tuple[np.ndarray, np.ndarray, tuple[float, float], bool]], rng: np.random.Generator
) -> None:
    """Rounded cones in painting order, the last flag: it has a nail. Then light, and a sleeve or a glove at times."""
    frame, side = scene.photo_frame, scene.size  # a finger's edge is soft by itself
    canvas = np.zeros((side, side, 4), np.uint8)
    skin = skin_colour(scene, rng)
    if rng.random() < 0.07:
        skin = any_colour(rng)  # a glove
    grain = smooth_noise(rng, side, 30) + 0.5 * smooth_noise(rng, side, 110)
    colour = skin * 255 * rng.uniform(1.0, 1.2)
    nails = rng.random() < 0.8
    polish = any_colour(rng) * 255 if rng.random() < 0.25 else np.minimum(colour * 1.1 + [22, 10, 12], 250)
    for start, end, radius, nailed in parts:
        own = colour * np.exp(rng.normal(0, 0.05)) * (1 if nailed else 0.93)
        finger(canvas, frame, start, end, radius, own, grain)
        if nailed and nails:
            back = (start - end) / (np.hypot(*(start - end)) + 1e-6)
            nail = end + back * 0.25 * radius[1]
            finger(canvas, frame, nail, nail - back * 0.5 * radius[1], (0.55 * radius[1],) * 2, polish, grain)
    drawn = canvas.astype(np.float32) / 255
    alpha = drawn[..., 3]
    seen = drawn[..., :3] / np.maximum(alpha, 1e-3)[..., None]
    seen = np.clip(seen, 0, 1) ** rng.uniform(0.75, 1.1)
    light = np.exp(rng.normal(0.4, 0.3) * scene.side_light * scene.x + 0.1 * smooth_noise(rng, scene.size, 4))
    scene.cast_shadow(alpha, rng, rng.uniform(0.05, 0.15))
    scene.lay(seen * light[..., None], alpha)
    if rng.random() < 0.4:
        start, end = parts[0][0], parts[0][1]
        cuff = start + (end - start) * rng.uniform(0.2, 0.7)
        along = (end - start) / np.hypot(*(end - start))
        aside = np.array([-along[1], along[0]]) * rng.uniform(0.42, 0.6)
        sleeve = scene.polygon(
            np.stack([cuff + aside, cuff - aside, cuff - 3 * along - aside * 1.3, cuff - 3 * along + aside * 1.3])
        )
        scene.lay(fabric(scene, rng) * scene.rounded(sleeve, 0.1, rng)[..., None], sleeve)


def thing(scene: Scene, rng: np.random.Generator) -> None:
    """A microphone, a cup, a telephone, paper, a ball, a thin stick; with a hand that holds it, at times."""
    place = scene.points[rng.choice([13, 152, 17, 61, 291, 50, 280, 4])] + rng.normal(0, 0.25, 2)
    kind = str(rng.choice(["microphone", "cup", "telephone", "paper", "ball", "stick"]))
    angle = rng.normal(0, 0.5)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    size = rng.uniform(0.7, 1.4)

    def shape(*outline: tuple[float, float]) -> np.ndarray:
        return scene.polygon(place + (np.array(outline) * size) @ turn)

    def disc(x: float, y: float, wide: float, high: float) -> np.ndarray:
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        return scene.polygon(place + (np.stack([x + wide * np.cos(t), y + high * np.sin(t)], 1) * size) @ turn)

    def lay(alpha: np.ndarray, colour: np.ndarray, depth: float = 0.1) -> None:
        scene.cast_shadow(alpha, rng, 0.1)
        light = scene.rounded(alpha, depth, rng)[..., None] if depth else 1.0
        scene.lay(colour * light, alpha)

    if kind == "microphone":
        lay(
            shape((-0.14, 0.2), (0.14, 0.2), (0.09, 3), (-0.09, 3)),
            fabric(scene, rng, np.full(3, rng.uniform(0, 0.25))),
        )
        mesh = 1 + 0.3 * np.cos(scene.x * 90) * np.cos(scene.y * 90)
        lay(disc(0, 0, 0.3, 0.32), any_colour(rng) ** 1.5 * mesh[..., None])
    elif kind == "cup":
        lay(shape((-0.5, 0), (0.5, 0), (0.38, 1.2), (-0.38, 1.2)), fabric(scene, rng), 0.2)
        lay(disc(0, 0, 0.5, rng.uniform(0.04, 0.16)), any_colour(rng), 0.0)
    elif kind == "telephone":
        lay(
            shape((-0.45, -0.9), (0.45, -0.9), (0.45, 0.9), (-0.45, 0.9)),
            fabric(scene, rng, any_colour(rng) ** 1.7),
            0.03,
        )
        inside = shape((-0.41, -0.86), (0.41, -0.86), (0.41, 0.86), (-0.41, 0.86))
        if rng.random() < 0.5:
            shine = np.clip(0.1 + 0.15 * smooth_noise(rng, scene.size, 3), 0, 1)[..., None]
            scene.lay(np.array([0.05, 0.05, 0.06]) + shine, inside)
        for x, y in ((-0.28, -0.7), (-0.28, -0.5), (-0.1, -0.6)):
            scene.lay(np.full(3, 0.04), disc(x, y, 0.08, 0.08))
    elif kind == "paper":
        corners = np.array([(-1, -0.7), (1, -0.7), (1, 0.7), (-1, 0.7)]) + rng.normal(0, 0.12, (4, 2))
        alpha = shape(*corners)
        page = fabric(scene, rng, np.full(3, rng.uniform(0.75, 0.97))) if rng.random() < 0.6 else fabric(scene, rng)
        u = scene.x * np.sin(angle) + scene.y * np.cos(angle)
        print_ = (np.cos(2 * np.pi * u / 0.12) > 0.3) & (smooth_noise(rng, scene.size, (40, 70)) > -0.4)
        lay(alpha, page * (1 - rng.choice([0, 0.7]) * print_)[..., None], 0.0)
    elif kind == "ball":
        radius = rng.uniform(0.25, 0.7)
        lay(disc(0, 0, radius, radius), fabric(scene, rng), 0.3 * radius)
    else:
        wide, long = rng.uniform(0.02, 0.09), rng.uniform(0.6, 3)
        lay(shape((-wide, 0), (wide, 0), (wide, long), (-wide, long)), fabric(scene, rng), 0.03)
    if rng.random() < 0.35:
        _open_hand(scene, place + np.array([0, rng.uniform(0.5, 1)]) * size, np.array([rng.choice([-1, 1]), 0.2]), rng)


def any_shape(scene: Scene, rng: np.random.Generator) -> None:
    """Blots, polygons, bars, bands, letters: any outline with any texture, sharp or out of focus."""
    middle = rng.uniform([-0.9, scene.points[10, 1]], [0.9, scene.points[152, 1]])
    kind = rng.random()
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    if kind < 0.45:  # a blot
        radius = rng.uniform(0.12, 0.75)
        bumps = sum(rng.normal(0, 0.35 / k) * np.cos(k * t + rng.uniform(0, 6)) for k in range(1, 7))
        outline = middle + (radius * np.exp(bumps))[:, None] * np.stack(
            [np.cos(t), np.sin(t) * rng.uniform(0.4, 1.4)], 1
        )
        alpha = scene.polygon(outline)
    elif kind < 0.65:  # a polygon
        corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        reach = rng.uniform(0.2, 1.0, len(corners))
        alpha = scene.polygon(middle + reach[:, None] * np.stack([np.cos(corners), np.sin(corners)], 1))
    elif kind < 0.92:  # bars, a fence, a band
        angle, wide = rng.uniform(0, np.pi), rng.uniform(0.02, 0.3)
        away = (scene.x - middle[0]) * np.cos(angle) + (scene.y - middle[1]) * np.sin(angle)
        if rng.random() < 0.4:
            pitch = wide * rng.uniform(2.5, 8)
            away = (away + pitch / 2) % pitch - pitch / 2
        alpha = np.clip((wide / 2 - np.abs(away)) * scene.unit + 0.5, 0, 1)
    else:  # letters over the photo
        layer = np.zeros((scene.size, scene.size), np.uint8)
        text = "".join(chr(c) for c in rng.integers(48, 91, int(rng.integers(3, 14))))
        for _ in range(int(rng.integers(1, 4))):
            at = (int(rng.integers(-30, scene.size // 2)), int(rng.integers(30, scene.size - 20)))
            cv2.putText(layer, text, at, int(rng.integers(0, 8)), float(rng.uniform(0.5, 2)), 255,
                        int(rng.integers(1, 5)), cv2.LINE_AA)  # fmt: skip
        alpha = layer.astype(np.float32) / 255 * np.float32(rng.uniform(0.35, 1))
    if rng.random() < 0.2:
        alpha = blurred(alpha.astype(np.float32), rng.uniform(1, 5))
    texture = fabric(scene, rng, skin_colour(scene, rng) if rng.random() < 0.3 else None)
    if kind < 0.65:
        texture = texture * scene.rounded(alpha.astype(np.float32), rng.uniform(0.03, 0.2), rng)[..., None]
        scene.cast_shadow(alpha.astype(np.float32), rng, rng.uniform(0.03, 0.15))
    scene.lay(texture, alpha.astype(np.float32))
