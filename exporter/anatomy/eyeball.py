"""Eyeballs: where they are, how they turn, and rounder than the morphable model has them.

The eyeball of the embedded model has eight sides. Behind a clear cornea its facets would show, so the half in
front is split, with new vertices on the ball. It knows nothing of eyelids.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .head_parts import FloatArray, IndexArray, NewTriangles, NewVertices, vertices_of, with_geometry

SIDES = ("left", "right")  # the character's
_ROUNDS = 2  # of splitting: eight sides become 32
_ROUND_ENOUGH = 500  # triangles of an eyeball from which on it needs no splitting
_FRONT = 0.63  # share of the eye's width in the texture, around its middle, in which edges are split: to 70 degrees
_TRUSTED_CHART = 0.1  # error up to which the texture's own projection places new vertices; else halfway
_MOVES = 1e-5  # metres: a blendshape that moves an eyeball by less leaves it alone


@dataclass(frozen=True, eq=False)
class Eyeball:
    """One eyeball.

    Attributes:
        part: "eye_left" or "eye_right".
        vertices: (N,) increasing indices.
        centre: (3,) metres, of the sphere that fits the vertices best.
        radius: metres.
    """

    part: str
    vertices: IndexArray
    centre: npt.NDArray[np.float64]
    radius: float


def find_eyeball(avatar: Avatar, side: str) -> Eyeball | None:
    """The eyeball of a side, None where the head has none."""
    part = f"eye_{side}"
    vertices = vertices_of(avatar.topology, part)
    if not len(vertices):
        return None
    points = avatar.vertices[vertices].astype(np.float64)
    middle = (points.min(0) + points.max(0)) / 2  # keeps the equations well-conditioned
    weight = np.sqrt(_areas(avatar, part, vertices))[:, None]  # so that it hardly matters how finely it is split
    rows = np.concatenate([2 * (points - middle), np.ones((len(points), 1))], axis=1)
    squares = ((points - middle) ** 2).sum(1, keepdims=True)
    solution = np.linalg.lstsq(rows * weight, (squares * weight)[:, 0], rcond=None)[0]
    radius = float(np.sqrt(solution[3] + (solution[:3] ** 2).sum()))
    return Eyeball(part, vertices, middle + solution[:3], radius)


def _areas(avatar: Avatar, part: str, vertices: IndexArray) -> npt.NDArray[np.float64]:
    """(N,) area of a part's triangles around each of its vertices."""
    triangles = avatar.topology.triangles[avatar.topology.triangles_of(part)]
    corners = avatar.vertices[triangles].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.bincount(np.searchsorted(vertices, triangles.ravel()), np.repeat(area, 3), len(vertices)).astype(
        np.float64
    )


def eye_turns(avatar: Avatar, eye: Eyeball) -> npt.NDArray[np.float64]:
    """(K, 3, 3) rotation of the eyeball about its centre under each blendshape, the identity where it rests."""
    arms = avatar.vertices[eye.vertices] - eye.centre
    turns = np.tile(np.eye(3), (len(avatar.topology.blendshapes), 1, 1))
    for shape, offsets in enumerate(avatar.topology.blendshapes[:, eye.vertices]):
        if np.abs(offsets).max() > _MOVES:
            u, _, vt = np.linalg.svd(arms.T @ (arms + offsets))  # Kabsch
            u[:, -1] *= np.sign(np.linalg.det(u @ vt))
            turns[shape] = (u @ vt).T
    return turns


def carried_by_eye(avatar: Avatar, eye: Eyeball, positions: FloatArray) -> NewVertices:
    """Vertices (N, 3) that turn with the eyeball under every blendshape.

    The photo's expression moves them as it moves the eyeball, by the affine map that fits best.
    """
    arms = positions - eye.centre
    turned = np.einsum("kij,nj->kni", eye_turns(avatar, eye) - np.eye(3), arms)
    own = np.concatenate([avatar.vertices[eye.vertices] - eye.centre, np.ones((len(eye.vertices), 1))], axis=1)
    affine = np.linalg.lstsq(own, avatar.expression_offset[eye.vertices].astype(np.float64), rcond=None)[0]
    return NewVertices(positions, turned, np.concatenate([arms, np.ones((len(arms), 1))], axis=1) @ affine)


@dataclass(frozen=True, eq=False)
class EyeChart:
    """The picture of an eyeball as seen along its gaze (+Z): azimuthal, (angle / pi) ** power from the pupil.

    Attributes:
        centre: (2,) texture coordinates of the pupil.
        scale: (2,) texture coordinates from the pupil to the rear pole along +X and +Y.
        power: how much wider than the rear the front is drawn: 1 keeps the angle, less widens the front.
        error: largest distance from a corner of the eyeball, relative to the scale.
    """

    centre: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    power: float
    error: float

    def uv(self, directions: FloatArray) -> npt.NDArray[np.float64]:
        """(N, 3) unit vectors from the eye's centre -> (N, 2) texture coordinates in [0, 1]."""
        return np.clip(self.centre + _azimuthal(directions, self.power) * self.scale, 0, 1)


def fit_eye_chart(avatar: Avatar, eye: Eyeball) -> EyeChart:
    """The chart that fits the front of the eyeball best; look at its `error` before trusting it."""
    topology = avatar.topology
    mask = topology.triangles_of(eye.part)
    index, first = np.unique(topology.triangles[mask], return_index=True)
    directions = _unit(avatar.vertices[index] - eye.centre)
    front = directions[:, 2] > 0
    directions, uv = directions[front], topology.corner_uv[mask].reshape(-1, 2)[first][front].astype(np.float64)
    best: EyeChart | None = None
    for power in np.linspace(0.4, 1.4, 51):
        drawn = _azimuthal(directions, power)
        rows = [np.stack([drawn[:, axis], np.ones(len(drawn))], axis=1) for axis in (0, 1)]
        fits = [np.linalg.lstsq(rows[axis], uv[:, axis], rcond=None)[0] for axis in (0, 1)]
        off = np.hypot(*(rows[axis] @ fits[axis] - uv[:, axis] for axis in (0, 1)))
        scale, centre = (np.array([fit[part] for fit in fits]) for part in (0, 1))
        chart = EyeChart(centre, scale, float(power), float(off.max() / np.abs(scale).max()))
        if best is None or chart.error < best.error:
            best = chart
    assert best is not None
    return best


def with_round_eyes(avatar: Avatar) -> Avatar:
    """Eyeballs split twice where they can be seen, and turned by the eyeLook shapes without changing shape."""
    for side in SIDES:
        eye = find_eyeball(avatar, side)
        if eye is None:
            continue
        chart = fit_eye_chart(avatar, eye)
        plain_uv = avatar.topology.corner_uv[avatar.topology.triangles_of(eye.part)]
        coarse = len(plain_uv) < _ROUND_ENOUGH
        for _ in range(_ROUNDS if coarse else 0):
            avatar, plain_uv = _split_once(avatar, eye, chart, plain_uv)
        avatar = _turned_rigidly(avatar, side)
    return avatar


def _azimuthal(directions: FloatArray, power: float) -> npt.NDArray[np.float64]:
    """(N, 3) unit vectors -> (N, 2) places in the unit disc, the rear pole on its rim."""
    angle = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi
    across = np.linalg.norm(directions[:, :2], axis=1, keepdims=True)
    return directions[:, :2] / np.maximum(across, 1e-9) * (angle**power)[:, None]


def _unit(vectors: FloatArray) -> npt.NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _split_once(avatar: Avatar, eye: Eyeball, chart: EyeChart, plain_uv: FloatArray) -> tuple[Avatar, FloatArray]:
    """The avatar with an eyeball's edges split near the pupil, and `plain_uv` (F, 3, 2) with it.

    These are the texture coordinates without the chart: which edges are split must be the same for every face.
    """
    topology = avatar.topology
    own = topology.triangles_of(eye.part)
    triangles, uv = topology.triangles[own], topology.corner_uv[own]
    corner_edges = np.sort(np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=2), axis=2)  # (F, 3, 2)
    edges, edge_of = np.unique(corner_edges.reshape(-1, 2), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(-1, 3)
    arms = avatar.vertices[edges] - eye.centre  # (E, 2, 3)
    middle = _unit(arms.mean(1))
    split = _drawn_near_pupil(plain_uv, edge_of, len(edges))
    length = np.linalg.norm(arms, axis=2).mean(1, keepdims=True)
    ends = edges[split]
    added = NewVertices(
        (eye.centre + middle * length)[split],
        topology.blendshapes[:, ends].mean(2),
        avatar.expression_offset[ends].mean(1),
    )
    number = np.where(split, topology.vertex_count + np.cumsum(split) - 1, -1)[edge_of]
    middle_uv = _halfway(uv)
    if chart.error < _TRUSTED_CHART:  # what a corner is off the chart, its neighbours in the middle are too
        directions = _unit(avatar.vertices[triangles] - eye.centre)
        off = uv - chart.uv(directions.reshape(-1, 3)).reshape(uv.shape)
        middle_uv = chart.uv(middle)[edge_of] + _halfway(off)
    new_triangles, both_uv = _split_triangles(
        triangles,
        np.concatenate([uv, plain_uv], axis=2),
        number,
        np.concatenate([middle_uv, _halfway(plain_uv)], axis=2),
    )
    grown = with_geometry(avatar, added, NewTriangles(eye.part, new_triangles, both_uv[..., :2]), keep=~own)
    return grown, both_uv[..., 2:]


def _halfway(corners: FloatArray) -> FloatArray:
    """(F, 3, D) values at the corners of triangles -> (F, 3, D) in the middle of the edges that start there."""
    return (corners + np.roll(corners, -1, axis=1)) / 2


def _drawn_near_pupil(uv: FloatArray, edge_of: IndexArray, count: int) -> npt.NDArray[np.bool_]:
    """(count,) edges both ends of which are drawn near the middle of the eye's picture.

    Asked of the texture and not of the head, so that all faces of a morphable model get the same triangles.
    """
    low, high = uv.min((0, 1)), uv.max((0, 1))
    off = np.linalg.norm((uv - (low + high) / 2) / ((high - low) / 2), axis=2)
    farther = np.full(count, -np.inf)
    np.maximum.at(farther, edge_of.ravel(), np.maximum(off, np.roll(off, -1, axis=1)).ravel())
    return farther < _FRONT


def _split_triangles(
    triangles: IndexArray, uv: FloatArray, number: IndexArray, middle_uv: FloatArray
) -> tuple[IndexArray, FloatArray]:
    """Split triangles (F, 3) at the vertices `number` (F, 3) of their edges, -1 for an edge that stays whole.

    Edge i runs from corner i to corner i + 1; uv and middle_uv are (F, 3, D).
    """
    found, places = [], []
    for corners, spots, middles, between in zip(triangles.tolist(), uv, number.tolist(), middle_uv, strict=True):
        outline: list[tuple[int, npt.NDArray]] = []
        for i in range(3):
            outline.append((corners[i], spots[i]))
            if middles[i] >= 0:
                outline.append((middles[i], between[i]))
        for piece in _pieces([middles[i] >= 0 for i in range(3)]):
            found.append([outline[i][0] for i in piece])
            places.append([outline[i][1] for i in piece])
    return np.array(found), np.array(places)


def _pieces(split: list[bool]) -> list[tuple[int, int, int]]:
    """Triangles over a triangle's outline: its corners, each followed by its edge's middle where there is one."""
    count = sum(split)
    if count == 3:
        return [(0, 1, 5), (1, 2, 3), (3, 4, 5), (1, 3, 5)]
    if count == 0:
        return [(0, 1, 2)]
    corner = [0, 1 + split[0], 2 + split[0] + split[1]]  # where the corners are in the outline
    around = 3 + count
    turn = split.index(True) if count == 1 else (split.index(False) + 1) % 3  # the first split edge of the run

    def at(step: int) -> int:
        return (corner[turn] + step) % around

    if count == 1:
        return [(at(0), at(1), at(3)), (at(1), at(2), at(3))]
    return [(at(0), at(1), at(4)), (at(1), at(2), at(3)), (at(1), at(3), at(4))]


def _turned_rigidly(avatar: Avatar, side: str) -> Avatar:
    topology = avatar.topology
    eye = find_eyeball(avatar, side)
    assert eye is not None
    carried = carried_by_eye(avatar, eye, avatar.vertices[eye.vertices].astype(np.float64))
    blendshapes = topology.blendshapes.copy()
    blendshapes[:, eye.vertices] = carried.blendshapes.astype(np.float32)
    return dataclasses.replace(avatar, topology=dataclasses.replace(topology, blendshapes=blendshapes))
