"""Corneas: a thin clear dome before each iris, which is what the wet highlight of an eye needs.

A human cornea is as wide as the iris, about 11.7 mm, with a radius of curvature of about 7.8 mm on an eyeball of 12.
Heads have eyeballs of their own size, so it is built on the avatar's iris. It knows nothing of materials.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .clearance import outermost_hit
from .eyeball import SIDES, Eyeball, carried_by_eye, find_eyeball, fit_eye_chart
from .head_parts import FloatArray, NewTriangles, with_geometry

_CURVATURE = 0.667  # radius, in diameters of the iris
_WIDEST = 0.55  # sine of the largest angle between the gaze and the iris' border that is believed
_SKIRT = 1.35  # how far the dome goes on over the sclera, in half widths
_GAP = 0.00015  # metres before the eyeball
_HEM = -0.0002  # metres: the dome's edge ends inside the eyeball, so that it is not seen
_RINGS, _SEGMENTS = 12, 32
_LID_GAP = 0.0001  # metres that a lid keeps before the dome
_FLATTER = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of the bulge that are tried where a lid lies close
_NEAR = 4.0  # eyeball radii within which skin is looked at: lids, and the nose beside them
_LID_FACES_OUT = 0.5  # cosine: a lid's margin lies across the rays and is no outer side


def with_corneas(avatar: Avatar) -> Avatar:
    """The avatar with the parts "cornea_left" and "cornea_right", each on its eyeball through all blendshapes."""
    for side in SIDES:
        eye = find_eyeball(avatar, side)
        if eye is not None:
            avatar = _with_cornea(avatar, eye, f"cornea_{side}")
    return avatar


def skin_around_eye(avatar: Avatar, eye: Eyeball, vertices: FloatArray) -> npt.NDArray[np.float64]:
    """(F, 3, 3) skin near the eye and before its centre, relative to that, with the head's `vertices` (V, 3)."""
    topology = avatar.topology
    corners = vertices[topology.triangles[topology.triangles_of("skin")]] - eye.centre
    near = (np.linalg.norm(corners, axis=2) < _NEAR * eye.radius).any(1) & (corners[..., 2] > 0).all(1)
    return corners[near].astype(np.float64)


def _with_cornea(avatar: Avatar, eye: Eyeball, part: str) -> Avatar:
    edge = float(np.arcsin(min(avatar.iris.diameter / 2 / eye.radius, _WIDEST)))
    directions = _dome_directions(edge)
    lids = outermost_hit(directions, _facing_out(skin_around_eye(avatar, eye, avatar.vertices)))
    ball = _ball_radius(avatar, eye, directions)
    arms = directions
    for share in _FLATTER:
        reach = ball + _rise(eye, directions, edge, share)
        arms = directions * reach[:, None]
        if not ((lids > ball) & (lids < reach + _LID_GAP)).any():
            break
    triangles = _dome_triangles()
    uv = fit_eye_chart(avatar, eye).uv(directions)
    return with_geometry(
        avatar,
        carried_by_eye(avatar, eye, eye.centre + arms),
        NewTriangles(part, triangles + avatar.topology.vertex_count, uv[triangles]),
    )


def _dome_directions(edge: float) -> npt.NDArray[np.float64]:
    """(1 + rings * segments, 3) unit vectors, apex first; `edge` is the angle where cornea and sclera meet."""
    angle = np.repeat(np.arange(1, _RINGS + 1) / _RINGS * edge * _SKIRT, _SEGMENTS)
    heading = np.tile(np.arange(_SEGMENTS) / _SEGMENTS * 2 * np.pi, _RINGS)
    rings = np.stack([np.sin(angle) * np.cos(heading), np.sin(angle) * np.sin(heading), np.cos(angle)], axis=1)
    return np.concatenate([[[0.0, 0.0, 1.0]], rings])


def _rise(eye: Eyeball, directions: FloatArray, edge: float, share: float) -> npt.NDArray[np.float64]:
    """(N,) metres above the eyeball: the corneal sphere, `share` of its bulge, and the gap and hem."""
    angle = np.arccos(np.clip(directions[:, 2], -1, 1))
    half_width = eye.radius * np.sin(edge)
    curvature = 2 * _CURVATURE * half_width
    ahead = eye.radius * np.cos(edge) - np.sqrt(curvature**2 - half_width**2)  # to the corneal sphere's centre
    inner = np.minimum(angle, edge)
    sphere = ahead * np.cos(inner) + np.sqrt(curvature**2 - (ahead * np.sin(inner)) ** 2)
    skirt = np.clip((angle - edge) / (edge * (_SKIRT - 1)), 0, 1)
    return share * (sphere - eye.radius) + _GAP + (_HEM - _GAP) * skirt


def _ball_radius(avatar: Avatar, eye: Eyeball, directions: FloatArray) -> npt.NDArray[np.float64]:
    """(N,) metres from the centre to the eyeball, which no identity keeps quite round: a quadric over its front."""
    arms = avatar.vertices[eye.vertices] - eye.centre
    length = np.linalg.norm(arms, axis=1)
    own = arms / length[:, None]
    front = own[:, 2] > 0.5

    def rows(unit: FloatArray) -> npt.NDArray[np.float64]:
        x, y = unit[:, 0].astype(np.float64), unit[:, 1].astype(np.float64)
        return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)

    return rows(directions) @ np.linalg.lstsq(rows(own[front]), length[front], rcond=None)[0]


def _dome_triangles() -> npt.NDArray[np.int64]:
    """(F, 3) counter-clockwise seen from the front."""
    around = np.arange(_SEGMENTS)
    following = (around + 1) % _SEGMENTS
    fan = np.stack([np.zeros_like(around), 1 + around, 1 + following], axis=1)
    bands = []
    for ring in range(_RINGS - 1):
        inner, outer = 1 + ring * _SEGMENTS, 1 + (ring + 1) * _SEGMENTS
        bands.append(np.stack([inner + around, outer + around, outer + following], axis=1))
        bands.append(np.stack([inner + around, outer + following, inner + following], axis=1))
    return np.concatenate([fan, *bands])


def _facing_out(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The triangles that face away from the origin, without those that lie across it."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = corners.mean(1)
    cosine = (normal * middle).sum(1) / np.maximum(
        np.linalg.norm(normal, axis=1) * np.linalg.norm(middle, axis=1), 1e-24
    )
    return corners[cosine > _LID_FACES_OUT]
