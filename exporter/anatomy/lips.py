"""Lips that meet: the morphable model's stand a millimetre or two apart, and a row of teeth would show at rest.

Only the neutral face changes. With the photo's expression the head is where it was: its offset takes the change back.
It knows nothing of teeth.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .head_parts import IndexArray, boundary_loops, vertices_of

Array = npt.NDArray[np.float64]

_WIDEST = 0.006  # metres: lips farther apart are open on purpose
_TOUCH = 0.00005  # metres that they stay apart
_REACH = 0.010  # metres from the lips' line within which skin and mouth move along
_FEWEST = 8  # points of an inner line
_ROUNDS = 80  # of averaging, by which the motion fades out over the mesh


def with_meeting_lips(avatar: Avatar) -> Avatar:
    """Upper and lower lip moved half way each to where they meet; as it is without a mouth, or with an open one."""
    topology = avatar.topology
    if not {"skin", "mouth"} <= set(topology.part_names):
        return avatar
    loops = boundary_loops(topology.triangles[topology.triangles_of("mouth")])
    skin = vertices_of(topology, "skin")
    rim = max(loops, key=lambda loop: np.isin(loop, skin).sum(), default=skin[:0])
    if not np.isin(rim, skin).all() or len(rim) < _FEWEST:
        return avatar
    vertices = avatar.vertices.astype(np.float64)
    rise = _closing(vertices[rim])
    if not rise.any():
        return avatar
    moved = _spread_over_mesh(vertices, topology.triangles[topology.triangles_of("skin", "mouth")], rim, rise)
    change = np.zeros_like(avatar.vertices)
    change[:, 1] = moved
    return dataclasses.replace(
        avatar, vertices=avatar.vertices + change, expression_offset=avatar.expression_offset - change
    )


def _closing(rim: Array) -> Array:
    """(N,) how far each point (N, 3) of the lips' inner line goes up for its halves to meet; 0 for an open mouth.

    The points go once around; the corners are the outermost ones.
    """
    rise = np.zeros(len(rim))
    first, last = rim[:, 0].argmin(), rim[:, 0].argmax()
    one = np.arange(first, first + (last - first) % len(rim) + 1) % len(rim)
    other = np.arange(last, last + (first - last) % len(rim) + 1) % len(rim)
    upper, lower = sorted((one, other), key=lambda half: -rim[half, 1].mean())
    apart = _height(rim, upper, rim[:, 0]) - _height(rim, lower, rim[:, 0])
    if apart.max() > _WIDEST:
        return rise
    rise[lower] = np.maximum(apart[lower], 0) / 2
    rise[[first, last]] = 0
    raised = rim + rise[:, None] * np.array([0, 1, 0])
    gap = rim[upper, 1] - _height(raised, lower, rim[upper, 0])  # the upper lip lies on the edges of the raised one
    rise[upper] = -np.maximum(gap - _TOUCH, 0)
    rise[[first, last]] = 0
    return rise


def _height(rim: Array, half: IndexArray, x: Array) -> Array:
    points = rim[half][np.argsort(rim[half, 0], kind="stable")]
    return np.interp(x, points[:, 0], points[:, 1])


def _spread_over_mesh(vertices: Array, triangles: IndexArray, rim: IndexArray, rise: Array) -> Array:
    """(V,) motion that is `rise` at the rim, 0 beyond `_REACH`, and even between: each lip follows its own edge."""
    near = np.unique(triangles)
    for axis in range(3):  # a box first: few vertices are near
        low, high = vertices[rim, axis].min() - _REACH, vertices[rim, axis].max() + _REACH
        near = near[(vertices[near, axis] > low) & (vertices[near, axis] < high)]
    distance = np.linalg.norm(vertices[near][:, None] - vertices[rim][None], axis=2).min(1)
    free = np.setdiff1d(near[distance < _REACH], rim)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    edges = np.unique(edges[np.isin(edges[:, 0], free)], axis=0)
    count = np.bincount(edges[:, 0], minlength=len(vertices))
    moved = np.zeros(len(vertices))
    moved[rim] = rise
    for _ in range(_ROUNDS):
        sums = np.bincount(edges[:, 0], moved[edges[:, 1]], len(vertices))
        moved[free] = sums[free] / np.maximum(count[free], 1)
    return moved
