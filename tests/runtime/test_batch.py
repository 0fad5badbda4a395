"""Many photos: in order, in batches, and a bad one costs the others nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fitdiff.errors import FitDiffError, ImageError, MissingError, NoFaceError
from fitdiff.runtime import batch as batch_module
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.batch import Failed, Made, make_avatars

OPTIONS = AvatarOptions(steps=2)


@dataclass
class Pipeline:
    """Makes names of crops, and breaks on a batch with "broken" in it; `tried` are its calls."""

    tried: list[list[str]] = field(default_factory=list)
    detector: Any = None
    models: Any = field(default_factory=lambda: SimpleNamespace(face_mesh=None))

    def avatars(self, crops: list[str], options: AvatarOptions, clock: Any, on_step: Any) -> list[str]:
        assert options == OPTIONS
        self.tried.append(list(crops))
        if "broken" in crops:
            raise RuntimeError("a singular matrix")
        if "missing" in crops:
            raise MissingError("engine", "none", "one", "build it")
        with clock.stage("sample"):
            return [f"avatar of {crop}" for crop in crops]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Photos are their own names, crops too; what is called "unreadable" or "nobody" is that."""

    def load(photo: Path) -> str:
        if photo.name == "unreadable":
            raise ImageError(str(photo), "nothing", "a photo", "choose another")
        return photo.name

    def crop(photo: str, *_: Any) -> str:
        if photo == "nobody":
            raise NoFaceError("photo", "no face", "a face", "choose another")
        if photo == "odd":
            raise ZeroDivisionError("odd")
        return photo

    monkeypatch.setattr(batch_module, "load_photo", load)
    monkeypatch.setattr(batch_module, "crop_face", crop)
    return Pipeline()


def made(pipeline: Any, names: str, at_once: int) -> list[tuple[str, Any]]:
    photos = [Path(name) for name in names.split()]
    return [
        (entry.photo.name, entry.result if isinstance(entry, Made) else entry.error)
        for entry in make_avatars(pipeline, photos, OPTIONS, at_once)
    ]


def test_photos_go_in_batches_and_come_in_order(pipeline: Pipeline) -> None:
    found = made(pipeline, "a b c d e", 2)
    assert found == [(name, f"avatar of {name}") for name in "abcde"]
    assert pipeline.tried == [["a", "b"], ["c", "d"], ["e"]]


def test_bad_photos_are_told_in_their_place_and_fill_no_batch(pipeline: Pipeline) -> None:
    found = made(pipeline, "unreadable a nobody odd b c", 2)
    assert [name for name, _ in found] == ["unreadable", "a", "nobody", "odd", "b", "c"]
    assert pipeline.tried == [["a", "b"], ["c"]]
    errors = {name: error for name, error in found if isinstance(error, FitDiffError)}
    assert isinstance(errors["unreadable"], ImageError) and isinstance(errors["nobody"], NoFaceError)
    assert "photo odd" in str(errors["odd"]) and "ZeroDivisionError" in str(errors["odd"])


def test_a_photo_that_breaks_its_batch_is_found(pipeline: Pipeline) -> None:
    found = dict(made(pipeline, "a b broken c", 4))
    assert [found[name] for name in "abc"] == [f"avatar of {name}" for name in "abc"]
    assert "singular" in str(found["broken"])
    assert pipeline.tried == [["a", "b", "broken", "c"], ["a", "b"], ["broken", "c"], ["broken"], ["c"]]


def test_what_is_missing_for_all_ends_it(pipeline: Pipeline) -> None:
    with pytest.raises(MissingError):
        made(pipeline, "a missing b", 2)


def test_photos_are_read_when_they_are_needed(pipeline: Pipeline) -> None:
    read: list[str] = []

    def photos() -> Iterator[Path]:
        for name in "abcd":
            read.append(name)
            yield Path(name)

    entries = make_avatars(pipeline, photos(), OPTIONS, 2)  # type: ignore[arg-type]
    assert isinstance(next(entries), Made) and read == ["a", "b"]
    next(entries)
    assert read == ["a", "b"]
    next(entries)
    assert read == ["a", "b", "c", "d"]


def test_clocks_go_on_by_themselves(pipeline: Pipeline) -> None:
    entries = list(make_avatars(pipeline, [Path("a"), Path("b")], OPTIONS, 2))  # type: ignore[arg-type]
    first, second = entries
    assert isinstance(first, Made) and isinstance(second, Made)
    with first.clock.stage("asset"):
        pass
    stages = [[stage.name for stage in entry.clock.stages] for entry in (first, second)]
    assert stages == [["read", "crop", "read", "crop", "sample", "asset"], ["read", "crop", "read", "crop", "sample"]]
    assert not any(isinstance(entry, Failed) for entry in entries)
