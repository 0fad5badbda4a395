"""The main job: a face crop in, an avatar out. Puts models, sampling loop and guidance together.

Knows nothing of which files are written. A photo is always processed by itself: a batch never changes a result.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..engines.availability import has_native_bfloat16
from ..models.autoencoder import load_autoencoder
from ..models.checkpoint import ModelCard, assets_dir, load_checkpoint
from ..models.conditioner import Conditioning
from ..models.denoiser import FitDiffDenoiser, TrainedWith, check_trained_with, load_denoiser
from ..models.landmarks import load_face_mesh
from ..models.latent import LatentLayout
from ..models.morphable import MorphableModel, load_morphable
from ..models.occlusion import load_occlusion
from ..models.perceptual import load_perceptual
from ..models.recogniser import IdentityFeatures, load_recogniser
from ..rendering.camera import Camera, project
from ..rendering.head_atlas import HeadAtlas, load_head_atlas
from ..rendering.renderer import HeadMapsTensor, HeadRenderer, mapped
from ..rendering.shader import F0_MAX, Light, light_from_latent, srgb_from_linear
from .avatar import Avatar, HeadMaps, ReflectanceMaps
from .ddim import SamplerConfig, classifier_free, ddim_timesteps, draw_noise, sample, seeded_generators
from .detail import refine_detail, with_detail
from .devices import CPU, device_from_name, host_from_device
from .expression import blendshape_weights
from .face_chip import warp_chip
from .face_crop import FaceCrop
from .face_detector import FaceDetector
from .guidance import FOCAL, GUIDANCE_PRESETS, GuidanceConfig, PhotoGuidance, crop_camera
from .guidance_models import GuidanceModels
from .photo_target import PhotoTarget, photo_target
from .pose import Pose
from .report import RunReport, StageClock
from .trace import span

if TYPE_CHECKING:
    from ..engines.compiled_models import CompiledModels
    from ..engines.options import Precision


EAGER = "eager"


@dataclass(frozen=True)
class AvatarOptions:
    """What a user may choose. `guidance` names a row of GUIDANCE_PRESETS; `cfg` is the classifier-free scale.

    condition: "last" gives the denoiser the recogniser's embedding alone, "all" its intermediate maps too.
    """

    steps: int = 50
    guidance: str = "full"
    cfg: float = 1.0
    seed: int = 0
    condition: Literal["all", "last"] = "all"


@dataclass(frozen=True)
class AvatarResult:
    """An avatar, how it came about, and the camera and light of its photo for pictures.

    head_maps, vertices, light: as the renderer takes them, on the CPU. camera: in the crop; None without a photo.
    """

    avatar: Avatar
    report: RunReport
    vertices: Tensor  # (1, V, 3) with the photo's expression
    head_maps: HeadMapsTensor
    light: Light
    camera: Camera | None


@dataclass(frozen=True, eq=False)
class FitDiffPipeline:
    """All models of a preset, loaded once; `avatar` and `sample` may be called any number of times.

    backend: what runs the networks, and backend_reason why that; engines: those that it made, None for eager PyTorch;
    precision: of the networks' arithmetic.
    """

    denoiser: FitDiffDenoiser
    models: GuidanceModels
    atlas: HeadAtlas
    detector: FaceDetector
    cards: tuple[ModelCard, ...]
    backend: str = EAGER
    backend_reason: str = ""
    engines: CompiledModels | None = None
    precision: Precision = "fp32"

    @property
    def device(self) -> torch.device:
        """Where everything runs but cropping, the pose solver, the rasteriser and what makes files."""
        return self.models.device

    def to(self, device: torch.device) -> FitDiffPipeline:
        """The pipeline on `device`. Networks move themselves, so this one is no longer where it was."""
        self.denoiser.to(device)
        self.atlas.to(device)
        return replace(self, models=self.models.to(device))

    @property
    def layout(self) -> LatentLayout:
        return self.denoiser.config.layout

    def close(self) -> None:
        """Release the engines, where there are any; the pipeline cannot run after that."""
        if self.engines is not None:
            self.engines.close()

    @property
    def morphable(self) -> MorphableModel:
        return self.models.morphable

    @cached_property
    def renderer(self) -> HeadRenderer:
        """For pictures of results, which are on the CPU, as it is; guidance has its own on the device."""
        if self.device == CPU:
            return self.models.renderer
        model = self.morphable
        topology = [tensor.cpu() for tensor in (model.triangles, model.corner_uv, model.triangle_part)]
        return HeadRenderer(*topology, model.config.part_names)

    def avatar(
        self, crop: FaceCrop, options: AvatarOptions, clock: StageClock | None = None, on_step: Any = None
    ) -> AvatarResult:
        """The avatar of one photographed face. `on_step(done, total)` is called after every step."""
        clock = clock or StageClock()
        with clock.stage("condition"), span("condition"):
            target = photo_target(crop, self.models)
            alone = options.condition == "last"
            seen = self.denoiser.conditioner.embedding_only(target.identity) if alone else target.identity
            conditioning = self._condition(seen, 1.0)
        config = GUIDANCE_PRESETS[options.guidance]
        guide = self._guidance(target, config) if config else None
        with clock.stage("sample"), span("sample"):
            z = self._sample(conditioning, options, guide, on_step)
        residual = None
        if guide and guide.config.detail.steps:
            with clock.stage("detail"), span("detail"):
                z, residual = refine_detail(guide, z, guide.config.detail, self._expected_maps(conditioning))
        with clock.stage("decode"), span("decode"):
            posed = guide or self._guidance(target, GuidanceConfig())
            parts = self.layout.split(self.denoiser.statistics.denormalise(z))
            with torch.no_grad():
                maps = self.models.face_maps(parts.texture)
                estimate = posed.estimate(with_detail(maps, residual) if residual is not None else maps, parts)
                similarity, error = self._measured(estimate.image, estimate.vertices, estimate.camera, target)
            result = self._finished(z, options, crop, estimate.pose, similarity, error, guide, residual)
        return _timed(result, clock)

    def sample(self, options: AvatarOptions, clock: StageClock | None = None, on_step: Any = None) -> AvatarResult:
        """An unconditional face: the person that the seed stands for."""
        clock = clock or StageClock()
        with clock.stage("sample"), span("sample"):
            z = self._sample(self._null, options, None, on_step)
        with clock.stage("decode"), span("decode"):
            result = self._finished(z, options, None, None, {}, None, None, None)
        return _timed(result, clock)

    def _sample(
        self, conditioning: Conditioning, options: AvatarOptions, guide: PhotoGuidance | None, on_step: Any
    ) -> Tensor:
        network, schedule = self.denoiser.denoiser, self.denoiser.config.schedule
        predictor = classifier_free(
            lambda z, t: network(z, t, conditioning), lambda z, t: network(z, t, self._null), options.cfg
        )
        config = SamplerConfig(steps=options.steps)
        generators = seeded_generators([options.seed])
        first = torch.tensor([ddim_timesteps(config, schedule)[0]], device=self.device)
        z_t = network.start(draw_noise(generators, self.layout.shape).to(self.device), first, conditioning)

        def guidance(z_0: Tensor, step: Any) -> Tensor:
            with span("guidance", "host"):
                delta = guide(z_0, step) if guide else torch.zeros_like(z_0)
            if on_step:
                on_step(step.index + 1, step.count)
            return delta

        with torch.no_grad():
            return sample(predictor, z_t, schedule, config, guidance, generators)

    def _guidance(self, target: PhotoTarget, config: GuidanceConfig) -> PhotoGuidance:
        linear = self.denoiser.denoiser.linear
        variances = self._null["prior_variances"]

        def narrowed(gradient: Tensor, alpha_bar: float) -> Tensor:
            with torch.no_grad():
                noise = gradient.new_full((1, 1), alpha_bar)
                return linear.gain(gradient.flatten(1), noise, variances).view_as(gradient)

        return PhotoGuidance(self.models, self.denoiser.statistics, target, config, narrowed)

    @torch.no_grad()
    def _condition(self, features: IdentityFeatures, present: float) -> Conditioning:
        return self.denoiser.conditioner(features, torch.tensor([present], device=self.device))

    @torch.no_grad()
    def _expected_maps(self, conditioning: Conditioning) -> Tensor:
        """(1, 9, 256, 256): the face that the linear prior expects of a photo, before any step."""
        z = self.denoiser.statistics.denormalise(self.denoiser.prior_mean(conditioning))
        return self.models.face_maps(self.layout.split(z).texture)

    @cached_property
    def _null(self) -> Conditioning:
        """The paper's empty image: what the recogniser makes of black."""
        size = self.models.recogniser.chip_size
        with torch.no_grad():
            return self._condition(self.models.recogniser(torch.zeros(1, 3, size, size, device=self.device)), 0.0)

    def _runs_on(self) -> dict[str, str]:
        """What a report says of it."""
        return {"backend": self.backend, "precision": self.precision, "device": str(self.device)}

    def _measured(
        self, image: Tensor, vertices: Tensor, camera: Camera, target: PhotoTarget
    ) -> tuple[dict[str, float], float]:
        recogniser = self.models.recogniser
        chip = warp_chip(image.clamp(0, 1), target.chip_from_crop, recogniser.chip_size)
        embedding = recogniser(chip).embedding
        cosine = float(recogniser.similarity(embedding, target.identity.embedding))
        distance = float((embedding - target.identity.embedding).norm())
        points = project(camera, self.morphable.landmarks(vertices))[0, :, :2]
        valid = self.morphable.landmark_valid
        error = float((points - target.landmarks[0])[valid].norm(dim=1).mean()) / target.eye_distance
        return {"guiding": cosine, "guiding_l2": distance}, error

    @torch.no_grad()
    def _finished(
        self,
        z: Tensor,
        options: AvatarOptions,
        crop: FaceCrop | None,
        pose: Pose | None,
        similarity: dict[str, float],
        landmark_error: float | None,
        guide: PhotoGuidance | None,
        residual: Tensor | None,
    ) -> AvatarResult:
        """Everything of the result but its times."""
        parts = self.layout.split(self.denoiser.statistics.denormalise(z))
        with span("texture_decoder", "engine"):
            maps = self.models.autoencoder.decode(parts.texture)
        if residual is not None:
            maps = with_detail(maps, residual)
        with span("compose", "host"):
            head = mapped(self.atlas.compose(maps), host_from_device)
        neutral = host_from_device(self.morphable(parts.identity))
        vertices = host_from_device(self.morphable(parts.identity, parts.expression))
        light = mapped(light_from_latent(parts.light), host_from_device)
        offset = vertices - neutral
        topology = self.morphable.topology()
        weights = blendshape_weights(offset[0].numpy(), topology.blendshapes)
        named = {n: round(float(w), 4) for n, w in zip(topology.blendshape_names, weights, strict=True) if w > 0.005}
        light_values = {
            "ambient": light.ambient[0].tolist(),
            "directional": light.directional[0].tolist(),
            "direction": light.direction[0].tolist(),
        }
        pose_values = _pose_values(pose)
        avatar = Avatar(
            vertices=neutral[0].numpy(),
            expression_offset=offset[0].numpy(),
            expression_weights=named,
            topology=topology,
            face_maps=reflectance_maps(host_from_device(maps)),
            head_maps=head_maps_from_tensors(head),
            light=light_values,
            pose=pose_values,
            models=self.cards,
            seed=options.seed,
        )
        report = RunReport(
            options=asdict(options) | {"photo": crop is not None} | self._runs_on(),
            seed=options.seed,
            photo_sha256=crop.photo_sha256 if crop else None,
            face_index=crop.face_index if crop else None,
            face_count=len(crop.faces) if crop else None,
            models=self.cards,
            similarity=similarity,
            landmark_error=landmark_error,
            pose=pose_values,
            light=light_values,
            stages=(),
            seconds=0.0,
            guidance=guide.history if guide else [],
            notes=crop.notes if crop else (),
        )
        return AvatarResult(avatar, report, vertices, head, light, crop_camera(pose) if pose else None)


def _timed(result: AvatarResult, clock: StageClock) -> AvatarResult:
    return replace(result, report=replace(result.report, stages=tuple(clock.stages), seconds=clock.total()))


def reflectance_maps(maps: Tensor) -> ReflectanceMaps:
    """(1, 9, S, S) in [0, 1] -> numpy maps."""
    rows = maps[0].permute(1, 2, 0).numpy()
    normal = rows[..., 6:9] * 2 - 1
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    specular = np.repeat(rows[..., 3:6].mean(-1, keepdims=True), 3, -1)
    return ReflectanceMaps(np.ascontiguousarray(rows[..., :3]), specular, normal.astype(np.float32))


def head_maps_from_tensors(head: HeadMapsTensor) -> HeadMaps:
    """The renderer's maps (1, C, T, T), linear -> numpy maps as an exporter takes them."""
    assert head.specular is not None and head.normal is not None
    assert head.roughness is not None and head.alpha is not None
    color = torch.cat([srgb_from_linear(head.albedo), head.alpha], 1)[0].permute(1, 2, 0).clamp(0, 1)
    normal = head.normal[0].permute(1, 2, 0).numpy()
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    return HeadMaps(
        np.ascontiguousarray(color.numpy()),
        np.ascontiguousarray((head.specular[0, 0] / F0_MAX).clamp(0, 1).numpy()),
        np.ascontiguousarray(normal),
        np.ascontiguousarray(head.roughness[0, 0].numpy()),
    )


def _pose_values(pose: Pose | None) -> dict[str, Any] | None:
    if pose is None:
        return None
    yaw, pitch, roll = pose.yaw_pitch_roll
    return {
        "yaw_degrees": yaw, "pitch_degrees": pitch, "roll_degrees": roll, "rvec": pose.rvec.tolist(),
        "tvec_metres": pose.tvec.tolist(), "focal_px": FOCAL, "image_px": 224, "reprojection_px": pose.error,
    }  # fmt: skip


def load_pipeline(
    assets: Path | None = None,
    threads: int | None = None,
    backend: str = EAGER,
    *,
    device: torch.device | str = CPU,
    precision: Precision = "fp32",
    cache_dir: Path | None = None,
    on_engine: Any = None,
) -> FitDiffPipeline:
    """The default preset from the embedded assets, or from a folder laid out alike.

    Args:
        backend: what runs the networks, "auto" for the fastest present; with precision, cache_dir and on_engine see
            `compiled.compiled_pipeline`.
        device: where the guided loop runs, "cpu", "cuda" or "cuda:N". Noise is drawn on the CPU: a seed is the same
            person on each.

    Raises:
        MissingError: a model is absent, damaged, or not the one that the denoiser was trained with; or the backend or
            the device is.
        UsageError: no such backend or device.
    """
    device = device_from_name(device)
    if threads:
        torch.set_num_threads(threads)
    folder = assets or assets_dir()
    morphable, morphable_card = load_morphable(folder / "morphable.safetensors")
    recogniser, recogniser_card = load_recogniser(folder / "recogniser")
    face_mesh, face_mesh_card = load_face_mesh(folder / "landmarks")
    perceptual, perceptual_card = load_perceptual(folder / "perceptual")
    occlusion, occlusion_card = load_occlusion(folder / "occlusion")
    atlas, atlas_card = load_head_atlas(folder / "head_atlas.safetensors")
    autoencoder = load_autoencoder(folder / "autoencoder").requires_grad_(False)
    autoencoder_card = load_checkpoint(folder / "autoencoder").card
    denoiser = load_denoiser(folder / "denoiser")
    detector = FaceDetector(folder / "detector")
    given = TrainedWith(recogniser_card.name, recogniser_card.sha256, morphable_card.sha256, autoencoder_card.sha256)
    check_trained_with(denoiser.trained_with, given)
    assert denoiser.card is not None
    small_atlas = load_head_atlas(folder / "head_atlas.safetensors", size=512)[0]
    renderer = HeadRenderer(
        morphable.triangles, morphable.corner_uv, morphable.triangle_part, morphable.config.part_names
    )
    for network in (autoencoder, recogniser, face_mesh, perceptual, occlusion):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    models = GuidanceModels(
        autoencoder,
        morphable,
        small_atlas,
        renderer,
        recogniser,
        face_mesh,
        perceptual,
        occlusion,
        has_native_bfloat16(),
    )
    cards = (
        morphable_card, atlas_card, denoiser.card, autoencoder_card, recogniser_card, face_mesh_card,
        perceptual_card, occlusion_card, detector.card,
    )  # fmt: skip
    pipeline = FitDiffPipeline(denoiser, models, atlas, detector, cards)
    if backend == EAGER and precision == "fp32":
        return pipeline.to(device)
    from .compiled import compiled_pipeline

    return compiled_pipeline(
        pipeline, backend, precision=precision, cache_dir=cache_dir, device=device, on_engine=on_engine
    )
