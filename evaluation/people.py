"""Folders of photos, one sub-folder a person. Knows nothing of what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Person:
    """The folder's name and its photos, sorted by name."""

    name: str
    photos: tuple[Path, ...]


def people_in(folder: Path, limit: int | None = None, least: int = 1) -> tuple[Person, ...]:
    """The first `limit` people, by name, with at least `least` photos.

    Raises:
        UsageError: there are none.
    """
    people = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        photos = tuple(sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES))
        if len(photos) >= least:
            people.append(Person(place.name, photos))
    if not people:
        raise UsageError(
            f"photos {folder}",
            f"no sub-folder with {least} or more photos",
            "a sub-folder for every person, with that person's photos",
            "lay the photos out like that",
        )
    return tuple(people[:limit])
