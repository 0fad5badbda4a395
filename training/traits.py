"""Who a synthetic face is: the traits that its textures follow. They go with the head, with all of humanity's spread.

Knows nothing of charts or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Linear albedo of facial skin of the types I to VI, in equal steps of `melanin` from 0 to 1.
MELANIN_LINE = np.log([[0.66, 0.475, 0.360], [0.57, 0.375, 0.26], [0.44, 0.263, 0.170], [0.29, 0.156, 0.096],
                       [0.148, 0.0745, 0.0430], [0.066, 0.0348, 0.0212]])  # fmt: skip
BLOOD = np.array([-0.02, -0.21, -0.18])  # what more blood changes in the log of albedo
_GOLD, _OLIVE = np.array([0.01, 0.0, -0.2]), np.array([-0.10, 0.015, -0.07])
_HAIR = {"black": (0.010, 0.009, 0.008), "dark": (0.022, 0.015, 0.010), "brown": (0.050, 0.030, 0.018),
         "light": (0.11, 0.07, 0.038), "blond": (0.24, 0.165, 0.085), "red": (0.15, 0.052, 0.020),
         "grey": (0.24, 0.23, 0.22)}  # linear albedo  # fmt: skip


@dataclass(frozen=True)
class PersonTraits:
    """What a face's textures follow.

    melanin, male, age and beard_grey are in [0, 1]; blood, gold and olive are standard scores of undertone;
    hair: (3,) linear RGB; wide: painted beyond what is common, so that the maps' models can express anybody.
    """

    melanin: float
    blood: float
    male: float
    age: float
    hair: np.ndarray
    gold: float = 0.0
    olive: float = 0.0
    beard_grey: float = 0.0
    wide: bool = False

    def tone(self) -> np.ndarray:
        """(3,) log of linear albedo of the mean facial skin."""
        place = self.melanin * (len(MELANIN_LINE) - 1)
        line = np.array([np.interp(place, range(len(MELANIN_LINE)), MELANIN_LINE[:, c]) for c in range(3)])
        under = 0.26 * BLOOD * self.blood * (1 - 0.6 * self.melanin) + 0.30 * _GOLD * self.gold
        return line + under + 0.2 * _OLIVE * self.olive


def sample_attributes(rng: np.random.Generator) -> np.ndarray:
    """(5,) male, age, african, asian, caucasian at random, each in [0, 1]: for heads that tell none of it."""
    male = rng.beta(8, 1.2) if rng.random() < 0.5 else rng.beta(1.2, 8)
    return np.array([male, rng.uniform(), *rng.dirichlet([0.5, 0.5, 0.5])], np.float32)


def sample_traits(attributes: np.ndarray, rng: np.random.Generator) -> PersonTraits:
    """Traits for a head with these (male, age, african, asian, caucasian), each in [0, 1]."""
    male, age, african, asian, caucasian = (float(a) for a in attributes)
    share = african + asian + caucasian + 1e-6
    centre = (0.86 * african + 0.40 * asian + 0.17 * caucasian) / share
    # The weights are mixtures, so their mean alone would make nearly everybody brown.
    melanin = rng.uniform(0, 1) if rng.random() < 0.3 else 0.5 + 1.35 * (centre - 0.46) + rng.normal(0, 0.17)
    melanin = float(np.abs(melanin)) if melanin < 1 else float(2 - melanin)
    melanin = float(np.clip(melanin, 0, 1))
    if melanin > 0.5:
        chances = (0.72, 0.25, 0.03, 0, 0, 0)
    elif melanin > 0.28:
        chances = (0.4, 0.35, 0.22, 0.03, 0, 0)
    else:
        chances = (0.12, 0.22, 0.26, 0.18, 0.14, 0.08)
    hair = np.array(_HAIR[str(rng.choice(list(_HAIR)[:6], p=chances))])
    grey = float(np.clip((age - 0.5 + rng.normal(0, 0.14)) * 2.2, 0, 1))
    hair = np.exp((1 - grey) * np.log(hair) + grey * np.log(_HAIR["grey"])) * np.exp(rng.normal(0, 0.2))
    beard_grey = float(np.clip(grey * rng.uniform(0.5, 1.5), 0, 1))
    blood, gold, olive = rng.normal(0, 1, 3).clip(-2, 2)
    return PersonTraits(
        melanin, blood, male, age, hair.clip(0.005, 0.4), gold, olive, beard_grey, bool(rng.random() < 0.12)
    )
