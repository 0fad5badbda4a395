"""Find the face on a foreign mean head: which way it looks, and its face-mesh points.

A head of unknown texture is dressed in one colour of skin, with our eyes where it has eyes: the landmark network sees
shading. Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import UsageError
from ..models.importers.frame import upright_turns
from ..models.landmarks import FaceMesh
from ..models.topology import PART_NAMES
from ..rendering.renderer import HeadMapsTensor
from .atlas_layout import ATLAS_SIZE, ENAMEL_RECT, EYE_RECT, LASH_RECT, MOUTH_RECT, TONGUE_RECT, eye_uv
from .surface_landmarks import FACE_WIDTH, TURNS, Surface, SurfacePoints, detect, surface_points, view_of

LIKELY = 15.0  # logit: our head from the front gives 28 to 41, any other of the 24 turns 8 at most
SEARCH_SIZE = 256  # pixels of the pictures in which a face is looked for
FIRST_SIZE = 512  # and of those in which its points are found, to register it by
STEP = 0.04  # metres between the heights at which it is looked for
DEPTH = 0.06  # metres from the foremost skin to the middle of a face
ENOUGH = 300  # of the 468 points
_SKIN_TEXEL = (512, 330)  # of the forehead
_MIDDLES = {"mouth": MOUTH_RECT, "teeth": ENAMEL_RECT, "tongue": TONGUE_RECT, "lashes": LASH_RECT, "eye_left": EYE_RECT,
            "eye_right": EYE_RECT}  # fmt: skip


@dataclass(frozen=True, eq=False)
class FoundFace:
    """turn: (3, 3) that brings the head upright and to +Z; points: on the turned head's skin."""

    turn: np.ndarray
    points: SurfacePoints


def find_face(
    vertices: np.ndarray, triangles: np.ndarray, triangle_part: np.ndarray, maps: HeadMapsTensor, network: FaceMesh
) -> FoundFace:
    """Face-mesh points of a head (V, 3), metres, of any axes.

    triangle_part: (F,) into `PART_NAMES`.

    Raises:
        UsageError: the network sees no face, however the head is turned.
    """
    best: tuple[float, np.ndarray, tuple[float, float, float]] = (-np.inf, np.eye(3), (0.0, 0.0, 0.0))
    for turn in upright_turns():
        turned = vertices @ turn.T
        surface = plain_surface(turned, triangles, triangle_part, maps)
        for centre in _centres(turned, triangles[triangle_part == 0]):
            view = view_of(surface, _tensor(turned), centre, FACE_WIDTH, size=SEARCH_SIZE)
            logit = detect(network, view.image)[1]
            if logit > best[0]:
                best = logit, turn, centre
        if best[0] > LIKELY:
            break
    logit, turn, centre = best
    if logit <= LIKELY:
        raise UsageError(
            "morphable model", f"no face on its mean head (logit {logit:.1f})", f"one above {LIKELY}",
            "check --unit and the file; the face must be bare and in front",
        )  # fmt: skip
    turned = vertices @ turn.T
    surface = plain_surface(turned, triangles, triangle_part, maps)
    points = surface_points(network, surface, _tensor(turned), centre, FACE_WIDTH, TURNS[:3], FIRST_SIZE)
    if points.valid.sum() < ENOUGH:
        raise UsageError(
            "morphable model", f"{points.valid.sum()} landmarks on its skin", f"{ENOUGH} or more", "check the file"
        )
    return FoundFace(turn, points)


def plain_surface(
    vertices: np.ndarray, triangles: np.ndarray, triangle_part: np.ndarray, maps: HeadMapsTensor
) -> Surface:
    """The head in one colour of skin, its other parts in the middle colour of what our atlas has for them."""
    uv = np.zeros((len(triangles), 3, 2))
    uv[:] = np.array(_SKIN_TEXEL) / ATLAS_SIZE
    for name, (x, y, width, height) in _MIDDLES.items():
        chosen = triangle_part == PART_NAMES.index(name)
        if name.startswith("eye") and chosen.any():
            uv[chosen] = eye_uv(vertices[triangles[chosen]].astype(np.float64))
        else:
            uv[chosen] = np.array([x + width / 2, y + height / 2]) / ATLAS_SIZE
    return Surface(torch.from_numpy(triangles), _tensor(uv), torch.from_numpy(triangle_part), PART_NAMES, maps)


def _centres(vertices: np.ndarray, skin: np.ndarray) -> list[tuple[float, float, float]]:
    """Places where the middle of the face may be, from the top down."""
    own = vertices[np.unique(skin)]
    low, high = own.min(0), own.max(0)
    front = own[np.abs(own[:, 0] - own[:, 0].mean()) < 0.05, 2].max()
    top, bottom = high[1] - 0.05, low[1] + 0.05
    heights = np.linspace(top, bottom, max(2, int((top - bottom) / STEP) + 1)) if top > bottom else [(top + bottom) / 2]
    return [(float((low[0] + high[0]) / 2), float(y), float(front - DEPTH)) for y in heights]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
