"""Folders of photos: order, limits, and what is no photo."""

from pathlib import Path

import pytest

from fitdiff.errors import UsageError
from fitdiff.evaluation.people import people_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("bo/2.png", "bo/1.JPG", "bo/notes.txt", "al/x.jpeg", "empty/notes.txt", "INDEX.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_people_and_photos_come_by_name(folder: Path) -> None:
    found = people_in(folder)
    assert [(p.name, [photo.name for photo in p.photos]) for p in found] == [
        ("al", ["x.jpeg"]),
        ("bo", ["1.JPG", "2.png"]),
    ]


def test_limit_and_least(folder: Path) -> None:
    assert [p.name for p in people_in(folder, limit=1)] == ["al"]
    assert [p.name for p in people_in(folder, limit=1, least=2)] == ["bo"]


def test_nobody_is_an_error(folder: Path) -> None:
    with pytest.raises(UsageError, match="no sub-folder with 3 or more photos"):
        people_in(folder, least=3)
