"""`fitdiff train import`: a studio's loose files, a folder a face, become a folder of training data.

A face is diffuse.png, specular.png and normal.png over the face chart, parameters.json or parameters.npz, and
photographs photo_*.jpg. Photographs are cropped as those of users are. A photo or a face that cannot be used is
reported and left out. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from safetensors.numpy import save_file

from ..errors import FitDiffError, MissingError, UsageError
from ..models.latent import LatentLayout
from ..runtime.face_crop import CROP_SIZE, LandmarkNetwork, crop_face
from ..runtime.face_detector import FaceDetector
from ..runtime.photo import load_photo
from .data_folder import FACES, INDEX, MAPS, PHOTOS, check_data_folder

FORMAT = "fitdiff-imported-1"
CHART = 512
MAP_FILES = ("diffuse.png", "specular.png", "normal.png")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
PARAMETERS = "parameters.json or parameters.npz"


@dataclass(frozen=True)
class ImportedFolder:
    """What came of an import; `left_out` has a sentence for every photo and face that could not be used."""

    faces: int
    photos: int
    held_out_faces: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class FaceParameters:
    """identity (I,), expression (P, E) and light (P, 9) float32, a row for each of `photos`; source: whose face."""

    identity: np.ndarray
    expression: np.ndarray
    light: np.ndarray
    photos: tuple[Path, ...]
    source: str


def import_triplets(
    origin: Path,
    out: Path,
    detector: FaceDetector,
    landmark_network: LandmarkNetwork,
    *,
    layout: LatentLayout | None = None,
    held_out: float = 0.04,
    progress: Callable[[str], None] = lambda face: None,
) -> ImportedFolder:
    """Write the training folder `out` from the sub-folders of `origin`, index.json last of all.

    Args:
        layout: how many identity, expression and light numbers there must be; the default's 158, 25 and 9.
        held_out: share of the people (`source` in the parameters, else the sub-folder) kept for validation, all
            faces of one together; see `held_out_sources`.
        progress: called with the name of each face.

    Raises:
        MissingError: `origin` has no sub-folders.
        UsageError: not two people are left whose files can be used.
    """
    layout = layout or LatentLayout()
    folders = sorted(path for path in origin.iterdir() if path.is_dir()) if origin.is_dir() else []
    if not folders:
        got = "no sub-folders" if origin.is_dir() else "no such folder"
        raise MissingError(f"faces in {origin}", got, "one sub-folder a face", "see docs/training.md for the layout")
    out.mkdir(parents=True, exist_ok=True)
    (out / INDEX).unlink(missing_ok=True)  # it says that the folder is complete
    left_out: list[str] = []
    faces: dict[Path, FaceParameters] = {}
    for folder in folders:
        try:
            faces[folder] = parameters_from_folder(folder, layout)
        except FitDiffError as error:
            left_out.append(f"face {folder.name}: {error}")
    most = sum(len(face.photos) for face in faces.values())
    maps = open_memmap(out / MAPS, "w+", np.uint8, (max(len(faces), 1), 9, CHART, CHART))
    photos = open_memmap(out / PHOTOS, "w+", np.uint8, (max(most, 1), CROP_SIZE, CROP_SIZE, 3))
    names = ("map_index", "identity", "expression", "light", "five_points", "landmarks")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    sources: list[str] = []
    for folder, face in faces.items():
        progress(folder.name)
        try:
            charts = maps_from_folder(folder)
        except FitDiffError as error:
            left_out.append(f"face {folder.name}: {error}")
            continue
        before = len(rows["map_index"])
        for number, path in enumerate(face.photos):
            try:
                crop = crop_face(load_photo(path), detector, landmark_network)
            except FitDiffError as error:
                left_out.append(f"photo {folder.name}/{path.name}: {error}")
                continue
            photos[len(rows["map_index"])] = np.round(crop.image * 255).astype(np.uint8)
            values = (
                len(sources), face.identity, face.expression[number], face.light[number], crop.five_points,
                crop.landmarks[:, :2],
            )  # fmt: skip
            for name, value in zip(names, values, strict=True):
                rows[name].append(value)
        if len(rows["map_index"]) == before:
            left_out.append(f"face {folder.name}: none of its photos can be used")
            continue
        maps[len(sources)] = charts
        sources.append(face.source)
    if len(set(sources)) < 2:
        reasons = "; ".join(left_out)
        remedy = f"put right what was left out: {reasons}" if reasons else "add faces of another person"
        got = f"usable faces of {len(set(sources))}"
        raise UsageError(f"faces in {origin}", got, "at least two people, to hold one out", remedy)
    del maps, photos  # written and closed
    _shorten(out / MAPS, len(sources))
    _shorten(out / PHOTOS, len(rows["map_index"]))
    arrays = {name: np.stack(values).astype(np.float32) for name, values in rows.items() if name != "map_index"}
    save_file(arrays | {"map_index": np.array(rows["map_index"], np.int32)}, out / FACES)
    kept = held_out_sources(sources, held_out)
    held = [index for index, source in enumerate(sources) if source in kept]
    index = {"format": FORMAT, "held_out": held, "sources": sources, "left_out": left_out}
    (out / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    check_data_folder(out, layout=layout)
    return ImportedFolder(len(sources), len(rows["map_index"]), len(held), tuple(left_out))


def held_out_sources(sources: list[str], share: float) -> set[str]:
    """The people kept for validation: those whose name's hash lies below `share`, so that newcomers change nothing.

    At least one, and at most all but one.
    """
    place = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in sources}
    people = sorted(place, key=lambda name: place[name])
    count = sum(value < share for value in place.values())
    return set(people[: min(max(1, count), len(people) - 1)])


def maps_from_folder(folder: Path) -> np.ndarray:
    """(9, 512, 512) uint8 of the three PNG files, of 8 or 16 bits; a grey one counts for all three channels.

    Raises:
        MissingError: a file is absent.
        UsageError: a file is no image, or of another size or depth.
    """
    charts = []
    for name in MAP_FILES:
        path = folder / name
        if not path.is_file():
            raise MissingError(f"map {path}", "no such file", ", ".join(MAP_FILES), "add it")
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise UsageError(f"map {path}", "no readable image", "a PNG file", "save it again")
        if image.shape[:2] != (CHART, CHART) or image.dtype not in (np.uint8, np.uint16):
            got = f"{image.shape[1]} x {image.shape[0]} of {image.dtype}"
            remedy = "bake it over the face chart and save it as PNG"
            raise UsageError(f"map {path}", got, f"{CHART} x {CHART} of 8 or 16 bits", remedy)
        if image.dtype == np.uint16:
            image = np.round(image / 257).astype(np.uint8)
        image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., 2::-1]  # RGB, no alpha
        charts.append(image.transpose(2, 0, 1))
    return np.concatenate(charts)


def parameters_from_folder(folder: Path, layout: LatentLayout) -> FaceParameters:
    """The numbers of a face, from parameters.json or parameters.npz.

    Both hold `identity` (I,), `expression` (P, E) and `light` (P, L), a row a photo in the order of `photos`, a list
    of file names, or without it in the alphabetical order of photo_*; and perhaps `source`, the person's name.

    Raises:
        MissingError: no such file, or no photos.
        UsageError: a file that cannot be read, or numbers of a wrong shape, or not finite.
    """
    path, values = _parameter_file(folder)
    listed = values.get("photos")
    photos = _photos(folder) if listed is None else [folder / str(name) for name in np.atleast_1d(listed)]
    absent = [photo.name for photo in photos if not photo.is_file()]
    if absent or not photos:
        got = f"no {', '.join(absent)}" if absent else "no photo_*.jpg"
        raise MissingError(f"photos in {folder}", got, "the photos that the parameters are of", "add them")
    arrays = {}
    shapes = {
        "identity": (layout.identity,),
        "expression": (len(photos), layout.expression),
        "light": (len(photos), layout.light),
    }
    for name, shape in shapes.items():
        if name not in values:
            raise UsageError(str(path), f"no {name}", ", ".join(shapes), "add it")
        try:
            array = np.asarray(values[name], np.float32)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{name} in {path}", f"{error}", f"numbers of shape {shape}", "correct it") from error
        if array.shape != shape:
            raise UsageError(f"{name} in {path}", f"shape {array.shape}", f"{shape}, a row a photo", "correct it")
        if not np.isfinite(array).all():
            raise UsageError(f"{name} in {path}", "numbers that are not finite", "finite ones", "correct it")
        arrays[name] = array
    return FaceParameters(**arrays, photos=tuple(photos), source=str(values.get("source", folder.name)))


def _parameter_file(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = next((p for p in (folder / "parameters.json", folder / "parameters.npz") if p.is_file()), None)
    if path is None:
        raise MissingError(f"parameters in {folder}", "no such file", PARAMETERS, "add one of them")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return path, dict(file)
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}")
        return path, values
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            str(path), f"{error}", "an object of JSON, or arrays of numpy.savez", "save it again"
        ) from error


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("photo_*") if p.suffix.lower() in PHOTO_SUFFIXES)


def _shorten(path: Path, count: int) -> None:
    """Keep the first `count` rows of an array file."""
    whole = np.load(path, mmap_mode="r")
    if len(whole) == count:
        return
    temporary = path.with_suffix(".tmp")
    shorter = open_memmap(temporary, "w+", whole.dtype, (count, *whole.shape[1:]))
    for row in range(count):
        shorter[row] = whole[row]
    shorter.flush()
    del whole, shorter
    temporary.replace(path)
