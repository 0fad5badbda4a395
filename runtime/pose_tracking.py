"""Follows the poses of a batch of heads while their shapes change: a few damped Gauss-Newton steps from the last pose.

The first pose, and the last one, come from `pose.solve_pose`, photo by photo, which looks from several starts; in
between shapes move little, and what it would find is found on the device, for all photos at once and without a wait.
World, camera and pixels are as in `pose.py`. Knows points and numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ..rendering.camera import Camera, rotation_from_rodrigues
from .devices import CPU, array_from_tensor, device_from_host
from .pose import Pose, solve_pose

STEPS = 6  # from a pose a degree away the last of them moves it by less than float32 resolves
LEVEL = 1 + 1e-9  # near its least the error says no more which step is better: the later one is


class PoseTracker:
    """The poses of B heads; all photos have one focal length and one size. Nothing of a photo touches another."""

    def __init__(self, image: Tensor, weights: Tensor, focal: float, size: int) -> None:
        """image: (B, N, 2) px, where the points should lie; weights: (B, N) of squared errors."""
        self._image, self._weights = array_from_tensor(image), array_from_tensor(weights)
        self._focal, self._size = focal, size
        self._root = weights.double().div(weights.double().sum(1, keepdim=True)).sqrt()[..., None]  # (B, N, 1)
        self._centred = image.double() - size / 2
        self._pose: tuple[Tensor, Tensor] | None = None  # (B, 3, 3) and (B, 3, 1), float64

    def camera(self, points: Tensor) -> Camera:
        """(B, N, 3) world metres -> the cameras that project them nearest to the image, near the last ones."""
        if self._pose is None:
            self.solved(points)
        assert self._pose is not None
        self._pose = self._followed(points.detach().double(), *self._pose)
        rotation, translation = self._pose
        return _camera(rotation.float(), translation[..., 0].float(), self._focal, self._size)

    def solved(self, points: Tensor) -> tuple[Pose, ...]:
        """The same poses looked for from several starts, the last one among them; `camera` goes on from here."""
        before = self._last() or [None] * len(points)
        rows = zip(array_from_tensor(points), self._image, self._weights, before, strict=True)
        poses = tuple(solve_pose(p, image, self._focal, self._size, w, last) for p, image, w, last in rows)
        rotation = torch.from_numpy(np.stack([pose.rotation for pose in poses]))
        translation = torch.from_numpy(np.stack([pose.tvec for pose in poses]))[..., None]
        moved = device_from_host(points.device, rotation, translation)
        self._pose = moved[0], moved[1]
        return poses

    def _last(self) -> list[Pose] | None:
        if self._pose is None:
            return None
        rotations, translations = (array_from_tensor(part) for part in self._pose)
        return [
            Pose(cv2.Rodrigues(r)[0].ravel(), t.ravel(), np.inf) for r, t in zip(rotations, translations, strict=True)
        ]

    def _followed(self, world: Tensor, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
        """Levenberg and Marquardt on the six numbers; a step that raises a head's error is not taken for that head."""
        world = world.transpose(1, 2)  # (B, 3, N)
        trial, damping = (rotation, translation), rotation.new_zeros(len(rotation), 1, 1)
        cost = torch.full_like(damping, torch.inf)
        hessian = torch.eye(6, dtype=rotation.dtype, device=rotation.device).expand(len(rotation), 6, 6)
        gradient = rotation.new_zeros(len(rotation), 6, 1)
        for step in range(STEPS + 1):
            turned = trial[0] @ world
            residual, jacobian, in_front = self._residual(turned, trial[1])
            found = residual.square().sum((1, 2))[:, None, None]
            better = (found < cost * LEVEL) & in_front
            rotation, translation = (
                torch.where(better, new, old) for new, old in zip(trial, (rotation, translation), strict=True)
            )
            if step == STEPS:
                break
            cost = torch.where(better, found, cost)
            flat = jacobian.flatten(2)  # (B, 6, 2 N)
            hessian = torch.where(better, flat @ flat.transpose(1, 2), hessian)
            gradient = torch.where(better, flat @ residual.flatten(1)[..., None], gradient)
            damping = torch.where(better, damping * 0.1, damping * 10 + 1e-2)
            damped = hessian + damping * torch.diag_embed(hessian.diagonal(dim1=1, dim2=2))
            change = torch.cholesky_solve(gradient, torch.linalg.cholesky_ex(damped).L)
            trial = rotation_from_rodrigues(-change[:, :3, 0]) @ rotation, translation - change[:, 3:]
        return rotation, translation

    def _residual(self, turned: Tensor, translation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted residuals (B, 2, N), their derivative (B, 6, 2, N) by a turn and a shift, and whether all are seen.

        turned: (B, 3, N), the points about the head's own origin; the turn is about that, in the camera's axes.
        """
        x, y, z = (turned + translation).unbind(1)  # (B, N)
        weight = self._root[..., 0] * self._focal / z
        u, v = x / z, y / z
        root = self._root[..., 0]
        wanted_x, wanted_y = self._centred.unbind(2)
        residual = torch.stack([weight * x - root * wanted_x, weight * y - root * wanted_y], 1)
        a, b, c = turned.unbind(1)
        zero = torch.zeros_like(a)
        # The turn w moves a point by w x (a, b, c).
        by_x = torch.stack([-u * b, c + u * a, -b, torch.ones_like(a), zero, -u], 1)  # (B, 6, N)
        by_y = torch.stack([-c - v * b, v * a, a, zero, torch.ones_like(a), -v], 1)
        jacobian = torch.stack([by_x, by_y], 2) * weight[:, None, None]
        return residual, jacobian, (z > 0).all(1)[:, None, None]


def camera_from_poses(poses: Sequence[Pose], focal: float, size: int, device: torch.device = CPU) -> Camera:
    """Solved poses as one batch of cameras."""
    rvec = torch.from_numpy(np.stack([pose.rvec for pose in poses])).float()
    tvec = torch.from_numpy(np.stack([pose.tvec for pose in poses])).float()
    rotation, translation = device_from_host(device, rotation_from_rodrigues(rvec), tvec)
    return _camera(rotation, translation, focal, size)


def _camera(rotation: Tensor, translation: Tensor, focal: float, size: int) -> Camera:
    batch = len(rotation)
    focals, middles = rotation.new_full((batch,), focal), rotation.new_full((batch, 2), size / 2)
    return Camera(focals, middles, rotation, translation, size, size)
