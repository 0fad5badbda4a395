"""Guidance: by how much the estimates of z_0 should change so that their renderings become the people in the photos.

Equation 2 of the paper, G = G_id_cos + l1 G_id_per + l2 G_mse + l3 G_lan + l4 G_vgg, on the rendering of the
estimate. Autograd runs through decoder, morphable model, renderer and face networks, never through the UNet. A batch
of photos shares every call, and nothing else: what happens to a photo does not depend on its neighbours.
Knows nothing of the sampling loop and of which denoiser made the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..models.latent import LatentLayout, LatentParts, LatentStatistics
from ..models.perceptual import feature_distance
from ..rendering.camera import Camera, project
from ..rendering.renderer import Rendering
from ..rendering.shader import light_from_latent, luminance, srgb_from_linear
from .ddim import GuidanceStep
from .detail import DetailConfig
from .devices import CPU, host_from_device
from .face_crop import CROP_SIZE
from .guidance_models import FACE_WINDOW, GuidanceModels
from .identity_views import IdentityViews
from .landmark_step import LandmarkStep
from .photo_chips import PhotoChips
from .photo_target import PhotoTarget
from .pose import Pose
from .pose_tracking import PoseTracker, camera_from_poses
from .trace import span

FOCAL = 2.5 * CROP_SIZE  # px: a head at about arm's length and a half, the usual portrait
LinearGain = Callable[[Tensor, float], Tensor]
"""(gradient like z, alpha-bar) -> the same narrowed by the prior."""
WHOLE_EVERY = 16  # decodings from one of the whole chart to the next
TERMS = ("identity", "identity_perceptual", "photometric", "landmarks", "perceptual")


@dataclass(frozen=True)
class GuidanceConfig:
    """Weights of equation 2, and how far each part of z moves a step.

    `*_step` are root-mean-square changes of normalised z. The first `start` share of the steps runs unguided: there
    the noise forgets what guidance did. From `settle` on the steps shrink to `final_step` of their size.
    """

    identity: float = 0.7  # G_id_cos: more of it and its own recogniser is fooled
    identity_perceptual: float = 2.0  # lambda 1
    photometric: float = 30.0  # lambda 2
    landmarks: float = 30.0  # lambda 3
    perceptual: float = 0.3  # lambda 4
    texture_step: float = 0.2
    identity_step: float = 0.15
    expression_step: float = 0.4
    light_step: float = 0.3
    start: float = 0.2
    settle: float = 0.7
    final_step: float = 0.15
    landmark_newton: float = 0.5  # share of the Gauss-Newton step on the landmarks that a step takes
    shape_prior: float = 1.0  # precision of the identity that the prior expects, in that step
    prior_noise: float = 0.3  # (1-a)/a below which the prior no longer narrows the gradient
    momentum: float = 0.6
    inner_steps: int = 1
    views: int = 1  # in which the recogniser sees the face for one gradient; see `identity_views`
    interval: int = 3  # guided steps from one gradient to the next; between them the last one is followed
    detail: DetailConfig = field(default_factory=DetailConfig)  # after the last step


GUIDANCE_PRESETS: dict[str, GuidanceConfig | None] = {
    "full": GuidanceConfig(),
    "thorough": GuidanceConfig(interval=2, detail=DetailConfig(steps=100)),
    "fast": GuidanceConfig(interval=4, detail=DetailConfig(steps=20)),
    "latent": GuidanceConfig(detail=DetailConfig(steps=0)),  # the paper's: nothing but z is guided
    "none": None,
}
"""What they cost and what they bring: docs/guidance.md."""


@dataclass(frozen=True)
class Estimate:
    """Estimates of z_0 seen through the renderer."""

    parts: LatentParts  # denormalised
    vertices: Tensor  # (B, V, 3) metres
    rendering: Rendering
    image: Tensor  # (B, 3, 224, 224) sRGB, hardly above 1, before the photo's mean background
    camera: Camera


class PhotoGuidance:
    """Callable for the sampling loop; a batch of photos, one run, on the device of the models."""

    def __init__(
        self,
        models: GuidanceModels,
        statistics: LatentStatistics,
        target: PhotoTarget,
        config: GuidanceConfig,
        prior: LinearGain | None = None,
        expected: Tensor | None = None,
    ) -> None:
        """What guides these photos.

        Args:
            prior: narrows gradients to what faces do (see `LinearDenoiser.gain`); None leaves them as they are.
            expected: (B, 1, 67, 64), the normalised z that the prior expects of these people: its identity is where
                landmarks that say nothing leave the shape. None for the mean head.
        """
        self.models, self.statistics, self.target, self.config = models, statistics, target, config
        self.prior = prior
        self.layout = LatentLayout()
        self._landmark_step = LandmarkStep(models.morphable, statistics, models.landmark_indices, config.shape_prior)
        self._expected_shape = torch.zeros_like(target.landmarks[:, :1, 0])
        if expected is not None:
            self._expected_shape = expected.flatten(1)[:, self._landmark_step.shape].clone()
            self._expected_shape[:, self.layout.identity :] = 0  # nobody expects an expression
        # What of the photos never changes is worked out here: in the loop it would cost waits for the GPU.
        self._poses = PoseTracker(target.landmarks, target.landmark_weights, FOCAL, CROP_SIZE)
        self._patches = PhotoChips(target.image, target.mesh_from_crop, models.landmark_network.input_size)
        self._mesh_scale = torch.linalg.det(target.mesh_from_crop[:, :, :2]).sqrt()[:, None, None].to(target.image)
        self.is_grey = torch.tensor(target.is_monochrome)[:, None, None, None].to(target.image.device)  # (B, 1, 1, 1)
        self._histories: tuple[list[dict[str, float]], ...] = tuple([] for _ in range(len(target)))
        self._recorded: list[tuple[dict[str, float], Mapping[str, Tensor]]] = []
        self._momentum: Tensor | None = None
        self._energy: Tensor | None = None
        self._around: Tensor | None = None
        self._followed: Tensor | None = None
        self._decoded = self._guided = 0

    @cached_property
    def views(self) -> IdentityViews:
        """What the recogniser is shown; made when it is first asked for, as a measured photo needs none."""
        target = self.target
        return IdentityViews(target.image, target.chip_from_crop, self.models.recogniser)

    def __call__(self, z_0: Tensor, step: GuidanceStep) -> Tensor:
        """Wanted change of the normalised estimates z_0 (B, 1, 67, 64)."""
        done = step.index / step.count
        if done < self.config.start:
            return torch.zeros_like(z_0)
        looks = self._followed is None or self._guided % self.config.interval == 0
        self._guided += 1
        with span("guidance" if looks else "following", "host"):
            return self._change(z_0, step, done, looks)

    def _change(self, z_0: Tensor, step: GuidanceStep, done: float, looks: bool) -> Tensor:
        ramp = max(0.0, (done - self.config.settle) / (1 - self.config.settle))
        strength = self.config.final_step + (1 - self.config.final_step) * 0.5 * (1 + math.cos(math.pi * ramp))
        delta, terms = torch.zeros_like(z_0), {}
        alpha_bar = min(step.alpha_bar, 1 / (1 + self.config.prior_noise))
        for _ in range(self.config.inner_steps):
            if looks or self._followed is None:
                self._followed, terms = self.gradient(z_0 + delta)
            gradient = self._followed
            if self.prior is not None:
                gradient = self.prior(gradient, alpha_bar)
            delta = delta - strength / self.config.inner_steps * self._normalised(gradient)
            with span("landmark_step", "pytorch"):
                delta = delta + self._towards_landmarks(z_0 + delta)
        if terms:
            self.record(step.index, step.t, terms)
        return delta

    def record(self, step: int, t: float, terms: Mapping[str, Tensor]) -> None:
        """Add a step to every photo's history: values (B,), which stay on the device until those are read."""
        self._recorded.append(({"step": step, "t": t}, terms))

    @property
    def histories(self) -> tuple[list[dict[str, float]], ...]:
        """Of each photo, every term at every step recorded so far. Reading them waits for the device."""
        if self._recorded:
            values = torch.stack([torch.stack(tuple(terms.values()), 1) for _, terms in self._recorded])
            for (row, terms), found in zip(self._recorded, host_from_device(values).tolist(), strict=True):
                for history, numbers in zip(self._histories, found, strict=True):
                    history.append(row | dict(zip(terms, numbers, strict=True)))
            self._recorded.clear()
        return self._histories

    @property
    def last_step(self) -> int:
        """The last step that was recorded; -1 before the first."""
        if self._recorded:
            return int(self._recorded[-1][0]["step"])
        return int(self._histories[0][-1]["step"]) if self._histories[0] else -1

    def gradient(self, z_0: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradient of each photo's G at its own z_0, and the values of the terms and of G, (B,) each."""
        self.views.advance(self.config.views)
        z = z_0.detach().requires_grad_(True)
        with torch.enable_grad():
            parts = self.layout.split(self.statistics.denormalise(z))
            total, terms = self.objective(self.estimate(self._face_maps(parts.texture), parts))
            with span("gradient", "pytorch"):
                (gradient,) = torch.autograd.grad(total, z)
        return gradient, terms

    def _face_maps(self, texture: Tensor) -> Tensor:
        """The maps; scalp, ears and neck as they were up to WHOLE_EVERY decodings ago: no term looks closely there."""
        whole = self._decoded % WHOLE_EVERY == 0
        self._decoded += 1
        maps = self.models.face_maps(texture, None if whole else self._around)
        if whole:
            self._around = maps.detach()
        return maps

    def estimate(self, face_maps: Tensor, parts: LatentParts, camera: Camera | None = None) -> Estimate:
        """Face maps (B, 9, 256, 256) on denormalised shapes, seen as the photos' cameras see them, or by `camera`."""
        camera_of = self.camera_of if camera is None else lambda _: camera
        return estimate_from_maps(face_maps, parts, self.models, camera_of, self.target.background, self.target.irises)

    def objective(self, estimate: Estimate, **weights: float) -> tuple[Tensor, dict[str, Tensor]]:
        """G of all photos, scalar with gradient, and of each the terms and G itself, (B,) each without gradient.

        Args:
            weights: of terms, in the place of the configuration's.
        """
        terms = self.losses(estimate)
        total = sum(weights.get(name, getattr(self.config, name)) * value for name, value in terms.items())
        assert isinstance(total, Tensor)
        # Each photo's G depends on its own z alone: the gradient of the sum is everybody's own.
        return total.sum(), {name: value.detach() for name, value in (terms | {"total": total}).items()}

    def losses(self, estimate: Estimate) -> dict[str, Tensor]:
        """The five terms of equation 2, each (B,), 0 for a perfect match."""
        with span("losses", "pytorch"):
            return self._losses(estimate)

    def _losses(self, estimate: Estimate) -> dict[str, Tensor]:
        target, models = self.target, self.models
        image, photo = estimate.image, target.image
        if any(target.is_monochrome):  # or the skin and its light would be pulled towards grey
            image = torch.where(self.is_grey, luminance(image), image)
        mask = target.skin * (estimate.rendering.part == 0)[:, None]
        hidden = torch.lerp(image, photo, target.worn)  # or the skin would imitate the glasses
        surface = project(estimate.camera, models.surface_points(estimate.vertices))[..., :2]
        by_network = models.landmark_network(self._patches(image))[0]
        mesh_scale = self._mesh_scale
        face = (..., FACE_WINDOW, FACE_WINDOW)
        seen = models.perceptual(torch.lerp(photo[face], image[face], mask[face]))
        return {
            **self._identity_losses(image, hidden),
            "photometric": _photometric(image, photo, mask),
            "landmarks": 0.5 * self._landmark_loss(surface, target.landmarks)
            + 0.5 * self._landmark_loss(by_network[..., :2] / mesh_scale, target.mesh_landmarks[..., :2] / mesh_scale),
            "perceptual": models.perceptual.distance(seen, target.perceptual, _widened(mask[face])),
        }

    def _identity_losses(self, image: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        recogniser, wanted = self.models.recogniser, self.views.wanted
        seen = recogniser(self.views.chips(image, hidden))  # one call for all: a processor takes little more for two
        terms = {
            "identity": 1 - recogniser.similarity(seen.embedding, wanted.embedding),
            "identity_perceptual": feature_distance(seen.maps, wanted.maps) / len(seen.maps),
        }
        return {name: value.unflatten(0, (self.views.count, -1)).mean(0) for name, value in terms.items()}

    def _landmark_loss(self, points: Tensor, wanted: Tensor) -> Tensor:
        """(B,): weighted mean square distance in eye distances, robust beyond a tenth of one."""
        squared = ((points - wanted) / self.target.eye_distance[:, None, None]).square().sum(-1)
        robust = 0.02 * ((1 + squared / 0.01).sqrt() - 1)
        return (robust * self.target.landmark_weights).mean(1)

    def _towards_landmarks(self, z_0: Tensor) -> Tensor:
        """The landmark term's Gauss-Newton step on the shape, as a change of z_0 like it."""
        target, step = self.target, self._landmark_step
        z = z_0.flatten(1)[:, step.shape]
        points = step.points(z)
        change = step(
            z - self._expected_shape,
            points,
            self._poses.camera(points),
            target.landmarks,
            target.eye_distance,
            target.landmark_weights,
        )
        delta = torch.zeros_like(z_0)
        delta.flatten(1)[:, step.shape] = self.config.landmark_newton / self.config.inner_steps * change
        return delta

    def camera_of(self, vertices: Tensor) -> Camera:
        """The cameras of the photos for heads of these shapes (B, V, 3), followed from the ones before."""
        return self._poses.camera(self.models.surface_points(vertices))

    def solved_poses(self, vertices: Tensor) -> tuple[Pose, ...]:
        """Perspective-n-point on these shapes (B, V, 3), each photo by itself, from several starts."""
        return self._poses.solved(self.models.surface_points(vertices))

    def _normalised(self, gradient: Tensor) -> Tensor:
        """The step of each part: its gradient over the largest root mean square that it lately had, smoothed."""
        parts = vars(self.layout.split(gradient))
        energy = torch.stack([part.flatten(1).square().mean(1) for part in parts.values()])  # (4, B)
        self._energy = energy if self._energy is None else torch.maximum(energy, 0.95 * self._energy)
        scale = self._energy.clamp_min(1e-16).rsqrt()
        sizes = (
            self.config.texture_step,
            self.config.identity_step,
            self.config.expression_step,
            self.config.light_step,
        )
        moved = {
            name: part * factor.view(-1, *[1] * (part.ndim - 1)) * size
            for (name, part), factor, size in zip(parts.items(), scale, sizes, strict=True)
        }
        step = self.layout.join(LatentParts(**moved))
        if self._momentum is None:
            self._momentum = step
        self._momentum = torch.lerp(step, self._momentum, self.config.momentum)
        return self._momentum


def crop_camera(*poses: Pose, device: torch.device = CPU) -> Camera:
    """The cameras of crops with heads in these poses, one batch row each."""
    return camera_from_poses(poses, FOCAL, CROP_SIZE, device)


def estimate_from_maps(
    face_maps: Tensor,
    parts: LatentParts,
    models: GuidanceModels,
    camera_of: Callable[[Tensor], Camera],
    background: Tensor,
    irises: Tensor,
) -> Estimate:
    """Render face maps (B, 9, 256, 256) in [0, 1] on the shapes and in the light of denormalised latent parts.

    background: (B, 3, 1, 1) sRGB; irises: (B, 3) linear RGB.
    """
    vertices = models.morphable(parts.identity, parts.expression)
    with span("pose", "pytorch"):
        camera = camera_of(vertices.detach())
    with span("compose", "pytorch"):
        head = models.atlas.compose(face_maps, irises)
    with span("render", "pytorch"):
        rendering = models.renderer.render(vertices, head, camera, light_from_latent(parts.light))
    encoded = srgb_from_linear(rendering.color)
    # Beyond white the gradient would vanish and a burnt-out light could never be turned down.
    image = torch.where(encoded > 1, 1 + 0.02 * (encoded - 1), encoded)
    image = torch.lerp(background, image, rendering.alpha)
    return Estimate(parts, vertices, rendering, image, camera)


def _photometric(image: Tensor, photo: Tensor, mask: Tensor) -> Tensor:
    """(B,): Charbonnier distance within the mask, so that what is not skin (glasses, hair, a hand) pulls little."""
    squared = (image - photo).square().mean(1, keepdim=True)
    robust = 0.1 * ((1 + squared / 0.01).sqrt() - 1)
    return (robust * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)


def _widened(mask: Tensor) -> Tensor:
    """A mask grown by a few pixels: features at its border see both sides."""
    return torch.nn.functional.max_pool2d(mask, 5, 1, 2)
