"""The frozen models that guidance looks through: from a texture latent to face maps, and what compares pictures.

Knows nothing of photos and of losses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ..models.autoencoder import BranchedAutoencoder
from ..models.delighting import DelightingNet
from ..models.landmark_network import LandmarkNetwork
from ..models.landmarks import FaceMesh
from ..models.morphable import MorphableModel
from ..models.occlusion import OcclusionNet
from ..models.perceptual import PerceptualNetwork
from ..models.recogniser import Recogniser
from ..rendering.head_atlas import HeadAtlas
from ..rendering.pytorch3d_rasteriser import PyTorch3DRasteriser
from ..rendering.renderer import HeadRenderer
from .devices import HostRasteriser
from .trace import span

FACE_WINDOW = slice(32, 192)  # rows and columns of a crop that hold all of the face's skin: crops are aligned
DECODER_MARGIN = 2  # latent cells decoded beyond what is kept: the decoder sees its neighbours


@dataclass(frozen=True)
class GuidanceModels:
    """The frozen models that the rendering and its comparison need.

    The face mesh finds and frames the face, and guides too unless there are other `landmarks`. The occlusion network
    reads the features of the network that it was trained with: `perceptual`, unless there are `occlusion_features`.
    """

    autoencoder: BranchedAutoencoder
    morphable: MorphableModel
    atlas: HeadAtlas  # at 512 texels, for maps decoded at 256
    renderer: HeadRenderer
    recogniser: Recogniser
    face_mesh: FaceMesh
    perceptual: PerceptualNetwork
    occlusion: OcclusionNet
    bfloat16: bool = False  # decode in mixed precision: worth it only where the processor has the instructions
    landmarks: LandmarkNetwork | None = None
    occlusion_features: PerceptualNetwork | None = None
    delighting: DelightingNet | None = None  # None: skins vary as the prior expects, whatever the photo shows

    @property
    def device(self) -> torch.device:
        """Where the models are, and where they want what they look at."""
        return self.morphable.mean.device

    @property
    def landmark_network(self) -> LandmarkNetwork:
        """What finds the N points that guidance compares."""
        return self.face_mesh if self.landmarks is None else self.landmarks

    @property
    def landmark_indices(self) -> list[int] | slice:
        """Its points among the 468 of the face mesh, which the morphable model knows."""
        return slice(None) if self.landmarks is None else list(self.landmarks.mesh_indices)

    def surface_points(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) -> where the points lie on the surface (B, N, 3); see `surface_valid`."""
        return self.morphable.landmarks(vertices)[:, self.landmark_indices]

    @property
    def surface_valid(self) -> Tensor:
        """(N,) bool: the points that have a place on the surface."""
        return self.morphable.landmark_valid[self.landmark_indices]

    def to(self, device: torch.device) -> GuidanceModels:
        """The models on `device`. Modules move themselves, so these are no longer where they were.

        Visibility is still found on the CPU, by the compiled rasteriser, which takes a millisecond; the copies of
        vertices and image take less. `rasteriser.TorchRasteriser` runs on the device, but waits for it several times;
        `renderer.rasteriser` may be set to that.
        """
        for model in vars(self).values():
            if isinstance(model, nn.Module):
                model.to(device)
        on_device = isinstance(self.renderer.rasteriser, HostRasteriser | PyTorch3DRasteriser)
        if device.type != "cpu" and not on_device:
            self.renderer.rasteriser = HostRasteriser(self.renderer.rasteriser)
        return replace(self, bfloat16=self.bfloat16 and device.type == "cpu")

    def face_maps(self, texture: Tensor, around: Tensor | None = None) -> Tensor:
        """(1, 1, 64, 64) denormalised texture latent -> (1, 9, 256, 256) maps in [0, 1], float32.

        With maps `around`, only what the landmarks enclose is decoded, half of the chart; the rest is taken from them.
        """
        with torch.autocast(texture.device.type, torch.bfloat16, enabled=self.bfloat16):
            half = self.autoencoder.config.chart_size // 2
            if around is None:
                with span("texture_half", "engine"):
                    return self.autoencoder.decode(texture, half)
            top, bottom, left, right = self.face_cells
            m, cell = DECODER_MARGIN, half // texture.shape[-1]
            window = texture[..., top - m : bottom + m, left - m : right + m]
            with span("texture_face", "engine"):
                decoded = self.autoencoder.decode(window, half, origin=(top - m, left - m))
        inside = decoded[..., m * cell : -m * cell, m * cell : -m * cell]
        maps = around.clone()
        maps[..., top * cell : bottom * cell, left * cell : right * cell] = inside
        return maps

    @cached_property
    def face_cells(self) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of the landmarks in cells of the texture latent, a margin's width inside it."""
        morphable, cells = self.morphable, self.autoencoder.latent_size
        points = morphable.landmarks_on_chart()[morphable.landmark_valid] * (cells / morphable.config.face_block[2])
        low, high = points.amin(0).floor(), points.amax(0).ceil()
        m = DECODER_MARGIN
        left, top = (max(m, int(value)) for value in low)
        right, bottom = (min(cells - m, int(value)) for value in high)
        return top, bottom, left, right
