"""What photos ask of their renderings: pixels, bare skin, landmarks and features, computed once.

A photo's rows do not depend on its neighbours in the batch. Knows nothing of losses and of the sampling loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from ..models.landmark_network import LandmarkNetwork
from ..models.occlusion import occlusion_guides
from ..models.recogniser import IdentityFeatures
from .devices import array_from_tensor, device_from_host
from .face_chip import chip_transform, warp_chip
from .face_crop import CROP_SIZE, FaceCrop
from .face_masks import face_masks
from .guidance_models import FACE_WINDOW, GuidanceModels
from .iris import iris_shade
from .skin_mask import bare_skin

_LANDMARK_WEIGHTS = ((LIPS_OUTER, 3.0), (LIPS_INNER, 6.0), (RIGHT_EYE, 4.0), (LEFT_EYE, 4.0), (RIGHT_BROW, 2.0),
                     (LEFT_BROW, 2.0), ((1, 4, 5, 6, 168, 195, 197), 3.0))  # fmt: skip
SLIDING = 0.2  # of its weight is left to a point that moves along the face as the head turns


@dataclass(frozen=True)
class PhotoTarget:
    """What B photos ask of their renderings; on the device of the models but for the two maps and the flags."""

    image: Tensor  # (B, 3, 224, 224) sRGB in [0, 1]
    background: Tensor  # (B, 3, 1, 1) sRGB: mean of the photo outside the face, behind every rendering
    skin: Tensor  # (B, 1, 224, 224) in [0, 1]: bare skin, brows and lips, without eyes and open mouth
    worn: Tensor  # (B, 1, 224, 224) in [0, 1]: what hides the face's skin: glasses, a fringe, a hand
    landmarks: Tensor  # (B, N, 2) px, the points of the landmark network that guides: 468 of the face mesh
    landmark_weights: Tensor  # (B, N), mean 1
    eye_distance: Tensor  # (B,) px
    chip_from_crop: Tensor  # (B, 2, 3), on the CPU
    mesh_from_crop: Tensor  # (B, 2, 3): the landmark network's region, on the CPU
    identity: IdentityFeatures
    mesh_landmarks: Tensor  # (B, N, 3) in the landmark network's pixels
    perceptual: tuple[Tensor, ...]  # features of the photo within FACE_WINDOW
    is_monochrome: tuple[bool, ...]
    irises: Tensor  # (B, 3) linear RGB

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class _Geometry:
    """What a crop's landmarks say of it, on the CPU."""

    skin: np.ndarray  # (224, 224) bool: within the face, without eyes and open mouth
    forehead: np.ndarray  # (224, 224) bool, see `FaceMasks`
    background: np.ndarray  # (3,) sRGB
    eye_distance: float
    chip_from_crop: np.ndarray  # (2, 3)
    mesh_from_crop: Tensor  # (1, 2, 3)


def photo_target(crop: FaceCrop, models: GuidanceModels) -> PhotoTarget:
    """Everything of a photo that guidance compares with, computed once."""
    return photo_targets([crop], models)


@torch.no_grad()
def photo_targets(crops: Sequence[FaceCrop], models: GuidanceModels) -> PhotoTarget:
    """The same of several photos: one call of each network for all of them."""
    device, size, network = models.device, models.recogniser.chip_size, models.landmark_network
    found = [_geometry(crop, models.recogniser.chip_template, network) for crop in crops]
    image = torch.from_numpy(np.stack([crop.image for crop in crops]).transpose(0, 3, 1, 2).copy())
    points = torch.from_numpy(np.stack([crop.landmarks[:, :2] for crop in crops]))
    guides = torch.from_numpy(np.stack([occlusion_guides(crop.landmarks, CROP_SIZE) for crop in crops]))
    chip_from_crop = torch.from_numpy(np.stack([row.chip_from_crop for row in found])).float()
    mesh_from_crop = torch.cat([row.mesh_from_crop for row in found])
    weights = torch.ones(points.shape[1])
    for indices, weight in _LANDMARK_WEIGHTS:
        weights[list(indices)] = weight
    weights = weights[models.landmark_indices] * models.surface_valid.cpu()
    weights[list(network.sliding)] *= SLIDING
    (seen,) = device_from_host(device, image)
    features = (models.occlusion_features or models.perceptual)(seen)
    hidden = models.occlusion.hidden(seen, features, guides.to(device))
    rows = zip(array_from_tensor(hidden[:, 0]), found, strict=True)
    likelihood = torch.from_numpy(np.stack([bare_skin(row, own.forehead) for row, own in rows]))[:, None]
    skin = torch.from_numpy(np.stack([row.skin for row in found]))[:, None].float()
    by_network = network(warp_chip(image, mesh_from_crop, network.input_size).to(device))[0]
    if models.landmarks is not None:
        points = _mapped_back(by_network[..., :2].cpu(), mesh_from_crop)
    return PhotoTarget(
        image=seen,
        background=torch.from_numpy(np.stack([row.background for row in found]))[..., None, None].to(device),
        skin=(skin * likelihood).to(device),
        worn=(skin * (1 - likelihood)).to(device),
        landmarks=points.to(device),
        landmark_weights=(weights / weights.mean()).expand(len(crops), -1).to(device),
        eye_distance=torch.tensor([row.eye_distance for row in found]).to(device),
        chip_from_crop=chip_from_crop,
        mesh_from_crop=mesh_from_crop,
        identity=models.recogniser(warp_chip(image, chip_from_crop, size).to(device)),
        mesh_landmarks=by_network,
        perceptual=models.perceptual(seen[..., FACE_WINDOW, FACE_WINDOW]),
        is_monochrome=tuple(crop.is_monochrome for crop in crops),
        irises=torch.from_numpy(np.stack([iris_shade(crop) for crop in crops])).float().to(device),
    )


def _geometry(crop: FaceCrop, chip_template: np.ndarray, network: LandmarkNetwork) -> _Geometry:
    masks = face_masks(crop.landmarks, CROP_SIZE)
    outside = ~masks.skin_hull & crop.inside_photo
    pixels = crop.image[outside] if outside.any() else crop.image.reshape(-1, 3)
    right, left = crop.landmarks[list(RIGHT_EYE), :2].mean(0), crop.landmarks[list(LEFT_EYE), :2].mean(0)
    return _Geometry(
        skin_by_landmarks(crop.landmarks, crop.inside_photo),
        masks.forehead & crop.inside_photo,
        pixels.mean(0, dtype=np.float64).astype(np.float32),
        float(np.linalg.norm(right - left)),
        chip_transform(crop.five_points, chip_template),
        landmark_region(crop.landmarks, crop.five_points, network),
    )


def skin_by_landmarks(landmarks: np.ndarray, inside_photo: np.ndarray) -> np.ndarray:
    """(224, 224) bool: within the face of these landmarks (468, 2 or 3), without eyes and open mouth, in the photo."""
    masks = face_masks(landmarks, CROP_SIZE)
    openings = (masks.eyes | masks.inner_mouth).astype(np.uint8)
    openings = cv2.dilate(openings, np.ones((3, 3), np.uint8)).astype(bool)  # eye white and teeth shine beyond them
    return masks.skin_hull & ~openings & inside_photo


def _mapped_back(points: Tensor, transform: Tensor) -> Tensor:
    """(B, N, 2) pixels of regions -> of their crops; transform: (B, 2, 3) region_from_crop."""
    return (points - transform[:, None, :, 2]) @ torch.linalg.inv(transform[:, :, :2]).transpose(1, 2)


def landmark_region(landmarks: np.ndarray, five_points: np.ndarray, network: LandmarkNetwork) -> Tensor:
    """(1, 2, 3): the square that a network wants of a face (468, 2 or 3), its eyes level -> (0, 0)-(S, S)."""
    angle = math.atan2(*(five_points[1] - five_points[0])[::-1])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    level = landmarks[:, :2] @ turn.T
    low, high = level.min(0), level.max(0)
    side, raised = network.region(*(high - low))
    linear = turn * (network.input_size / float(side))
    offset = network.input_size / 2 - linear @ turn.T @ ((low + high) / 2 - [0, raised])
    return torch.from_numpy(np.hstack([linear, offset[:, None]])).float()[None]
