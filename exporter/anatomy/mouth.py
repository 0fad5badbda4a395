"""Teeth and tongue that fit the mouth: at the lip line, rigid with skull and jaw, and through no lip.

The morphable model's teeth hang where a mean face has them, behind an upper lip that covers them in every smile.
It knows nothing of the lips' own shape; those stay as the model and the photo have them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .head_parts import IndexArray, connected_pieces, vertices_of
from .tongue import with_tongue_through_open_jaw

Array = npt.NDArray[np.float64]

_STILL = 5e-4  # metres: what jawOpen moves by less belongs to the skull, and no other shape means to move it
_MIDDLE = 0.004  # metres from the middle within which lips and incisors are measured
_FRONT = 0.006  # metres behind the foremost tooth that count as incisors
_SHOWN = 0.002  # metres of the upper incisors below the lip line of the closed mouth
_LARGEST_DROP = 0.005  # metres
_BEHIND_LIPS = 0.0045  # metres from the upper incisors to the line where the lips meet
_LARGEST_ADVANCE = 0.004  # metres
_LOWER_HEIGHT = 0.0085  # metres of the lower teeth that are kept: longer roots come out of the chin in a wide laugh
_OVERBITE, _OVERJET = 0.001, 0.0015  # metres that the upper incisors reach below and before the lower ones
_TONGUE_SINKS = 0.009  # metres that the tongue's middle sinks beyond the jaw's own way in jawOpen
_OUTSIDE = ("eye", "brow")  # shapes that have no business in the mouth


@dataclass(frozen=True, eq=False)
class Jaws:
    """Vertices of the upper and of the lower teeth, and the lips' inner line in its upper and its lower half."""

    upper: IndexArray
    lower: IndexArray
    upper_lip: IndexArray
    lower_lip: IndexArray


def find_jaws(avatar: Avatar) -> Jaws | None:
    """Teeth and lips told apart by what jawOpen moves; None for a head without teeth, mouth or jaw."""
    topology = avatar.topology
    needed = {"teeth", "mouth", "skin"}
    if "jawOpen" not in topology.blendshape_names or not needed <= set(topology.part_names):
        return None
    moved = np.linalg.norm(topology.blendshapes[topology.blendshape_names.index("jawOpen")], axis=1)
    teeth = topology.triangles[topology.triangles_of("teeth")]
    lips = np.intersect1d(vertices_of(topology, "skin"), vertices_of(topology, "mouth"))
    if not len(teeth) or not len(lips) or moved[lips].max() < _STILL:
        return None
    upper = [piece for piece in connected_pieces(teeth) if moved[piece].max() < _STILL]
    lower = [piece for piece in connected_pieces(teeth) if moved[piece].max() >= _STILL]
    if not upper or not lower:
        return None
    with_jaw = moved[lips] > moved[lips].max() / 2
    return Jaws(np.concatenate(upper), np.concatenate(lower), lips[~with_jaw], lips[with_jaw])


def with_fitting_mouth(avatar: Avatar) -> Avatar:
    """Teeth at the lip line and rigid, a mouth that eyes and brows leave alone, a tongue that needs an open jaw."""
    avatar = _without_strays(avatar)
    jaws = find_jaws(avatar)
    if jaws is None:
        return avatar
    placed = avatar.vertices.astype(np.float64)
    _place_teeth(placed, jaws)
    blendshapes = avatar.topology.blendshapes.copy()
    blendshapes[:, jaws.upper] = 0
    for offsets in blendshapes:
        if np.abs(offsets[jaws.lower]).max() < _STILL:
            offsets[jaws.lower] = 0
            continue
        rotation, shift = rigid_motion(avatar.vertices[jaws.lower], avatar.vertices[jaws.lower] + offsets[jaws.lower])
        offsets[jaws.lower] = placed[jaws.lower] @ rotation.T + shift - placed[jaws.lower]
    _lay_tongue_down(blendshapes[avatar.topology.blendshape_names.index("jawOpen")], avatar)
    fitted = dataclasses.replace(
        avatar,
        vertices=placed.astype(np.float32),
        topology=dataclasses.replace(avatar.topology, blendshapes=blendshapes),
    )
    return with_tongue_through_open_jaw(fitted, jaws.upper, jaws.lower, jaws.upper_lip, jaws.lower_lip)


def rigid_motion(start: npt.NDArray, end: npt.NDArray) -> tuple[Array, Array]:
    """Rotation (3, 3) and shift (3,) that best take the points (N, 3) `start` to `end`: Kabsch."""
    from_centre, to_centre = start.mean(0, dtype=np.float64), end.mean(0, dtype=np.float64)
    u, _, vt = np.linalg.svd((start - from_centre).T @ (end - to_centre))
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))
    rotation = (u @ vt).T
    return rotation, to_centre - rotation @ from_centre


def incisors(vertices: npt.NDArray, teeth: IndexArray) -> npt.NDArray:
    """(N, 3) the foremost points of a row of teeth near the middle of the face."""
    points = vertices[teeth]
    middle = points[np.abs(points[:, 0]) < _MIDDLE] if (np.abs(points[:, 0]) < _MIDDLE).any() else points
    return middle[middle[:, 2] > middle[:, 2].max() - _FRONT]


def _place_teeth(vertices: Array, jaws: Jaws) -> None:
    """Move both rows of teeth down to the lip line and, towards the front, closer to the lips; in place."""
    lips = np.concatenate([jaws.upper_lip, jaws.lower_lip])
    line = vertices[lips[np.abs(vertices[lips, 0]) < _MIDDLE]]
    if not len(line):
        return
    upper = incisors(vertices, jaws.upper)
    drop = np.clip(upper[:, 1].min() - (line[:, 1].mean() - _SHOWN), 0, _LARGEST_DROP)
    advance = np.clip(line[:, 2].mean() - _BEHIND_LIPS - upper[:, 2].max(), 0, _LARGEST_ADVANCE)
    _shift(vertices, jaws.upper, -drop, advance)
    edge = incisors(vertices, jaws.upper)
    edge = edge[edge[:, 1].argmin()]
    lower = incisors(vertices, jaws.lower)
    tip = lower[lower[:, 1].argmax()]
    rise = np.clip(edge[1] + _OVERBITE - tip[1], -_LARGEST_DROP - _OVERBITE, _OVERBITE)
    follow = np.clip(edge[2] - _OVERJET - tip[2], -_OVERJET, _LARGEST_ADVANCE)
    _shift(vertices, jaws.lower, rise, follow)
    below = vertices[jaws.lower, 1] - (tip[1] + rise)
    below[below < 0] *= min(1.0, _LOWER_HEIGHT / max(-below.min(), 1e-9))
    vertices[jaws.lower, 1] = tip[1] + rise + below


def _shift(vertices: Array, teeth: IndexArray, up: float, forward: float) -> None:
    """Move a row of teeth; forward only its front, so that the molars keep their distance to the cheeks."""
    depth = vertices[teeth, 2]
    share = (depth - depth.min()) / max(depth.max() - depth.min(), 1e-9)
    vertices[teeth, 1] += up
    vertices[teeth, 2] += forward * share**2


def _lay_tongue_down(jaw_open: npt.NDArray[np.float32], avatar: Avatar) -> None:
    """Let the tongue's middle sink as the jaw opens, so that it is no wall before the throat; in place."""
    tongue = vertices_of(avatar.topology, "tongue")
    if len(tongue):
        depth = avatar.vertices[tongue, 2]
        along = (depth - depth.min()) / max(float(depth.max() - depth.min()), 1e-9)
        jaw_open[tongue, 1] -= _TONGUE_SINKS * np.sin(np.pi * along)


def _without_strays(avatar: Avatar) -> Avatar:
    """Shapes of eyes and brows act on nothing that lies only inside the mouth."""
    topology = avatar.topology
    inside = np.setdiff1d(vertices_of(topology, "mouth", "teeth", "tongue"), vertices_of(topology, "skin"))
    blendshapes = topology.blendshapes.copy()
    for name, offsets in zip(topology.blendshape_names, blendshapes, strict=True):
        if name.startswith(_OUTSIDE):
            offsets[inside] = 0
    return dataclasses.replace(avatar, topology=dataclasses.replace(topology, blendshapes=blendshapes))
