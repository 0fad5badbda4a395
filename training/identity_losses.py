"""L_id and L_per of the paper: does the rendering of an estimated z_0 look like the photo to the recogniser?

The estimate is decoded and rendered in the photo's own pose (perspective-n-point of the true shape on the photo's
landmarks) before a neutral wall. Knows nothing of the training loop.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from ..models.autoencoder import BranchedAutoencoder
from ..models.latent import LatentLayout
from ..models.morphable import MorphableModel
from ..models.perceptual import feature_distance
from ..models.recogniser import Recogniser
from ..rendering.camera import camera_from_pose
from ..rendering.head_atlas import HeadAtlas
from ..rendering.renderer import HeadRenderer
from ..rendering.shader import light_from_latent, srgb_from_linear
from ..runtime.face_chip import chip_transform, warp_chip
from ..runtime.face_crop import CROP_SIZE
from ..runtime.guidance import FOCAL
from ..runtime.pose import solve_pose
from .diffusion_losses import DiffusionBatch

WALL = 0.4  # sRGB grey behind the rendering


class RenderedIdentityLosses:
    """Callable (raw z_0 estimate (B, 1, 67, 64), batch) -> (L_id (B,), L_per (B,)) for `train_diffusion`."""

    def __init__(
        self,
        folder: Path,
        autoencoder: BranchedAutoencoder,
        morphable: MorphableModel,
        atlas: HeadAtlas,
        recogniser: Recogniser,
    ) -> None:
        """`folder`: made by `fitdiff synthesize`; `atlas` at 512 texels. All models frozen and on one device."""
        faces = load_file(folder / "faces.safetensors")
        self.landmarks, self.five_points = faces["landmarks"], faces["five_points"]
        self.autoencoder, self.morphable, self.atlas, self.recogniser = autoencoder, morphable, atlas, recogniser
        self.renderer = HeadRenderer(
            morphable.triangles, morphable.corner_uv, morphable.triangle_part, morphable.config.part_names
        )
        self.layout = LatentLayout()

    def __call__(self, z_0: Tensor, batch: DiffusionBatch) -> tuple[Tensor, Tensor]:
        parts, truth = self.layout.split(z_0.float()), self.layout.split(batch.z_0)
        photos = batch.photos.tolist()
        with torch.no_grad():
            points = self.morphable.landmarks(self.morphable(truth.identity, truth.expression)).cpu().numpy()
        poses = [solve_pose(p, self.landmarks[i], FOCAL, CROP_SIZE) for p, i in zip(points, photos, strict=True)]
        rvec, tvec = (
            torch.from_numpy(np.stack([getattr(pose, name) for pose in poses])).to(z_0.device, torch.float32)
            for name in ("rvec", "tvec")
        )
        maps = self.autoencoder.decode(parts.texture, self.autoencoder.config.chart_size // 2)
        rendering = self.renderer.render(
            self.morphable(parts.identity, parts.expression),
            self.atlas.compose(maps),
            camera_from_pose(rvec, tvec, FOCAL, CROP_SIZE),
            light_from_latent(parts.light),
        )
        wall = torch.full_like(rendering.color, WALL)
        image = torch.lerp(wall, srgb_from_linear(rendering.color).clamp(max=1.05), rendering.alpha)
        transforms = np.stack([chip_transform(self.five_points[i], self.recogniser.chip_template) for i in photos])
        chips = warp_chip(image, torch.from_numpy(transforms).float(), self.recogniser.chip_size)
        seen = self.recogniser(chips)
        identity = 1 - self.recogniser.similarity(seen.embedding, batch.features.embedding)
        return identity, feature_distance(seen.maps, batch.features.maps) / len(seen.maps)
