"""The lower end of a head: the open rim of the neck is turned in and closed by a lid.

A head that ends in a hole shows its own back through it. A mask that is open at the back is no neck and stays as
it is. It knows nothing of parts other than the skin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .head_parts import IndexArray, NewTriangles, NewVertices, boundary_loops, with_geometry

_LOWEST = 0.3  # share of the skin's height in which a neck can end
_BEVEL = 0.004  # metres, radius of the rounded rim
_BEVEL_TURNS = (30.0, 60.0, 90.0)  # degrees from straight down to straight inwards
_LID_RINGS = (0.93, 0.6, 0.3)  # shares of the rim's width
_DOME = 0.003  # metres that the lid's middle lies higher than its border
_TIP = 1.1  # how far into the skin's next row the texture of the lid's middle reaches


def neck_rim(avatar: Avatar) -> IndexArray | None:
    """Vertices around the neck's open end, in the triangles' own direction, None for a head that is closed there."""
    topology = avatar.topology
    if "skin" not in topology.part_names:
        return None
    skin = topology.triangles[topology.triangles_of("skin")]
    heights = avatar.vertices[np.unique(skin), 1]
    limit = heights.min() + _LOWEST * (heights.max() - heights.min())
    whole = set(map(tuple, _open_edges(topology.triangles)))
    loops = [
        loop
        for loop in boundary_loops(skin)
        if avatar.vertices[loop, 1].max() < limit and (min(loop[:2]), max(loop[:2])) in whole
    ]
    return min(loops, key=lambda loop: float(avatar.vertices[loop, 1].mean()), default=None)


def with_closed_neck(avatar: Avatar) -> Avatar:
    """The avatar with its neck's rim rounded inwards and closed, in the neck's own texture."""
    rim = neck_rim(avatar)
    if rim is None:
        return avatar
    topology = avatar.topology
    edge = avatar.vertices[rim].astype(np.float64)
    rings = _ring_positions(edge)  # (R, N, 3)
    count, around = len(rings), len(rim)
    centre = rings[-1].mean(0)
    parents = np.tile(rim, count)
    vertices = NewVertices(
        np.concatenate([rings.reshape(-1, 3), centre[None]]),
        np.concatenate([topology.blendshapes[:, parents], topology.blendshapes[:, rim].mean(1, keepdims=True)], axis=1),
        np.concatenate([avatar.expression_offset[parents], avatar.expression_offset[rim].mean(0, keepdims=True)]),
    )
    number = np.concatenate([rim[None], topology.vertex_count + np.arange(count * around).reshape(count, around)])
    starts, ends, inwards = _rim_texture(avatar, rim)
    travelled = np.concatenate([[0.0], np.linalg.norm(np.diff(rings, axis=0, prepend=edge[None]), axis=2).mean(1)])
    depth = np.cumsum(travelled)
    share = depth / depth[-1]  # the rim's own skin is mirrored at the edge
    following = np.roll(np.arange(around), -1)
    triangles, corner_uv = [], []
    for ring in range(count):
        a, b = number[ring], number[ring][following]
        c, d = number[ring + 1], number[ring + 1][following]
        above = starts + share[ring] * inwards[0], ends + share[ring] * inwards[1]
        below = starts + share[ring + 1] * inwards[0], ends + share[ring + 1] * inwards[1]
        triangles += [np.stack([b, a, c], axis=1), np.stack([b, c, d], axis=1)]
        corner_uv += [np.stack([above[1], above[0], below[0]], axis=1), np.stack([above[1], *below], axis=1)]
    last = number[-1]
    middle = np.full(around, topology.vertex_count + count * around)
    triangles.append(np.stack([last[following], last, middle], axis=1))
    tip = (starts + ends) / 2 + inwards.mean(0) * _TIP
    corner_uv.append(np.stack([ends + inwards[1], starts + inwards[0], tip], axis=1))
    return with_geometry(
        avatar, vertices, NewTriangles("skin", np.concatenate(triangles), np.clip(np.concatenate(corner_uv), 0, 1))
    )


def _ring_positions(edge: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(R, N, 3): the rim (N, 3) rounded inwards and drawn together to a lid."""
    centre = edge.mean(0)
    u, _, vt = np.linalg.svd(edge - centre)
    axis = vt[2] * -np.sign(vt[2, 1])  # across the rim's plane, down
    inward = centre - edge
    inward -= (inward @ axis)[:, None] * axis
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    turns = np.radians(_BEVEL_TURNS)[:, None, None]
    bevel = edge + _BEVEL * ((1 - np.cos(turns)) * inward + np.sin(turns) * axis)
    hub = bevel[-1].mean(0) - _DOME * axis
    lid = [hub + share * (bevel[-1] - hub) for share in _LID_RINGS]
    return np.concatenate([bevel, np.stack(lid)])


def _open_edges(triangles: IndexArray) -> IndexArray:
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    found, count = np.unique(edges, axis=0, return_counts=True)
    return found[count == 1]


def _rim_texture(
    avatar: Avatar, rim: IndexArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Texture coordinates (N, 2) at the start and at the end of each edge of the rim, and (2, N, 2) ways inwards.

    A way leads from there to the middle of the next row of the neck's skin. Corners that share a place in the
    texture share their way too, so that only the seams which the skin has go on over the rim.
    """
    topology = avatar.topology
    skin = np.flatnonzero(topology.triangles_of("skin"))
    on_edge = {(int(a), int(b)): i for i, (a, b) in enumerate(zip(rim, np.roll(rim, -1), strict=True))}
    ends = np.zeros((2, len(rim), 2))
    across = np.zeros((len(rim), 2))
    for face in skin[np.isin(topology.triangles[skin], rim).sum(1) >= 2]:
        corners = topology.triangles[face].tolist()
        for k in range(3):
            i = on_edge.get((corners[k], corners[(k + 1) % 3]))
            if i is not None:
                uv = topology.corner_uv[face].astype(np.float64)
                ends[:, i] = uv[k], uv[(k + 1) % 3]
                across[i] = uv[(k + 2) % 3] - (uv[k] + uv[(k + 1) % 3]) / 2
    before = np.roll(across, 1, axis=0)
    joined = np.abs(np.roll(ends[1], 1, axis=0) - ends[0]).max(1) < 1e-6
    at_start = np.where(joined[:, None], (before + across) / 2, across)
    after = np.roll(across, -1, axis=0)
    joined_end = np.roll(joined, -1)
    at_end = np.where(joined_end[:, None], (across + after) / 2, across)
    return ends[0], ends[1], np.stack([at_start, at_end])
