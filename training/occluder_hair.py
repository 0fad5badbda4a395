"""Hair round a face and over it: cut short, parted, hanging, curly, fringes of every length, loose strands.

Knows nothing of the morphable head: the skull is guessed from the landmarks of the face.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

from .occluder_canvas import SHIFT
from .occluder_scene import Scene, blurred, smooth_noise

NATURAL = np.array([(0.05, 0.04, 0.04), (0.1, 0.07, 0.055), (0.17, 0.11, 0.075), (0.27, 0.18, 0.12),
                    (0.4, 0.27, 0.17), (0.42, 0.2, 0.11), (0.58, 0.44, 0.28), (0.78, 0.64, 0.43), (0.88, 0.79, 0.62),
                    (0.5, 0.49, 0.48), (0.72, 0.71, 0.7), (0.9, 0.89, 0.88)])  # sRGB, dark to white  # fmt: skip


@dataclass(frozen=True)
class Skull:
    """Where the head is behind the landmarks, in eye distances."""

    left: float  # x of the outline in image left, at ear height
    right: float
    ear: float  # y
    crown: float  # y of the top
    hairline: float  # y of the mesh's upper end
    chin: float
    middle: float  # x

    def arc(self, turn: np.ndarray, volume: float) -> np.ndarray:
        """(N,) in [-1, 1], from the left ear over the crown to the right ear -> (N, 2) on the outline."""
        angle = turn * np.pi / 2
        centre = (self.left + self.right) / 2
        wide = (self.right - self.left) / 2 + volume
        return np.stack([centre + wide * np.sin(angle), self.ear + (self.crown - volume - self.ear) * np.cos(angle)], 1)


def skull_of(scene: Scene) -> Skull:
    p = scene.points
    left, right, top = p[127], p[356], p[10]
    yaw = float((p[4, 0] - (left[0] + right[0]) / 2) / max(right[0] - left[0], 0.3))
    return Skull(
        float(left[0]) - 0.2 - 0.5 * max(yaw, 0), float(right[0]) + 0.2 + 0.5 * max(-yaw, 0),
        float(left[1] + right[1]) / 2, float(top[1]) - 0.85, float(top[1]), float(p[152, 1]), float(top[0]),
    )  # fmt: skip


def hair_colour(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(3,) sRGB in [0, 1]: natural, dyed, or as light as the skin."""
    kind = rng.random()
    if kind < 0.08:
        return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.3, 0.95)))
    if kind < 0.3:
        return np.clip(scene.skin * np.exp(rng.normal(-0.1, 0.15) + rng.normal(0, 0.05, 3)), 0.03, 0.95)
    odds = np.array([5, 5, 4, 3, 2, 1, 1.5, 1.5, 1, 1, 1, 0.8])
    natural = NATURAL[rng.choice(len(NATURAL), p=odds / odds.sum())]
    return np.clip(natural * np.exp(rng.normal(0, 0.15)), 0.015, 0.97)


def bundle(
    scene: Scene, controls: np.ndarray, colour: np.ndarray, rng: np.random.Generator, *,
    width: tuple[float, float] = (0.008, 0.03), wave: float = 0.0, turns: float = 2.0, spread: float = 0.22,
    canvas: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Strands along cubic Bezier curves, on a canvas of `Scene.canvas`.

    controls: (N, 4, 2); width: thinnest and thickest, both eye distances; wave: how far locks swing; spread: of the
    strands' lightness, as a logarithm.
    """
    canvas = scene.canvas() if canvas is None else canvas
    s = np.linspace(0, 1, 20 if wave else 11)[None, :, None]
    a, b, c, d = (controls[:, i, None] for i in range(4))
    curves = (1 - s) ** 3 * a + 3 * s * (1 - s) ** 2 * b + 3 * s**2 * (1 - s) * c + s**3 * d
    if wave:
        ahead = np.gradient(curves, axis=1)
        across = np.stack([-ahead[..., 1], ahead[..., 0]], -1) / (np.linalg.norm(ahead, axis=-1, keepdims=True) + 1e-6)
        phase = rng.normal(0, 0.9, (len(controls), 1)) + turns * 2 * np.pi * s[..., 0]
        curves = curves + across * (wave * np.sin(phase) * np.minimum(1, 4 * s[..., 0]))[..., None]
    pixels = np.round((scene.frame.pixels(curves) - 0.5) * 2**SHIFT).astype(np.int32)
    # Neighbours share a lock's colour, and every strand has a little of its own.
    lock = np.sin(curves[:, 6, 0] * 11 + curves[:, 6, 1] * 4 + rng.uniform(0, 6))
    level = np.exp(spread * (0.6 * lock + rng.standard_normal(len(curves))))
    colours = np.clip(colour * level[:, None] * 255, 0, 255)
    thick = np.maximum(1, np.round(rng.uniform(*width, len(curves)) * scene.frame.unit)).astype(int)
    for curve, own, wide in zip(pixels, colours.tolist(), thick.tolist(), strict=True):
        # Thick lines need no smoothing on a canvas that is averaged down, and take a third of the time without.
        smoothing = cv2.LINE_AA if wide == 1 else cv2.LINE_8
        cv2.polylines(canvas, [curve], False, (*own, 255.0), wide, smoothing, SHIFT)
    return canvas


def lay_hair(scene: Scene, canvas: np.ndarray, rng: np.random.Generator, *, behind: np.ndarray | None = None) -> None:
    """Light a canvas of strands and lay it on; behind: (S, S), what it must not cover."""
    drawn = scene.smaller(canvas)
    alpha = drawn[..., 3] if behind is None else drawn[..., 3] * (1 - behind)
    colour = drawn[..., :3] / np.maximum(drawn[..., 3:], 1e-3)
    height = scene.y + np.float32(0.06) * smooth_noise(rng, scene.size, 9)
    top, deep = float(scene.points[10, 1]), float(rng.uniform(0.1, 0.35))
    sheen = float(rng.uniform(0, 0.8)) * np.exp(-(((height - top + float(rng.uniform(-0.2, 0.6))) / deep) ** 2))
    light = np.exp(0.5 * scene.side_light * scene.x) * (0.8 + sheen + 0.12 * smooth_noise(rng, scene.size, 6))
    colour = colour * light[..., None]
    if behind is None:
        scene.cast_shadow(alpha, rng)
    scene.lay(colour, alpha)


def hair_style(scene: Scene, rng: np.random.Generator, over: bool) -> None:
    """A whole head of hair. over: it may hang into the face; otherwise it keeps outside the landmarks' outline."""
    skull, colour = skull_of(scene), hair_colour(scene, rng)
    style = str(rng.choice(["short", "parted", "fringed", "curly", "back"], p=[0.27, 0.27, 0.22, 0.14, 0.1]))
    volume = rng.uniform(0.02, 0.14) if style in ("short", "back") else rng.uniform(0.04, 0.3)
    drop = rng.uniform(-0.05, 0.3) if over else rng.uniform(-0.3, -0.08)  # of the hairline, below the mesh's upper end
    long = rng.choice([0.1, rng.uniform(0.3, 1.4), 4.0], p=[0.25, 0.35, 0.4]) if style != "short" else 0.0
    wave, turns = (rng.uniform(0.01, 0.06), rng.uniform(1, 6)) if rng.random() < 0.5 else (0.0, 1.0)
    if style == "curly":
        _curls(scene, skull, colour, rng, drop, over)
        return
    if long > 0.5:
        _behind(scene, skull, colour * rng.uniform(0.5, 0.9), rng, volume, skull.ear + long, wave, turns)
    _scalp(scene, skull, colour * rng.uniform(0.55, 0.85), rng, volume, drop)
    if style in ("short", "back", "fringed"):
        _swept(scene, skull, colour, rng, volume, drop, rng.uniform(0.2, 0.6))
    if style in ("parted", "fringed"):
        intrusion = rng.uniform(0.0, 0.42) if over else rng.uniform(-0.16, -0.06)
        end = skull.ear + (long if style == "parted" else min(long, rng.uniform(0.2, 3)))
        front = drop if over else drop - 0.25
        curtain(
            scene, skull, colour, rng, volume, front, (intrusion, intrusion * rng.uniform(0.3, 1.2)), end, wave, turns
        )
    if style == "fringed" and over:
        fringe(scene, skull, colour, rng)


def _scalp(
    scene: Scene, skull: Skull, colour: np.ndarray, rng: np.random.Generator, volume: float, drop: float
) -> None:
    """Dense hair over the whole skull down to the hairline, with a ragged edge."""
    outer = skull.arc(np.linspace(-1.12, 1.12, 40), volume)
    oval = scene.points[[127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356]]
    lift = np.sin(np.linspace(0, np.pi, len(oval))) ** rng.uniform(0.25, 1)
    # At the temples the hair begins outside the mesh, in the middle as far down as `drop` says.
    line = oval + (oval - [skull.middle, skull.ear]) * rng.uniform(0.02, 0.1) + np.outer(lift, [0, drop])
    alpha = scene.polygon(np.concatenate([outer, line[::-1]]))
    ragged = blurred(alpha, 0.035 * scene.unit) + 0.16 * smooth_noise(rng, scene.size, (24, 60))
    alpha = np.clip((ragged - 0.5) / float(rng.uniform(0.15, 0.6)) + 0.5, 0, 1) * (
        blurred(alpha, 0.1 * scene.unit) > 0.08
    )
    grain = smooth_noise(rng, scene.size, (20, 110))
    painted = colour * (np.exp(0.2 * scene.side_light * scene.x) * (1 + 0.16 * grain))[..., None]
    scene.cast_shadow(alpha, rng, 0.04)
    scene.lay(painted, alpha.astype(np.float32))


def _swept(
    scene: Scene, skull: Skull, colour: np.ndarray, rng: np.random.Generator, volume: float, drop: float, length: float
) -> None:
    """Short strands from the hairline up and over the skull, to one side or back."""
    count = 420
    turn = rng.uniform(-1, 1, count)
    edge = np.interp(turn, np.linspace(-1, 1, 15), scene.points[
        [127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356], 1])  # fmt: skip
    outer = skull.arc(turn, volume)
    inner = np.stack([skull.middle + (outer[:, 0] - skull.middle) * 0.9, edge + drop * np.cos(turn * np.pi / 2)], 1)
    share = rng.uniform(0.05, 1, (count, 1)) ** 0.8
    root = inner + share * (outer - inner)
    lean = rng.uniform(-0.7, 0.7)
    away = (outer - inner) / (np.linalg.norm(outer - inner, axis=1, keepdims=True) + 1e-6)
    step = away * length * rng.uniform(0.5, 1, (count, 1)) * (1.1 - share)
    step = step + np.array([lean, 0]) * length * np.abs(np.cos(turn))[:, None] + rng.normal(0, 0.03, (count, 2))
    tip = root + step
    controls = np.stack([root, root + step * 0.3 + away * 0.05, root + step * 0.7 + away * 0.05, tip], 1)
    lay_hair(scene, bundle(scene, controls, colour, rng, width=(0.01, 0.035)), rng)


def curtain(
    scene: Scene, skull: Skull, colour: np.ndarray, rng: np.random.Generator, volume: float, drop: float,
    intrusion: tuple[float, float], end: float, wave: float, turns: float,
) -> None:  # fmt: skip
    """Hair from a parting down both sides, before the temples and cheeks.

    intrusion: how far it hangs into the face's left and right half, as a share of that half; end: y of its tips.
    """
    part = skull.middle + rng.normal(0, 0.25)
    canvas = scene.canvas()
    for sign, into, edge, outline in (
        (-1, intrusion[0], scene.points[234, 0], skull.left), (1, intrusion[1], scene.points[454, 0], skull.right)
    ):  # fmt: skip
        count = int(240 * (0.6 + 0.4 * min(end - skull.ear, 1.5)))
        v = np.sort(rng.uniform(0, 1, count))[::-1]  # 1 on the outline, 0 before the face; the inner lie on top
        half = abs(edge - skull.middle)
        inner = edge - sign * into * half
        outer = outline + sign * volume
        side = inner + v * (outer - inner)
        ends = end + rng.normal(0, 0.08, count) - 0.25 * np.abs(rng.standard_normal(count)) * (end < 2)
        flare = rng.uniform(-0.25, 0.35) * (ends - skull.ear) * 0.4
        front = skull.hairline + drop
        root_y = front + v * (skull.crown - volume - front) * 0.95
        root = np.stack([part + sign * 0.02 + rng.normal(0, 0.02, count), root_y], 1)
        # Hair that keeps out of the face first runs sideways, hair that hangs into it straight down.
        aside = 0.75 + 0.45 * v if into > 0 else np.full(count, 1.2)
        high = np.stack([part + (side - part) * aside, root_y - 0.1 + 0.12 * (1 - v) * (into > 0)], 1)
        low = np.stack(
            [side + sign * (0.08 if into > 0 else 0.2), skull.ear + 0.2 * (1 - v) + rng.normal(0, 0.05, count)], 1
        )
        tip = np.stack([side + sign * flare * rng.uniform(0.7, 1.1, count), ends], 1)
        bundle(scene, np.stack([root, high, low, tip], 1), colour, rng, width=(0.01, 0.045), wave=wave, turns=turns,
               canvas=canvas)  # fmt: skip
    lay_hair(scene, canvas, rng)


def fringe(scene: Scene, skull: Skull, colour: np.ndarray, rng: np.random.Generator) -> None:
    """Strands over the forehead: full or thin, straight, swept or from a parting aside, down to brows or nose."""
    count = int(rng.choice([25, 80, 260], p=[0.2, 0.3, 0.5]))
    place = rng.uniform(-1, 1, count)
    left, right = scene.points[54, 0], scene.points[284, 0]
    if rng.random() < 0.35:  # only one side
        place = np.abs(place) * rng.choice([-1.0, 1.0])
    x = (left + right) / 2 + place * (right - left) / 2
    length, sweep, arch = rng.uniform(-0.45, 0.3), rng.normal(0, 0.35), rng.uniform(-0.1, 0.35)
    root = np.stack([skull.middle + (x - skull.middle) * 0.75, skull.hairline - rng.uniform(0.1, 0.7, count)], 1)
    if rng.random() < 0.35:
        sweep = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.1)
        root[:, 0] = skull.middle - sweep * rng.uniform(0.2, 0.7) + rng.normal(0, 0.12, count)
    tip = np.stack([x + sweep, length + arch * place**2 - rng.gamma(1.3, 0.06, count)], 1)
    bulge = np.stack([(x - skull.middle) * 0.12 - 0.15 * sweep + rng.normal(0, 0.02, count), np.zeros(count)], 1)
    controls = np.stack([root, root + (tip - root) * 0.3 + bulge, root + (tip - root) * 0.7 + bulge, tip], 1)
    wave = rng.uniform(0, 0.04) if rng.random() < 0.4 else 0.0
    lay_hair(scene, bundle(scene, controls, colour, rng, width=(0.008, 0.04), wave=wave), rng)


def loose_strands(scene: Scene, rng: np.random.Generator) -> None:
    """A few thin strands or one lock, fallen into the face."""
    skull, colour = skull_of(scene), hair_colour(scene, rng)
    count, thin = (int(rng.integers(2, 14)), True) if rng.random() < 0.6 else (int(rng.integers(25, 70)), False)
    start = np.array([rng.uniform(skull.left, skull.right), skull.hairline - 0.2])
    finish = np.array([rng.uniform(-0.95, 0.95), rng.uniform(-0.1, skull.chin + 0.3)])
    scatter = 0.3 if thin else 0.06
    root = start + rng.normal(0, scatter * 0.5, (count, 2))
    tip = finish + rng.normal(0, scatter, (count, 2))
    side = rng.normal(0, 0.25) + rng.normal(0, 0.08, (count, 1))
    bend = np.concatenate([side, np.zeros((count, 1))], 1)
    controls = np.stack([root, root + (tip - root) * 0.33 + bend, root + (tip - root) * 0.67 + bend * 0.5, tip], 1)
    wave = rng.uniform(0.01, 0.06) if rng.random() < 0.5 else 0.0
    lay_hair(scene, bundle(scene, controls, colour, rng, width=(0.006, 0.02 if thin else 0.03), wave=wave), rng)


def _behind(
    scene: Scene, skull: Skull, colour: np.ndarray, rng: np.random.Generator, volume: float, end: float,
    wave: float, turns: float,
) -> None:  # fmt: skip
    """Long hair behind the face and beside the neck."""
    count = 320
    turn = rng.uniform(-1, 1, count)
    root = skull.arc(turn * 0.9, 0.5 * volume)
    side = skull.arc(np.where(turn < 0, -1.0, 1.0), volume)
    x = skull.middle + (side[:, 0] - skull.middle) * np.abs(turn) ** 0.4
    wide = rng.uniform(0.9, 1.3)
    low = np.stack([x, np.full(count, skull.ear + 0.3)], 1)
    tip = np.stack([skull.middle + (x - skull.middle) * wide, end + rng.normal(0, 0.12, count)], 1)
    controls = np.stack([root, (root + low) / 2 + (low - [skull.middle, skull.ear]) * 0.1, low, tip], 1)
    canvas = bundle(scene, controls, colour, rng, width=(0.02, 0.07), wave=wave, turns=turns)
    neck = np.array([[-0.62, 0], [0.62, 0], [0.62, 5], [-0.62, 5]]) + [scene.points[152, 0] * 0.8, skull.ear + 0.4]
    lay_hair(scene, canvas, rng, behind=np.maximum(scene.hull, scene.polygon(neck)))


def _curls(scene: Scene, skull: Skull, colour: np.ndarray, rng: np.random.Generator, drop: float, over: bool) -> None:
    """Curls of one size all round the skull."""
    volume, ring = rng.uniform(0.05, 0.55), rng.uniform(0.03, 0.13)
    _scalp(scene, skull, colour * 0.6, rng, volume * 0.8, drop)
    count = int(np.clip(26 / ring, 250, 700))
    turn = rng.uniform(-1.35, 1.35, count)
    outer = skull.arc(turn, volume)
    oval = scene.points[[234, 127, 54, 10, 284, 356, 454]]
    inner = np.stack([np.interp(turn, np.linspace(-1.35, 1.35, 7), oval[:, i]) for i in range(2)], 1)
    inner[:, 1] += drop * np.cos(np.clip(turn, -1, 1) * np.pi / 2)
    inner += (inner - [skull.middle, skull.ear]) * (0.02 if over else 0.14)
    share = rng.uniform(0, 1, (count, 1))
    middle = inner + share * (outer - inner)
    order = np.argsort(-share[:, 0])
    size = ring * rng.uniform(0.5, 1.2, (count, 1))
    spin = rng.uniform(0, 2 * np.pi, count)
    corners = [np.stack([np.cos(spin + t), np.sin(spin + t)], 1) * size for t in (0, 1.9, 3.8, 5.7)]
    controls = np.stack([middle + corner * (1, 1.6, 1.6, 1)[i] for i, corner in enumerate(corners)], 1)[order]
    lay_hair(scene, bundle(scene, controls, colour, rng, width=(0.012, 0.04), spread=0.28), rng)
