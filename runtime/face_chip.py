"""The aligned chip that a recogniser reads: five points, the similarity onto a template, the warp.

Points are (x, y) with pixel centres at +0.5. The five are, in the order of every recogniser's template: the
character's right eye (on the image's left), left eye, nose tip, right mouth corner, left mouth corner.
This file knows no recogniser: the template is given to it.
"""

from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models.landmark_indices import LEFT_EYE, LEFT_MOUTH_CORNER, NOSE_TIP, RIGHT_EYE, RIGHT_MOUTH_CORNER

MAX_SAMPLES = 8  # a chip pixel averages at most 8 x 8 samples of the crop


@overload
def five_points_from_landmarks(landmarks: np.ndarray) -> np.ndarray: ...
@overload
def five_points_from_landmarks(landmarks: Tensor) -> Tensor: ...
def five_points_from_landmarks(landmarks: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """(..., 468, 2 or 3) landmarks -> (..., 5, 2) points: eye centres, nose tip, mouth corners.

    An eye's centre is the mean of its contour, so that a blink or a glance moves it little. Tensors keep
    their gradient.
    """
    flat = landmarks[..., :2]
    eyes = [flat[..., list(eye), :].mean(-2) for eye in (RIGHT_EYE, LEFT_EYE)]
    points = [*eyes, *(flat[..., i, :] for i in (NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER))]
    return torch.stack(points, -2) if isinstance(landmarks, Tensor) else np.stack(points, -2)


def chip_transform(five_points: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) float64, chip_from_crop, that moves (5, 2) points nearest to a (5, 2) template.

    Least squares over rotation, one scale and translation, never a reflection (Umeyama 1991, eqs. 40-42).
    Raises ValueError when the points coincide.
    """
    source, target = np.asarray(five_points, np.float64), np.asarray(template, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise ValueError(f"points {source.shape} and template {target.shape}: expected the same (N, 2)")
    source_mean, target_mean = source.mean(0), target.mean(0)
    variance = ((source - source_mean) ** 2).sum(1).mean()
    if not np.isfinite(variance) or variance <= 0:
        raise ValueError("the points coincide or are not finite: they fix no rotation and no scale")
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    U, D, Vt = np.linalg.svd(covariance)
    S = np.array([1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    rotation = (U * S) @ Vt
    linear = (D * S).sum() / variance * rotation
    return np.hstack([linear, (target_mean - linear @ source_mean)[:, None]])


def warp_chip(image: Tensor, chip_from_crop: Tensor, size: int) -> Tensor:
    """Cut (B, C, S, S) chips out of (B, C, H, W) images by (B, 2, 3) affine maps; S is `size`.

    Bilinear; where the map shrinks, each chip pixel averages a grid of samples, so that no detail aliases.
    Beyond the image its edge goes on. Differentiable in the image and in the map. A row's result does not
    depend on the rest of the batch.
    """
    samples = _samples(chip_from_crop)
    if len(set(samples)) == 1:
        return _grid(image, chip_from_crop, size, samples[0]).chips(image)
    rows = zip(image.split(1), chip_from_crop.split(1), samples, strict=True)
    return torch.cat([_grid(row, transform, size, count).chips(row) for row, transform, count in rows])


@dataclass(frozen=True, eq=False)
class ChipGrid:
    """Where the chips of `warp_chip` take their pixels, worked out once for many images of one frame.

    grid: (B, S k, S k, 2) in [-1, 1] of the image; samples: k, along each axis of a chip's pixel.
    """

    grid: Tensor
    samples: int

    def chips(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, S, S), as `warp_chip`; differentiable in the image."""
        fine = functional.grid_sample(image, self.grid, mode="bilinear", padding_mode="border", align_corners=False)
        return functional.avg_pool2d(fine, self.samples) if self.samples > 1 else fine


def chip_grid(image: Tensor, chip_from_crop: Tensor, size: int) -> ChipGrid:
    """The grid of one map (1, 2, 3) for images (1, C, H, W) like this one: `warp_chip` without its waits on a GPU."""
    (samples,) = _samples(chip_from_crop)
    return _grid(image, chip_from_crop, size, samples)


def _samples(chip_from_crop: Tensor) -> list[int]:
    """Samples along each axis of a chip's pixel, for every map."""
    determinant = torch.linalg.det(chip_from_crop[:, :, :2].detach().double()).abs()
    return (1 / determinant.sqrt() - 1e-6).ceil().clamp(1, MAX_SAMPLES).long().tolist()


def _grid(image: Tensor, chip_from_crop: Tensor, size: int, samples: int) -> ChipGrid:
    height, width = image.shape[-2:]
    axis = (torch.arange(size * samples, device=image.device, dtype=image.dtype) + 0.5) / samples
    chip = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # (S * k, S * k, 2) chip px
    chip_from_crop = chip_from_crop.to(image)
    linear, offset = chip_from_crop[:, :, :2], chip_from_crop[:, :, 2]
    crop = (chip.reshape(1, -1, 2) - offset[:, None]) @ torch.linalg.inv(linear).transpose(1, 2)
    grid = crop / crop.new_tensor([width, height]) * 2 - 1
    return ChipGrid(grid.reshape(-1, size * samples, size * samples, 2), samples)
