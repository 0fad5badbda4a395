"""A face with parts of it covered, always the same ones: how light its skin is, is asked of these pictures.

Glasses, a fringe, a hat change what a recogniser sees of somebody, and with it how light it takes the skin for. In a
picture whose band of the eyes, or whose forehead and all that is above, is covered anyway they change little. Knows
nothing of what the features are used for.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.landmark_indices import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from ..models.recogniser import IdentityFeatures, Recogniser
from .face_masks import face_masks
from .identity_views import COUNT, mean_features, moved_transforms, view_moves
from .photo_chips import PhotoChips

COVERS = 4  # pictures of a photo: as it is, without the eyes' band, without what is above them, without both
BELOW_EYES, BESIDE_EYES, ABOVE_BROWS = 0.42, 1.15, 0.1  # of the distance between the eyes: glasses' frames
UNDER_BROWS = 0.05  # where a fringe may end
FEATHER = 1.0  # px


@torch.no_grad()
def covered_features(
    image: Tensor, landmarks: Sequence[np.ndarray], chip_from_crop: Tensor, recogniser: Recogniser
) -> IdentityFeatures:
    """The mean of what the recogniser sees in `COVERS` pictures of each face, in several views each.

    Args:
        image: (B, 3, S, S) sRGB of the photos' crops.
        landmarks: of each (468, 2 or 3) px.
        chip_from_crop: (B, 2, 3), on the CPU.
    """
    shades = [covers(points, image.shape[-1]) for points in landmarks]
    hulls = [face_masks(points, image.shape[-1]).skin_hull for points in landmarks]
    moves = view_moves(recogniser.chip_size).split(COUNT // COVERS)
    found: list[IdentityFeatures] = []
    for number, some in enumerate(moves):
        cover = torch.from_numpy(np.stack([shade[number] for shade in shades]))[:, None].to(image)
        hull = torch.from_numpy(np.stack(hulls))[:, None].to(image.device) & (cover == 0)
        picture = torch.lerp(image, _median_colour(image, hull), cover)
        for move in some:
            chips = PhotoChips(picture, moved_transforms(move, chip_from_crop), recogniser.chip_size)
            found.append(recogniser(chips(picture)))
    return mean_features(found)


def covers(landmarks: np.ndarray, size: int) -> np.ndarray:
    """(COVERS, size, size) float32 in [0, 1], 1 where a face of these landmarks (468, 2 or 3) is covered."""
    points = landmarks[:, :2]
    right, left = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
    distance = np.linalg.norm(left - right)
    across = (left - right) / distance
    frame = np.stack([across, [across[1], -across[0]]], 1) / distance  # to the person's left, and up
    brows = ((points[list(RIGHT_BROW + LEFT_BROW)] - (right + left) / 2) @ frame)[:, 1]
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) + 0.5
    beside, up = np.moveaxis((pixels - (right + left) / 2) @ frame, -1, 0)
    eyes = (np.abs(beside) < BESIDE_EYES) & (up > -BELOW_EYES) & (up < brows.max() + ABOVE_BROWS)
    above = up > brows.min() - UNDER_BROWS
    sharp = np.stack([np.zeros_like(eyes), eyes, above, eyes | above], -1).astype(np.float32)
    return np.moveaxis(cv2.GaussianBlur(sharp, (0, 0), FEATHER), -1, 0)


def _median_colour(image: Tensor, where: Tensor) -> Tensor:
    """(B, 3, 1, 1) of images (B, 3, S, S), each where its mask (B, 1, S, S) is; grey where that is nowhere."""
    values = image.masked_fill(~where, torch.nan).flatten(2).nanmedian(2).values
    return values.nan_to_num(0.5)[..., None, None]
