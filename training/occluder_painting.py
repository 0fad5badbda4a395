"""Pictures for a network that finds what hides a face: anything painted over a photo, and how much of each pixel it is.

Hair, glasses, hands, hats, masks, held things and any shape at all, over faces with shadows and make-up that hide
nothing, then spoilt as photographs are. Independent of the occluders that the evaluation measures with. Pure functions
of an image, its landmarks and a random generator; knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from . import occluder_things, occluder_wear
from .occluder_hair import hair_style, loose_strands
from .occluder_hard_negatives import clothes, paint_harmless, repaint_background
from .occluder_scene import LUMA, Scene, blurred, smooth_noise

Family = Callable[[Scene, np.random.Generator], None]

FAMILIES: dict[str, tuple[float, Family]] = {
    "hair": (0.2, lambda scene, rng: hair_style(scene, rng, over=True)),
    "strands": (0.09, loose_strands),
    "headwear": (0.14, occluder_wear.headwear),
    "cover": (0.09, occluder_wear.face_cover),
    "glasses": (0.24, occluder_wear.glasses),
    "hand": (0.16, occluder_things.hand),
    "thing": (0.07, occluder_things.thing),
    "shape": (0.08, occluder_things.any_shape),
}
"""Name -> (how often, painter), in painting order: what comes later lies nearer to the camera."""

CLEAR = 0.2  # share of pictures in which nothing hides the face
COUNTS = (0.62, 0.28, 0.1)  # of one, two and three families together
BALD = 0.12  # share of the faces with nothing over them that get no hair round them either


def choose_families(rng: np.random.Generator) -> tuple[str, ...]:
    """Which families hide the face, in painting order; none in a fifth of all draws."""
    if rng.random() < CLEAR:
        return ()
    odds = np.array([share for share, _ in FAMILIES.values()])
    drawn = rng.choice(len(odds), int(rng.choice([1, 2, 3], p=COUNTS)), replace=False, p=odds / odds.sum())
    return tuple(np.array(list(FAMILIES))[np.sort(drawn)].tolist())


def paint_occluders(
    image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A photo of a bare face -> a picture of it as people are, spoilt as photographs are, and what covers it.

    Args:
        image: (S, S, 3) float32 sRGB in [0, 1].
        landmarks: (468, 2) px, pixel centres at +0.5.
        rng: the only source of chance.

    Returns:
        picture (S, S, 3) float32 sRGB in [0, 1], and the share of each pixel (S, S) float32 in [0, 1] that shows
        neither the face nor what was behind it.
    """
    picture, coverage = painted(image, landmarks, rng, choose_families(rng))
    return photographed(picture, rng, monochrome=is_grey(image)), coverage


def painted(
    image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator, families: tuple[str, ...], *,
    effects: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """`paint_occluders` before the camera; effects: False changes no pixel that is not covered.

    With no families the face gets hair round it at most.
    """
    scene = Scene(image, landmarks, effects=effects)
    paint_harmless(scene, rng)
    if rng.random() < 0.5:
        repaint_background(scene, rng)
    if rng.random() < 0.5:
        clothes(scene, rng)
    if "hair" not in families and rng.random() >= BALD:
        hair_style(scene, rng, over=False)
    for name in families:
        FAMILIES[name][1](scene, rng)
    return scene.picture.clip(0, 1), scene.coverage.clip(0, 1)


def is_grey(image: np.ndarray) -> bool:
    """Whether a photo (S, S, 3) has no colours but noise: what is painted on it must have none either."""
    return float(np.ptp(cv2.blur(image, (5, 5)), axis=-1).mean()) < 0.02


def photographed(picture: np.ndarray, rng: np.random.Generator, *, monochrome: bool = False) -> np.ndarray:
    """(S, S, 3) sRGB in [0, 1] -> the same as a camera, an old print or a small file shows it.

    monochrome: True for always; otherwise two of five lose their colours.
    """
    image, size = picture.astype(np.float32), len(picture)
    if rng.random() < 0.4:
        exposure, contrast = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.2))
        image = ((image * exposure - 0.45) * contrast + 0.45).clip(0, 1)
    image = image.clip(0, 1) ** np.float32(np.exp(rng.normal(0, 0.15)))
    if rng.random() < 0.5:
        image = image * np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    if rng.random() < 0.4 or monochrome:
        image = _monochrome(image, rng)
    if rng.random() < 0.15:
        y, x = np.mgrid[0:size, 0:size] / size - 0.5
        image = image * (1 - rng.uniform(0.2, 1.2) * (x**2 + y**2))[..., None].astype(np.float32)
    if rng.random() < 0.5:
        image = blurred(image, rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        small = int(size * rng.uniform(0.35, 0.9))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:
        noise = rng.standard_normal(image.shape[:2] if rng.random() < 0.4 else image.shape, np.float32)
        strength = np.float32(rng.gamma(1.3, 0.012) * (0.4 + image.mean()))
        image = image + strength * (noise if noise.ndim == 3 else noise[..., None])
    if rng.random() < 0.06:  # scratches and stains of an old print
        image = image + 0.03 * smooth_noise(rng, size, int(rng.integers(2, 60)))[..., None]
    image = image.clip(0, 1)
    if rng.random() < 0.5:
        pixels = (image[..., ::-1] * 255 + 0.5).astype(np.uint8)
        _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))])
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None
        image = decoded[..., ::-1].astype(np.float32) / 255
    return np.ascontiguousarray(image, np.float32)


def _monochrome(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey, as panchromatic or blue-sensitive film sees it; at times toned."""
    weights = rng.dirichlet(LUMA * 12).astype(np.float32)
    grey = (image @ weights)[..., None]
    if rng.random() < 0.3:
        tone = np.array([1.0, rng.uniform(0.8, 0.98), rng.uniform(0.55, 0.92)], np.float32)
        grey = grey ** (1 / np.maximum(tone, 0.3)) * rng.uniform(0.85, 1.0)
    return np.broadcast_to(grey, image.shape).astype(np.float32)
