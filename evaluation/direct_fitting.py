"""The baseline that diffusion has to beat: one photo fitted directly, with a free texture and no prior.

Same renderer, same losses, same weights as guidance; instead of a latent every texel of the diffuse albedo is free.
Adam (Kingma and Ba 2015) moves texture, shape, expression and light; the landmarks' Gauss-Newton step helps the shape
as it does in guidance. The likeness is what the losses allow; the maps take in light, hair and teeth with the skin.
Knows nothing of the sampling loop or of the denoiser.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.latent import LatentLayout, LatentParts, LatentStatistics
from ..rendering.camera import Camera, project
from ..rendering.renderer import HeadMapsTensor
from ..rendering.shader import Light, light_from_latent
from ..runtime.guidance import Estimate, GuidanceConfig, PhotoGuidance, estimate_from_maps
from ..runtime.guidance_models import GuidanceModels
from ..runtime.landmark_step import LandmarkStep
from ..runtime.photo_target import PhotoTarget


@dataclass(frozen=True)
class DirectFittingConfig:
    """How the fit goes; `guidance` holds the weights of the losses and of the Gauss-Newton step."""

    steps: int = 150
    learning_rate: float = 0.05  # of texture logits and of normalised coefficients
    decay: float = 2e-4  # weight of the squared coefficients in the loss
    guidance: GuidanceConfig = GuidanceConfig()


@dataclass(frozen=True)
class DirectFit:
    """What came out. `losses`: the weighted sum at every step."""

    maps: Tensor  # (1, 9, 256, 256) in [0, 1]
    head_maps: HeadMapsTensor
    vertices: Tensor  # (1, V, 3) metres, with the photo's expression
    light: Light
    camera: Camera
    landmark_error: float  # mean distance of the surface's landmarks to the photo's, share of the eye distance
    losses: tuple[float, ...]
    seconds: float


def fit_directly(
    models: GuidanceModels,
    statistics: LatentStatistics,
    target: PhotoTarget,
    config: DirectFittingConfig | None = None,
) -> DirectFit:
    """Fit one photo from the mean face on. Specular albedo and normals stay those of the mean latent."""
    config = config or DirectFittingConfig()
    begun = time.perf_counter()
    layout = LatentLayout()
    losses = PhotoGuidance(models, statistics, target, config.guidance)
    landmark_step = LandmarkStep(models.morphable, statistics, models.landmark_indices)
    texture = torch.zeros(1, 1, layout.texture_size, layout.texture_size)
    with torch.no_grad():
        mean = models.face_maps(_denormalised(texture, torch.zeros(1, layout.vector), layout, statistics).texture)
    logits = torch.logit(mean[:, :3].clamp(0.02, 0.98))
    residual = torch.zeros_like(logits, requires_grad=True)  # (1, 3, 256, 256)
    coefficients = torch.zeros(1, layout.vector, requires_grad=True)  # (1, 192) normalised identity, expression, light

    def estimate() -> tuple[Tensor, Estimate]:
        maps = torch.cat([torch.sigmoid(logits + residual), mean[:, 3:]], 1)
        parts = _denormalised(texture, coefficients, layout, statistics)
        return maps, estimate_from_maps(maps, parts, models, losses.camera_of, target.background, target.irises)

    adam = torch.optim.Adam([residual, coefficients], lr=config.learning_rate)
    totals: list[float] = []
    for _ in range(config.steps):
        losses.views.advance(config.guidance.detail.views)
        terms = losses.losses(estimate()[1])
        total = torch.stack([getattr(config.guidance, name) * value for name, value in terms.items()]).sum()
        totals.append(float(total.detach()))
        adam.zero_grad()
        (total + config.decay * coefficients.square().sum()).backward()
        adam.step()
        with torch.no_grad():
            parts = _denormalised(texture, coefficients, layout, statistics)
            vertices = models.morphable(parts.identity, parts.expression)
            camera, points = losses.camera_of(vertices), models.surface_points(vertices)
            shape = coefficients[:, : layout.identity + layout.expression]
            change = landmark_step(
                shape, points, camera, target.landmarks, target.eye_distance, target.landmark_weights
            )
            shape += config.guidance.landmark_newton * change
    with torch.no_grad():
        maps, fitted = estimate()
        head = models.atlas.compose(maps, target.irises)
        surface = project(fitted.camera, models.surface_points(fitted.vertices))[0, :, :2]
        distances = (surface - target.landmarks[0]).norm(dim=1)[models.surface_valid]
    error = float(distances.mean() / target.eye_distance[0])
    light = light_from_latent(fitted.parts.light)
    seconds = time.perf_counter() - begun
    return DirectFit(maps, head, fitted.vertices, light, fitted.camera, error, tuple(totals), seconds)


def _denormalised(
    texture: Tensor, coefficients: Tensor, layout: LatentLayout, statistics: LatentStatistics
) -> LatentParts:
    """Normalised texture (1, 1, 64, 64) and coefficients (1, 192) -> denormalised parts."""
    sizes = [layout.identity, layout.expression, layout.light]
    identity, expression, light = coefficients.split(sizes, dim=1)
    return layout.split(statistics.denormalise(layout.join(LatentParts(texture, identity, expression, light))))
