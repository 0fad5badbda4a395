"""Levels of detail of the finished head, from a table made ahead for its fixed topology.

The first level is finer than the morphable model: its vertices are fixed mixtures of the head's, so identities,
blendshapes and skin weights go the same way. Each of the others keeps some of the vertices before it. It knows nothing
of how the table was made (`assets/make_lods.py`) and of file formats.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from ..errors import UsageError
from ..models.topology import HeadTopology
from ..runtime.avatar import Avatar

if TYPE_CHECKING:
    from .anatomy.skeleton import Skeleton

TABLE = Path(__file__).resolve().parent.parent / "assets" / "lods.safetensors"


@dataclass(frozen=True, eq=False)
class Level:
    """One level of detail over a head with V vertices and F triangles.

    Attributes:
        mixture_index: (N, K) vertices of the head that each of the level's N vertices mixes.
        mixture_weight: (N, K) float32, rows sum to 1; some are slightly negative.
        triangles: (M, 3) int32 into the N vertices, counter-clockwise.
        corner_source: (M, 3, 2) int32 two corners of the head (3 x triangle + corner) in whose middle the texture
            coordinate lies; twice the same for a corner of the head itself.
    """

    mixture_index: npt.NDArray[np.int32]
    mixture_weight: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int32]
    corner_source: npt.NDArray[np.int32]

    def mixed(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(V, C) values at the head's vertices -> (N, C) at the level's."""
        out = values[self.mixture_index[:, 0]] * self.mixture_weight[:, :1]
        for index, weight in zip(self.mixture_index.T[1:], self.mixture_weight.T[1:], strict=True):
            used = np.flatnonzero(weight)
            out[used] += values[index[used]] * weight[used, None]
        return out


@dataclass(frozen=True, eq=False)
class LevelTable:
    """The levels of one topology, finest first; `topology` is its `topology_key`."""

    topology: str
    levels: tuple[Level, ...]


def topology_key(topology: HeadTopology) -> str:
    """SHA-256 of a head's triangles and parts."""
    digest = hashlib.sha256(np.ascontiguousarray(topology.triangles).tobytes())
    digest.update(np.ascontiguousarray(topology.triangle_part).tobytes())
    digest.update("\n".join(topology.part_names).encode())
    return digest.hexdigest()


@cache
def load_levels(path: Path = TABLE) -> LevelTable:
    """The table that `assets/make_lods.py` wrote."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    count = tensors["mixture_count"]
    filled = np.arange(count.max()) < count[:, None]
    index, weight = np.zeros(filled.shape, np.int32), np.zeros(filled.shape, np.float32)
    index[filled], weight[filled] = tensors["mixture_index"], tensors["mixture_weight"]
    levels = []
    for number in range(int(metadata["levels"])):
        kept = tensors[f"level{number}.vertices"]
        levels.append(
            Level(
                index[kept],
                weight[kept],
                tensors[f"level{number}.triangles"].astype(np.int32),
                tensors[f"level{number}.corner_source"],
            )
        )
    return LevelTable(metadata["topology"], tuple(levels))


def levels_of(avatar: Avatar, count: int, table: LevelTable | None = None) -> list[Level | None]:
    """The first `count` levels for this head; [None], the head as it is, where the table is of another topology.

    Raises:
        UsageError: more than one level of a topology that the table does not know.
    """
    table = table or load_levels()
    if table.topology == topology_key(avatar.topology):
        return list(table.levels[:count])
    if count > 1:
        got = f"{count} levels of a head with {avatar.topology.vertex_count} vertices of another topology"
        raise UsageError("lod", got, "1, or the embedded head", "leave out --lod: your engine can make its own levels")
    return [None]


def avatar_at(avatar: Avatar, level: Level | None) -> Avatar:
    """The avatar with the level's vertices, triangles and blendshapes; itself for None."""
    if level is None:
        return avatar
    topology = avatar.topology
    uv = topology.corner_uv.reshape(-1, 2)[level.corner_source]  # (M, 3, 2 corners, 2)
    shapes = len(topology.blendshape_names)
    stacked = np.ascontiguousarray(topology.blendshapes.transpose(1, 0, 2)).reshape(topology.vertex_count, -1)
    mixed = level.mixed(stacked).reshape(len(level.mixture_index), shapes, 3)
    return dataclasses.replace(
        avatar,
        vertices=level.mixed(avatar.vertices),
        expression_offset=level.mixed(avatar.expression_offset),
        topology=dataclasses.replace(
            topology,
            triangles=level.triangles,
            corner_uv=(uv[:, :, 0] + uv[:, :, 1]) / np.float32(2),
            triangle_part=topology.triangle_part[level.corner_source[:, 0, 0] // 3],
            blendshapes=np.ascontiguousarray(mixed.transpose(1, 0, 2)),
        ),
    )


def skeleton_at(skeleton: Skeleton, level: Level | None) -> Skeleton:
    """The skeleton with the level's skin: mixed, the four strongest joints of each vertex, rows that sum to 1."""
    if level is None:
        return skeleton
    dense = np.zeros((len(skeleton.joint_index), len(skeleton.joints)), np.float32)
    for slot in range(skeleton.joint_index.shape[1]):
        np.add.at(dense, (np.arange(len(dense)), skeleton.joint_index[:, slot]), skeleton.joint_weight[:, slot])
    mixed = level.mixed(dense).clip(0)
    if mixed.shape[1] < 4:
        mixed = np.pad(mixed, ((0, 0), (0, 4 - mixed.shape[1])))
    joints = np.argsort(-mixed, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(mixed, joints, 1)
    joints = np.where(weights > 0, joints, 0)
    return dataclasses.replace(
        skeleton,
        joint_index=joints.astype(np.uint8),
        joint_weight=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
    )
