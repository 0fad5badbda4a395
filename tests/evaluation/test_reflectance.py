"""Reflectance figures: maps with known errors, both kinds of data, reference rows, and runs that are continued."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("skimage", reason="scikit-image is not installed")

from fitdiff.errors import UsageError
from fitdiff.evaluation.map_folders import map_folders_in
from fitdiff.evaluation.reflectance import MAPS, SOURCES, evaluate_reflectance, map_figures
from fitdiff.evaluation.synthetic_photos import STORED_POINTS, HeldOutFaces, crop_of_picture
from fitdiff.runtime.avatar_maps import reflectance_maps
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_crop import FaceCrop
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.training.skins import face_weight
from fitdiff.training.synthetic import FORMAT

SIZE = 512


class FakePipeline:
    """The small models, and avatars whose maps are given: `made` of the crop."""

    def __init__(self, real: FitDiffPipeline, made: Callable[[FaceCrop], np.ndarray]) -> None:
        self.models, self.morphable, self.detector = real.models, real.morphable, real.detector
        self.atlas, self.renderer, self.cards = real.atlas, real.renderer, real.cards
        self.made, self.crops = made, cast("list[FaceCrop]", [])

    def avatar(self, crop: FaceCrop, options: AvatarOptions) -> Any:
        self.crops.append(crop)
        maps = torch.from_numpy(self.made(crop))[None]
        return SimpleNamespace(avatar=SimpleNamespace(face_maps=reflectance_maps(maps)))


def shifted(maps: np.ndarray, by: float) -> np.ndarray:
    """Albedos `by` higher in [0, 1]."""
    values = maps.astype(np.float32) / 255
    return np.concatenate([values[:6] + by, values[6:]])


def evaluated(fake: FakePipeline, data: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"limit": None, "seed": 0, "rows": None, "say": lambda line: None}
    return evaluate_reflectance(cast(FitDiffPipeline, fake), data, **settings | options)


def test_a_constant_error_has_its_mse_and_psnr() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.2, 0.8, (64, 64, 3))
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    made = true + 0.1
    made[~mask] = 0  # what lies outside takes no part
    made[8:56, 8:56] = true[8:56, 8:56] + 0.1  # but for the windows of SSIM, which look 3 texels further
    figures = map_figures(made, true, mask)
    assert figures["mse"] == pytest.approx(0.01) and figures["psnr"] == pytest.approx(20.0)
    assert 0.9 < figures["ssim"] < 1
    same = map_figures(true, true, mask)
    assert same == {"mse": 0.0, "psnr": 100.0, "ssim": pytest.approx(1.0)}
    noise = map_figures(rng.uniform(0.2, 0.8, true.shape), true, mask)
    assert abs(noise["ssim"]) < 0.2


def test_a_training_folder_gives_avatar_and_reference_rows(
    small_pipeline: FitDiffPipeline, held_out_data: Path, true_maps: np.ndarray
) -> None:
    fake = FakePipeline(small_pipeline, lambda crop: shifted(true_maps, 0.05))
    found = evaluated(fake, held_out_data)
    assert list(found.rows) == [*MAPS, *(f"{source}: {name}" for source in SOURCES[1:] for name in MAPS)]
    for name in ("diffuse", "specular"):
        mse, psnr, ssim = found.rows[name]
        assert mse == pytest.approx(0.0025, rel=1e-3) and psnr == pytest.approx(26.02, abs=0.01) and ssim > 0.9
    assert found.rows["normals"][1] > 45  # the stored bytes are not quite of unit length
    # The mean chart by hand, over the face.
    mask = face_weight(small_pipeline.morphable) > 0.5
    mean = small_pipeline.models.autoencoder.chart_mean[:3].numpy()
    error = ((mean - true_maps[:3].astype(np.float64) / 255) ** 2)[:, mask].mean()
    assert found.rows["mean chart: diffuse"][0] == pytest.approx(error, rel=1e-3)
    with torch.no_grad():
        autoencoder = small_pipeline.models.autoencoder
        again = autoencoder.decode(autoencoder.encode(torch.from_numpy(true_maps)[None].float() / 255))[0, :3].numpy()
    error = ((again - true_maps[:3].astype(np.float64) / 255) ** 2)[:, mask].mean()
    assert found.rows["autoencoder: diffuse"][0] == pytest.approx(error, rel=1e-3)
    assert found.figures["faces"] == 1
    assert found.figures["island"]["avatar"]["diffuse"]["mse"] == pytest.approx(0.0025, rel=1e-3)
    json.loads(found.json())


def test_the_product_finds_the_face_in_a_stored_photo(
    small_pipeline: FitDiffPipeline, held_out_data: Path, astronaut_crop: FaceCrop
) -> None:
    crop = HeldOutFaces(held_out_data).crop(1, small_pipeline.detector, small_pipeline.models.face_mesh)
    assert STORED_POINTS not in crop.notes
    scale = crop.crop_from_photo[0, 0]
    in_photo = (crop.landmarks[:, :2] - crop.crop_from_photo[:, 2]) / scale
    distance = np.linalg.norm(in_photo - astronaut_crop.landmarks[:, :2], axis=1)
    assert distance.mean() < 2.5


def test_without_a_face_the_stored_landmarks_stand_in(
    small_pipeline: FitDiffPipeline, astronaut_crop: FaceCrop
) -> None:
    grey = np.full((224, 224, 3), 90, np.uint8)
    points = astronaut_crop.landmarks[:, :2]
    crop = crop_of_picture(grey, points, small_pipeline.detector, small_pipeline.models.face_mesh)
    assert crop.notes == (STORED_POINTS,)
    assert np.array_equal(crop.landmarks[:, :2], points) and crop.inside_photo.all()
    assert np.allclose(crop.five_points, astronaut_crop.five_points)


def test_finished_faces_are_not_measured_again(
    small_pipeline: FitDiffPipeline, held_out_data: Path, true_maps: np.ndarray, tmp_path: Path
) -> None:
    rows = tmp_path / "new" / "rows.jsonl"
    fake = FakePipeline(small_pipeline, lambda crop: shifted(true_maps, 0.05))
    first = evaluated(fake, held_out_data, rows=rows)
    with rows.open("a") as file:
        file.write('\n{"part": "reflectance", "na')  # a run that was stopped as it wrote
    again = evaluated(fake, held_out_data, rows=rows)
    assert len(fake.crops) == 1 and again.rows == first.rows
    evaluated(fake, held_out_data, rows=rows, seed=1)
    assert len(fake.crops) == 2
    evaluated(fake, held_out_data, rows=rows, seed=1)
    assert len(fake.crops) == 2


def test_maps_without_a_photo_are_photographed(
    small_pipeline: FitDiffPipeline, true_maps: np.ndarray, tmp_path: Path
) -> None:
    for number, name in enumerate(("diffuse", "specular", "normal")):
        face = tmp_path / "ada"
        face.mkdir(exist_ok=True)
        rgb = true_maps[3 * number : 3 * number + 3].transpose(1, 2, 0)
        deep = rgb.astype(np.uint16) * 257 if name != "diffuse" else rgb
        cv2.imwrite(str(face / f"{name}.png"), deep[..., ::-1])
    (folder,) = map_folders_in(tmp_path)
    assert np.abs(folder.maps(SIZE)[:6] - true_maps[:6] / 255).max() < 1e-3
    fake = FakePipeline(small_pipeline, lambda crop: shifted(true_maps, 0.05))
    found = evaluated(fake, tmp_path)
    assert found.rows["diffuse"][0] == pytest.approx(0.0025, rel=1e-3)
    assert not any(STORED_POINTS in note for note in found.notes), "the face in our own picture was not found"
    evaluated(fake, tmp_path)
    evaluated(fake, tmp_path, seed=1)
    first, same, other = fake.crops
    assert np.array_equal(first.image, same.image) and not np.array_equal(first.image, other.image)


def test_maps_are_resized_in_linear_light(tmp_path: Path) -> None:
    board = np.zeros((8, 8, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    folder = tmp_path / "face"
    folder.mkdir()
    cv2.imwrite(str(folder / "diffuse.png"), board)
    cv2.imwrite(str(folder / "specular.png"), board[..., 0])
    cv2.imwrite(str(folder / "normal.png"), np.full((8, 8, 3), (255, 128, 128), np.uint8))
    maps = map_folders_in(tmp_path)[0].maps(4)
    assert np.allclose(maps[:3], 0.7354, atol=1e-3)  # half the light, encoded
    assert np.allclose(maps[3:6], 0.5)
    assert np.allclose(np.linalg.norm(maps[6:] * 2 - 1, axis=0), 1, atol=1e-5) and maps[8].min() > 0.99


@pytest.mark.parametrize("content", ("nothing", "one map", "an index"))
def test_a_folder_of_something_else_is_refused(small_pipeline: FitDiffPipeline, tmp_path: Path, content: str) -> None:
    if content == "one map":
        (tmp_path / "face").mkdir()
        cv2.imwrite(str(tmp_path / "face" / "diffuse.png"), np.zeros((4, 4, 3), np.uint8))
    elif content == "an index":
        (tmp_path / "index.json").write_text(json.dumps({"format": FORMAT, "held_out": [0]}))
    fake = FakePipeline(small_pipeline, lambda crop: np.zeros((9, SIZE, SIZE), np.float32))
    with pytest.raises(UsageError, match="fitdiff synthesize"):
        evaluated(fake, tmp_path)
