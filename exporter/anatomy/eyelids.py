"""Eyelids that close: each eyeBlink shape ends where the upper lid meets the lower one, whatever the face.

A blendshape is the same for every face, but eyes are not opened equally wide: on a narrow eye the lid would run
over the lower one, on a wide one a slit would stay. It knows nothing of the cornea's shape.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .clearance import outermost_hit
from .cornea import skin_around_eye
from .eyeball import SIDES, Eyeball, find_eyeball
from .head_parts import FloatArray

_RAYS = (51, 31)  # through the eye's front, across and up
_REACH = (1.0, 0.6)  # tangents of the largest angles to the gaze
_SHARES = (0.2, 1.6)  # of the shape's own way, between which the one that just closes the eye is sought
_HALVINGS = 6
_SPARE = 0.03  # share added to it: the lids touch
_SLIT = 0.005  # share of the open eye that may stay uncovered: rays that graze a corner of the eye


def with_closing_lids(avatar: Avatar) -> Avatar:
    """The avatar whose eyeBlinkLeft and eyeBlinkRight just close the eye at weight 1.

    A shape that closes it at no share of its way stays as it is.
    """
    topology = avatar.topology
    blendshapes = topology.blendshapes.copy()
    for side in SIDES:
        name = f"eyeBlink{side.capitalize()}"
        eye = find_eyeball(avatar, side)
        if eye is None or name not in topology.blendshape_names:
            continue
        shape = topology.blendshape_names.index(name)
        rays = open_eye_rays(avatar, eye)
        open_at, shut_at = _SHARES
        if uncovered(avatar, eye, rays, np.float32(shut_at) * blendshapes[shape]) > _SLIT:
            continue
        for _ in range(_HALVINGS):
            share = (open_at + shut_at) / 2
            if uncovered(avatar, eye, rays, np.float32(share) * blendshapes[shape]) > _SLIT:
                open_at = share
            else:
                shut_at = share
        blendshapes[shape] *= np.float32(shut_at + _SPARE)
    return dataclasses.replace(avatar, topology=dataclasses.replace(topology, blendshapes=blendshapes))


def open_eye_rays(avatar: Avatar, eye: Eyeball) -> FloatArray:
    """(N, 3) unit vectors from the eye's centre through the opening between the lids of the neutral face."""
    steps = [np.linspace(-reach, reach, count) for reach, count in zip(_REACH, _RAYS, strict=True)]
    x, y = (grid.ravel() for grid in np.meshgrid(*steps))
    rays = np.stack([x, y, np.ones_like(x)], axis=1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return rays[~_covered(avatar, eye, rays, avatar.vertices)]


def uncovered(avatar: Avatar, eye: Eyeball, rays: FloatArray, offsets: FloatArray) -> float:
    """Share of the rays (N, 3) on which nothing lies before the eye once the head is moved by `offsets` (V, 3)."""
    if not len(rays):
        return 0.0
    return float(1 - _covered(avatar, eye, rays, avatar.vertices + offsets).mean())


def _covered(avatar: Avatar, eye: Eyeball, rays: FloatArray, vertices: FloatArray) -> npt.NDArray[np.bool_]:
    """(N,) whether skin lies before eyeball and cornea on rays from the eye's centre."""
    cornea = eye.part.replace("eye", "cornea")
    parts = [part for part in (eye.part, cornea) if part in avatar.topology.part_names]
    ball = avatar.topology.triangles[avatar.topology.triangles_of(*parts)]
    lids = outermost_hit(rays, skin_around_eye(avatar, eye, vertices))
    return lids > outermost_hit(rays, vertices[ball] - eye.centre)
