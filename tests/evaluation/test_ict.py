"""ICT-FaceKit's faces: read as they are, dressed so that the product sees a face, measured in true millimetres."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

pytest.importorskip("scipy", reason="scipy is not installed")

from fitdiff.errors import UsageError
from fitdiff.evaluation.geometry import ICT, evaluate_geometry, surface_errors
from fitdiff.evaluation.ict import LANDMARKS, IctModel, IctStudio, load_ict
from fitdiff.models.landmark_indices import LANDMARK_68
from fitdiff.rendering.shader import Light
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.photo import Photo
from fitdiff.runtime.pipeline import FitDiffPipeline


@pytest.fixture(scope="module")
def ict_file() -> Path:
    named = os.environ.get("FITDIFF_ICT")
    if not named:
        pytest.skip("FITDIFF_ICT names no file with ICT-FaceKit (V, I and F as a NumPy archive)")
    return Path(named)


@pytest.fixture(scope="module")
def ict(ict_file: Path) -> IctModel:
    return load_ict(ict_file)


@pytest.fixture(scope="module")
def studio(ict: IctModel, small_pipeline: FitDiffPipeline) -> IctStudio:
    with torch.no_grad():
        maps = small_pipeline.atlas.compose(small_pipeline.atlas.neutral_face())
    return IctStudio(ict, small_pipeline.morphable, maps)


@pytest.mark.parametrize("content", ("no archive", "another model"))
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ict.npz"
    if content == "no archive":
        path.write_bytes(b"PK nothing")
    else:
        np.savez(path, V=np.zeros((5, 3)), I=np.zeros((2, 5, 3)), F=np.zeros((3, 4), np.int64))
    with pytest.raises(UsageError, match="ICT-FaceKit"):
        load_ict(path)


def test_heads_are_of_human_size_and_repeatable(ict: IctModel) -> None:
    eyes = ict.mean[list(LANDMARKS)][[36, 45]]
    assert 0.08 < np.linalg.norm(eyes[0] - eyes[1]) < 0.1 and eyes[0, 0] < eyes[1, 0]
    faces = [ict.vertices(np.random.default_rng([seed, 0])) for seed in (0, 0, 1)]
    assert np.array_equal(faces[0], faces[1])
    assert 0.001 < np.linalg.norm(faces[0] - faces[2], axis=1).mean() < 0.03


def test_the_dressed_face_is_in_place(ict: IctModel, studio: IctStudio, small_pipeline: FitDiffPipeline) -> None:
    """The product's own networks find the face, and its landmarks where FaceKit says that they are."""
    rng = np.random.default_rng(0)
    pixels = studio.photograph(ict.vertices(rng), rng)
    photo = Photo(pixels, "sha", False)
    crop = crop_face(photo, small_pipeline.detector, small_pipeline.models.face_mesh)
    assert crop.quarter_turns == 0 and len(crop.faces) == 1
    # From the front, so that the camera is easily done by hand.
    light = Light(torch.ones(1, 3), torch.zeros(1, 3), torch.eye(3)[2:])
    shape = ict.vertices(np.random.default_rng(1))
    pixels = studio.picture(shape, 0.0, 0.0, 1.0, light, np.full((512, 512, 3), 160))
    crop = crop_face(Photo(pixels, "sha", False), small_pipeline.detector, small_pipeline.models.face_mesh)
    points = shape[list(LANDMARKS)]
    away = points - points.mean(0)
    flat = away[:, :2] * [1, -1] * 512 / 0.42 / (1 - away[:, 2:]) + 256
    found = (crop.landmarks[:, :2] - crop.crop_from_photo[:, 2]) / crop.crop_from_photo[0, 0]
    distance = np.linalg.norm(found[list(LANDMARK_68)] - flat, axis=1)[17:]  # without the jaw, which is vague
    eyes = np.linalg.norm(flat[36] - flat[45])
    assert distance.mean() < 0.08 * eyes and distance.max() < 0.25 * eyes


def test_a_larger_surface_is_no_error_and_the_mean_head_is(
    ict: IctModel, studio: IctStudio, small_pipeline: FitDiffPipeline
) -> None:
    model = small_pipeline.morphable
    mean_head = model.mean.numpy()
    corners = mean_head[model.triangles.numpy()[studio.face_triangles]]
    on_ours = (corners * studio.face_barycentrics[..., None]).sum(1)
    assert surface_errors(mean_head * 1.2 + 0.1, on_ours, studio, model)[0] < 0.01
    mean, percentile = surface_errors(mean_head, ict.mean[studio.face], studio, model)
    assert 0.3 < mean < percentile < 10
    doubled = surface_errors(mean_head, ict.mean[studio.face] * 2, studio, model)  # millimetres of the true face
    assert doubled == pytest.approx([2 * mean, 2 * percentile], rel=0.01)


def test_the_table_has_the_avatar_beside_the_mean_head(ict_file: Path, small_pipeline: FitDiffPipeline) -> None:
    mean = small_pipeline.morphable.mean.numpy()
    avatar = SimpleNamespace(vertices=mean, expression_offset=np.zeros_like(mean))
    fake = SimpleNamespace(
        **{name: getattr(small_pipeline, name) for name in ("models", "morphable", "detector", "atlas", "cards")},
        avatar=lambda crop, options: SimpleNamespace(avatar=avatar),
    )
    found = evaluate_geometry(
        cast(FitDiffPipeline, fake), photos=None, data=None, ict=ict_file, limit=1, seed=0, rows=None,
        say=lambda line: None,
    )  # fmt: skip
    values = found.rows[ICT]
    assert values[:2] == values[2:] and found.figures["faces"] == {ICT: 1}
