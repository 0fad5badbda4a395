"""The joints of a head: neck -> head -> eye_left, eye_right, and what hangs on each.

Blendshapes move lids and lips, so no joint does. It knows nothing of glTF and of the names that engines use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .eyeball import SIDES, find_eyeball
from .head_parts import vertices_of

NECK, HEAD = 0, 1  # indices into a skeleton's joints
# The head turns on the neck behind and below the eyes by these shares of the distance between them.
_PIVOT_BELOW, _PIVOT_BEHIND = 1 / 3, 4 / 3
_PIVOT_HEIGHT = 0.45  # share of a head without eyes
# The jaw's lower border and the skull's base lie on a plane that rises towards the back.
_UP = np.array([0.0, 1.0, 0.375])
_LOWER_END = 0.15  # share of the way from the lowest skin to the pivot that counts as the neck's end
_FULLY_HEAD = 0.42  # share of the way from the neck's end to the pivot from which on only the head's joint acts


@dataclass(frozen=True)
class Joint:
    """A joint at `position` (metres, model space) with the axes of the model; `parent` is None at the root."""

    name: str
    parent: int | None
    position: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Joints, parents first, and the four that each of V vertices hangs on.

    Attributes:
        joints: "neck", "head" and one "eye_left" or "eye_right" (the character's) for each eyeball.
        joint_index: (V, 4) uint8 into `joints`, 0 where the weight is 0.
        joint_weight: (V, 4) float32, rows sum to 1, largest first.
    """

    joints: tuple[Joint, ...]
    joint_index: npt.NDArray[np.uint8]
    joint_weight: npt.NDArray[np.float32]


def head_skeleton(avatar: Avatar) -> Skeleton:
    """Joints and weights of a head, finished or not.

    Eyeballs and corneas hang wholly on their eye's joint, whose position is the eyeball's centre. The skin of the neck
    goes over from the neck's joint to the head's along its height; everything else hangs on the head.
    """
    topology = avatar.topology
    eyes = {side: eye for side in SIDES if (eye := find_eyeball(avatar, side)) is not None}
    pivot = _head_pivot(avatar, [eye.centre for eye in eyes.values()])
    skin = np.setdiff1d(vertices_of(topology, "skin"), vertices_of(topology, "mouth"))
    points = avatar.vertices[skin].astype(np.float64)
    base = _neck_base(points, pivot)
    joints = [Joint("neck", None, _triple(base)), Joint("head", NECK, _triple(pivot))]
    index = np.zeros((topology.vertex_count, 4), np.uint8)
    weight = np.zeros((topology.vertex_count, 4), np.float32)
    index[:, 0], weight[:, 0] = HEAD, 1

    share = _head_share(points, base, pivot)
    first = np.where(share >= 0.5, HEAD, NECK)
    larger = np.maximum(share, 1 - share).astype(np.float32)
    mixed = larger < 1
    index[skin, 0], weight[skin, 0] = first, larger
    index[skin, 1], weight[skin, 1] = np.where(mixed, HEAD + NECK - first, 0), 1 - larger

    for side, eye in eyes.items():
        hanging = vertices_of(topology, eye.part, f"cornea_{side}")
        index[hanging], weight[hanging] = (len(joints), 0, 0, 0), (1, 0, 0, 0)
        joints.append(Joint(eye.part, HEAD, _triple(eye.centre)))
    return Skeleton(tuple(joints), index, weight)


def _head_pivot(avatar: Avatar, eyes: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    if len(eyes) == 2:
        apart = float(np.linalg.norm(eyes[0] - eyes[1]))
        return (eyes[0] + eyes[1]) / 2 - apart * np.array([0, _PIVOT_BELOW, _PIVOT_BEHIND])
    low, high = avatar.vertices.min(0).astype(np.float64), avatar.vertices.max(0).astype(np.float64)
    return low + (high - low) * np.array([0.5, _PIVOT_HEIGHT, 0.5])


def _neck_base(points: npt.NDArray[np.float64], pivot: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The middle of the lower end of the skin (N, 3), whether it is open there or closed."""
    level = points @ _UP
    lowest = points[level <= level.min() + _LOWER_END * max(float(pivot @ _UP) - level.min(), 0)]
    return (lowest.min(0) + lowest.max(0)) / 2


def _head_share(
    points: npt.NDArray[np.float64], base: npt.NDArray[np.float64], pivot: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(N,) share of the head's joint in the neck's skin (N, 3): smoothly from 0 at its lower end to 1."""
    bottom, top = float(base @ _UP), float(pivot @ _UP)
    share = np.clip((points @ _UP - bottom) / max((top - bottom) * _FULLY_HEAD, 1e-9), 0, 1)
    return share * share * (3 - 2 * share)


def _triple(point: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), float(point[2])
