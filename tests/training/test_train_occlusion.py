"""The occlusion trainer learns to mark what was painted, resumes exactly, and hands over a network that loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from fitdiff.errors import UsageError
from fitdiff.models.occlusion import OcclusionNet, load_occlusion, occlusion_guides
from fitdiff.models.perceptual import EfficientNetLite0Features, load_perceptual
from fitdiff.training.devices import start_workers
from fitdiff.training.state import Budget
from fitdiff.training.train_occlusion import OcclusionTrainer, OcclusionTrainingConfig, train_occlusion

SIZE = 224


def face_points() -> np.ndarray:
    """(468, 2) px: a head seen from the front, by the embedded morphable model's points on its chart."""
    from fitdiff.models.morphable import load_morphable

    return load_morphable()[0].landmarks_on_chart().numpy() * (SIZE / 512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six plain faces: one colour each, the oval a little lighter."""
    folder = tmp_path_factory.mktemp("faces")
    points, rng = face_points(), np.random.default_rng(0)
    oval = occlusion_guides(points, SIZE)[0][..., None]
    photos = [(rng.uniform(80, 180, 3) * (0.8 + 0.2 * oval)).astype(np.uint8) for _ in range(6)]
    np.save(folder / "photos.npy", np.stack(photos))
    np.save(folder / "maps.npy", np.zeros((3, 9, 16, 16), np.uint8))
    count = len(photos)
    faces = {
        "landmarks": np.repeat(points[None], count, 0).astype(np.float32),
        "five_points": np.zeros((count, 5, 2), np.float32),
        "identity": np.zeros((count, 158), np.float32),
        "expression": np.zeros((count, 25), np.float32),
        "light": np.zeros((count, 9), np.float32),
        "map_index": np.repeat(np.arange(3), 2),
    }
    save_file(faces, folder / "faces.safetensors")
    (folder / "index.json").write_text(json.dumps({"held_out": [2]}))
    return folder


@pytest.fixture(scope="module")
def features() -> EfficientNetLite0Features:
    return load_perceptual()[0]


def striped_patch(picture: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A square of stripes somewhere on the face."""
    coverage = np.zeros(picture.shape[:2], np.float32)
    x, y = (int(v) for v in points[rng.integers(len(points))].clip(30, SIZE - 70))
    coverage[y : y + 50, x : x + 50] = 1
    stripes = np.zeros_like(picture)
    stripes[::4] = stripes[1::4] = 1
    return np.where(coverage[..., None] > 0, stripes, picture), coverage


CONFIG = OcclusionTrainingConfig(Budget(steps=30), batch=4, num_threads=2, warmup=5, average_decay=0.8, quiet=True)


def test_learns_to_mark_what_was_painted(folder: Path, features: EfficientNetLite0Features, tmp_path: Path) -> None:
    result = train_occlusion(CONFIG, folder, tmp_path, striped_patch, features)
    print(f"found {result.found:.3f}, alarm {result.alarm:.3f}")
    assert result.found > 0.9 and result.alarm < 0.05
    network, card = load_occlusion(tmp_path / "occlusion")
    assert card.commercial
    points = face_points()
    picture, coverage = striped_patch(np.full((SIZE, SIZE, 3), 0.5, np.float32), points, np.random.default_rng(8))
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    guides = torch.from_numpy(occlusion_guides(points, SIZE))[None]
    hidden = network.hidden(image, features(image), guides)[0, 0].numpy()
    inside = cv2.erode(coverage, np.ones((7, 7))) > 0
    assert hidden.shape == (SIZE, SIZE) and hidden[inside].mean() > 0.8


def test_resumed_run_equals_one_that_never_stopped(
    folder: Path, features: EfficientNetLite0Features, tmp_path: Path
) -> None:
    def weights(path: Path) -> dict[str, Tensor]:
        return load_occlusion(path / "occlusion")[0].state_dict()

    config = replace(CONFIG, budget=Budget(steps=4), bfloat16=False)
    train_occlusion(config, folder, tmp_path / "whole", striped_patch, features)
    # The learning rate follows the budget: the first half is cut short with the whole budget's rates.
    half = replace(config, budget=_Stopping(steps=4, stop=2))
    train_occlusion(half, folder, tmp_path / "halves", striped_patch, features)
    train_occlusion(config, folder, tmp_path / "halves", striped_patch, features, resume=True)
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


class _Stopping(Budget):
    """A budget of `steps` that a power cut ends after `stop`."""

    def __init__(self, steps: int, stop: int) -> None:
        super().__init__(steps=steps)
        object.__setattr__(self, "stop", stop)

    def progress(self, step: int, seconds: float) -> float:
        return 1.0 if step >= getattr(self, "stop") else super().progress(step, seconds)  # noqa: B009


def test_beginning_from_a_checkpoint_and_resuming_exclude_each_other(
    folder: Path, features: EfficientNetLite0Features, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="init"):
        train_occlusion(CONFIG, folder, tmp_path, striped_patch, features, True, init=tmp_path / "x")


def test_guides_lie_where_the_landmarks_are() -> None:
    points = face_points()
    guides = occlusion_guides(points, SIZE)
    oval, eyes, brows, lips, mouth = guides
    assert oval.sum() > 5 * (eyes.sum() + lips.sum()) and (eyes * oval).sum() > 0.95 * eyes.sum()
    assert mouth.sum() <= lips.sum()
    rows = [float((guide.sum(1) * np.arange(SIZE)).sum() / guide.sum()) for guide in (brows, eyes, lips)]
    assert rows[0] < rows[1] < rows[2]  # top to bottom
    shifted = occlusion_guides(points + [10, 0], SIZE)
    assert np.array_equal(shifted[1][:, 10:], eyes[:, :-10])


def test_untrained_network_takes_any_even_size() -> None:
    network, features = OcclusionNet().eval(), load_perceptual()[0]
    image = torch.rand(2, 3, 96, 96)
    assert network(image, features(image), torch.zeros(2, 5, 96, 96)).shape == (2, 1, 48, 48)


def test_a_wire_thinner_than_a_pixel_is_hidden_skin(folder: Path, features: EfficientNetLite0Features) -> None:
    trainer = OcclusionTrainer(
        OcclusionTrainingConfig(device="cpu"), folder, striped_patch, features, start_workers("cpu")
    )
    thin = np.zeros((SIZE, SIZE), np.float32)
    thin[100:102] = 0.5  # a line of one pixel between two
    sample = np.zeros((SIZE, SIZE, 3), np.float32), thin, np.zeros((5, SIZE, SIZE), np.float32), np.ones_like(thin)
    _, coverage, _, _ = trainer._stacked([sample])
    assert torch.equal(coverage[0, 0, 50], torch.ones(SIZE // 2)) and float(coverage.sum()) == SIZE // 2
