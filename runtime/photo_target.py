"""What one photo asks of a rendering: its pixels, bare skin, landmarks and features, computed once.

Knows nothing of losses and of the sampling loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from ..models.occlusion import occlusion_guides
from ..models.recogniser import IdentityFeatures
from .devices import array_from_tensor, device_from_host
from .face_chip import chip_transform, warp_chip
from .face_crop import CROP_SIZE, FaceCrop
from .face_masks import face_masks
from .guidance_models import FACE_WINDOW, GuidanceModels
from .skin_mask import bare_skin

_LANDMARK_WEIGHTS = ((LIPS_OUTER, 3.0), (LIPS_INNER, 3.0), (RIGHT_EYE, 4.0), (LEFT_EYE, 4.0), (RIGHT_BROW, 2.0),
                     (LEFT_BROW, 2.0), ((1, 4, 5, 6, 168, 195, 197), 3.0))  # fmt: skip


@dataclass(frozen=True)
class PhotoTarget:
    """What one photo asks of a rendering; everything with a leading axis of 1, on the device of the models."""

    image: Tensor  # (1, 3, 224, 224) sRGB in [0, 1]
    background: Tensor  # (1, 3, 1, 1) sRGB: mean of the photo outside the face, behind every rendering
    skin: Tensor  # (1, 1, 224, 224) in [0, 1]: bare skin, brows and lips, without eyes and open mouth
    worn: Tensor  # (1, 1, 224, 224) in [0, 1]: what hides the face's skin: glasses, a fringe, a hand
    landmarks: Tensor  # (1, 468, 2) px
    landmark_weights: Tensor  # (468,), mean 1
    eye_distance: float  # px
    chip_from_crop: Tensor  # (1, 2, 3), on the CPU
    mesh_from_crop: Tensor  # (1, 2, 3): the landmark network's region, on the CPU
    identity: IdentityFeatures
    mesh_landmarks: Tensor  # (1, 468, 3) in the landmark network's pixels
    perceptual: tuple[Tensor, ...]  # features of the photo within FACE_WINDOW
    is_monochrome: bool


def photo_target(crop: FaceCrop, models: GuidanceModels) -> PhotoTarget:
    """Everything of a photo that guidance compares with, computed once."""
    image = torch.from_numpy(crop.image).permute(2, 0, 1)[None].contiguous()
    masks = face_masks(crop.landmarks, CROP_SIZE)
    openings = (masks.eyes | masks.inner_mouth).astype(np.uint8)
    openings = cv2.dilate(openings, np.ones((3, 3), np.uint8)).astype(bool)  # eye white and teeth shine beyond them
    skin = masks.skin_hull & ~openings & crop.inside_photo
    guides = torch.from_numpy(occlusion_guides(crop.landmarks, CROP_SIZE))[None]
    device = models.device
    with torch.no_grad():
        (seen,) = device_from_host(device, image)
        hidden = models.occlusion.hidden(seen, models.perceptual(seen), guides.to(device))
    likelihood = torch.from_numpy(bare_skin(array_from_tensor(hidden[0, 0])))
    outside = torch.from_numpy(~masks.skin_hull & crop.inside_photo)
    background = image[..., outside].mean(2) if outside.any() else image.mean((2, 3))
    points = torch.from_numpy(crop.landmarks[:, :2].copy())
    right, left = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
    weights = torch.ones(len(points))
    for indices, weight in _LANDMARK_WEIGHTS:
        weights[list(indices)] = weight
    weights = weights * models.morphable.landmark_valid.cpu()
    mesh_from_crop = landmark_region(crop.landmarks, crop.five_points)
    transform = chip_transform(crop.five_points, models.recogniser.chip_template)
    chip_from_crop = torch.from_numpy(transform).float()[None]
    chip, patch = warp_chip(image, chip_from_crop, models.recogniser.chip_size), warp_chip(image, mesh_from_crop, 192)
    bare = torch.from_numpy(skin).float() * likelihood
    worn = torch.from_numpy(skin).float() * (1 - likelihood)
    with torch.no_grad():
        return PhotoTarget(
            image=seen,
            background=background[..., None, None].to(device),
            skin=bare[None, None].to(device),
            worn=worn[None, None].to(device),
            landmarks=points[None].to(device),
            landmark_weights=(weights / weights.mean()).to(device),
            eye_distance=float((right - left).norm()),
            chip_from_crop=chip_from_crop,
            mesh_from_crop=mesh_from_crop,
            identity=models.recogniser(chip.to(device)),
            mesh_landmarks=models.face_mesh(patch.to(device))[0],
            perceptual=models.perceptual(seen[..., FACE_WINDOW, FACE_WINDOW]),
            is_monochrome=crop.is_monochrome,
        )


def landmark_region(landmarks: np.ndarray, five_points: np.ndarray, size: int = 192) -> Tensor:
    """(1, 2, 3): the square of 1.5 times the face with its eyes level -> (0, 0)-(size, size)."""
    angle = math.atan2(*(five_points[1] - five_points[0])[::-1])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    level = landmarks[:, :2] @ turn.T
    low, high = level.min(0), level.max(0)
    linear = turn * (size / (1.5 * float((high - low).max())))
    offset = size / 2 - linear @ turn.T @ ((low + high) / 2)
    return torch.from_numpy(np.hstack([linear, offset[:, None]])).float()[None]
