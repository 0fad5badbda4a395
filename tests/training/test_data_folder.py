"""A data folder that a studio made itself: every fault is named, a sound folder is passed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fitdiff.errors import MissingError, UsageError
from fitdiff.models.latent import LatentLayout
from fitdiff.training.data_folder import check_data_folder

LAYOUT = LatentLayout()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos of three maps of 32 pixels, the third held out."""
    np.save(tmp_path / "maps.npy", np.zeros((3, 9, 32, 32), np.uint8))
    np.save(tmp_path / "photos.npy", np.zeros((6, 224, 224, 3), np.uint8))
    shapes = {"identity": (158,), "expression": (25,), "light": (9,), "five_points": (5, 2), "landmarks": (468, 2)}
    faces = {name: np.ones((6, *shape), np.float32) for name, shape in shapes.items()}
    save_file(faces | {"map_index": np.array([0, 0, 1, 1, 2, 2], np.int32)}, tmp_path / "faces.safetensors")
    (tmp_path / "index.json").write_text(json.dumps({"held_out": [2]}))
    return tmp_path


def with_faces(folder: Path, **changes: np.ndarray) -> None:
    path = folder / "faces.safetensors"
    save_file(load_file(path) | changes, path)


def test_a_sound_folder_passes(folder: Path) -> None:
    check_data_folder(folder, layout=LAYOUT)
    (folder / "photos.npy").unlink()
    check_data_folder(folder, photos=False)


def test_missing_files_are_listed(folder: Path) -> None:
    (folder / "photos.npy").unlink()
    (folder / "faces.safetensors").unlink()
    with pytest.raises(MissingError, match=r"no photos.npy, faces.safetensors.*fitdiff synthesize"):
        check_data_folder(folder)


def not_finite(folder: Path) -> None:
    light = np.ones((6, 9), np.float32)
    light[4, 2] = np.nan
    with_faces(folder, light=light)


def no_landmarks(folder: Path) -> None:
    faces = load_file(folder / "faces.safetensors")
    del faces["landmarks"]
    save_file(faces, folder / "faces.safetensors")


def index_of(text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "index.json").write_text(text)

    return spoil


def maps_of(array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "maps.npy", array)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (maps_of(np.zeros((3, 9, 32, 32), np.float32)), r"maps.npy: got float32 \(3, 9, 32, 32\); expected uint8"),
        (maps_of(np.zeros((3, 32, 32, 9), np.uint8)), r"maps.npy: got uint8 \(3, 32, 32, 9\)"),
        (lambda f: (f / "maps.npy").write_bytes((f / "maps.npy").read_bytes()[:300]), "maps.npy: got ValueError"),
        (lambda f: np.save(f / "photos.npy", np.zeros((6, 256, 256, 3), np.uint8)), "photos.npy: got uint8"),
        (lambda f: np.save(f / "photos.npy", np.zeros((5, 224, 224, 3), np.uint8)), r"map_index \(6,\).*5 photos"),
        (lambda f: with_faces(f, identity=np.ones((6, 80), np.float32)), r"identity \(6, 80\); expected \(6, 158\)"),
        (lambda f: with_faces(f, light=np.ones((6, 9))), "light of float64; expected float32"),
        (lambda f: with_faces(f, map_index=np.ones(6, np.float32)), "map_index of float32; expected int32"),
        (lambda f: with_faces(f, map_index=np.array([0, 0, 1, 1, 2, 3], np.int32)), "map_index 3 of photo 5"),
        (lambda f: with_faces(f, map_index=np.array([0, 0, 1, 1, 1, 1], np.int32)), "6 photos to train on and 0"),
        (not_finite, "light of photo 4, which is not finite"),
        (no_landmarks, "faces.safetensors: got no landmarks"),
        (lambda f: (f / "faces.safetensors").write_bytes(b"no"), "a whole safetensors file"),
        (index_of("{"), "index.json"),
        (index_of("{}"), "held_out None"),
        (index_of('{"held_out": []}'), "3 maps to train on and 0 held out"),
        (index_of('{"held_out": [0, 1, 2]}'), "0 maps to train on and 3 held out"),
        (index_of('{"held_out": [3]}'), "held_out map 3; expected 0 to 2"),
        (index_of('{"held_out": [true]}'), "a list of the maps"),
    ],
)
def test_every_fault_is_named(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(UsageError, match=words):
        check_data_folder(folder, layout=LAYOUT)
