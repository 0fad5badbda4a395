"""The main job: face crops in, avatars out. Puts models, sampling loop and guidance together.

Knows nothing of which files are written. The photos of a batch share every call of a network and nothing else: each
has its own noise, pose, steps and history, and a batch never changes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..models.checkpoint import ModelCard
from ..models.conditioner import Conditioning
from ..models.denoiser import FitDiffDenoiser
from ..models.latent import LatentLayout, LatentParts
from ..models.linear_prior import pooled_inputs
from ..models.morphable import MorphableModel
from ..models.recogniser import IdentityFeatures
from ..models.topology import HeadTopology
from ..rendering.camera import project
from ..rendering.head_atlas import HeadAtlas
from ..rendering.renderer import HeadRenderer, mapped
from ..rendering.shader import Light, light_from_latent
from .avatar_result import NO_FIT, AvatarOptions, AvatarResult, DecodedFace, Fit, avatar_result, timed
from .covered_views import covered_features
from .ddim import SamplerConfig, classifier_free, ddim_timesteps, draw_noise, sample, seeded_generators
from .delighting import with_tone
from .detail import Detail, refine_detail, with_detail
from .devices import CPU, host_from_device
from .face_chip import warp_chip
from .face_crop import FaceCrop
from .face_detector import Detector
from .fine_detail import fine_detail
from .folds import fold_factors, without_folds
from .guidance import GUIDANCE_PRESETS, GuidanceConfig, PhotoGuidance, crop_camera
from .guidance_models import GuidanceModels
from .photo_target import PhotoTarget, photo_targets
from .report import StageClock
from .settled_face import even_surround
from .trace import span

if TYPE_CHECKING:
    from ..engines.compiled_models import CompiledModels
    from ..engines.options import Precision


EAGER = "eager"


@dataclass(frozen=True, eq=False)
class FitDiffPipeline:
    """All models of a preset, loaded once; `avatar` and `sample` may be called any number of times.

    backend: what runs the networks, and backend_reason why that; engines: those that it made, None for eager PyTorch;
    precision: of the networks' arithmetic.
    """

    denoiser: FitDiffDenoiser
    models: GuidanceModels
    atlas: HeadAtlas
    detector: Detector
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
        return self.avatars([crop], options, clock, on_step)[0]

    def avatars(
        self,
        crops: Sequence[FaceCrop],
        options: AvatarOptions | Sequence[AvatarOptions],
        clock: StageClock | None = None,
        on_step: Any = None,
    ) -> list[AvatarResult]:
        """The avatars of several photographed faces, each what `avatar` makes of it, in the order of the crops.

        Photos whose options differ in nothing but the seed go through one loop together. The seconds in their reports
        are those of all of them.

        Args:
            options: for all, or one for each.
            on_step: called with (done, total) after every step of each loop.

        Raises:
            ValueError: another number of options than of crops.
        """
        each = [options] * len(crops) if isinstance(options, AvatarOptions) else list(options)
        if len(each) != len(crops):
            raise ValueError(f"avatars: got {len(each)} options for {len(crops)} crops; expected one for each, or one")
        loops: dict[AvatarOptions, list[int]] = {}
        for index, own in enumerate(each):
            loops.setdefault(replace(own, seed=0), []).append(index)
        results: dict[int, AvatarResult] = {}
        clock = clock or StageClock()
        for rows in loops.values():
            made = self._together([crops[row] for row in rows], [each[row] for row in rows], clock, on_step)
            results |= zip(rows, made, strict=True)
        return [results[index] for index in range(len(crops))]

    def _together(
        self, crops: Sequence[FaceCrop], options: Sequence[AvatarOptions], clock: StageClock, on_step: Any
    ) -> list[AvatarResult]:
        """One loop for all crops; their options differ in the seed alone."""
        shared = options[0]
        with clock.stage("condition"), span("condition"):
            target = photo_targets(crops, self.models)
            conditioning = self._seen(target.identity, shared)
            config = GUIDANCE_PRESETS[shared.guidance]
            guide = self._guidance(target, config, conditioning) if config else None
        with clock.stage("sample"), span("sample"):
            z = self._sample(conditioning, options, guide, on_step)
            expected = self._parts(
                self.denoiser.prior_mean(self._seen(guide.views.steady, shared) if guide else conditioning)
            )
        detail = None
        if guide and guide.config.detail.steps:
            with clock.stage("detail"), span("detail"):
                maps = self._expected_maps(guide, crops, expected, shared)
                detail = refine_detail(guide, z, guide.config.detail, maps)
                z = detail.z
        with clock.stage("decode"), span("decode"):
            seen_by = guide or self._guidance(target, GuidanceConfig(), conditioning)
            fits = self._measured(seen_by, z, detail, guide.histories if guide else None)
            size = self.morphable.size(self.morphable(expected.identity))
            results = self._finished(z, options, crops, fits, detail, target.irises, size)
        return [timed(result, clock) for result in results]

    def sample(self, options: AvatarOptions, clock: StageClock | None = None, on_step: Any = None) -> AvatarResult:
        """An unconditional face: the person that the seed stands for."""
        clock = clock or StageClock()
        with clock.stage("sample"), span("sample"):
            z = self._sample(self._null, [options], None, on_step)
        with clock.stage("decode"), span("decode"):
            (result,) = self._finished(z, [options], [None], [NO_FIT], None)
        return timed(result, clock)

    def _sample(
        self, conditioning: Conditioning, options: Sequence[AvatarOptions], guide: PhotoGuidance | None, on_step: Any
    ) -> Tensor:
        """z_0 (B, 1, 67, 64), normalised; the options differ in the seed alone."""
        network, schedule = self.denoiser.denoiser, self.denoiser.config.schedule
        null = {name: value.expand(len(options), *value.shape[1:]) for name, value in self._null.items()}
        predictor = classifier_free(
            lambda z, t: network(z, t, conditioning), lambda z, t: network(z, t, null), options[0].cfg
        )
        config = SamplerConfig(steps=options[0].steps)
        generators = seeded_generators([own.seed for own in options])
        first = torch.full((len(options),), ddim_timesteps(config, schedule)[0], device=self.device)
        z_t = network.start(draw_noise(generators, self.layout.shape).to(self.device), first, conditioning)

        def guidance(z_0: Tensor, step: Any) -> Tensor:
            delta = guide(z_0, step) if guide else torch.zeros_like(z_0)
            if on_step:
                on_step(step.index + 1, step.count)
            return delta

        with torch.no_grad():
            return sample(predictor, z_t, schedule, config, guidance, generators)

    def _guidance(self, target: PhotoTarget, config: GuidanceConfig, conditioning: Conditioning) -> PhotoGuidance:
        linear = self.denoiser.denoiser.linear
        variances = self._null["prior_variances"]

        def narrowed(gradient: Tensor, alpha_bar: float) -> Tensor:
            with torch.no_grad():
                noise = gradient.new_full((1, 1), alpha_bar)
                return linear.gain(gradient.flatten(1), noise, variances).view_as(gradient)

        expected = self.denoiser.prior_mean(conditioning)
        return PhotoGuidance(self.models, self.denoiser.statistics, target, config, narrowed, expected)

    def _seen(self, identity: IdentityFeatures, options: AvatarOptions) -> Conditioning:
        """What the denoiser makes of photos' features."""
        return self._condition(self._told(identity, options), 1.0)

    def _told(self, identity: IdentityFeatures, options: AvatarOptions) -> IdentityFeatures:
        """Photos' features, or their embeddings alone."""
        return self.denoiser.conditioner.embedding_only(identity) if options.condition == "last" else identity

    @torch.no_grad()
    def _condition(self, features: IdentityFeatures, present: float) -> Conditioning:
        present_ones = torch.full((len(features.embedding),), present, device=self.device)
        return self.denoiser.conditioner(features, present_ones)

    @torch.no_grad()
    def _expected_maps(
        self, guide: PhotoGuidance, crops: Sequence[FaceCrop], expected: LatentParts, options: AvatarOptions
    ) -> Tensor:
        """(B, 9, S, S): what the prior expects of these people, as light as labelled photographs told it."""
        maps, prior, target = self.models.face_maps(expected.texture), self.denoiser.conditioner.prior, guide.target
        if not prior.is_told:
            return maps
        with span("covered_views", "pytorch"):
            covered = covered_features(
                target.image, [crop.landmarks for crop in crops], target.chip_from_crop, self.models.recogniser
            )
        inputs = (pooled_inputs(self._told(seen, options), prior.grid) for seen in (guide.views.steady, covered))
        return with_tone(maps, *prior.told_tone(*inputs), self.models.delighting)

    def _parts(self, z: Tensor) -> LatentParts:
        """What normalised z (B, 1, 67, 64) stand for."""
        return self.layout.split(self.denoiser.statistics.denormalise(z))

    @cached_property
    def _null(self) -> Conditioning:
        """The paper's empty image: what the recogniser makes of black."""
        size = self.models.recogniser.chip_size
        with torch.no_grad():
            return self._condition(self.models.recogniser(torch.zeros(1, 3, size, size, device=self.device)), 0.0)

    def _runs_on(self) -> dict[str, str]:
        """What a report says of it."""
        return {"backend": self.backend, "precision": self.precision, "device": str(self.device)}

    @torch.no_grad()
    def _measured(
        self,
        guide: PhotoGuidance,
        z: Tensor,
        detail: Detail | None,
        histories: Sequence[list[dict[str, float]]] | None,
    ) -> list[Fit]:
        """How the rendering of each z_0 (normalised) compares with its photo."""
        target, recogniser = guide.target, self.models.recogniser
        parts = self._parts(z)
        poses = guide.solved_poses(self.morphable(parts.identity, parts.expression))
        camera = crop_camera(*poses, device=self.device)
        maps = detail.face_maps if detail else self.models.face_maps(parts.texture)
        estimate = guide.estimate(maps, parts, camera)
        chips = warp_chip(estimate.image.clamp(0, 1), target.chip_from_crop, recogniser.chip_size)
        embedding = recogniser(chips).embedding
        points = project(camera, self.models.surface_points(estimate.vertices))[..., :2]
        valid = self.models.surface_valid
        measured = torch.stack(
            [
                recogniser.similarity(embedding, target.identity.embedding),
                (embedding - target.identity.embedding).norm(dim=1),
                (points - target.landmarks)[:, valid].norm(dim=2).mean(1) / target.eye_distance,
            ],
            1,
        )
        rows = zip(poses, host_from_device(measured).tolist(), histories or [[] for _ in poses], strict=True)
        return [
            Fit(pose, {"guiding": cosine, "guiding_l2": distance}, error, history)
            for pose, (cosine, distance, error), history in rows
        ]

    @torch.no_grad()
    def _finished(
        self,
        z: Tensor,
        options: Sequence[AvatarOptions],
        crops: Sequence[FaceCrop | None],
        fits: Sequence[Fit],
        detail: Detail | None,
        irises: Tensor | None = None,
        size: Tensor | None = None,
    ) -> list[AvatarResult]:
        """Everything of the results but their times.

        Args:
            irises: (B, 3) linear RGB, where there are photos.
            size: (B,) of the heads, see `MorphableModel.size`; a larger head farther away looks the same, so that a
                photo does not tell it. None leaves them as they are.
        """
        parts = self._parts(z)
        with span("texture_decoder", "engine"):
            maps = self.models.autoencoder.decode(parts.texture)
        vertices, light = self.morphable(parts.identity, parts.expression), light_from_latent(parts.light)
        maps = with_detail(maps, even_surround(maps) if detail is None else detail.residual)
        if detail is not None:
            with span("fine_detail", "pytorch"):
                maps = self._with_fine_detail(maps, detail, crops, fits, vertices, light)
        with span("compose", "pytorch"):
            seen = rested = mapped(self.atlas.compose(maps, irises), host_from_device)
            folds = None
            if detail is not None and detail.folds is not None:
                folds = host_from_device(fold_factors(detail.folds, maps.shape[-1]))
                maps = without_folds(maps, detail.folds)
                rested = mapped(self.atlas.compose(maps, irises), host_from_device)
        neutral = self.morphable(parts.identity)
        scale = torch.ones(len(neutral)) if size is None else host_from_device(size / self.morphable.size(neutral))
        maps, light = host_from_device(maps), mapped(light, host_from_device)
        neutral, vertices = (host_from_device(points) * scale[:, None, None] for points in (neutral, vertices))
        fits = [fit.scaled(float(own)) for fit, own in zip(fits, scale, strict=True)]
        results = []
        for row, (own, crop, fit) in enumerate(zip(options, crops, fits, strict=True)):
            found = DecodedFace(
                maps[row : row + 1],
                *(
                    mapped(head, lambda value, row=row: value[row : row + 1] if len(value) > 1 else value)
                    for head in (rested, seen)
                ),
                None if folds is None else folds[row : row + 1],
                neutral[row : row + 1],
                vertices[row : row + 1],
                mapped(light, lambda value, row=row: value[row : row + 1]),
            )
            results.append(
                avatar_result(
                    found, own, crop, fit, topology=self._topology, models=self.cards, photos_at_once=len(options),
                    runs_on=self._runs_on(),
                )
            )  # fmt: skip
        return results

    def _with_fine_detail(
        self,
        maps: Tensor,
        detail: Detail,
        crops: Sequence[FaceCrop | None],
        fits: Sequence[Fit],
        vertices: Tensor,
        light: Light,
    ) -> Tensor:
        """(B, 9, 512, 512) maps with what each photo shows beyond its crop's pixels."""
        renderer = self.models.renderer
        finer = []
        for row, (crop, fit) in enumerate(zip(crops, fits, strict=True)):
            own = slice(row, row + 1)
            assert crop is not None and fit.pose is not None  # there was a photo to take detail from
            camera = crop_camera(fit.pose, device=self.device)
            lit = mapped(light, lambda value, own=own: value[own])
            change = fine_detail(
                maps[own], detail.shown[own], crop, self.atlas, renderer, vertices[own], camera, lit
            )  # fmt: skip
            finer.append(with_detail(maps[own], change))
        return torch.cat(finer)

    @cached_property
    def _topology(self) -> HeadTopology:
        return self.morphable.topology()
