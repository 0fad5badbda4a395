"""Loose files become a data folder: the photo is the astronaut's, the maps are plain."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from fitdiff.cli import main
from fitdiff.errors import MissingError, UsageError
from fitdiff.models.landmarks import load_face_mesh
from fitdiff.models.latent import LatentLayout
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.face_detector import FaceDetector
from fitdiff.runtime.photo import load_photo
from fitdiff.training.import_triplets import held_out_sources, maps_from_folder, parameters_from_folder


def write_face(folder: Path, astronaut: Path, level: int, photos: int = 1, source: str | None = None) -> None:
    folder.mkdir(parents=True)
    colour = np.empty((512, 512, 3), np.uint8)
    colour[:] = (level, level + 10, level + 20)  # BGR
    cv2.imwrite(str(folder / "diffuse.png"), colour)
    cv2.imwrite(str(folder / "specular.png"), np.full((512, 512), level * 257, np.uint16))
    cv2.imwrite(str(folder / "normal.png"), np.full((512, 512, 4), (255, 128, 127, 9), np.uint8))
    for number in range(photos):
        shutil.copy(astronaut, folder / f"photo_{number}.jpg")
    values: dict[str, object] = {
        "identity": [level / 100] * 158,
        "expression": [[number + 0.5] * 25 for number in range(photos)],
        "light": [[0.1 * number] * 8 + [1.0] for number in range(photos)],
    }
    if source:
        values["source"] = source
    (folder / "parameters.json").write_text(json.dumps(values))


@pytest.fixture
def scans(tmp_path: Path, astronaut: Path) -> Path:
    """Three good faces of two people, one of them with a photo of a wall, and three that cannot be used."""
    folder = tmp_path / "scans"
    write_face(folder / "anna_1", astronaut, 50, source="anna")
    write_face(folder / "anna_2", astronaut, 60, photos=2, source="anna")
    cv2.imwrite(str(folder / "anna_2" / "photo_0.jpg"), np.full((200, 200, 3), 120, np.uint8))
    write_face(folder / "bert", astronaut, 70)
    parameters = json.loads((folder / "bert" / "parameters.json").read_text())
    (folder / "bert" / "parameters.json").unlink()
    np.savez(folder / "bert" / "parameters.npz", **parameters)
    write_face(folder / "no_map", astronaut, 80)
    (folder / "no_map" / "normal.png").unlink()
    write_face(folder / "small_map", astronaut, 80)
    cv2.imwrite(str(folder / "small_map" / "diffuse.png"), np.zeros((256, 256, 3), np.uint8))
    write_face(folder / "wrong_model", astronaut, 80)
    parameters["identity"] = [0.0] * 80
    (folder / "wrong_model" / "parameters.json").write_text(json.dumps(parameters))
    return folder


def test_faces_are_imported_and_bad_ones_reported(scans: Path, astronaut: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    result = CliRunner().invoke(main, ["train", "import", "--from", str(scans), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "3 faces, 3 photographs" in result.stdout
    left_out = [line for line in result.stderr.splitlines() if line.startswith("fitdiff: left out")]
    for words in ("photo anna_2/photo_0.jpg", "face no_map", "256 x 256", "identity in"):
        assert len([line for line in left_out if words in line]) == 1, words
    assert len(left_out) == 4

    maps = np.load(out / "maps.npy")  # the command has checked the folder
    assert maps.shape == (3, 9, 512, 512)
    levels = (50, 60, 70)
    assert maps[:, :, 100, 200].tolist() == [[v + 20, v + 10, v, v, v, v, 127, 128, 255] for v in levels]
    faces = load_file(out / "faces.safetensors")
    assert faces["map_index"].tolist() == [0, 1, 2]
    assert np.allclose(faces["identity"][:, 0], [0.5, 0.6, 0.7])
    assert np.allclose(faces["expression"][:, 3], [0.5, 1.5, 0.5])  # of anna_2 the second photo's
    crop = crop_face(load_photo(astronaut), FaceDetector(), load_face_mesh()[0])
    assert np.abs(np.load(out / "photos.npy")[2] / 255 - crop.image).max() < 0.003
    assert np.allclose(faces["landmarks"][0], crop.landmarks[:, :2])
    index = json.loads((out / "index.json").read_text())
    assert index["held_out"] in ([0, 1], [2])  # all of anna or all of bert


def test_one_person_is_too_few(tmp_path: Path, astronaut: Path) -> None:
    write_face(tmp_path / "scans" / "a", astronaut, 50)
    result = CliRunner().invoke(
        main, ["train", "import", "--from", str(tmp_path / "scans"), "--out", str(tmp_path / "data")]
    )
    assert result.exit_code == 2 and "at least two people" in result.stderr
    assert not (tmp_path / "data" / "index.json").exists()


def test_the_held_out_stay_when_people_come() -> None:
    people = [f"person {number}" for number in range(50)]
    few, many = held_out_sources(people[:40], 0.1), held_out_sources(people, 0.1)
    assert few and few == many & set(people[:40])
    assert 2 < len(held_out_sources([f"person {number}" for number in range(200)], 0.1)) < 40
    for share in (0.0, 0.5, 1.0):
        assert len(held_out_sources(["a", "b"], share)) == 1


def test_what_a_face_lacks_is_named(tmp_path: Path, astronaut: Path) -> None:
    layout = LatentLayout()
    write_face(tmp_path / "a", astronaut, 50)
    with pytest.raises(MissingError, match="normal.png"):
        (tmp_path / "a" / "normal.png").unlink()
        maps_from_folder(tmp_path / "a")
    path = tmp_path / "a" / "parameters.json"
    values = json.loads(path.read_text())
    for change, error, words in (
        ({"light": [[0.0] * 6]}, UsageError, r"light in .*shape \(1, 6\)"),
        ({"expression": [[float("nan")] * 25]}, UsageError, "not finite"),
        ({"photos": ["photo_7.jpg"]}, MissingError, "no photo_7.jpg"),
        ({"identity": "no"}, UsageError, "identity in"),
    ):
        path.write_text(json.dumps(values | change))
        with pytest.raises(error, match=words):
            parameters_from_folder(tmp_path / "a", layout)
    path.unlink()
    with pytest.raises(MissingError, match="parameters.json or parameters.npz"):
        parameters_from_folder(tmp_path / "a", layout)
