"""Shape figures: alignment with known motions, known millimetres, and the mean head beside the avatar."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

pytest.importorskip("scipy", reason="scipy is not installed")

from fitdiff.errors import UsageError
from fitdiff.evaluation.alignment import (
    Similarity,
    Surface,
    aligned_points,
    closest_on_triangles,
    distances_to_surface,
)
from fitdiff.evaluation.face_region import face_vertices
from fitdiff.evaluation.geometry import (
    LANDMARKS,
    RIGID,
    SIMILAR,
    evaluate_geometry,
    mean_head_landmark_error,
    vertex_errors,
)
from fitdiff.models.morphable import MorphableModel
from fitdiff.rendering.camera import rotation_from_rodrigues
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.pipeline import FitDiffPipeline

MIRROR = np.array([-1.0, 1.0, 1.0])


def turned(axis_angle: tuple[float, float, float]) -> np.ndarray:
    return rotation_from_rodrigues(torch.tensor([axis_angle], dtype=torch.float64))[0].numpy()


@pytest.fixture
def face(small_pipeline: FitDiffPipeline) -> np.ndarray:
    """Points of an uneven face, metres."""
    model = small_pipeline.morphable
    identity = torch.randn(1, 158, generator=torch.Generator().manual_seed(0))
    return model(identity)[0].double().numpy()[face_vertices(model)]


def test_alignment_finds_a_known_motion(face: np.ndarray) -> None:
    true = Similarity(1.3, turned((0.4, -0.7, 0.2)), np.array([0.1, -0.2, 0.3]))
    found = aligned_points(face, true(face), scaled=True)
    assert found.scale == pytest.approx(1.3)
    assert np.allclose(found.rotation, true.rotation) and np.allclose(found.translation, true.translation)
    assert np.allclose(found.inverse(true(face)), face)
    rigid = aligned_points(face, true(face), scaled=False)
    assert rigid.scale == 1 and np.allclose(rigid.rotation, true.rotation)
    assert vertex_errors(face, true(face), scaled=True)[0] < 1e-6
    assert vertex_errors(face, true(face), scaled=False)[0] > 5


def test_a_mirrored_face_does_not_align(face: np.ndarray) -> None:
    for scaled in (False, True):
        motion = aligned_points(face * MIRROR, face, scaled=scaled)
        assert np.linalg.det(motion.rotation) == pytest.approx(1)
        assert vertex_errors(face * MIRROR, face, scaled=scaled)[0] > 1


def test_errors_are_in_millimetres(face: np.ndarray) -> None:
    """Every other point is 2 mm out, this way and that, so that no motion can make up for it."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(face.shape)
    noise *= 0.002 / np.linalg.norm(noise, axis=1, keepdims=True)
    mean, percentile = vertex_errors(face + noise, face, scaled=True)
    assert mean == pytest.approx(2, rel=0.02) and percentile == pytest.approx(2, rel=0.05)


def test_nearest_point_of_a_triangle() -> None:
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    points = np.array([[0.25, 0.25, 2], [-1, -1, 0], [2, -1, 3], [0.5, -1, 0], [1, 1, 1]])
    nearest = np.array([[0.25, 0.25, 0], [0, 0, 0], [1, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]])
    weights = closest_on_triangles(points, np.broadcast_to(corners, (5, 3, 3)))
    assert np.allclose(weights @ corners, nearest) and np.allclose(weights.sum(1), 1)


def test_nearest_points_of_a_head_are_those_among_all_triangles(small_pipeline: FitDiffPipeline) -> None:
    model = small_pipeline.morphable
    vertices, triangles = model.mean.double().numpy(), model.triangles.numpy()[model.triangle_part.numpy() == 0]
    rng = np.random.default_rng(0)
    points = vertices[face_vertices(model)][::20] + rng.normal(0, 0.004, (1, 3))
    found = Surface(vertices, triangles).closest(points)[0]
    for point, nearest in zip(points, found, strict=True):
        corners = vertices[triangles]
        weights = closest_on_triangles(np.broadcast_to(point, (len(corners), 3)), corners)
        least = np.linalg.norm((weights[..., None] * corners).sum(1) - point, axis=1).min()
        assert np.linalg.norm(nearest - point) == pytest.approx(least, abs=1e-6)


def test_a_shifted_patch_is_found_again_and_a_sheet_keeps_its_distance(small_pipeline: FitDiffPipeline) -> None:
    model = small_pipeline.morphable
    vertices = model.mean.double().numpy()
    surface = Surface(vertices, model.triangles.numpy()[model.triangle_part.numpy() == 0])
    points = vertices[face_vertices(model)]
    moved = Similarity(1.1, turned((0.02, 0.03, -0.02)), np.array([0.004, -0.003, 0.002]))
    distances = distances_to_surface(moved(points), surface, aligned_points(points, points, scaled=True))
    assert distances.mean() < 2e-4
    # Two flat patches, one level, the other's points 3 mm above and below by turns: each is 3 mm away.
    x, y = np.meshgrid(np.linspace(-0.1, 0.1, 41), np.linspace(-0.1, 0.1, 41))
    flat = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    quad = (np.arange(40)[:, None] * 41 + np.arange(40)).ravel()
    sheet = np.concatenate([np.stack([quad, quad + 1, quad + 42], 1), np.stack([quad, quad + 42, quad + 41], 1)])
    inner = np.abs(flat[:, :2]).max(1) < 0.047  # 19 x 19: a chequerboard
    bumpy = flat[inner] + np.array([0, 0, 0.003]) * np.where(np.arange(inner.sum()) % 2, 1, -1)[:, None]
    start = aligned_points(flat, flat, scaled=True)
    assert distances_to_surface(bumpy, Surface(flat, sheet), start) * 1000 == pytest.approx(3, abs=0.02)


def test_the_bare_face_is_in_front(small_pipeline: FitDiffPipeline) -> None:
    model = small_pipeline.morphable
    chosen = face_vertices(model)
    points = model.mean.numpy()[chosen]
    normals_side = model.landmarks(model.mean[None])[0].numpy()[model.landmark_valid.numpy() > 0]
    assert 0.2 < chosen.mean() < 0.6
    assert points[:, 2].min() > normals_side[:, 2].min() - 0.03  # nothing of the back of the head
    assert np.ptp(points[:, 0]) < 0.19 and np.ptp(points[:, 1]) < 0.25


class FakePipeline:
    """The small models, and avatars that are the given head."""

    def __init__(self, real: FitDiffPipeline, vertices: np.ndarray) -> None:
        self.models, self.morphable, self.detector = real.models, real.morphable, real.detector
        self.atlas, self.renderer, self.cards = real.atlas, real.renderer, real.cards
        self.vertices = vertices

    def avatar(self, crop: FaceCrop, options: AvatarOptions) -> Any:
        neutral = self.morphable.mean.numpy()
        avatar = SimpleNamespace(vertices=neutral, expression_offset=self.vertices - neutral)
        return SimpleNamespace(avatar=avatar, report=SimpleNamespace(landmark_error=0.02))


def evaluated(fake: FakePipeline, **options: Any) -> Any:
    settings: dict[str, Any] = {"photos": None, "data": None, "ict": None, "limit": None, "seed": 0, "rows": None}
    return evaluate_geometry(cast(FitDiffPipeline, fake), say=lambda line: None, **settings | options)


def true_head(model: MorphableModel) -> np.ndarray:
    return model(torch.ones(1, 158), torch.full((1, 25), 0.5))[0].numpy()


def test_the_true_head_has_no_error_and_a_larger_one_only_a_rigid_one(
    small_pipeline: FitDiffPipeline, held_out_data: Path
) -> None:
    true = true_head(small_pipeline.morphable)
    exact = evaluated(FakePipeline(small_pipeline, true), data=held_out_data)
    assert list(exact.rows) == [RIGID, SIMILAR]
    assert exact.rows[RIGID][0] < 1e-3 and exact.rows[SIMILAR][1] < 1e-3
    assert exact.rows[RIGID][2] > 1 and exact.rows[RIGID][3] > exact.rows[RIGID][2]  # the mean head's
    larger = evaluated(FakePipeline(small_pipeline, true * np.float32(1.05)), data=held_out_data)
    points = true[face_vertices(small_pipeline.morphable)]
    spread = np.linalg.norm(points - points.mean(0), axis=1).mean() * 1000
    assert larger.rows[RIGID][0] == pytest.approx(0.05 * spread, rel=1e-3)
    assert larger.rows[SIMILAR][0] < 1e-3
    assert larger.rows[SIMILAR][2:] == exact.rows[SIMILAR][2:]


def test_landmarks_on_photos(small_pipeline: FitDiffPipeline, astronaut: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "astronaut").mkdir(parents=True)
    (tmp_path / "photos" / "nobody").mkdir()
    (tmp_path / "photos" / "astronaut" / "1.jpg").symlink_to(astronaut)
    (tmp_path / "photos" / "nobody" / "1.jpg").write_bytes(b"no picture")
    fake = FakePipeline(small_pipeline, small_pipeline.morphable.mean.numpy())
    rows = tmp_path / "rows.jsonl"
    found = evaluated(fake, photos=tmp_path / "photos", rows=rows)
    mean, percentile, mean_head, _ = found.rows[LANDMARKS]
    assert (mean, percentile) == (pytest.approx(2), pytest.approx(2))
    assert 2 < mean_head < 20
    assert found.figures["faces"] == {LANDMARKS: 1}
    assert len(found.notes) == 1 and "nobody" in found.notes[0]
    assert len(rows.read_text().splitlines()) == 1


def test_the_mean_head_fits_its_own_landmarks(small_pipeline: FitDiffPipeline, astronaut: Path) -> None:
    from fitdiff.rendering.camera import project
    from fitdiff.runtime.guidance import crop_camera
    from fitdiff.runtime.pose import Pose

    model = small_pipeline.morphable
    crop = crop_face(load_photo(astronaut), small_pipeline.detector, small_pipeline.models.face_mesh)
    camera = crop_camera(Pose(np.array([np.pi, 0.1, 0.0]), np.array([0.0, 0.0, 0.7]), 0.0))
    own = project(camera, model.landmarks(model.mean[None]))[0].numpy().astype(np.float32)
    crop.landmarks[:] = own  # frozen is the crop, not its arrays
    assert mean_head_landmark_error(model, crop) < 1e-3


def test_nothing_to_measure_is_an_error(small_pipeline: FitDiffPipeline) -> None:
    with pytest.raises(UsageError, match="name at least one"):
        evaluated(FakePipeline(small_pipeline, small_pipeline.morphable.mean.numpy()))
