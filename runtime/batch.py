"""Avatars of many photos: grouped into batches, handed out in order, and no photo costs another one its avatar.

Knows nothing of what is written where.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FitDiffError, MissingError
from .avatar_result import AvatarOptions, AvatarResult
from .face_crop import FaceCrop, crop_face
from .photo import load_photo
from .pipeline import FitDiffPipeline
from .report import StageClock

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Made:
    """A photo's avatar. clock: the stages up to it, those of the whole batch, to go on with."""

    photo: Path
    crop: FaceCrop
    result: AvatarResult
    clock: StageClock


@dataclass(frozen=True, eq=False)
class Failed:
    """A photo of which no avatar could be made, and why."""

    photo: Path
    error: FitDiffError


@dataclass(frozen=True, eq=False)
class _Cropped:
    photo: Path
    crop: FaceCrop


def make_avatars(
    pipeline: FitDiffPipeline,
    photos: Iterable[Path],
    options: AvatarOptions,
    at_once: int = 4,
    face: int | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Made | Failed]:
    """One `Made` or `Failed` for each photo, in the order of the photos; `at_once` faces go through the loop together.

    A photo's avatar is the one that `FitDiffPipeline.avatar` makes of it with the same options. Photos are read as they
    are needed, and no more than one batch of them, or of avatars, is held. A batch that cannot be made whole (one of
    its photos breaks it, or memory does) is made again in halves.

    Args:
        face: of each photo, as in `crop_face`.
        on_step: called with (done, total) after every step of every batch.

    Raises:
        MissingError: what is missing, is missing for all photos.
    """
    waiting: list[_Cropped | Failed] = []
    faces = 0
    clock = StageClock()
    for photo in photos:
        if not waiting:
            clock = StageClock()
        found = _cropped(pipeline, photo, face, clock)
        waiting.append(found)
        faces += isinstance(found, _Cropped)
        if faces == at_once or not faces:
            yield from _made(pipeline, waiting, options, clock, on_step)
            waiting, faces = [], 0
    yield from _made(pipeline, waiting, options, clock, on_step)


def _cropped(pipeline: FitDiffPipeline, photo: Path, face: int | None, clock: StageClock) -> _Cropped | Failed:
    try:
        with clock.stage("read"):
            loaded = load_photo(photo)
        with clock.stage("crop"):
            return _Cropped(photo, crop_face(loaded, pipeline.detector, pipeline.models.face_mesh, face))
    except Exception as error:
        return Failed(photo, _told(photo, error))


def _made(
    pipeline: FitDiffPipeline,
    waiting: Sequence[_Cropped | Failed],
    options: AvatarOptions,
    clock: StageClock,
    on_step: OnStep | None,
) -> Iterator[Made | Failed]:
    """What was waiting, in order, the crops as avatars. Each is let go of as it is handed out."""
    crops = [entry for entry in waiting if isinstance(entry, _Cropped)]
    avatars = deque(_avatars(pipeline, crops, options, clock, on_step))
    for entry in waiting:
        yield avatars.popleft() if isinstance(entry, _Cropped) else entry


def _avatars(
    pipeline: FitDiffPipeline,
    crops: Sequence[_Cropped],
    options: AvatarOptions,
    clock: StageClock,
    on_step: OnStep | None,
) -> list[Made | Failed]:
    if not crops:
        return []
    try:
        results = pipeline.avatars([entry.crop for entry in crops], options, clock, on_step)
    except Exception as error:
        if len(crops) == 1:
            return [Failed(crops[0].photo, _told(crops[0].photo, error))]
        middle = len(crops) // 2
        halves = crops[:middle], crops[middle:]
        return [made for half in halves for made in _avatars(pipeline, half, options, clock, on_step)]
    return [
        Made(entry.photo, entry.crop, result, _continued(clock)) for entry, result in zip(crops, results, strict=True)
    ]


def _continued(clock: StageClock) -> StageClock:
    """A clock of one photo's own that goes on from here."""
    own = copy.copy(clock)
    own.stages = list(clock.stages)
    return own


def _told(photo: Path, error: Exception) -> FitDiffError:
    """The error as one that a user is told.

    Raises:
        MissingError: it is one.
    """
    if isinstance(error, MissingError):
        raise error
    if isinstance(error, FitDiffError):
        return error
    got, remedy = f"unexpected {type(error).__name__}: {error}", "run fitdiff avatar on it with --debug and report that"
    made = FitDiffError(f"photo {photo}", got, "an avatar", remedy)
    made.__cause__ = error
    return made
