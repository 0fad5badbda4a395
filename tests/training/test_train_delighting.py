"""Photos unwrap to what the chart holds, and the delighting trainer learns from them to leave light out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fitdiff.errors import UsageError
from fitdiff.models.checkpoint import assets_dir
from fitdiff.models.delighting import (
    COLUMNS,
    ROWS,
    SIDE,
    DelightingConfig,
    DelightingNet,
    load_delighting,
    window_size,
)
from fitdiff.models.occlusion import OcclusionNet, load_occlusion
from fitdiff.training.fine_tuning import begin_delighting, begin_occlusion
from fitdiff.training.state import Budget
from fitdiff.training.synthetic import SynthesisConfig, synthesize
from fitdiff.training.train_delighting import DelightingTrainingConfig, train_delighting
from fitdiff.training.unwrapped_photos import UnwrappedPhotos, UnwrappingConfig, true_lightness, unwrap_photos

SMALL = DelightingConfig(widths=(8, 16, 16), place=4)
CONFIG = DelightingTrainingConfig(
    Budget(steps=40), SMALL, batch=4, learning_rate=5e-3, num_threads=2, warmup=5, average_decay=0.8, quiet=True
)
EVERYWHERE = torch.ones(1, 1, SIDE, SIDE)


def lit_faces(count: int = 12) -> UnwrappedPhotos:
    """Grey faces with a dark or a light bar on the character's left cheek, in light from either side."""
    height, width = window_size()
    rng, across = np.random.default_rng(0), np.linspace(-1, 1, width)[None]
    truth, inputs = [], []
    for face in range(count):
        pigment = np.zeros((height, width))
        pigment[90:130, 100:120] = 0.4 if face % 2 else -0.4
        light = np.broadcast_to(rng.uniform(-0.8, 0.8) * across, pigment.shape)
        layers = [0.4 * np.exp(pigment + light)] * 3 + [np.ones_like(pigment)] + [np.full_like(pigment, 0.5)] * 2
        inputs.append(np.stack([*layers, np.ones_like(pigment)]))
        truth.append(pigment[None] - 0.9)
    photos = np.arange(count)
    return UnwrappedPhotos(
        (np.stack(inputs).clip(0, 1) * 255).astype(np.uint8), np.stack(truth).astype(np.float16), photos,
        photos[:-2], photos[-2:],
    )  # fmt: skip


def trained(config: DelightingTrainingConfig, out: Path, resume: bool = False) -> float:
    result = train_delighting(config, lit_faces(), torch.zeros(1, 1, SIDE, SIDE), EVERYWHERE, out, resume)
    print(f"error {result.error:.4f}, of the mean chart {result.mean_error:.4f}")
    return result.error / result.mean_error


def test_learns_to_tell_pigment_from_light(tmp_path: Path) -> None:
    assert trained(CONFIG, tmp_path) < 0.85  # the mean of all faces, and light taken for pigment, have 1 and more
    network, card = load_delighting(tmp_path / "delighting")
    assert card.role == "delighting" and card.commercial and network.config == SMALL


def test_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    def weights(name: str) -> dict[str, Tensor]:
        return load_delighting(tmp_path / name / "delighting")[0].state_dict()

    config = replace(CONFIG, budget=Budget(steps=4), bfloat16=False)
    trained(config, tmp_path / "whole")
    trained(replace(config, budget=_Stopping(steps=4, stop=2)), tmp_path / "halves")
    trained(config, tmp_path / "halves", resume=True)
    whole, halves = weights("whole"), weights("halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    with pytest.raises(UsageError, match="init"):
        train_delighting(CONFIG, lit_faces(), EVERYWHERE, EVERYWHERE, tmp_path, True, init=tmp_path / "x")


class _Stopping(Budget):
    """A budget of `steps` that a power cut ends after `stop`."""

    def __init__(self, steps: int, stop: int) -> None:
        super().__init__(steps=steps)
        object.__setattr__(self, "stop", stop)

    def progress(self, step: int, seconds: float) -> float:
        return 1.0 if step >= getattr(self, "stop") else super().progress(step, seconds)  # noqa: B009


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, skins_folder: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("faces")
    synthesize(SynthesisConfig(skins_folder, count=2, photos_per_face=2), folder, lambda *_: None)
    yield folder


def test_photos_are_unwrapped_once_and_show_what_the_chart_holds(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = unwrap_photos(folder, UnwrappingConfig(versions=2), lambda *done: told.append(done))
    assert told[-1] == (4, 4) and found.inputs.shape == (8, 7, *window_size()) and list(found.face) == [0] * 4 + [1] * 4
    assert not set(found.training) & set(found.held_out) and len(found.held_out) == 4
    told.clear()
    again = unwrap_photos(folder, UnwrappingConfig(versions=2), lambda *done: told.append(done))
    assert not told and np.array_equal(found.inputs, again.inputs)
    maps = np.load(folder / "maps.npy")
    np.testing.assert_array_equal(found.lightness[1], true_lightness(maps[1]))
    # Details of the albedo, brows and lips, are where the photo shows them: bands of both correlate.
    for photo in (0, 4):
        colours, shown = found.inputs[photo, :3].astype(np.float32) / 255, found.inputs[photo, 3] > 128
        assert shown.mean() > 0.15
        seen = np.log(colours.clip(0.02).mean(0))
        true = found.lightness[found.face[photo], 0].astype(np.float32)
        both = [_detail(x, shown) for x in (seen, true)]
        correlation = np.corrcoef(both[0][shown], both[1][shown])[0, 1]
        mirrored = np.corrcoef(both[0][:, ::-1][shown[:, ::-1]], both[1][shown[:, ::-1]])[0, 1]
        print(f"photo {photo}: correlation {correlation:.3f}, with the mirrored {mirrored:.3f}")
        assert correlation > 0.3 and correlation > mirrored + 0.05


def test_heads_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "morphable_sha256": "0" * 64}))
    with pytest.raises(UsageError, match="morphable"):
        unwrap_photos(tmp_path)
    assert not list(tmp_path.glob("unwrapped*"))


def _detail(x: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """What is finer than 12 texels, where it is shown."""
    import cv2

    weight = cv2.GaussianBlur(shown.astype(np.float32), (0, 0), 12) + 1e-3
    return x - cv2.GaussianBlur(x.astype(np.float32) * shown, (0, 0), 12) / weight


def test_true_lightness_is_that_of_the_window() -> None:
    maps = np.full((9, 512, 512), 60, np.uint8)
    maps[:3, 2 * (ROWS.start + 10) : 2 * (ROWS.start + 20), 2 * (COLUMNS.start + 5) : 2 * (COLUMNS.start + 9)] = 200
    found = true_lightness(maps)[0]
    lighter = found > found.min() + 0.2
    assert lighter.sum() == 40 and lighter[10:20, 5:9].all()


def test_a_run_begins_with_the_weights_of_a_checkpoint_of_its_architecture() -> None:
    model = DelightingNet()
    begin_delighting(model, assets_dir() / "delighting")
    assert torch.equal(model.head.weight, load_delighting()[0].head.weight)
    occlusion = OcclusionNet()
    begin_occlusion(occlusion, assets_dir() / "occlusion.safetensors")
    assert torch.equal(occlusion.head.weight, load_occlusion()[0].head.weight)
    with pytest.raises(UsageError, match="widths"):
        begin_delighting(DelightingNet(SMALL), assets_dir() / "delighting")
