"""Photos of a data folder as guidance will unwrap them: laid out on the face chart by a fit that is not quite right.

Beside the photos as they are there are versions with things painted over the face, which the occlusion network finds
as well as it does. Computed once and kept beside the folder. Knows nothing of the network that learns from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from ..models.delighting import COLUMNS, INPUTS, ROWS, SIDE, window_size
from ..models.morphable import MorphableModel, load_morphable
from ..models.occlusion import load_occlusion, occlusion_guides
from ..models.perceptual import load_perceptual
from ..rendering.lightness import lightness
from ..rendering.renderer import HeadRenderer
from ..rendering.unwrap import chart_in_photo
from ..runtime.face_crop import CROP_SIZE
from ..runtime.guidance import FOCAL, crop_camera
from ..runtime.photo_target import skin_by_landmarks
from ..runtime.pose import solve_pose
from ..runtime.skin_mask import bare_skin
from .data_folder import FACES, INDEX, MAPS, PHOTOS, check_data_folder
from .diffusion_data import cached
from .occluder_painting import choose_families, painted


@dataclass(frozen=True)
class UnwrappingConfig:
    """versions: of each photo; the first is the photo itself. The deviations are those of a fit from the truth."""

    versions: int = 2
    identity: float = 0.25  # deviation of normalised coefficients
    expression: float = 0.15  # deviation, as a share
    landmarks: float = 1.0  # deviation in px, of all together, and of each by itself
    seed: int = 0
    workers: int = 1


@dataclass(frozen=True)
class UnwrappedPhotos:
    """P photos of N faces in the window of `models.delighting`; arrays may be memory maps.

    inputs: (P, 7, H, W) uint8: sRGB, how well it is shown, normals as (n + 1) / 2. lightness: (N, 1, H, W) float16,
    of the true albedo. face: (P,). training, held_out: photos.
    """

    inputs: np.ndarray
    lightness: np.ndarray
    face: np.ndarray
    training: np.ndarray
    held_out: np.ndarray


class Unwrapper:
    """Everything that one process needs."""

    def __init__(self, folder: Path, config: UnwrappingConfig) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.config = config
        self.photos, self.truth = np.load(folder / PHOTOS, mmap_mode="r"), load_file(folder / FACES)
        self.model: MorphableModel = load_morphable()[0]
        self.renderer = HeadRenderer(
            self.model.triangles, self.model.corner_uv, self.model.triangle_part, self.model.config.part_names
        )
        self.perceptual, self.occlusion = load_perceptual()[0], load_occlusion()[0]

    @torch.no_grad()
    def inputs(self, photo: int, version: int) -> np.ndarray:
        """(7, H, W) uint8 of one version of a photo."""
        config, rng = self.config, np.random.default_rng([self.config.seed, photo, version])
        picture, points = np.asarray(self.photos[photo], np.float32) / 255, self.truth["landmarks"][photo]
        if version:
            families = choose_families(rng)
            picture, _ = painted(picture, points.astype(np.float32), rng, families, effects=False)
        found = points + config.landmarks * (rng.normal(0, 1, (1, 2)) + rng.normal(0, 1, points.shape))
        skin = skin_by_landmarks(found, np.ones((CROP_SIZE, CROP_SIZE), bool)) * self._bare(picture, found)

        identity, expression = (torch.from_numpy(self.truth[n][photo])[None] for n in ("identity", "expression"))
        used = self.model.identity_basis.flatten(1).any(1)
        identity = identity + config.identity * torch.from_numpy(rng.standard_normal(identity.shape)).float() * used
        expression = expression * (1 + config.expression * float(rng.standard_normal()))
        vertices = self.model(identity, expression)
        valid = self.model.landmark_valid.numpy()
        surface = self.model.landmarks(vertices)[0].numpy()
        pose = solve_pose(surface[valid], found[valid], FOCAL, CROP_SIZE)
        place = chart_in_photo(self.renderer, vertices, crop_camera(pose), self.model.config.face_block, SIDE)
        shown = place.sampled(skin) * place.visible
        layers = [place.sampled(picture), shown[..., None], place.normal * 0.5 + 0.5]
        window = np.concatenate(layers, -1)[ROWS, COLUMNS]
        return (window.transpose(2, 0, 1).clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def _bare(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(S, S) in [0, 1], by the occlusion network."""
        image = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]
        guides = torch.from_numpy(occlusion_guides(points, CROP_SIZE))[None]
        return bare_skin(self.occlusion.hidden(image, self.perceptual(image), guides)[0, 0].numpy())


def unwrap_photos(
    folder: Path, config: UnwrappingConfig = UnwrappingConfig(), progress: Callable[[int, int], None] | None = None
) -> UnwrappedPhotos:
    """Unwrap all photos of a data folder, or take them from the cache beside it.

    Raises as `check_data_folder` does: the heads must be the embedded model's.
    """
    hashes = [load()[1].sha256 for load in (load_morphable, load_occlusion, load_perceptual)]
    check_data_folder(folder, morphable_sha256=hashes[0])
    index_bytes = (folder / INDEX).read_bytes()
    made_by = json.dumps([*hashes, asdict(replace(config, workers=0))])
    key = hashlib.sha256(index_bytes + made_by.encode()).hexdigest()
    cache = folder / f"unwrapped-{key[:12]}"
    held_out, truth = json.loads(index_bytes)["held_out"], load_file(folder / FACES)
    face = np.repeat(truth["map_index"].astype(np.int64), config.versions)

    def write(new: Path) -> None:
        _write_inputs(folder, new, config, len(truth["map_index"]), progress)
        maps = np.load(folder / MAPS, mmap_mode="r")
        np.save(new / "lightness.npy", np.stack([true_lightness(face_maps) for face_maps in maps]))

    cached(cache, write)
    out = np.isin(face, held_out)
    return UnwrappedPhotos(
        np.load(cache / "inputs.npy", mmap_mode="r"), np.load(cache / "lightness.npy"), face,
        np.flatnonzero(~out), np.flatnonzero(out),
    )  # fmt: skip


def true_lightness(maps: np.ndarray) -> np.ndarray:
    """(9, S, S) uint8 maps -> (1, H, W) float16: lightness of the diffuse albedo in the window."""
    albedo = torch.from_numpy(np.array(maps[:3]))[None].float() / 255
    albedo = functional.avg_pool2d(albedo, albedo.shape[-1] // SIDE)
    return lightness(albedo)[0, :, ROWS, COLUMNS].half().numpy()


_unwrapper: Unwrapper | None = None


def _begin(folder: Path, config: UnwrappingConfig) -> None:
    global _unwrapper
    _unwrapper = Unwrapper(folder, config)


def _versions(photo: int) -> list[np.ndarray]:
    assert _unwrapper is not None
    return [_unwrapper.inputs(photo, version) for version in range(_unwrapper.config.versions)]


def _write_inputs(
    folder: Path, cache: Path, config: UnwrappingConfig, photos: int, progress: Callable[[int, int], None] | None
) -> None:
    inputs = np.lib.format.open_memmap(
        str(cache / "inputs.npy"), "w+", np.uint8, (photos * config.versions, INPUTS, *window_size())
    )
    with ProcessPoolExecutor(config.workers, get_context("spawn"), _begin, (folder, config)) as pool:
        for photo, versions in enumerate(pool.map(_versions, range(photos), chunksize=8)):
            inputs[photo * config.versions : (photo + 1) * config.versions] = versions
            if progress:
                progress(photo + 1, photos)
    inputs.flush()
