"""What people wear on a face or round it: glasses and sunglasses, hats, scarves, masks.

Recipes for training, wider than the evaluation's and with nothing in common with them but the canvas.
"""

from __future__ import annotations

import colorsys

import numpy as np

from ..models.landmark_indices import FACE_OVAL, LEFT_EYE, RIGHT_EYE
from .occluder_canvas import line
from .occluder_hair import Skull, skull_of
from .occluder_scene import Scene, any_colour, blurred, fabric, sigmoid, smooth_noise


def glasses(scene: Scene, rng: np.random.Generator) -> None:
    """Thin wire, half rim, rimless or thick plastic; clear lenses with reflections, or dark ones.

    Half of the thin ones are thinner than a pixel of a small photo, or hardly differ from the skin behind them.
    """
    kind = str(rng.choice(["wire", "half", "rimless", "plastic", "tortoise"], p=[0.3, 0.12, 0.1, 0.33, 0.15]))
    dark_lens = rng.random() < 0.3
    lenses = _lens_outlines(scene, rng)
    metal = [(0.85, 0.68, 0.35), (0.78, 0.78, 0.8), (0.2, 0.2, 0.21), (0.7, 0.5, 0.4)]
    if kind in ("wire", "half", "rimless"):
        colour, thick = np.array(metal[rng.integers(4)]) * rng.uniform(0.6, 1.1), rng.uniform(0.014, 0.04)
        if rng.random() < 0.5:
            colour = colour + rng.uniform(0, 0.9) * (scene.skin * np.exp(rng.normal(0, 0.35)) - colour)
            thick *= rng.uniform(0.5, 1)
    else:
        colour = np.array([0.3, 0.17, 0.08]) if kind == "tortoise" else any_colour(rng) ** rng.uniform(1, 3)
        thick = rng.uniform(0.05, 0.15)
    masks = [scene.polygon(outline) for outline in lenses]
    if dark_lens:
        _dark_lenses(scene, masks, rng)
    elif rng.random() < 0.6:
        _reflections(scene, masks, rng)

    frame, unit, canvas = scene.frame, scene.frame.unit, scene.canvas()
    painted = colour * 255
    inner, outer = [], []
    height = rng.uniform(-0.5, 0.1)  # of the bridge and of the temples, share of the lens's half height
    for number, (outline, sign) in enumerate(zip(lenses, (-1, 1), strict=True)):
        middle, half = outline.mean(0), np.ptp(outline, axis=0) / 2
        upper = outline[outline[:, 1] < middle[1] + half[1] * rng.uniform(-0.2, 0.3)]
        if kind == "half":
            line(canvas, frame.pixels(upper[np.argsort(upper[:, 0])]), painted, thick * 1.3 * unit)
        elif kind != "rimless":
            line(canvas, frame.pixels(outline), painted, thick * unit, closed=True)
            if kind in ("plastic", "tortoise") and rng.random() < 0.6:  # heavier brows
                line(canvas, frame.pixels(upper[np.argsort(upper[:, 0])]), painted, thick * 1.5 * unit)
        elif not dark_lens:
            line(canvas, frame.pixels(outline), painted * 0.5 + 90, 0.008 * unit, closed=True)
        inner.append(middle - [sign * half[0], -height * half[1]])
        outer.append(middle + [sign * half[0], height * half[1]])
        ear = scene.points[(127, 356)[number]] * [1.05, 1] - [0, rng.uniform(0, 0.14)]
        line(
            canvas,
            frame.pixels(np.stack([outer[-1], ear])),
            painted * 0.9,
            max(thick * rng.uniform(0.6, 1.2), 0.02) * unit,
        )
        if kind == "rimless":
            for screw in (inner[-1] + [sign * 0.05, 0], outer[-1] - [sign * 0.05, 0]):
                line(canvas, frame.pixels(np.stack([screw, screw + [0.03, 0]])), painted, 0.03 * unit)
        if kind in ("wire", "half", "rimless"):  # nose pad
            pad = inner[-1] + np.array([[0, 0.02], [-sign * 0.05, 0.12], [-sign * 0.03, 0.18]])
            line(canvas, frame.pixels(pad), painted * 0.8 + 40, 0.5 * thick * unit)
    along = np.linspace(0, 1, 16)[:, None]
    for rise in (0.0, rng.uniform(0.1, 0.22)) if rng.random() < 0.2 else (0.0,):
        bridge = (
            (1 - along) * inner[0] + along * inner[1] - np.sin(np.pi * along) * [0, rng.uniform(0, 0.09)] - [0, rise]
        )
        line(canvas, frame.pixels(bridge), painted, thick * rng.uniform(0.7, 1.2) * unit)
    drawn = scene.smaller(canvas)
    alpha = drawn[..., 3]
    seen = drawn[..., :3] / np.maximum(alpha, 1e-3)[..., None]
    if kind == "tortoise":
        spots = np.clip(0.5 + 1.5 * smooth_noise(rng, scene.size, int(rng.integers(25, 60))), 0, 1)[..., None]
        seen = seen * (1 - spots) + spots * np.array([0.62, 0.36, 0.13])
    glint = np.clip(smooth_noise(rng, scene.size, int(rng.integers(8, 25))), 0, 2)
    seen = seen * (1 + 0.12 * smooth_noise(rng, scene.size, 20))[..., None] + (rng.uniform(0, 0.3) * glint)[..., None]
    scene.cast_shadow(alpha, rng, 0.07)
    scene.lay(seen, alpha)


def _lens_outlines(scene: Scene, rng: np.random.Generator) -> list[np.ndarray]:
    """(60, 2) eye distances round the right and the left eye: round, oval, square, drop-shaped or cat's eyes."""
    square, wide, high = rng.uniform(1.7, 5), rng.uniform(0.34, 0.5), rng.uniform(0.19, 0.42)
    droop, lift = rng.normal(0, 0.12), rng.normal(0, 0.1)
    place, low = rng.uniform(-0.02, 0.06), rng.uniform(-0.02, 0.14)
    if rng.random() < 0.2:
        wide = high = rng.uniform(0.3, 0.42)
        square, droop, lift = 2.0, 0.0, 0.0
    eyes = [scene.points[list(eye)] for eye in (RIGHT_EYE, LEFT_EYE)]
    widths = np.array([np.ptp(eye[:, 0]) for eye in eyes])
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    bent = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** (2 / square)
    risen = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** (2 / square)
    outlines = []
    for eye, narrowing, sign in zip(eyes, np.sqrt(widths / widths.mean()), (-1, 1), strict=True):
        across = sign * bent  # 1 at the outer end
        x = bent * np.where(risen > 0, 1 - 0.12 * risen, 1) + droop * sign * np.maximum(risen, 0)
        y = risen - lift * across * 2 * (risen < 0.5)
        outlines.append(eye.mean(0) + [place * sign, low] + np.stack([wide * narrowing * x, high * y], 1))
    return outlines


def _dark_lenses(scene: Scene, masks: list[np.ndarray], rng: np.random.Generator) -> None:
    """Black, brown, coloured, graduated or mirroring."""
    tone = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.02, 0.3)))
    dense = rng.uniform(0.55, 1.0)
    graduated = rng.uniform(0, 0.9) if rng.random() < 0.4 else 0.0
    mirror = rng.random() < 0.25
    sky = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.4, 1)))
    for mask in masks:
        y = scene.y - np.average(scene.y, weights=mask + 1e-9)
        alpha = mask * dense * np.clip(1 - graduated * (0.3 + 1.6 * y), 0, 1)
        colour = np.broadcast_to(tone, (*mask.shape, 3))
        if mirror:
            alpha = mask * rng.uniform(0.8, 1)
            share = sigmoid(-25 * (y + 0.1 * smooth_noise(rng, scene.size, 12)))
            colour = tone + share[..., None] * (sky - tone)
        scene.lay(colour, alpha.astype(np.float32))
    if rng.random() < 0.7:
        _reflections(scene, masks, rng)


def _reflections(scene: Scene, masks: list[np.ndarray], rng: np.random.Generator) -> None:
    """Windows and lamps on the lenses: slanted bands, blots, a veil."""
    white = np.clip(np.array([0.92, 0.95, 1.0]) * rng.uniform(0.75, 1.05) + rng.normal(0, 0.05, 3), 0, 1)
    if rng.random() < 0.2:
        white = np.array(colorsys.hsv_to_rgb(rng.uniform(0.3, 0.8), 0.45, 0.9))  # a coating
    strength = rng.uniform(0.25, 0.95)
    kind = rng.random()
    slant, offset, wide = rng.uniform(-1.5, 1.5), rng.uniform(-0.25, 0.25), rng.uniform(0.03, 0.25)
    for mask in masks:
        middle = [np.average(field, weights=mask + 1e-9) for field in (scene.x, scene.y)]
        x, y = scene.x - middle[0], scene.y - middle[1]
        if kind < 0.45:
            shape = np.clip((wide - np.abs(x + slant * y - offset)) / 0.03 + 0.5, 0, 1)
        elif kind < 0.8:
            shape = np.clip((wide - np.hypot(x - offset, 1.3 * (y + 0.12))) / rng.uniform(0.02, 0.12) + 0.5, 0, 1)
        else:
            shape = np.clip(0.4 + 0.5 * smooth_noise(rng, scene.size, 7), 0, 1)
        scene.lay(white, (mask * shape * strength).astype(np.float32))


def headwear(scene: Scene, rng: np.random.Generator) -> None:
    """A cap, a brimmed hat, a knitted hat, a headband, or cloth round the whole head."""
    skull = skull_of(scene)
    kind = rng.random()
    if kind < 0.22:
        _cap(scene, skull, rng)
    elif kind < 0.4:
        _brimmed_hat(scene, skull, rng)
    elif kind < 0.58:
        _knitted_hat(scene, skull, rng)
    elif kind < 0.7:
        _headband(scene, skull, rng)
    else:
        _wrapped_head(scene, skull, rng)


def _lay_cloth(
    scene: Scene, alpha: np.ndarray, rng: np.random.Generator, colour: np.ndarray | None = None, depth: float = 0.12,
    shadow: float = 0.1,
) -> None:  # fmt: skip
    cloth = fabric(scene, rng, colour) * scene.rounded(alpha, depth, rng)[..., None]
    scene.cast_shadow(alpha, rng, shadow)
    scene.lay(cloth, alpha)


def _dome(skull: Skull, edge: np.ndarray, volume: float) -> np.ndarray:
    """The outline of a hat's crown that ends in `edge` (N, 2), from left to right."""
    return np.concatenate([skull.arc(np.linspace(-0.85, 0.85, 30), volume), edge[::-1]])


def _band_curve(skull: Skull, height: float, sag: float, past: float = 0.05) -> np.ndarray:
    """(20, 2) from left to right across the forehead at y = height, `sag` lower at the middle."""
    x = np.linspace(skull.left - past, skull.right + past, 20)
    across = np.linspace(-1, 1, 20)
    return np.stack([x, height + sag * (1 - across**2)], 1)


def _forehead(scene: Scene, skull: Skull, rng: np.random.Generator) -> float:
    """A y between the mesh's upper end and the brows."""
    return float(skull.hairline + rng.uniform(-0.15, 0.75) * (scene.points[[105, 334], 1].mean() - skull.hairline))


def _cap(scene: Scene, skull: Skull, rng: np.random.Generator) -> None:
    height, colour = _forehead(scene, skull, rng), any_colour(rng)
    edge = _band_curve(skull, height, rng.uniform(-0.12, 0.1))
    _lay_cloth(scene, scene.polygon(_dome(skull, edge, rng.uniform(0.02, 0.2))), rng, colour)
    lean, long, wide = rng.normal(0, 0.25), rng.uniform(0.15, 0.6), rng.uniform(0.75, 1.15)
    t = np.linspace(0, np.pi, 30)
    half = (skull.right - skull.left) / 2 * wide
    middle = (skull.right + skull.left) / 2 + lean
    brim = np.stack([middle + half * np.cos(t), height - 0.02 + long * np.sin(t) ** 0.8], 1)
    upper = np.stack([middle + half * np.cos(t), height - rng.uniform(0, 0.15) - 0.1 * np.sin(t)], 1)
    alpha = scene.polygon(np.concatenate([brim, upper[::-1]]))
    _under_brim(scene, height + long, rng)
    _lay_cloth(scene, alpha, rng, colour if rng.random() < 0.7 else None, 0.06, 0.25)


def _under_brim(scene: Scene, bottom: float, rng: np.random.Generator) -> None:
    """The shadow that a brim throws on the face below it."""
    if rng.random() < 0.7:
        deep, sharp = rng.uniform(0.05, 0.7), rng.uniform(0.02, 0.2)
        edge = (scene.y - bottom - deep + 0.12 * scene.x**2 + rng.normal(0, 0.2) * scene.x) / sharp
        scene.shade(1 - rng.uniform(0.2, 0.65) * sigmoid(-edge))


def _brimmed_hat(scene: Scene, skull: Skull, rng: np.random.Generator) -> None:
    height, colour = _forehead(scene, skull, rng), any_colour(rng)
    t = np.linspace(0, 2 * np.pi, 60)
    half = (skull.right - skull.left) / 2
    middle, wide, tall = (skull.right + skull.left) / 2, half * rng.uniform(1.25, 2.4), rng.uniform(0.1, 0.4)
    tilt = rng.normal(0, 0.1)
    brim = np.stack([middle + wide * np.cos(t), height - 0.2 + tall * np.sin(t) + tilt * np.cos(t)], 1)
    _under_brim(scene, height - 0.2 + tall, rng)
    _lay_cloth(scene, scene.polygon(brim), rng, colour, 0.05, 0.3)
    edge = _band_curve(skull, height - 0.3, 0.16)
    _lay_cloth(scene, scene.polygon(_dome(skull, edge, rng.uniform(0.1, 0.4))), rng, colour)
    band = np.concatenate([edge, edge[::-1] - [0, rng.uniform(0.1, 0.25)]])
    _lay_cloth(scene, scene.polygon(band), rng, None, 0.03)


def _knitted_hat(scene: Scene, skull: Skull, rng: np.random.Generator) -> None:
    height, colour = _forehead(scene, skull, rng), any_colour(rng)
    edge = _band_curve(skull, height + rng.uniform(-0.05, 0.35), rng.uniform(-0.35, 0.02))
    _lay_cloth(scene, scene.polygon(_dome(skull, edge, rng.uniform(0.05, 0.4))), rng, colour)
    if rng.random() < 0.6:
        band = np.concatenate([edge, edge[::-1] - [0, rng.uniform(0.2, 0.4)]])
        alpha = scene.polygon(band + (band - [skull.middle, 0]) * [0.04, 0])
        ribs = 1 - 0.25 * (np.cos(2 * np.pi * scene.x / rng.uniform(0.04, 0.12)) > 0)
        cloth = fabric(scene, rng, colour) * (ribs * scene.rounded(alpha, 0.08, rng))[..., None]
        scene.lay(cloth, alpha)


def _headband(scene: Scene, skull: Skull, rng: np.random.Generator) -> None:
    height = _forehead(scene, skull, rng)
    edge = _band_curve(skull, height, rng.uniform(-0.2, 0.1))
    band = np.concatenate([edge, edge[::-1] - [0, rng.uniform(0.08, 0.5)]])
    _lay_cloth(scene, scene.polygon(band), rng, None, 0.06)


def _wrapped_head(scene: Scene, skull: Skull, rng: np.random.Generator) -> None:
    """A headscarf, a hood or a helmet: everything outside an opening round the face."""
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    oval = scene.points[list(FACE_OVAL)]
    middle = (oval.max(0) + oval.min(0)) / 2
    half = np.ptp(oval, axis=0) / 2 * rng.uniform([0.78, 0.8], [1.12, 1.12])
    shift = rng.uniform([-0.12, -0.15], [0.12, 0.12])
    square = rng.uniform(1.8, 2.8)
    bent = [np.sign(f(t)) * np.abs(f(t)) ** (2 / square) for f in (np.cos, np.sin)]
    opening = scene.polygon(middle + shift + np.stack([half[0] * bent[0], half[1] * bent[1]], 1))
    volume, long = rng.uniform(0.1, 0.5), rng.uniform(0.2, 2.5)
    arc = skull.arc(np.linspace(-1, 1, 40), volume)
    wide = rng.uniform(0.6, 1.5)
    foot = [[skull.middle + (arc[i, 0] - skull.middle) * wide, skull.chin + long] for i in (-1, 0)]
    alpha = np.clip(scene.polygon(np.concatenate([arc, foot])) - opening, 0, 1)
    _lay_cloth(scene, alpha, rng, None, rng.uniform(0.05, 0.25), 0.15)


def face_cover(scene: Scene, rng: np.random.Generator) -> None:
    """A surgical, moulded or cloth mask over mouth and nose, or a scarf."""
    if rng.random() < 0.35:
        _scarf(scene, rng)
        return
    p = scene.points
    jaw = p[[234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454]]
    first = int(rng.integers(0, 4))
    lower = jaw[first : len(jaw) - first]
    middle = lower.mean(0)
    lower = middle + (lower - middle) * rng.uniform(0.9, 1.05)
    top = p[[4, 195, 197, 6]][rng.choice(4, p=[0.2, 0.35, 0.3, 0.15])] * [1, 1] + [0, rng.normal(0, 0.03)]
    if rng.random() < 0.12:
        top = p[2]  # worn below the nose
    right, left = lower[-1], lower[0]
    s = np.linspace(0, 1, 14)[:, None]
    peak = rng.uniform(0.6, 1.1)
    upper = np.concatenate([right + s * (top - right) + np.sin(np.pi * s) * [0, 0.06 * peak],
                            top + s * (left - top) + np.sin(np.pi * s) * [0, 0.06 * peak]])  # fmt: skip
    alpha = scene.polygon(np.concatenate([lower, upper]))
    typical = [(0.62, 0.8, 0.88), (0.93, 0.94, 0.95), (0.08, 0.08, 0.09), (0.75, 0.85, 0.8)]
    colour = np.array(typical[rng.integers(4)]) if rng.random() < 0.65 else None
    pleats = 1 - 0.16 * (np.cos(2 * np.pi * scene.y / rng.uniform(0.2, 0.35) + 0.4 * scene.x**2) > 0.7)
    ridge = 1 - rng.uniform(0, 0.25) * np.tanh((scene.x - top[0]) / 0.5) * np.sign(-scene.side_light + 0.01)
    canvas, frame = scene.canvas(), scene.frame
    for corner, ear in ((left, p[127]), (right, p[356])):
        loop = np.stack([corner + (lower[len(lower) // 2] - corner) * 0.03, ear * [1.06, 1]])
        line(canvas, frame.pixels(loop), np.full(3, rng.uniform(150, 250)), 0.03 * frame.unit)
    straps = scene.smaller(canvas)
    scene.lay(straps[..., :3] / np.maximum(straps[..., 3:], 1e-3), straps[..., 3])
    cloth = fabric(scene, rng, colour) * (ridge * scene.rounded(alpha, rng.uniform(0.08, 0.3), rng))[..., None]
    if rng.random() < 0.6:
        cloth = cloth * pleats[..., None]
    scene.cast_shadow(alpha, rng, 0.05)
    scene.lay(cloth, alpha)


def _scarf(scene: Scene, rng: np.random.Generator) -> None:
    skull = skull_of(scene)
    mouth, nose = scene.points[13, 1], scene.points[195, 1]
    height = rng.uniform(nose, skull.chin + 0.1) if rng.random() < 0.6 else rng.uniform(mouth, skull.chin)
    x = np.linspace(skull.left - 0.3, skull.right + 0.3, 24)
    across = (x - skull.middle) / (skull.right - skull.left) * 2
    rise, wrinkles = rng.uniform(-0.35, 0.2), rng.normal(0, 0.03, 24)
    edge = np.stack([x, height + rise * across**2 + rng.normal(0, 0.1) * across + wrinkles], 1)
    foot = np.array([[skull.right + 0.6, skull.chin + 3], [skull.left - 0.6, skull.chin + 3]])
    alpha = blurred(scene.polygon(np.concatenate([edge, foot])), 0.6)
    folds = 1 + 0.2 * np.sin(scene.y * rng.uniform(8, 22) + 2 * smooth_noise(rng, scene.size, 5))
    cloth = fabric(scene, rng) * (folds * scene.rounded(alpha, 0.12, rng))[..., None]
    scene.cast_shadow(alpha, rng, 0.1)
    scene.lay(cloth, alpha)
