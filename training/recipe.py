"""The default preset's training runs: which models, weights and losses go together, from a data folder on.

`train_autoencoder` and `train_diffusion` know their loops; this file knows with what the default is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import safetensors.numpy
import torch
from torch.nn import functional

from ..models.autoencoder import load_autoencoder
from ..models.checkpoint import ModelCard, load_checkpoint
from ..models.delighting import SIDE
from ..models.denoiser import check_trained_with, load_denoiser, save_denoiser, trained_with_cards
from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from ..models.landmarks import load_face_mesh
from ..models.linear_prior import pooled_inputs
from ..models.morphable import MorphableModel, load_morphable
from ..models.perceptual import load_perceptual, perceptual_distance
from ..models.recogniser import Recogniser
from ..models.unet import UNetConfig
from ..rendering.head_atlas import load_head_atlas
from ..rendering.lightness import lightness
from ..rendering.shader import linear_from_srgb, luminance
from ..runtime.face_chip import chip_transform
from ..runtime.face_detector import FaceDetector
from ..runtime.loading import morphable_from_files, perceptual_from_files, recogniser_from_files
from ..runtime.presets import DEFAULT, preset_files
from .calibrate_tone import FacesSeenTwice, ToneCalibration, ToneSamples, calibrate_tone
from .data_folder import FACES, MAPS, PHOTOS, check_data_folder
from .devices import start_workers
from .diffusion_data import DiffusionData, FeatureConfig, prepare
from .diffusion_losses import vertex_gram
from .identity_losses import RenderedIdentityLosses
from .occluder_painting import paint_occluders
from .skins import CHART, chart_mask, face_weight
from .state import Budget
from .tone_photos import LabelledPerson, tone_inputs, tone_samples
from .train_autoencoder import AutoencoderResult, AutoencoderTrainingConfig, train_autoencoder
from .train_delighting import DelightingResult, DelightingTrainingConfig, train_delighting
from .train_diffusion import DiffusionResult, DiffusionTrainingConfig, train_diffusion
from .train_occlusion import OcclusionResult, OcclusionTrainingConfig, train_occlusion
from .unwrapped_photos import UnwrappingConfig, unwrap_photos

TOLD = ", skin tones told"
NOSTRILS = (1, 4, 5, 97, 326, 2)  # of the landmark mesh


def default_autoencoder_config(budget: Budget) -> AutoencoderTrainingConfig:
    """Losses as the embedded autoencoder was trained with."""
    return AutoencoderTrainingConfig(
        budget=budget,
        perceptual_weight=0.02,
        perceptual_crops=2,
        adversarial_weight=0.08,
        adversarial_after=0.72,
    )


def train_default_autoencoder(
    config: AutoencoderTrainingConfig, data: Path, out: Path, resume: bool = False, init: Path | None = None,
    preset: str | Path = DEFAULT,
) -> AutoencoderResult:  # fmt: skip
    """`train_autoencoder` with the perceptual network of a preset; the features of the face count most."""
    check_data_folder(data, photos=False)
    network, _ = perceptual_from_files(preset_files(preset, ("perceptual",)))
    network.to(start_workers(config.device).device)
    morphable = load_morphable()[0]
    return train_autoencoder(
        config,
        data,
        out,
        resume,
        perceptual=lambda a, b: perceptual_distance(network, a, b),
        importance=chart_importance(morphable),
        init=init,
    )


def train_default_diffusion(
    config: DiffusionTrainingConfig,
    data: Path,
    autoencoder: Path,
    out: Path,
    resume: bool = False,
    init: Path | None = None,
    morphable_file: Path | None = None,
    preset: str | Path = DEFAULT,
    versions: int = 1,
) -> DiffusionResult:
    """`train_diffusion` with the recogniser and the morphable model of a preset, on latents of a given autoencoder.

    Of several processes the first encodes the data, if nobody has, and the others wait for it.

    Args:
        autoencoder: its checkpoint, with or without `.safetensors`.
        init: a denoiser's checkpoint to begin with.
        morphable_file: the morphable model that the data was made with; None is the preset's.
        preset: see `loading.load_pipeline`.
        versions: of each photo; those after the first have hair, clothes, and things over the face, which synthetic
            heads lack. docs/log.md says what that brings.

    Raises as `train_diffusion` and `load_pipeline` do, and UsageError for data of another morphable model.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    files = preset_files(preset, ("recogniser",) if morphable_file else ("recogniser", "morphable"))
    recogniser, recogniser_card = recogniser_from_files(files)
    morphable, morphable_card = load_morphable(morphable_file) if morphable_file else morphable_from_files(files)
    coefficients = morphable.config.identity_components, morphable.config.expression_components
    layout = replace(config.model.layout, identity=coefficients[0], expression=coefficients[1])
    config = replace(config, model=replace(config.model, unet=_conditioned_on(recogniser, config.model.unet)))
    check_data_folder(data, layout=layout, morphable_sha256=morphable_card.sha256)
    network = load_autoencoder(autoencoder).requires_grad_(False)
    trained_with = trained_with_cards(recogniser_card, morphable_card, load_checkpoint(autoencoder).card)
    workers = start_workers(config.device)
    recogniser, network = recogniser.to(workers.device), network.to(workers.device)
    quiet = config.quiet or not workers.is_first
    with workers.first_alone():
        prepared = prepare(data, network, recogniser, trained_with, _painted(versions), _painted_over, quiet, layout)
    gram = vertex_gram(morphable.identity_basis, morphable.expression_basis)
    atlas = load_head_atlas(size=512)[0].to(workers.device)
    losses = RenderedIdentityLosses(data, network, morphable.to(workers.device), atlas, recogniser)
    card = _denoiser_card(recogniser_card, morphable_card)
    return train_diffusion(config, prepared, gram, out, resume, identity_losses=losses, init=init, card=card)


def _conditioned_on(recogniser: Recogniser, unet: UNetConfig) -> UNetConfig:
    """The same UNet for this recogniser's features."""
    channels = tuple(shape[0] for shape in recogniser.feature_shapes)
    return replace(unet, condition_maps=channels, condition_embedding=recogniser.embedding_size)


def _denoiser_card(*learnt_from: ModelCard) -> ModelCard | None:
    """A denoiser is bound by the licences of the models whose answers it has learnt; None where they leave it free."""
    bound = [card for card in learnt_from if not card.commercial]
    if not bound:
        return None
    source = f"trained by fitdiff with {' and '.join(card.name for card in learnt_from)}"
    licences = "; ".join(dict.fromkeys(card.licence for card in bound))
    return ModelCard("denoiser", "fitdiff-denoiser", source, f"as the models it learnt from: {licences}", False)


def _painted(versions: int) -> FeatureConfig:
    return FeatureConfig(versions, augmentation_name="occluders-1") if versions > 1 else FeatureConfig()


def _painted_over(picture: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return paint_occluders(picture, landmarks, rng)[0]


def train_default_occlusion(
    config: OcclusionTrainingConfig, data: Path, out: Path, resume: bool = False, init: Path | None = None
) -> OcclusionResult:
    """`train_occlusion` with the embedded perceptual network and everything that `paint_occluders` can paint."""
    return train_occlusion(config, data, out, paint_occluders, load_perceptual()[0], resume, init=init)


def train_default_delighting(
    config: DelightingTrainingConfig, data: Path, out: Path, resume: bool = False, init: Path | None = None,
    unwrapping: UnwrappingConfig | None = None, progress: Callable[[int, int], None] | None = None,
) -> DelightingResult:  # fmt: skip
    """`train_delighting` on the photos of a data folder, unwrapped by the embedded models.

    Args:
        progress: called with (done, total) for every photo that is unwrapped, where nobody has done that.

    Raises as `train_delighting` and `check_data_folder` do.
    """
    unwrapped = unwrap_photos(data, unwrapping or UnwrappingConfig(), progress)
    chart = load_autoencoder().chart_mean[None, :3]
    weight = torch.from_numpy(face_weight(load_morphable()[0]))[None, None]
    chart, weight = (functional.avg_pool2d(x, x.shape[-1] // SIDE) for x in (chart, weight))
    return train_delighting(config, unwrapped, lightness(chart), weight, out, resume, init=init)


@dataclass(frozen=True)
class ToneResult:
    """Where the checkpoint is (no suffix), what was found, and a sentence for every photo that was left out."""

    checkpoint: Path
    calibration: ToneCalibration
    left_out: tuple[str, ...]


def calibrate_default_tone(
    people: list[LabelledPerson], data: Path, denoiser: Path, autoencoder: Path, out: Path, versions: int = 4,
    preset: str | Path = DEFAULT, morphable_file: Path | None = None,
    progress: Callable[[str], None] = lambda photo: None,
) -> ToneResult:  # fmt: skip
    """`calibrate_tone` of a checkpoint by labelled photographs, written to `out`/denoiser.

    Args:
        people: of `tone_photos.read_labels`.
        data: what `denoiser` was trained on.
        versions: of each photo, drawn or real; those after the first are painted over as for `train_default_diffusion`.
        morphable_file: see `train_default_diffusion`.

    Raises as `tone_samples` does, and MissingError for models that `denoiser` was not trained with.
    """
    files = preset_files(preset, ("recogniser",) if morphable_file else ("recogniser", "morphable"))
    recogniser, recogniser_card = recogniser_from_files(files)
    morphable, morphable_card = load_morphable(morphable_file) if morphable_file else morphable_from_files(files)
    model = load_denoiser(denoiser)
    assert model.card is not None
    trained_with = trained_with_cards(recogniser_card, morphable_card, load_checkpoint(autoencoder).card)
    check_trained_with(model.trained_with, trained_with)
    prepared = prepare(
        data, load_autoencoder(autoencoder), recogniser, trained_with, _painted(versions), _painted_over,
        layout=model.config.layout,
    )  # fmt: skip
    grid = model.config.prior_grid
    real, left_out = tone_samples(
        people, FaceDetector(), load_face_mesh()[0], recogniser, grid, versions, _painted_over, progress=progress
    )
    latents = model.statistics.normalise(prepared.latents(prepared.training, model.config.layout))
    tone = chart_tones(np.load(data / MAPS, mmap_mode="r"), face_weight(morphable))
    faces = torch.from_numpy(prepared.map_index[prepared.training])
    found = []
    for version in range(prepared.versions):
        chunks = np.array_split(prepared.training, max(1, len(prepared.training) // 256))
        found += [pooled_inputs(prepared.features(chunk, version), grid) for chunk in chunks]
    plain = ToneSamples(torch.cat(found), tone[faces].repeat(versions), faces.repeat(versions))
    drawn = FacesSeenTwice(plain, _covered_faces(data, prepared, tone, recogniser, grid))
    calibration = calibrate_tone(model, latents.flatten(1).repeat(versions, 1), drawn, real)
    made = model.card.source.split(TOLD)[0]
    card = replace(model.card, source=f"{made}{TOLD} on photographs of {calibration.people} people")
    save_denoiser(out / "denoiser", model, card)
    return ToneResult(out / "denoiser", calibration, tuple(left_out))


def _covered_faces(
    data: Path, prepared: DiffusionData, tone: torch.Tensor, recogniser: Recogniser, grid: int
) -> ToneSamples:
    """One photo of each drawn face to train on, as it is and painted over, seen with parts covered."""
    photos, faces = np.load(data / PHOTOS, mmap_mode="r"), safetensors.numpy.load_file(data / FACES)
    maps, first = np.unique(prepared.map_index[prepared.training], return_index=True)
    found = []
    for number in prepared.training[first]:
        picture, points = np.float32(photos[number]) / 255, faces["landmarks"][number]
        painted = _painted_over(picture, points, np.random.default_rng([1, int(number)]))
        transform = chip_transform(faces["five_points"][number].astype(np.float64), recogniser.chip_template)
        found.append(tone_inputs(np.stack([picture, painted]), [points] * 2, transform, recogniser, grid)[1])
    of_map = torch.from_numpy(maps).repeat_interleave(2)
    return ToneSamples(torch.cat(found), tone[of_map], of_map)


def chart_tones(maps: np.ndarray, weight: np.ndarray) -> torch.Tensor:
    """(N, 9, S, S) uint8 -> (N,) log of the mean linear luminance of each diffuse albedo, weighted by (S, S)."""
    share = torch.from_numpy(weight / weight.sum())
    albedos = (torch.from_numpy(np.array(chart[:3]))[None].float() / 255 for chart in maps)
    return torch.stack([(luminance(linear_from_srgb(albedo)) * share).sum().log() for albedo in albedos])


def chart_importance(morphable: MorphableModel) -> np.ndarray:
    """(512, 512) float32, 1 on average: eyes, brows, nose and lips most, then the face, then the rest."""
    points = morphable.landmarks_on_chart().numpy()
    features = np.zeros((CHART, CHART), np.float32)
    for contour in (LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, LIPS_OUTER, NOSTRILS):
        cv2.fillConvexPoly(features, cv2.convexHull(points[list(contour)].astype(np.int32)), 1.0)
    features = cv2.GaussianBlur(cv2.dilate(features, np.ones((13, 13))), (0, 0), 5)
    weight = 0.15 + 0.45 * chart_mask(morphable) + 0.6 * face_weight(morphable) + 1.6 * features
    return (weight / weight.mean()).astype(np.float32)
