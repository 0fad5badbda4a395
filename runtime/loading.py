"""Models from their files to a pipeline: the default preset, or the paper's with the user's own copies.

`presets.py` says which files those are, `pipeline.py` what is done with the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..engines.availability import has_native_bfloat16
from ..models.arcface import load_arcface
from ..models.autoencoder import BranchedAutoencoder, load_autoencoder
from ..models.checkpoint import ModelCard, assets_dir, load_checkpoint
from ..models.delighting import DelightingNet, load_delighting
from ..models.denoiser import FitDiffDenoiser, check_trained_with, load_denoiser, trained_with_cards
from ..models.fan import load_fan
from ..models.landmark_network import LandmarkNetwork
from ..models.landmarks import FaceMesh, load_face_mesh
from ..models.lpips import load_lpips
from ..models.morphable import MorphableModel, load_morphable
from ..models.occlusion import OcclusionNet, load_occlusion
from ..models.perceptual import PerceptualNetwork, load_perceptual
from ..models.recogniser import Recogniser, load_recogniser
from ..rendering.head_atlas import HeadAtlas, load_head_atlas
from ..rendering.pytorch3d_rasteriser import PyTorch3DRasteriser
from ..rendering.renderer import HeadRenderer
from .devices import CPU, device_from_name
from .face_detector import Detector, FaceDetector
from .guidance_models import GuidanceModels
from .pipeline import EAGER, FitDiffPipeline
from .preset_pieces import PYTORCH3D
from .presets import DEFAULT, PresetFiles, preset_files, refuse_non_commercial
from .scrfd_detector import ScrfdDetector

if TYPE_CHECKING:
    from ..engines.options import Precision


def load_pipeline(
    assets: Path | None = None,
    threads: int | None = None,
    backend: str = EAGER,
    *,
    preset: str | Path = DEFAULT,
    commercial: bool = False,
    device: torch.device | str = CPU,
    precision: Precision = "fp32",
    max_batch: int = 1,
    cache_dir: Path | None = None,
    on_engine: Any = None,
) -> FitDiffPipeline:
    """The models of a preset, put together.

    Args:
        assets: the folder of the embedded models, or one laid out alike.
        preset: "default"; "paper", with the user's copies where they usually lie or where his preset file says; or a
            .toml file that says where.
        commercial: refuse models that may not be used commercially.
        backend: what runs the networks, "auto" for the fastest present; with precision, max_batch, cache_dir and
            on_engine see `compiled.compiled_pipeline`.
        device: where the guided loop runs, "cpu", "cuda" or "cuda:N". Noise is drawn on the CPU: a seed is the same
            person on each.

    Raises:
        MissingError: a model is absent, damaged, or not the one that the denoiser was trained with; or the backend or
            the device is. All that a preset lacks is in one message.
        UsageError: no such preset, backend or device; or, with `commercial`, a model that may not be used so.
    """
    device = device_from_name(device)
    files = preset_files(preset)
    if threads:
        torch.set_num_threads(threads)
    parts = _Parts(assets or assets_dir(), files)
    if commercial:
        refuse_non_commercial(parts.cards)
    recogniser, morphable, autoencoder = parts.recogniser[1], parts.morphable[1], parts.autoencoder[1]
    check_trained_with(parts.denoiser.trained_with, trained_with_cards(recogniser, morphable, autoencoder))
    for network in parts.convolutional():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pipeline = FitDiffPipeline(parts.denoiser, parts.models(), parts.atlas[0], parts.detector, parts.cards)
    if backend == EAGER and precision == "fp32":
        return pipeline.to(device)
    from .compiled import compiled_pipeline

    return compiled_pipeline(
        pipeline, backend, precision=precision, max_batch=max_batch, cache_dir=cache_dir, device=device,
        on_engine=on_engine,
    )  # fmt: skip


def recogniser_from_files(files: PresetFiles, folder: Path | None = None) -> tuple[Recogniser, ModelCard]:
    """The recogniser of a preset, or the one in `folder`, or the embedded one. Raises as `load_pipeline`."""
    own = files.path("recogniser.path")
    if own is None:
        return load_recogniser((folder or assets_dir()) / "recogniser")
    network, card = load_arcface(own)
    return network, files.stated(card)


def morphable_from_files(files: PresetFiles, folder: Path | None = None) -> tuple[MorphableModel, ModelCard]:
    """The same of the morphable model."""
    own = files.path("morphable.path")
    model, card = load_morphable(own or (folder or assets_dir()) / "morphable.safetensors")
    return model, files.stated(card) if own else card


def perceptual_from_files(files: PresetFiles, folder: Path | None = None) -> tuple[PerceptualNetwork, ModelCard]:
    """The same of the perceptual network."""
    vgg, linear = files.path("perceptual.vgg"), files.path("perceptual.linear")
    if vgg is None or linear is None:
        return load_perceptual((folder or assets_dir()) / "perceptual")
    network, card = load_lpips(vgg, linear)
    return network, files.stated(card)


class _Parts:
    """Every model of a preset, with its card as the user's preset file states it."""

    def __init__(self, folder: Path, files: PresetFiles) -> None:
        self.rasteriser = PyTorch3DRasteriser() if files.rasteriser == PYTORCH3D else None
        self.morphable = morphable_from_files(files, folder)
        self.recogniser = recogniser_from_files(files, folder)
        self.atlas = load_head_atlas(folder / "head_atlas.safetensors")
        self.small_atlas: HeadAtlas = load_head_atlas(folder / "head_atlas.safetensors", size=512)[0]
        self.face_mesh: tuple[FaceMesh, ModelCard] = load_face_mesh(folder / "landmarks")
        self.occlusion: tuple[OcclusionNet, ModelCard] = load_occlusion(folder / "occlusion")
        self.delighting: tuple[DelightingNet, ModelCard] = load_delighting(folder / "delighting")
        self.perceptual = perceptual_from_files(files, folder)
        self.autoencoder = _autoencoder(folder, files)
        self.denoiser = _denoiser(folder, files)
        self.detector = _detector(folder, files)
        self.landmarks = _landmarks(files)
        replaced = files.path("perceptual.vgg") is not None
        self.features = load_perceptual(folder / "perceptual") if replaced else None
        assert self.denoiser.card is not None
        extra = [part[1] for part in (self.landmarks, self.features) if part is not None]
        self.cards: tuple[ModelCard, ...] = (
            self.morphable[1], self.atlas[1], self.denoiser.card, self.autoencoder[1], self.recogniser[1],
            self.face_mesh[1], self.perceptual[1], self.occlusion[1], self.delighting[1], self.detector.card, *extra,
        )  # fmt: skip

    def convolutional(self) -> Iterator[nn.Module]:
        found = (self.autoencoder, self.recogniser, self.face_mesh, self.perceptual, self.occlusion, self.delighting,
                 self.landmarks, self.features)  # fmt: skip
        return (part[0] for part in found if part is not None)

    def models(self) -> GuidanceModels:
        morphable = self.morphable[0]
        topology = morphable.triangles, morphable.corner_uv, morphable.triangle_part, morphable.config.part_names
        return GuidanceModels(
            self.autoencoder[0], morphable, self.small_atlas, HeadRenderer(*topology, rasteriser=self.rasteriser),
            self.recogniser[0], self.face_mesh[0], self.perceptual[0], self.occlusion[0], has_native_bfloat16(),
            landmarks=None if self.landmarks is None else self.landmarks[0],
            occlusion_features=None if self.features is None else self.features[0],
            delighting=self.delighting[0],
        )  # fmt: skip


def _landmarks(files: PresetFiles) -> tuple[LandmarkNetwork, ModelCard] | None:
    own = files.path("landmarks.path")
    if own is None:
        return None
    network, card = load_fan(own, files.path("landmarks.depth"))
    return network, files.stated(card)


def _detector(folder: Path, files: PresetFiles) -> Detector:
    own = files.path("detector.path")
    if own is None:
        return FaceDetector(folder / "detector")
    detector = ScrfdDetector(own)
    detector.card = files.stated(detector.card)
    return detector


def _autoencoder(folder: Path, files: PresetFiles) -> tuple[BranchedAutoencoder, ModelCard]:
    path = files.path("autoencoder.path") or folder / "autoencoder"
    return load_autoencoder(path).requires_grad_(False), load_checkpoint(path).card


def _denoiser(folder: Path, files: PresetFiles) -> FitDiffDenoiser:
    return load_denoiser(files.path("denoiser.path") or folder / "denoiser")
