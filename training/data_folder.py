"""A folder of training data: its files, and what can be wrong with one that a studio has made itself.

docs/training.md describes the format. Reads headers and numbers, not pictures: a folder of any size is checked in
seconds. Knows nothing of networks; how many coefficients a face has is told to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..errors import MissingError, UsageError
from ..models.latent import LatentLayout
from ..runtime.face_crop import CROP_SIZE

MAPS, PHOTOS, FACES, INDEX = "maps.npy", "photos.npy", "faces.safetensors", "index.json"
REMEDY = "run fitdiff synthesize or fitdiff train import, or see docs/training.md for the format"


def check_data_folder(
    folder: Path, *, photos: bool = True, layout: LatentLayout | None = None, morphable_sha256: str | None = None
) -> None:
    """Raise the first thing that is wrong with a training folder; say nothing when it can be used.

    Args:
        photos: False for what the autoencoder needs: maps and index alone.
        layout: how many identity, expression and light numbers there must be; None takes any.
        morphable_sha256: the morphable model to train for; a folder that names another is refused.

    Raises:
        MissingError: no folder, or files of it are absent.
        UsageError: a file is damaged, or an array in it has a wrong type, shape or value.
    """
    needed = (INDEX, MAPS, PHOTOS, FACES) if photos else (INDEX, MAPS)
    absent = [name for name in needed if not (folder / name).is_file()]
    if absent:
        raise MissingError(f"training data {folder}", f"no {', '.join(absent)}", ", ".join(needed), REMEDY)
    maps = _array(folder / MAPS)
    square = maps.ndim == 4 and maps.shape[1] == 9 and maps.shape[2] == maps.shape[3] and maps.shape[2] % 16 == 0
    if maps.dtype != np.uint8 or not square:
        raise _wrong(folder / MAPS, f"{maps.dtype} {maps.shape}", "uint8 (N, 9, S, S), S a multiple of 16")
    held_out = _held_out(folder / INDEX, len(maps))
    if photos:
        _check_faces(folder, len(maps), held_out, layout)
    if morphable_sha256:
        _check_morphable(folder / INDEX, morphable_sha256)


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise _wrong(path, f"{type(error).__name__}: {error}", "a whole file that numpy.save wrote") from error


def _held_out(path: Path, count: int) -> set[int]:
    """The maps kept for validation."""
    try:
        index: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _wrong(path, f"{error}", "JSON") from error
    listed: Any = index.get("held_out") if isinstance(index, dict) else None
    if not isinstance(listed, list) or not all(type(i) is int for i in listed):
        raise _wrong(path, f"held_out {listed!r:.60}", "a list of the maps kept for validation")
    outside = [i for i in listed if not 0 <= i < count]
    if outside:
        raise _wrong(path, f"held_out map {outside[0]}", f"0 to {count - 1}, for {count} maps")
    held_out = set(listed)
    if not held_out or len(held_out) == count:
        got = f"{count - len(held_out)} maps to train on and {len(held_out)} held out"
        remedy = "list some maps in held_out, all those of a person together, or make more faces"
        raise UsageError("training data", got, "some of each", remedy)
    return held_out


def _check_morphable(path: Path, expected: str) -> None:
    """Coefficients of one morphable model mean nothing to another. A folder of a studio's own need not name one."""
    made_with = json.loads(path.read_text(encoding="utf-8")).get("morphable_sha256", expected)
    if made_with != expected:
        raise UsageError(
            f"training data {path}",
            f"faces of the morphable model {str(made_with)[:16]}",
            f"of {expected[:16]}, the one to train for",
            "give the same --morphable to `synthesize` and to `train diffusion`",
        )


def _check_faces(folder: Path, maps: int, held_out: set[int], layout: LatentLayout | None) -> None:
    photos = _array(folder / PHOTOS)
    if photos.dtype != np.uint8 or photos.shape[1:] != (CROP_SIZE, CROP_SIZE, 3):
        got = f"{photos.dtype} {photos.shape}"
        raise _wrong(folder / PHOTOS, got, f"uint8 (P, {CROP_SIZE}, {CROP_SIZE}, 3)")
    path = folder / FACES
    try:
        faces = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _wrong(path, f"{error}", "a whole safetensors file") from error
    count = len(photos)
    widths: dict[str, tuple[int | None, ...]] = {
        "map_index": (),
        "identity": (layout and layout.identity,),
        "expression": (layout and layout.expression,),
        "light": (layout and layout.light,),
        "five_points": (5, 2),
        "landmarks": (468, 2),
    }
    absent = [name for name in widths if name not in faces]
    if absent:
        raise _wrong(path, f"no {', '.join(absent)}", ", ".join(widths))
    for name, width in widths.items():
        _check_array(path, name, faces, (count, *width))
    index = faces["map_index"]
    if count and not 0 <= index.min() <= index.max() < maps:
        photo = int(np.flatnonzero((index < 0) | (index >= maps))[0])
        got = f"map_index {int(index[photo])} of photo {photo}"
        raise _wrong(path, got, f"0 to {maps - 1}, for {maps} maps in {MAPS}")
    out = int(np.isin(index, list(held_out)).sum())
    if not out or out == count:
        got = f"{count - out} photos to train on and {out} held out"
        remedy = "choose maps for held_out that some photos show, and leave others"
        raise UsageError("training data", got, "at least one of each", remedy)


def _check_array(path: Path, name: str, arrays: Mapping[str, np.ndarray], shape: tuple[int | None, ...]) -> None:
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(b is None or a == b for a, b in zip(array.shape, shape, strict=True))
    if not fits:
        expected = ", ".join("any" if side is None else str(side) for side in shape)
        reason = (
            "as the morphable model and the latent have them" if name in ("identity", "expression", "light") else ""
        )
        raise _wrong(path, f"{name} {array.shape}", f"({expected}) for {shape[0]} photos {reason}".rstrip())
    if name == "map_index":
        if array.dtype.kind not in "iu":
            raise _wrong(path, f"{name} of {array.dtype}", "int32")
    elif array.dtype != np.float32:
        raise _wrong(path, f"{name} of {array.dtype}", "float32")
    else:
        finite = np.isfinite(array).reshape(len(array), -1).all(1)
        if not finite.all():
            raise _wrong(path, f"{name} of photo {int(np.argmin(finite))}, which is not finite", "finite numbers")


def _wrong(path: Path, got: str, expected: str) -> UsageError:
    return UsageError(f"training data {path}", got, expected, REMEDY)
