"""The pose of a head from its landmarks: weighted perspective-n-point, several starts and one refinement.

World: metres, +Y up, the face looks to +Z, +X is the character's left. Camera: OpenCV, x right, y down, z
forward; x_cam = R x_world + t. Pixel centres are at +0.5, the principal point is the middle of the image.
This file knows points and numbers only.
"""

from dataclasses import dataclass

import cv2
import numpy as np

REFINEMENT_STEPS = 30
FACING_CAMERA = (np.pi, 0.0, 0.0)  # rvec of an upright head that looks into the camera


@dataclass(frozen=True, eq=False)
class Pose:
    """rvec (3,) radians (axis times angle), tvec (3,) metres, float64; error: weighted RMS distance, px."""

    rvec: np.ndarray
    tvec: np.ndarray
    error: float

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) camera_from_world."""
        return cv2.Rodrigues(self.rvec)[0]

    @property
    def yaw_pitch_roll(self) -> tuple[float, float, float]:
        """Degrees, 0 for a head that looks into the camera.

        Positive yaw: the face turns to the character's left (the image's right). Positive pitch: it looks up.
        Positive roll: the head tilts clockwise in the image.
        """
        face = np.diag([1.0, -1.0, -1.0]) @ self.rotation  # the head's axes in a view frame with +Y up: Rz Ry Rx
        yaw = np.degrees(np.arcsin(np.clip(-face[2, 0], -1, 1)))
        pitch = -np.degrees(np.arctan2(face[2, 1], face[2, 2]))
        roll = -np.degrees(np.arctan2(face[1, 0], face[0, 0]))
        return float(yaw), float(pitch), float(roll)


def solve_pose(
    points3d: np.ndarray,
    points2d: np.ndarray,
    focal: float,
    size: int | tuple[int, int],
    weights: np.ndarray | None = None,
    initial: Pose | None = None,
) -> Pose:
    """The pose that projects world points (N, 3), metres, nearest to image points (N, 2), px.

    `focal` is in px; `size` is the image's side, or (height, width). `weights` (N,) multiply squared errors;
    points of weight 0 take no part. `initial` is one start among others (SQPnP, Terzakis and Lourakis 2020; a
    frontal head), so that a bad one costs time and not truth.

    Raises ValueError for fewer than four usable points, or not finite ones.
    """
    world, image = np.asarray(points3d, np.float64), np.asarray(points2d, np.float64)
    if world.ndim != 2 or world.shape[1] != 3 or image.shape != (len(world), 2):
        raise ValueError(f"points {world.shape} and {image.shape}: expected (N, 3) and (N, 2)")
    weight = np.ones(len(world)) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != (len(world),) or (weight < 0).any():
        raise ValueError(f"weights {weight.shape}: expected ({len(world)},), none negative")
    used = weight > 0
    world, image, weight = world[used], image[used], weight[used] / weight.sum()
    if len(world) < 4 or not (np.isfinite(world).all() and np.isfinite(image).all()):
        raise ValueError(f"{len(world)} points of positive weight: expected at least 4, all finite")
    height, width = (size, size) if isinstance(size, int) else size
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float64)
    starts = _starts(world, image, camera, initial)
    return min((_refined(world, image, weight, camera, *s) for s in starts), key=lambda pose: pose.error)


def _starts(
    world: np.ndarray, image: np.ndarray, camera: np.ndarray, initial: Pose | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rotations and translations to refine: always a frontal head of the right size and place."""
    rotation = np.array(FACING_CAMERA)
    spread = (world[:, :2] - world[:, :2].mean(0)).std()
    depth = camera[0, 0] * spread / max(float((image - image.mean(0)).std()), 1e-6)
    target = np.append((image.mean(0) - camera[:2, 2]) / camera[0, 0], 1.0) * depth
    starts = [(rotation, target - cv2.Rodrigues(rotation)[0] @ world.mean(0))]
    found, rvec, tvec = cv2.solvePnP(world, image, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if found:
        starts.append((rvec.ravel(), tvec.ravel()))
    if initial is not None and np.isfinite([*initial.rvec, *initial.tvec]).all():
        starts.append((initial.rvec, initial.tvec))
    return starts


def _refined(
    world: np.ndarray,
    image: np.ndarray,
    weight: np.ndarray,
    camera: np.ndarray,
    rvec: np.ndarray,
    tvec: np.ndarray,
) -> Pose:
    """Levenberg and Marquardt on the six numbers. A step that raises the error or puts a point behind the
    camera is not taken; a start that has one there comes back with an infinite error."""
    pose = np.concatenate([rvec, tvec]).astype(np.float64)
    cost, residual, jacobian = _residual(world, image, weight, camera, pose)
    damping = 1e-3
    for _ in range(REFINEMENT_STEPS):
        if not np.isfinite(cost):
            break
        hessian, gradient = jacobian.T @ jacobian, jacobian.T @ residual
        step = np.linalg.lstsq(hessian + damping * np.diag(np.diag(hessian)), gradient, rcond=None)[0]
        trial = _residual(world, image, weight, camera, pose - step)
        if trial[0] < cost:
            settled = cost - trial[0] < 1e-12 * cost
            pose, (cost, residual, jacobian), damping = pose - step, trial, damping / 10
            if settled:
                break
        else:
            damping *= 10
    return Pose(pose[:3], pose[3:], float(np.sqrt(cost)))


def _residual(
    world: np.ndarray, image: np.ndarray, weight: np.ndarray, camera: np.ndarray, pose: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean squared error in px^2, weighted residuals (2 N,), their derivative (2 N, 6) by rvec and tvec."""
    depth = world @ cv2.Rodrigues(pose[:3])[0][2] + pose[5]
    if not (depth > 0).all():
        return np.inf, np.zeros(0), np.zeros((0, 6))
    points, jacobian = cv2.projectPoints(world, pose[:3], pose[3:], camera, None)
    root = np.sqrt(np.repeat(weight, 2))
    residual = root * (points.reshape(-1, 2) - image).ravel()
    return float(residual @ residual), residual, root[:, None] * jacobian[:, :6]
