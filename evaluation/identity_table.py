"""From face vectors to the table of identity: means over people by recogniser. Knows no photo, avatar or network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .result import Evaluation
from .similarity import calibrated, cosine, impostor_mean, rank1

RECOGNISERS = ("guiding", "second")
COLUMNS = (
    "guiding calibrated", "guiding plain cosine", "second calibrated", "second plain cosine", "rank-1 guiding",
    "rank-1 second", "other photo guiding", "other photo second", "landmark error", "seconds",
)  # fmt: skip
OTHER_PHOTO, IMPOSTORS = "the person's other photo", "impostors"

_Four = tuple[float | None, float | None, float | None, float | None]
"""Calibrated and plain similarity to the photo, rank-1, calibrated similarity to the other photo."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What one way of making an avatar came to for one person."""

    vectors: Mapping[str, np.ndarray]  # by recogniser: (D,) of the rendering
    landmark_error: float  # share of the eye distance
    seconds: float


def identity_table(
    photos: Mapping[str, Mapping[str, np.ndarray]], verdicts: Mapping[str, Mapping[str, Verdict]]
) -> Evaluation:
    """The table over all these people.

    Args:
        photos: by person and recogniser: (n, D), the photo that became the avatar and, if there is one, the other.
        verdicts: by variant and person. Rank-1 is among the other photos of all people who have one.
    """
    judges = {
        name: _Judge({person: vectors[name] for person, vectors in photos.items()})
        for name in RECOGNISERS
        if all(name in vectors for vectors in photos.values())
    }
    rows: dict[str, tuple[float | None, ...]] = {}
    for variant, by_person in verdicts.items():
        found = {name: judge.of_avatars({person: verdict.vectors[name] for person, verdict in by_person.items()})
                 for name, judge in judges.items()}  # fmt: skip
        error = _mean([verdict.landmark_error for verdict in by_person.values()])
        rows[variant] = (*_side_by_side(found), error, _mean([verdict.seconds for verdict in by_person.values()]))
    rows[OTHER_PHOTO] = (*_side_by_side({name: judge.of_other_photos() for name, judge in judges.items()}), None, None)
    strangers: dict[str, _Four] = {
        name: (calibrated(judge.impostors, judge.impostors), judge.impostors, None, None)
        for name, judge in judges.items()
    }
    rows[IMPOSTORS] = (*_side_by_side(strangers), None, None)
    figures = {"people": len(photos), "with_other_photo": sum(len(v["guiding"]) > 1 for v in photos.values())}
    return Evaluation(f"identity, {len(photos)} people", COLUMNS, rows, figures)


class _Judge:
    """One recogniser's view: what it made of the photos (n, D) of each person."""

    def __init__(self, photos: Mapping[str, np.ndarray]) -> None:
        self.photos = photos
        self.impostors = impostor_mean(list(photos.values()))
        self.others = {person: vectors[1] for person, vectors in photos.items() if len(vectors) > 1}

    def of_avatars(self, avatars: Mapping[str, np.ndarray]) -> _Four:
        """Avatars (D,) by person, of some or all of the people."""
        own = _mean([cosine(vector, self.photos[person][0]) for person, vector in avatars.items()])
        rank, other = self._among_others(avatars)
        return calibrated(own, self.impostors), own, rank, calibrated(other, self.impostors)

    def of_other_photos(self) -> _Four:
        """The same of a second photo in the place of an avatar: the best that can be asked for."""
        rank, other = self._among_others({person: vectors[0] for person, vectors in self.photos.items()})
        return calibrated(other, self.impostors), other, rank, None

    def _among_others(self, vectors: Mapping[str, np.ndarray]) -> tuple[float | None, float | None]:
        """Rank-1 and mean cosine with the person's other photo; people with one photo are left out."""
        places = {person: place for place, person in enumerate(self.others) if person in vectors}
        probes = np.array([vectors[person] for person in places])
        rank = rank1(probes, np.array(list(self.others.values())), list(places.values()))
        return rank, _mean([cosine(vectors[person], self.others[person]) for person in places])


def _side_by_side(found: Mapping[str, _Four]) -> tuple[float | None, ...]:
    """The eight similarity columns, None for an absent recogniser."""
    guiding, second = (found.get(name, (None,) * 4) for name in RECOGNISERS)
    return *guiding[:2], *second[:2], guiding[2], second[2], guiding[3], second[3]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
