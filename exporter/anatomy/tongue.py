"""A tongue that comes out through an open mouth: the shape tongueOut brings the little of jawOpen that it needs.

Through closed teeth and lips a tongue could only cut. It knows the rows of teeth and the lips' inner line as vertex
indices and nothing else of the mouth.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .head_parts import IndexArray, vertices_of

Array = npt.NDArray[np.float64]

_OUT = 0.003  # metres that tongueOut must move the tongue forward to be one
_MARGIN = 0.0008  # metres between the tongue and what it passes
_JAW = np.arange(0.0, 0.61, 0.02)  # weights of jawOpen that are tried
_FLATNESS = 0.6  # thickness of the part that passes the teeth
_RAMP = (0.025, 0.004)  # metres behind the incisors between which the tongue gets flat and finds its height
_GATE = 0.002  # metres before and behind an edge within which the tongue passes it
_EDGE_FRONT = 0.012  # metres behind the foremost tooth that the edge reaches back
_EDGE_HEIGHT = 0.003  # metres from the highest or lowest point of a tooth that count as its edge
_WIDTH = 0.016  # metres from the middle: wider, a tongue does not come out


def with_tongue_through_open_jaw(
    avatar: Avatar, upper: IndexArray, lower: IndexArray, upper_lip: IndexArray, lower_lip: IndexArray
) -> Avatar:
    """The avatar whose tongueOut passes between the teeth `upper` and `lower` and between the lips.

    The shape gets the least weight of jawOpen that makes room, and its tongue is flattened and lifted over the lower
    teeth. Where no weight makes room, and for a head without tongue or either shape, nothing changes.
    """
    topology = avatar.topology
    tongue = vertices_of(topology, "tongue")
    if not len(tongue) or not {"tongueOut", "jawOpen"} <= set(topology.blendshape_names):
        return avatar
    out, jaw = (topology.blendshape_names.index(name) for name in ("tongueOut", "jawOpen"))
    if topology.blendshapes[out, tongue, 2].max() < _OUT:
        return avatar
    local = np.searchsorted(tongue, topology.triangles[topology.triangles_of("tongue")])
    for weight in _JAW:
        offsets = topology.blendshapes[out] + weight * topology.blendshapes[jaw]
        head = avatar.vertices + offsets.astype(np.float64)
        gates = [
            (_edge(head[upper], sign=-1), _edge(head[lower], sign=1)),
            (_by_width(head[upper_lip]), _by_width(head[lower_lip])),
        ]
        passed = _passing(head[tongue], gates, local)
        if passed is not None:
            offsets[tongue] = passed - avatar.vertices[tongue]
            blendshapes = topology.blendshapes.copy()
            blendshapes[out] = offsets
            return dataclasses.replace(avatar, topology=dataclasses.replace(topology, blendshapes=blendshapes))
    return avatar


def _passing(tongue: Array, gates: list[tuple[Array, Array]], triangles: IndexArray) -> Array | None:
    """The tongue (N, 3) flattened and lifted over the lower edges, None where it does not fit below the upper ones.

    Each gate is an upper and a lower edge (M, 3), sorted by x; triangles (F, 3) count within the tongue.
    """
    moved = tongue.copy()
    start, end = (gates[0][1][:, 2].max() - back for back in _RAMP)
    share = np.clip((moved[:, 2] - start) / (end - start), 0, 1)
    share = share * share * (3 - 2 * share)
    front = share > 0
    middle = np.polyval(np.polyfit(moved[front, 2], moved[front, 1], 2), moved[:, 2])
    moved[:, 1] += share * (_FLATNESS - 1) * (moved[:, 1] - middle)
    moved[:, 1] += share * max(0.0, *(_MARGIN - _room(_densely(moved, triangles), below, sign=1) for _, below in gates))
    dense = _densely(moved, triangles)
    if any(_room(dense, above, sign=-1) < _MARGIN for above, _ in gates):
        return None
    return moved


def _room(tongue: Array, edge: Array, sign: int) -> float:
    """Metres by which the tongue (N, 3) passes above (sign 1) or below (-1) an edge (M, 3); infinite if beside it."""
    depth = np.interp(tongue[:, 0], edge[:, 0], edge[:, 2])
    at_edge = (np.abs(tongue[:, 2] - depth) < _GATE) & (np.abs(tongue[:, 0]) < _WIDTH)
    height = np.interp(tongue[at_edge, 0], edge[:, 0], edge[:, 1])
    return float((sign * (tongue[at_edge, 1] - height)).min(initial=np.inf))


def _densely(vertices: Array, triangles: IndexArray) -> Array:
    """Points on the surface, four along every edge: an edge between two vertices could pass a gate unseen."""
    start, end = vertices[triangles], vertices[np.roll(triangles, -1, axis=1)]
    shares = np.arange(4).reshape(-1, 1, 1, 1) / 4
    return (start + shares * (end - start)).reshape(-1, 3)


def _edge(teeth: Array, sign: int) -> Array:
    """The cutting edge of the front teeth, sorted by x: the highest points (sign 1) or the lowest (-1)."""
    front = teeth[teeth[:, 2] > teeth[:, 2].max() - _EDGE_FRONT]
    return _by_width(front[sign * front[:, 1] > (sign * front[:, 1]).max() - _EDGE_HEIGHT])


def _by_width(points: Array) -> Array:
    return points[np.argsort(points[:, 0])]
