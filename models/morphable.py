"""The morphable model: S = m + U_i z_i + U_e z_e (FitDiff section 3.1), with the parts and points that the rest needs.

Knows nothing of photographs, textures or engines. Lengths are metres; +Y up, facing +Z, +X the character's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from .checkpoint import ModelCard, assets_dir, load_checkpoint
from .topology import HeadTopology


@dataclass(frozen=True)
class MorphableConfig:
    """What the tensors of a morphable model mean."""

    part_names: tuple[str, ...]
    blendshape_names: tuple[str, ...]
    face_block: tuple[int, int, int]  # x, y, size of the face chart in the atlas, pixels
    atlas_size: int = 1024
    identity_components: int = 158
    expression_components: int = 25
    attribute_names: tuple[str, ...] = ()


class MorphableModel(nn.Module):
    """A linear head model over V vertices and F triangles.

    Buffers: mean (V, 3); identity_basis (158, V, 3) and expression_basis (25, V, 3), each component scaled by its
    standard deviation so that coefficients are about N(0, 1); blendshapes (52, V, 3); triangles (F, 3) int64;
    corner_uv (F, 3, 2) in the atlas, v down; triangle_part (F,) int64 into `config.part_names`;
    landmark_triangles (468,), landmark_barycentrics (468, 3), landmark_valid (468,): the points of the
    MediaPipe face mesh on the surface; expression_of_blendshapes (52, 25): coefficients of each unit;
    attribute_regression (158 + 1, A): affine map from identity to `config.attribute_names`.
    """

    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    blendshapes: Tensor
    triangles: Tensor
    corner_uv: Tensor
    triangle_part: Tensor
    landmark_triangles: Tensor
    landmark_barycentrics: Tensor
    landmark_valid: Tensor
    expression_of_blendshapes: Tensor
    attribute_regression: Tensor

    def __init__(self, config: MorphableConfig, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.float() if tensor.is_floating_point() else tensor)

    def forward(self, identity: Tensor, expression: Tensor | None = None) -> Tensor:
        """(B, 158) and (B, 25) or None (neutral) -> vertices (B, V, 3), metres."""
        offset = identity @ self.identity_basis.flatten(1)
        if expression is not None:
            offset = offset + expression @ self.expression_basis.flatten(1)
        return self.mean + offset.unflatten(1, (-1, 3))

    def landmarks(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) -> the face-mesh points on the surface (B, 468, 3); see `landmark_valid`."""
        corners = vertices[:, self.triangles[self.landmark_triangles]]  # (B, 468, 3, 3)
        return (corners * self.landmark_barycentrics[..., None]).sum(2)

    def size(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) -> centroid size (B,) metres: root mean square distance of the face-mesh points from their mean."""
        points = self.landmarks(vertices)[:, self.landmark_valid.bool()]
        return (points - points.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt()

    def landmarks_on_chart(self) -> Tensor:
        """The face-mesh points on the face chart, (468, 2) texels of it, x right and y down; see `landmark_valid`."""
        uv = (self.corner_uv[self.landmark_triangles] * self.landmark_barycentrics[..., None]).sum(1)
        x, y, _ = self.config.face_block
        return uv * self.config.atlas_size - uv.new_tensor([x, y])

    def attributes(self, identity: Tensor) -> Tensor:
        """(B, 158) -> (B, A) estimates of `config.attribute_names`, clipped to [0, 1]."""
        return (identity @ self.attribute_regression[:-1] + self.attribute_regression[-1]).clamp(0, 1)

    def topology(self) -> HeadTopology:
        """The fixed part of every head as numpy arrays."""
        return HeadTopology(
            triangles=self.triangles.cpu().numpy().astype(np.int32),
            corner_uv=self.corner_uv.cpu().numpy(),
            triangle_part=self.triangle_part.cpu().numpy().astype(np.uint8),
            part_names=self.config.part_names,
            blendshapes=self.blendshapes.cpu().numpy(),
            blendshape_names=self.config.blendshape_names,
            face_block=self.config.face_block,
        )


def load_morphable(path: Path | None = None) -> tuple[MorphableModel, ModelCard]:
    """The morphable model at `path`, or the embedded default."""
    checkpoint = load_checkpoint(path or assets_dir() / "morphable.safetensors")
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in checkpoint.config.items()}
    return MorphableModel(MorphableConfig(**lists), checkpoint.tensors).eval(), checkpoint.card
