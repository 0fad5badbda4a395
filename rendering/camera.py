"""Pinhole cameras and the three frames: world, camera (OpenCV) and view (glTF axes).

World is glTF's: metres, +Y up, the face looks to +Z, +X is the character's left. Camera is OpenCV's: x right,
y down, z forward. View has the camera's origin with glTF axes: x right, y up, z towards the viewer. Pixel (0,
0) is top left and pixel centres lie at +0.5. This file knows nothing of images or landmarks.
"""

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """A batch of pinhole cameras without lens distortion: `x_camera = rotation @ x_world + translation`.

    Attributes:
        focal: (B,) px, the same along x and y.
        principal: (B, 2) px, x and y, with pixel centres at +0.5.
        rotation: (B, 3, 3) camera from world.
        translation: (B, 3) metres.
        height: rows of the image.
        width: columns of the image.
    """

    focal: Tensor
    principal: Tensor
    rotation: Tensor
    translation: Tensor
    height: int
    width: int

    def __post_init__(self) -> None:
        batch = self.focal.shape[0] if self.focal.ndim == 1 else -1
        expected = {"principal": (batch, 2), "rotation": (batch, 3, 3), "translation": (batch, 3)}
        for name, shape in {"focal": (batch,), **expected}.items():
            got = tuple(cast(Tensor, getattr(self, name)).shape)
            if got != shape:
                raise ValueError(f"camera {name}: got shape {got}; expected {shape}; give every part one batch")

    def scaled(self, factor: float) -> "Camera":
        """The same view in an image `factor` times as large (rounded to whole pixels)."""
        return replace(
            self,
            focal=self.focal * factor,
            principal=self.principal * factor,
            height=max(1, round(self.height * factor)),
            width=max(1, round(self.width * factor)),
        )

    def cropped(self, crop_from_image: Tensor, height: int, width: int) -> "Camera":
        """The same view in another image of the same scene, such as the photo behind a crop.

        Args:
            crop_from_image: (2, 3) or (B, 2, 3), one scale and a translation, acting on pixel coordinates
                whose centres lie at +0.5.
            height: rows of the new image.
            width: columns of the new image.

        Raises:
            ValueError: the transform rotates, shears or scales x and y differently.
        """
        matrix = crop_from_image.to(self.focal).expand(self.focal.shape[0], 2, 3)
        scale = matrix[:, 0, 0]
        rigid = torch.diag_embed(scale[:, None].expand(-1, 2))
        if not torch.allclose(matrix[:, :, :2], rigid, rtol=1e-4, atol=1e-6):
            raise ValueError(
                f"crop transform: got {matrix[:, :, :2].tolist()}; expected one scale and a translation; "
                "leave rotation to the camera"
            )
        principal = scale[:, None] * self.principal + matrix[:, :, 2]
        return replace(self, focal=self.focal * scale, principal=principal, height=height, width=width)

    def to(self, device: torch.device | str) -> "Camera":
        """The same camera with its tensors on `device`."""
        return replace(
            self,
            focal=self.focal.to(device),
            principal=self.principal.to(device),
            rotation=self.rotation.to(device),
            translation=self.translation.to(device),
        )


def camera_from_world(camera: Camera, points: Tensor) -> Tensor:
    """(B, N, 3) world metres -> (B, N, 3) camera-frame metres (x right, y down, z forward)."""
    return points @ camera.rotation.transpose(1, 2) + camera.translation[:, None]


def view_from_camera(vectors: Tensor) -> Tensor:
    """(..., 3) camera axes <-> (..., 3) view axes: y and z change sign. Its own inverse."""
    x, y, z = vectors.unbind(-1)  # no constant that would have to travel to a GPU
    return torch.stack([x, -y, -z], -1)


def pixels_from_camera(camera: Camera, points: Tensor) -> Tensor:
    """(B, N, 3) camera-frame metres -> (B, N, 3) x px, y px, depth metres."""
    depth = points[..., 2:]
    # A point in the camera's plane projects nowhere; the rasteriser drops it by its depth, which stays as it
    # is.
    divisor = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    pixels = camera.focal[:, None, None] * points[..., :2] / divisor + camera.principal[:, None]
    return torch.cat([pixels, depth], -1)


def project(camera: Camera, points: Tensor) -> Tensor:
    """(B, N, 3) world metres -> (B, N, 3) x px, y px, depth metres (> 0 in front). Differentiable."""
    return pixels_from_camera(camera, camera_from_world(camera, points))


def rotation_from_rodrigues(rvec: Tensor) -> Tensor:
    """(B, 3) axis times angle in radians -> (B, 3, 3); OpenCV's `Rodrigues`, differentiable at zero too."""
    squared = (rvec * rvec).sum(-1)  # (B,)
    small = squared < 1e-6
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / (angle * angle))
    x, y, z = rvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    eye = torch.eye(3, dtype=rvec.dtype, device=rvec.device)
    return eye + sine[:, None, None] * cross + cosine[:, None, None] * (cross @ cross)


def camera_from_pose(rvec: Tensor, tvec: Tensor, focal: Tensor | float, size: int | tuple[int, int]) -> Camera:
    """Camera from a perspective-n-point pose, the principal point in the middle of the image.

    Args:
        rvec: (B, 3) axis times angle, radians, camera from world.
        tvec: (B, 3) metres.
        focal: (B,) px, or one number for all.
        size: side of a square image, or (height, width), px.
    """
    height, width = (size, size) if isinstance(size, int) else size
    batch = rvec.shape[0]
    return Camera(
        focal=torch.as_tensor(focal, dtype=rvec.dtype, device=rvec.device).expand(batch),
        principal=rvec.new_tensor([width / 2, height / 2]).expand(batch, 2),
        rotation=rotation_from_rodrigues(rvec),
        translation=tvec,
        height=height,
        width=width,
    )


def camera_front(
    center: Tensor,
    distance: float,
    focal_px: float,
    size: int | tuple[int, int],
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
) -> Camera:
    """Camera that looks at a head from the front, upright.

    Args:
        center: (3,) or (B, 3) world point that lands in the middle of the image.
        distance: metres from the camera to `center`.
        focal_px: focal length, px.
        size: side of a square image, or (height, width), px.
        yaw: radians the camera walks round the head towards +X, the character's left; pi / 2 sees the left
            profile.
        pitch: radians the camera rises; positive looks down on the head.
    """
    center = torch.atleast_2d(center)
    batch = center.shape[0]
    away = [math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)]
    right = [math.cos(yaw), 0.0, -math.sin(yaw)]
    up = [-math.sin(yaw) * math.sin(pitch), math.cos(pitch), -math.cos(yaw) * math.sin(pitch)]
    rows = [right, [-value for value in up], [-value for value in away]]
    rotation = center.new_tensor(rows).expand(batch, 3, 3)
    eye = center + distance * center.new_tensor(away)
    height, width = (size, size) if isinstance(size, int) else size
    return Camera(
        focal=center.new_full((batch,), focal_px),
        principal=center.new_tensor([width / 2, height / 2]).expand(batch, 2),
        rotation=rotation,
        translation=-(rotation @ eye[:, :, None]).squeeze(-1),
        height=height,
        width=width,
    )
