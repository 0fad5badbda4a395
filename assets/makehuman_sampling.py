"""Sample adult heads and expressions from MakeHuman's targets.

Calm settings (a standard deviation of .22 on facial modifiers, .4 of that on cranium and neck): wider ones
give caricatures. Knows nothing of which vertices are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ATTRIBUTES = ("male", "age", "african", "asian", "caucasian")  # labels kept with each sampled head, all in [0, 1]

_OPPOSITES = {
    "incr": "decr", "up": "down", "out": "in", "forward": "backward", "convex": "concave",
    "uncompress": "compress", "round": "square", "triangle": "pointed",
}  # fmt: skip
_FACE_FOLDERS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "nose", "neck")
_CRANIUM = ("head/head-scale", "head/head-back", "forehead/", "head/head-fat", "neck/")
_PLACEMENT = (
    "head/head-trans", "head/head-angle", "nose/nose-trans-out", "mouth/mouth-trans-out", "ears/ear-shape",
    "ears/ear-trans",
)  # fmt: skip


@dataclass(frozen=True)
class HeadSampling:
    """Standard deviations of the modifiers' weights."""

    facial: float = 0.22
    asymmetry: float = 0.12
    side_difference: float = 0.12  # of the left-right pair, relative to `facial`
    cranium_scale: float = 0.4
    placement_scale: float = 0.3


def _triangle(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"min": np.clip(1 - 2 * x, 0, 1), "average": 1 - np.abs(2 * x - 1), "max": np.clip(2 * x - 1, 0, 1)}


def _macro_weights(index: dict[str, int], count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    male = np.where(rng.random(count) < 0.5, rng.beta(8, 1.2, count), rng.beta(1.2, 8, count))
    age = rng.uniform(0.5, 1.0, count)  # MakeHuman: 0.5 is 25 years, 1.0 is 90
    ethnicity = rng.dirichlet([0.5, 0.5, 0.5], count)
    muscle, weight = _triangle(rng.beta(4, 4, count)), _triangle(rng.beta(4, 4, count))
    sexes = {"male": male, "female": 1 - male}
    ages = {"young": np.clip((1 - age) * 2, 0, 1), "old": np.clip((age - 0.5) * 2, 0, 1)}
    weights = np.zeros((count, len(index)), np.float32)
    for sex, sex_weight in sexes.items():
        for years, age_weight in ages.items():
            for column, people in enumerate(ATTRIBUTES[2:]):
                weights[:, index[f"macrodetails/{people}-{sex}-{years}"]] = (
                    ethnicity[:, column] * sex_weight * age_weight
                )
            for m, muscle_weight in muscle.items():
                for w, fat_weight in weight.items():
                    name = f"macrodetails/universal-{sex}-{years}-{m}muscle-{w}weight"
                    if name in index:
                        weights[:, index[name]] = sex_weight * age_weight * muscle_weight * fat_weight
    attributes = np.concatenate([male[:, None], (2 * age - 1)[:, None], ethnicity], 1)
    return weights, attributes.astype(np.float32)


def _facial_weights(names: list[str], count: int, rng: np.random.Generator, sampling: HeadSampling) -> np.ndarray:
    index = {name: i for i, name in enumerate(names)}
    weights = np.zeros((count, len(names)), np.float32)
    paired: set[str] = set()
    shared: dict[str, np.ndarray] = {}  # left and right of one modifier move together
    for name in names:
        folder, _, modifier = name.partition("/")
        positive = next((p for p in _OPPOSITES if modifier.endswith("-" + p)), None)
        if folder not in _FACE_FOLDERS or positive is None:
            continue
        opposite = name[: -len(positive)] + _OPPOSITES[positive]
        paired |= {name, opposite}
        side = modifier[:2] in ("l-", "r-")
        key = folder + "/" + (modifier[2:] if side else modifier)
        deviation = sampling.facial
        deviation *= sampling.cranium_scale if key.startswith(_CRANIUM) else 1
        deviation *= sampling.placement_scale if key.startswith(_PLACEMENT) else 1
        if key not in shared:
            shared[key] = rng.normal(0, deviation, count)
        value = shared[key]
        if side:
            value = value + rng.normal(0, sampling.side_difference * deviation, count)
        weights[:, index[name]] += np.clip(value, 0, 1)
        if opposite in index:
            weights[:, index[opposite]] += np.clip(-value, 0, 1)
    for name in names:
        if name.split("/")[0] in _FACE_FOLDERS and name not in paired:
            weights[:, index[name]] += np.clip(rng.normal(0, 0.15, count), 0, 1) * (rng.random(count) < 0.2)
        elif name.startswith("asym/asym-"):
            size = np.clip(np.abs(rng.normal(0, sampling.asymmetry, count)), 0, 1)
            weights[:, index[name]] += size * (rng.random(count) < 0.3)
    return weights


def sample_heads(
    base: np.ndarray,
    targets: dict[str, np.ndarray],
    count: int,
    seed: int,
    sampling: HeadSampling = HeadSampling(),
) -> tuple[np.ndarray, np.ndarray]:
    """Random adult heads: (count, V, 3) decimetres and their (count, 5) ATTRIBUTES.

    base: (V, 3); targets: name -> (V, 3), over the same vertices.
    """
    rng = np.random.default_rng(seed)
    names = list(targets)
    macro, attributes = _macro_weights({name: i for i, name in enumerate(names)}, count, rng)
    weights = macro + _facial_weights(names, count, rng, sampling)
    offsets = np.stack([targets[name] for name in names]).reshape(len(names), -1)
    return base + (weights @ offsets).reshape(count, -1, 3), attributes


def sample_expression_weights(names: list[str], count: int, seed: int) -> np.ndarray:
    """Random facial expressions: (count, 52) ARKit weights in [0, 1].

    Left and right mostly act together; the jaw opens in a third of them; the gaze moves both eyes alike;
    `mouthClose` appears only as a part of `jawOpen`, the one case in which it means anything.
    """
    rng = np.random.default_rng(seed)
    index = {name: i for i, name in enumerate(names)}
    weights = np.zeros((count, len(names)), np.float32)
    for name in names:
        if name.endswith("Right") and name.replace("Right", "Left") in index:
            continue
        if name in ("mouthClose", "tongueOut") or name.startswith("eyeLook"):
            continue
        value = (rng.random(count) < 0.14) * rng.beta(1.6, 2.4, count)
        weights[:, index[name]] = value
        partner = name.replace("Left", "Right")
        if partner != name and name not in ("jawLeft", "mouthLeft"):
            alone = rng.random(count) < 0.15
            weights[:, index[partner]] = np.where(alone, 0, np.clip(value * rng.normal(1, 0.12, count), 0, 1))
        elif partner != name:
            weights[:, index[partner]] = (value == 0) * (rng.random(count) < 0.08) * rng.beta(1.6, 2.4, count)
    smile = (rng.random(count) < 0.35) * rng.beta(2, 2, count)
    for side in ("Left", "Right"):
        weights[:, index[f"mouthSmile{side}"]] = np.clip(smile * rng.normal(1, 0.1, count), 0, 1)
        weights[:, index[f"cheekSquint{side}"]] = np.maximum(weights[:, index[f"cheekSquint{side}"]], 0.5 * smile)
    weights[:, index["jawOpen"]] = (rng.random(count) < 0.33) * rng.beta(1.2, 4, count)
    weights[:, index["mouthClose"]] = weights[:, index["jawOpen"]] * (rng.random(count) < 0.3)
    across, up = rng.normal(0, 0.25, count), rng.normal(0, 0.15, count)
    for sign, direction in ((1, "OutLeft"), (1, "InRight"), (-1, "InLeft"), (-1, "OutRight")):
        weights[:, index[f"eyeLook{direction}"]] = np.clip(sign * across, 0, 1)
    for side in ("Left", "Right"):
        weights[:, index[f"eyeLookUp{side}"]] = np.clip(up, 0, 1)
        weights[:, index[f"eyeLookDown{side}"]] = np.clip(-up, 0, 1)
    return weights
