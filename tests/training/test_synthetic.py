"""Synthetic faces: repeatable whatever the number of workers, framed like photos, with a truth that fits them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fitdiff.models.morphable import load_morphable
from fitdiff.models.recogniser import load_recogniser
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.runtime.face_chip import chip_transform, warp_chip
from fitdiff.runtime.face_crop import CROP_SCALE, CROP_SIZE
from fitdiff.training.diffusion_losses import DiffusionBatch
from fitdiff.training.identity_losses import RenderedIdentityLosses
from fitdiff.training.synthetic import (
    SynthesisConfig,
    SyntheticStudio,
    drawn_cover,
    spoil,
    synthesize,
    with_irises,
)


@pytest.fixture(scope="module")
def folder(skins_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    stages: list[str] = []
    config = SynthesisConfig(skins_folder, count=2, photos_per_face=2, seed=4, held_out=0.5)
    synthesize(config, out, lambda stage, done, total: stages.append(f"{stage} {done}/{total}"))
    assert stages == ["maps 1/2", "maps 2/2", "photos 1/2", "photos 2/2"]
    return out


def test_folder_holds_what_training_reads(folder: Path) -> None:
    maps, photos = np.load(folder / "maps.npy"), np.load(folder / "photos.npy")
    faces = load_file(folder / "faces.safetensors")
    assert maps.shape == (2, 9, 512, 512) and photos.shape == (4, CROP_SIZE, CROP_SIZE, 3)
    shapes = {name: array.shape for name, array in faces.items()}
    assert shapes == {
        "map_index": (4,), "identity": (4, 158), "expression": (4, 25), "light": (4, 9), "five_points": (4, 5, 2),
        "landmarks": (4, 468, 2),
        "cover": (4, 6),
    }  # fmt: skip
    assert faces["map_index"].tolist() == [0, 0, 1, 1]
    assert np.array_equal(faces["identity"][0], faces["identity"][1])
    assert not np.array_equal(faces["expression"][0], faces["expression"][1])
    index = json.loads((folder / "index.json").read_text())
    assert index["held_out_source"] in index["skins"].values() and len(index["held_out_skins"]) == 1
    assert index["held_out"] == [1] and "/" not in index["config"]["skins"]
    assert all(photo.std() > 8 for photo in photos)


def test_faces_are_framed_as_photos_are(folder: Path) -> None:
    for points in load_file(folder / "faces.safetensors")["landmarks"]:
        extent = np.ptp(points, axis=0).max()
        assert extent * CROP_SCALE == pytest.approx(CROP_SIZE, rel=0.02)
        assert np.abs((points.max(0) + points.min(0)) / 2 - CROP_SIZE / 2).max() < 12
        right, left = points[33], points[263]
        assert right[0] < left[0] and abs(np.degrees(np.arctan2(*(left - right)[::-1]))) < 35


def test_a_face_depends_on_its_own_seed_alone(folder: Path, skins_folder: Path) -> None:
    studio = SyntheticStudio(skins_folder)
    assert studio.held_out_source not in {skin.source for skin in studio.appearance.skins}
    assert {skin.source for skin in studio.held_out_appearance.skins} == {studio.held_out_source}
    assert np.array_equal(studio.maps(4, 0), np.load(folder / "maps.npy")[0])
    maps = studio.maps(4, 1, held_out=True)
    assert np.array_equal(maps, np.load(folder / "maps.npy")[1])
    assert np.array_equal(studio.photograph(maps, 4, 1, 1).pixels, np.load(folder / "photos.npy")[3])


def test_spoiling_keeps_the_picture() -> None:
    picture = np.full((64, 64, 3), 0.5) + 0.2 * (np.arange(64) > 31)[:, None, None]
    worn = np.stack([spoil(picture, np.random.default_rng(seed))[0] for seed in range(30)])
    assert worn.dtype == np.uint8 and np.ptp(worn.mean((1, 2, 3))) > 5
    mean = worn.mean((0, 2, 3))
    assert mean[40:].mean() > mean[:24].mean() + 25


def test_true_latents_have_the_smallest_identity_loss(folder: Path) -> None:
    class Lookup:
        """Stands for an autoencoder: a latent's first number chooses the maps."""

        def __init__(self) -> None:
            self.config = type("Config", (), {"chart_size": 512})
            maps = torch.from_numpy(np.load(folder / "maps.npy")).float() / 255
            self.maps = torch.nn.functional.avg_pool2d(maps, 2)

        def decode(self, texture: torch.Tensor, resolution: int) -> torch.Tensor:
            return self.maps[texture[:, 0, 0, 0].round().long()]

    faces = load_file(folder / "faces.safetensors")
    vector = np.concatenate([faces[name] for name in ("identity", "expression", "light")], 1)
    z = torch.zeros(4, 1, 67, 64)
    z[:, 0, 64:] = torch.from_numpy(vector).view(4, 3, 64)
    z[:, 0, 0, 0] = torch.from_numpy(faces["map_index"]).float()
    recogniser = load_recogniser()[0]
    losses = RenderedIdentityLosses(
        folder,
        Lookup(),
        load_morphable()[0],
        load_head_atlas(size=512)[0],
        recogniser,  # type: ignore[arg-type]
    )
    photos = torch.from_numpy(np.load(folder / "photos.npy")).permute(0, 3, 1, 2).float() / 255
    transforms = np.stack([chip_transform(p, recogniser.chip_template) for p in faces["five_points"]])
    with torch.no_grad():
        features = recogniser(warp_chip(photos, torch.from_numpy(transforms).float(), 150))
        batch = DiffusionBatch(torch.arange(4), z, features)
        own, own_maps = losses(z, batch)
        other, other_maps = losses(z.roll(2, 0), batch)
    assert own.mean() < other.mean() and own_maps.mean() < other_maps.mean()


def test_what_spoiling_hides_is_told() -> None:
    picture = np.full((224, 224, 3), 0.4, np.float32)
    told = 0
    for seed in range(60):
        pixels, cover = spoil(picture, np.random.default_rng(seed))
        drawn = drawn_cover(cover, 224)
        if cover[0] and drawn.sum() > 500 and (drawn == 0).any():
            told += 1
            inside, outside = (np.median(pixels[part], 0).astype(int) for part in (drawn > 0.9, drawn == 0))
            assert np.abs(inside - outside).max() > 3
        elif not cover[0]:
            assert drawn.max() == 0 and pixels.reshape(-1, 3).std(0).max() < 25
    assert told >= 3


def test_eyes_go_with_the_skin() -> None:
    """Dark skin has brown eyes, light skin has all kinds."""
    atlas = load_head_atlas(size=512)[0]

    def blueness(skin: tuple[float, float, float]) -> list[float]:
        face = torch.cat([torch.tensor(skin), torch.full((3,), 0.34), torch.tensor([0.5, 0.5, 1.0])])
        head = atlas.compose(face[None, :, None, None].expand(-1, -1, 256, 256).contiguous())
        drawn = [with_irises(head, np.random.default_rng(seed)).albedo for seed in range(40)]
        changed = (torch.stack([d[0] for d in drawn]) - head.albedo).abs().amax((0, 1)) > 1e-4
        return [float((d[0, 2][changed] / d[0, 0][changed]).median()) for d in drawn]

    dark, light = blueness((0.40, 0.28, 0.22)), blueness((0.85, 0.70, 0.62))
    assert max(dark) < 0.8
    assert sum(b > 1 for b in light) >= 4 and sum(b < 0.8 for b in light) >= 10
