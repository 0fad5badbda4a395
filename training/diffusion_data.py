"""What the denoiser trains on: the latents of all maps and the recogniser's features of all photos.

Both are computed once from the folder that `fitdiff synthesize` makes (index.json, maps.npy, photos.npy,
faces.safetensors) and kept beside it, in files whose names hold a hash of everything they depend on.
Knows nothing of the denoiser or of training.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from rich.progress import track
from torch import Tensor

from ..models.autoencoder import BranchedAutoencoder
from ..models.conditioner import empty_features
from ..models.denoiser import TrainedWith
from ..models.latent import LatentLayout, LatentStatistics
from ..models.recogniser import IdentityFeatures, Recogniser
from ..runtime.face_chip import chip_transform, warp_chip
from .data_folder import check_data_folder
from .devices import Workers

Augmentation = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""(S, S, 3) float32 sRGB in [0, 1] and its landmarks (468, 2) px -> the picture of another day, like it."""


@dataclass(frozen=True)
class FeatureConfig:
    """How photos become features."""

    variants: int = 1  # versions of each photo; the first is the photo itself, the others are augmented
    point_jitter: float = 1.5  # px in the crop, deviation of the five points in augmented versions
    augmentation_name: str = "none"  # part of the cache's key: rename when the augmentation changes
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class DiffusionData:
    """P photos of N maps, in S versions; arrays may be memory maps."""

    texture: np.ndarray  # (N, 4096) float32, raw texture latents
    map_index: np.ndarray  # (P,) int64
    vector: np.ndarray  # (P, 192) float32, identity | expression | light
    maps: tuple[np.ndarray, ...]  # (S, P, C_i, H_i, W_i) float16
    embedding: np.ndarray  # (S, P, D) float32
    empty: IdentityFeatures  # batch 1, of an empty image
    training: np.ndarray  # photos to train on
    held_out: np.ndarray  # photos whose maps are held out
    trained_with: TrainedWith

    @property
    def versions(self) -> int:
        return len(self.embedding)

    def latents(self, photos: np.ndarray, layout: LatentLayout) -> Tensor:
        """Raw z_0 (B, 1, 67, 64), on the CPU."""
        flat = np.concatenate([self.texture[self.map_index[photos]], self.vector[photos]], axis=1)
        return torch.from_numpy(flat).view(-1, *layout.shape)

    def features(
        self, photos: np.ndarray, versions: np.ndarray | int = 0, workers: Workers | None = None
    ) -> IdentityFeatures:
        """Features of the given version of each photo, batch B, float32.

        They travel to the device of `workers` as they are stored, in half precision.
        """
        workers = workers or Workers()
        maps = tuple(workers.moved(torch.from_numpy(m[versions, photos])).float() for m in self.maps)
        return IdentityFeatures(maps, workers.moved(torch.from_numpy(self.embedding[versions, photos])).float())


def statistics_from_data(data: DiffusionData, layout: LatentLayout) -> LatentStatistics:
    """Mean and deviation of each element over the training photos."""
    texture = data.texture[data.map_index[data.training]].astype(np.float64)
    both = (np.concatenate([f(texture, 0), f(data.vector[data.training], 0)]) for f in (np.mean, np.std))
    mean, std = (torch.from_numpy(m).float() for m in both)
    statistics = LatentStatistics(layout)
    statistics.set_from_moments(mean, std)
    return statistics


def prepare(
    folder: Path,
    autoencoder: BranchedAutoencoder,
    recogniser: Recogniser,
    trained_with: TrainedWith,
    config: FeatureConfig | None = None,
    augmentation: Augmentation | None = None,
    quiet: bool = False,
    layout: LatentLayout | None = None,
) -> DiffusionData:
    """Encode maps and photos, or take them from the cache in `folder`. The networks may be on a GPU.

    Args:
        trained_with: the hashes of the models given; they key the cache and go into the checkpoint.
        augmentation: for versions after the first.
        layout: the numbers that each photo must have; None takes what there is.

    Raises as `check_data_folder` does.
    """
    config = config or FeatureConfig()
    check_data_folder(folder, layout=layout)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    faces = safetensors.numpy.load_file(folder / "faces.safetensors")
    source = hashlib.sha256((folder / "index.json").read_bytes()).hexdigest()

    latents = folder / f"latents-{_key(source, trained_with.autoencoder_sha256)}"
    cached(
        latents,
        lambda new: _write_latents(new, np.load(folder / "maps.npy", mmap_mode="r"), autoencoder, quiet),
    )
    features = folder / f"features-{_key(source, trained_with.recogniser_sha256, *map(str, _identity(config)))}"
    photos = np.load(folder / "photos.npy", mmap_mode="r")
    cached(features, lambda new: _write_features(new, photos, faces, recogniser, config, augmentation, quiet))

    map_index = faces["map_index"].astype(np.int64)
    out = np.isin(map_index, np.array(index["held_out"], dtype=np.int64))
    count = len(recogniser.feature_shapes)
    empty = safetensors.numpy.load_file(features / "empty.safetensors")
    return DiffusionData(
        texture=np.load(latents / "texture.npy"),
        map_index=map_index,
        vector=np.concatenate([faces[name] for name in ("identity", "expression", "light")], 1).astype(np.float32),
        maps=tuple(np.load(features / f"map{i}.npy", mmap_mode="r") for i in range(count)),
        embedding=np.load(features / "embedding.npy"),
        empty=IdentityFeatures(
            tuple(torch.from_numpy(empty[f"map{i}"]) for i in range(count)),
            torch.from_numpy(empty["embedding"]),
        ),
        training=np.flatnonzero(~out),
        held_out=np.flatnonzero(out),
        trained_with=trained_with,
    )


def _identity(config: FeatureConfig) -> tuple[int | float | str, ...]:
    """What of the configuration changes the result."""
    return config.variants, config.point_jitter, config.augmentation_name, config.seed


def _key(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def cached(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill `folder` by `write`, unless it is there; it appears whole or not at all."""
    if folder.is_dir():
        return
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _batches(count: int, size: int, text: str, quiet: bool) -> Iterable[slice]:
    slices = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    return track(slices, description=text, disable=quiet)


@torch.no_grad()
def _write_latents(folder: Path, maps: np.ndarray, autoencoder: BranchedAutoencoder, quiet: bool) -> None:
    texture = np.zeros((len(maps), autoencoder.latent_size**2), np.float32)
    device = autoencoder.chart_mean.device
    for batch in _batches(len(maps), 4, "encode maps", quiet):
        charts = torch.from_numpy(np.array(maps[batch])).to(device).float() / 255
        texture[batch] = autoencoder.encode(charts).flatten(1).cpu().numpy()
    np.save(folder / "texture.npy", texture)


@torch.no_grad()
def _write_features(
    folder: Path,
    photos: np.ndarray,
    faces: Mapping[str, np.ndarray],
    recogniser: Recogniser,
    config: FeatureConfig,
    augmentation: Augmentation | None,
    quiet: bool,
) -> None:
    generator = torch.Generator().manual_seed(config.seed)
    device = recogniser.centre.device
    shapes: Sequence[tuple[int, ...]] = recogniser.feature_shapes
    size = (config.variants, len(photos))
    maps = [
        np.lib.format.open_memmap(folder / f"map{i}.npy", "w+", np.float16, (*size, *shape))
        for i, shape in enumerate(shapes)
    ]
    embedding = np.zeros((*size, recogniser.embedding_size), np.float32)
    for version in range(config.variants):
        for batch in _batches(len(photos), config.batch, f"features, version {version + 1}", quiet):
            pictures = np.array(photos[batch]).astype(np.float32) / 255
            points = faces["five_points"][batch].astype(np.float64)
            if version:
                if augmentation:
                    numbers = range(batch.start, batch.stop)
                    chances = (np.random.default_rng([config.seed, version, number]) for number in numbers)
                    spots = faces["landmarks"][batch]
                    pictures = np.stack([augmentation(*each) for each in zip(pictures, spots, chances, strict=True)])
                points = points + config.point_jitter * torch.randn(points.shape, generator=generator).numpy()
            crops = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
            transforms = np.stack([chip_transform(p, recogniser.chip_template) for p in points])
            chips = warp_chip(crops, torch.from_numpy(transforms).float(), recogniser.chip_size)
            features = recogniser(chips)
            for target, values in zip(maps, features.maps, strict=True):
                target[version, batch] = values.cpu().numpy()
            embedding[version, batch] = features.embedding.cpu().numpy()
    for target in maps:
        target.flush()
    np.save(folder / "embedding.npy", embedding)
    empty = empty_features(recogniser)
    tensors = {f"map{i}": values.cpu().numpy() for i, values in enumerate(empty.maps)}
    safetensors.numpy.save_file(tensors | {"embedding": empty.embedding.cpu().numpy()}, folder / "empty.safetensors")
