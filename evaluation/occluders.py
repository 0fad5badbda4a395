"""Things that stand in front of faces, drawn onto a photo: glasses, a fringe of hair, a hand.

Pure functions of a photo, the landmarks of its face and a random generator: nobody's pictures are in it. Everything is
drawn in a frame of its own, whose unit is the distance between the eyes, so it follows the head's size and roll.
Knows nothing of networks and of avatars.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from ..training.occluder_canvas import Frame, finger, line, pasted, sampled, strand

Occluder = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""(H, W, 3) float32 sRGB in [0, 1], (468, 2 or 3) landmarks in its pixels (centres at +0.5), generator ->
the photo with the occluder (H, W, 3) and the share of each pixel that it covers (H, W) float32 in [0, 1]."""

HAIR = ((28, 20, 17), (61, 40, 27), (104, 71, 46), (214, 184, 133))  # sRGB
SKIN = ((84, 52, 40), (150, 104, 80), (228, 184, 160))  # sRGB
FOREHEAD = (54, 103, 67, 109, 10, 338, 297, 332, 284)  # of the mesh's oval, from the right temple to the left
EARS = (127, 356)  # of the mesh's oval, right and left


def glasses(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark frame: a rim round each eye, the bridge, the temples to the ears. The lenses are clear. See `Occluder`."""
    thickness = rng.uniform(0.055, 0.07)
    height, square = rng.uniform(0.29, 0.35), rng.uniform(2.4, 3.4)
    colour = np.array([34, 28, 26]) + rng.uniform(-8, 8, 3)

    def draw(frame: Frame, canvas: np.ndarray) -> None:
        eyes = [frame.units(frame.points[list(eye)]) for eye in (RIGHT_EYE, LEFT_EYE)]
        widths = np.array([np.ptp(eye[:, 0]) for eye in eyes])
        inner, upper = [], -0.12
        for eye, width, sign, ear in zip(eyes, widths / widths.mean(), (-1, 1), EARS, strict=True):
            middle, half = eye.mean(0) + [0.03 * sign, 0.05], 0.41 * width
            turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
            bent = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** (2 / square)
            risen = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** (2 / square)
            narrowed = np.where(risen > 0, 1 - 0.1 * risen, 1)  # a lens is narrower below
            rim = middle + np.stack([half * bent * narrowed, height * risen], -1)
            outer = np.array([middle[0] + sign * half, middle[1] + upper])
            hinge = frame.units(frame.points[ear]) * [1.04, 1] - [0, 0.1]
            line(canvas, frame.pixels(np.stack([outer, hinge])), colour, thickness * 0.8 * frame.unit)
            line(canvas, frame.pixels(rim), colour, thickness * frame.unit, closed=True)
            light = rim[(risen < -0.75)] - [0, 0.25 * thickness]
            line(canvas, frame.pixels(light[light[:, 0].argsort()]), colour + 62, 0.14 * thickness * frame.unit)
            inner.append(np.array([middle[0] - sign * half, middle[1] + upper]))
        along = np.linspace(0, 1, 24)[:, None]
        bridge = (1 - along) * inner[0] + along * inner[1] - np.sin(np.pi * along) * [0, 0.07]
        line(canvas, frame.pixels(bridge), colour, thickness * 0.9 * frame.unit)

    return pasted(image, landmarks, draw)


def fringe(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Strands of one colour, from above the forehead down to just above or over the brows. See `Occluder`."""
    colour = np.array(HAIR[rng.integers(len(HAIR))], float)
    length, sweep = rng.uniform(-0.04, 0.16), rng.uniform(-0.45, 0.45)

    def draw(frame: Frame, canvas: np.ndarray) -> None:
        top = frame.units(frame.points[list(FOREHEAD)])
        brows = frame.units(frame.points[[*RIGHT_BROW[:5], *LEFT_BROW[:5]]])
        brow, left, right = brows[:, 1].mean(), top[0, 0], top[-1, 0]
        crown = top[:, 1].min()
        for layer, count in enumerate((140, 330)):
            for _ in range(count):
                place = rng.uniform(-1, 1)
                x = (left + right) / 2 + place * (right - left) / 2 * 0.98
                edge = np.interp(x, top[:, 0], top[:, 1])
                root = np.array([0.8 * x + rng.normal(0, 0.05), min(edge, crown + 0.35) - rng.gamma(3.0, 0.08)])
                end = brow + length + 0.16 * place**2 - rng.gamma(1.5, 0.05) - 0.12 * (1 - layer)
                tip = np.array([x + sweep * 0.5 + 0.1 * np.sin(9 * x) + rng.normal(0, 0.03), end])
                middle = (root + tip) / 2 + [0.12 * x + sweep * -0.12 + rng.normal(0, 0.03), -0.08]
                s = np.linspace(0, 1, 14)[:, None]
                curve = (1 - s) ** 2 * root + 2 * s * (1 - s) * middle + s**2 * tip
                own = colour * np.exp(rng.normal(0, 0.2)) * (1.0 if layer else 0.72)
                width = (0.03 if layer == 0 else rng.uniform(0.008, 0.018)) * frame.unit
                strand(canvas, frame.pixels(curve), own, width)

    return pasted(image, landmarks, draw)


def hand(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four fingers of another skin over one cheek and that corner of the mouth. See `Occluder`."""
    sign = float(rng.choice([-1.0, 1.0]))
    face = sampled(image, landmarks[[50, 280, 151, 205, 425]]).mean(0) * 255
    colour = max((np.array(skin, float) for skin in SKIN), key=lambda skin: float(np.abs(skin - face).sum()))
    grain = rng.standard_normal((64, 64)).astype(np.float32)
    lengths = rng.normal([1.15, 1.28, 1.2, 0.98], 0.03)

    def draw(frame: Frame, canvas: np.ndarray) -> None:
        noise = cv2.resize(grain, (frame.side, frame.side), interpolation=cv2.INTER_CUBIC)
        corner = frame.units(frame.points[61 if sign < 0 else 291])
        knuckles = np.array([sign * 1.5, corner[1] + 0.24]) + np.outer(np.arange(4) - 1.5, [sign * -0.05, 0.3])
        palm = np.array([sign * 2.15, corner[1] + 0.55])
        finger(canvas, frame, palm, knuckles.mean(0) + [sign * 0.25, 0], (0.68, 0.66), colour * 0.86, noise)
        # The middle fingers lie over their neighbours, as they do in a relaxed hand.
        for number in (3, 0, 2, 1):
            angle = 0.26 - 0.045 * number
            tip = knuckles[number] + lengths[number] * np.array([-sign * np.cos(angle), -np.sin(angle)])
            thick = 0.185 - 0.014 * abs(number - 1)
            finger(canvas, frame, knuckles[number], tip, (1.06 * thick, 0.86 * thick), colour, noise)
            back = np.array([sign * np.cos(angle), np.sin(angle)])
            nail = tip + back * 0.3 * thick
            pale = np.minimum(colour * 1.12 + [26, 16, 18], 250)
            finger(canvas, frame, nail, nail - back * 0.5 * thick, (0.5 * thick, 0.5 * thick), pale, noise)

    return pasted(image, landmarks, draw)


OCCLUDERS: dict[str, Occluder] = {"glasses": glasses, "fringe": fringe, "hand": hand}


def toned_like(painted: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """`painted` (H, W, 3) in the one tone of a monochrome photo (H, W, 3), both sRGB in [0, 1].

    The colour of every brightness is the photo's own, so grey stays grey and sepia stays sepia.
    """
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    level, bins = photo @ luma, 32
    index = (level * bins).astype(int).clip(0, bins - 1).ravel()
    count = np.bincount(index, minlength=bins)
    there = count > 0
    at = np.bincount(index, level.ravel(), bins)[there] / count[there]
    shift = [np.bincount(index, (photo[..., c] - level).ravel(), bins)[there] / count[there] for c in range(3)]
    grey = painted @ luma
    tone = np.stack([np.interp(grey, at, s) for s in shift], -1)
    return (grey[..., None] + tone).clip(0, 1).astype(np.float32)
