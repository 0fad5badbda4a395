"""The 468-point face mesh network: from a square crop of a face to points on it.

Gradients flow from the points to the pixels. Cropping, and mapping the points back to the photo, happen
elsewhere; names for the points are in `landmark_indices.py`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MissingError
from .checkpoint import ModelCard, assets_dir, load_checkpoint
from .landmark_indices import LANDMARK_COUNT
from .landmark_network import LandmarkNetwork

REGION = 1.5  # side of the network's square over the longer extent of the points, as in MediaPipe's face graph


@dataclass(frozen=True)
class FaceMeshConfig:
    """Shape of the network; the defaults are MediaPipe's `face_landmark.tflite`."""

    input_size: int = 192
    stem_width: int = 16
    # Width of each stage; each but the first begins with a block of stride 2, and all have two plain blocks.
    stage_widths: tuple[int, ...] = (16, 32, 64, 128, 128)
    head_width: int = 128
    head_blocks: int = 2  # plain blocks of the points' head after its strided one; the score's head has none
    neck_width: int = 32


class BlazeBlock(nn.Module):
    """Depthwise 3x3, pointwise 1x1 and a shortcut that pools and zero-extends where shapes differ.

    Source: Bazarevsky et al., BlazeFace (2019), figure 1, with the PReLU of the face mesh.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra_channels = outputs - inputs
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=0 if stride == 2 else 1, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.activation = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.pointwise(self.depthwise(_same_padded(x) if self.stride == 2 else x))
        if self.stride == 2:
            x = F.max_pool2d(x, 2)
        if self.extra_channels:
            x = F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))
        return self.activation(residual + x)


class FaceMesh(LandmarkNetwork):
    """Points of a face in the crop, and how sure the network is that there is one.

    Source: Kartynnik et al., "Real-time facial surface geometry from monocular video on mobile GPUs" (2019).
    """

    def __init__(self, config: FaceMeshConfig = FaceMeshConfig()) -> None:
        super().__init__()
        self.config = config
        widths = config.stage_widths
        trunk: list[nn.Module] = [nn.Conv2d(3, config.stem_width, 3, stride=2), nn.PReLU(config.stem_width)]
        for stage, width in enumerate(widths):
            if stage:
                trunk.append(BlazeBlock(widths[stage - 1], width, stride=2))
            trunk += [BlazeBlock(width, width, stride=1) for _ in range(2)]
        self.trunk = nn.Sequential(*trunk)
        last_side = config.input_size >> (len(widths) + 1)  # stem, strided stages and the heads' own stride
        self.points_head = self._head(config.head_blocks, last_side, LANDMARK_COUNT * 3)
        self.score_head = self._head(0, last_side, 1)

    @property
    def input_size(self) -> int:
        return self.config.input_size

    @property
    def mesh_indices(self) -> tuple[int, ...]:
        return tuple(range(LANDMARK_COUNT))

    def region(self, width: float, height: float) -> tuple[float, float]:
        return REGION * max(width, height), 0.0

    def _head(self, plain_blocks: int, side: int, outputs: int) -> nn.Sequential:
        width, neck = self.config.head_width, self.config.neck_width
        return nn.Sequential(
            BlazeBlock(self.config.stage_widths[-1], width, stride=2),
            *(BlazeBlock(width, width, stride=1) for _ in range(plain_blocks)),
            nn.Conv2d(width, neck, 1),
            nn.PReLU(neck),
            BlazeBlock(neck, neck, stride=1),
            nn.Conv2d(neck, outputs, side),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find the mesh in upright face crops.

        Args:
            x: (B, 3, 192, 192) sRGB-encoded in [0, 1]; the face's box grown by about half, the eyes level.

        Returns:
            points: (B, 468, 3) x, y in pixels of the crop (0 is its left or top edge), z in the same unit:
                less is nearer to the camera, and the origin lies near the middle of the head.
            face_logit: (B,) above 0 where a face is more likely than not.
        """
        features = self.trunk(_same_padded(x))
        points = self.points_head(features).reshape(-1, LANDMARK_COUNT, 3)
        return points, self.score_head(features).reshape(-1)


def load_face_mesh(path: Path | None = None) -> tuple[FaceMesh, ModelCard]:
    """The network saved at `path` (no suffix), or the embedded one: frozen, in evaluation mode, on the CPU.

    Raises:
        MissingError: the files are absent, damaged, or of an architecture that this version cannot build.
    """
    path = path or assets_dir() / "landmarks"
    checkpoint = load_checkpoint(path)
    config = dict(checkpoint.config)
    architecture = config.pop("architecture", None)
    if architecture != "face-mesh":
        got = f"architecture {architecture!r}"
        raise MissingError(f"landmark network {path}", got, "'face-mesh'", "update fitdiff")
    network = FaceMesh(FaceMeshConfig(**{**config, "stage_widths": tuple(config["stage_widths"])}))
    network.load_state_dict(checkpoint.tensors)
    return network.eval().requires_grad_(False), checkpoint.card


def json_from_config(config: FaceMeshConfig) -> dict[str, Any]:
    """What `load_face_mesh` reads back from a checkpoint's `config`."""
    return {"architecture": "face-mesh", **asdict(config)}


def _same_padded(x: Tensor) -> Tensor:
    # TensorFlow's SAME for a 3x3 of stride 2 on an even side puts its one row and column at the bottom right.
    return F.pad(x, (0, 1, 0, 1))
