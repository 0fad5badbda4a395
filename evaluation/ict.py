"""Faces that our own morphable model has not seen: ICT-FaceKit's (MIT, University of Southern California).

Its identities come from Light Stage scans. A random one is dressed in our mean skin, so that brows, lips and eyes are
in place, and photographed with our renderer. Knows nothing of avatars or of what is measured.

The file is a NumPy archive: V (26719, 3) mean and I (K, 26719, 3) identity components in centimetres, +Y up, facing
+Z, +X the character's left; F (Q, 4) quads of the model's own vertex order.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import MissingError, UsageError
from ..models.landmark_indices import LANDMARK_68
from ..models.morphable import MorphableModel
from ..rendering.camera import camera_front
from ..rendering.pictures import over, picture_of_head
from ..rendering.renderer import HeadMapsTensor, HeadRenderer
from ..rendering.shader import Light
from ..training.synthetic import background, sample_light
from .alignment import Surface, aligned_points
from .face_region import face_vertices

VERTICES = 26719
CENTIMETRE = 0.01
PHOTO_SIZE = 512  # px
FIELD = 0.42  # metres across the photo, at the face
EYEBALLS = {"eye_left": (21451, 23021), "eye_right": (23021, 24591)}
# Vertices of FaceKit's geometries in its own order, by the part of our head that they are dressed as. The layers
# that lie over the eyes (fluid, blend, occlusion, lashes; from 24591) are left out.
PARTS = {"skin": ((0, 11248), (13294, 14062)), "mouth": ((11248, 13294), (14062, 17039)), "teeth": ((17039, 21451),),
         **{eye: (span,) for eye, span in EYEBALLS.items()}}  # fmt: skip
# FaceKit's own 68 landmarks (`vertex_indices.json`), in the order of `LANDMARK_68`.
LANDMARKS = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443,
    268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360,
    1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732,
    5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
SEAM = 0.1  # share of the atlas: a triangle whose corners fall further apart lies across a seam of our UVs


@dataclass(frozen=True, eq=False)
class IctModel:
    """mean (V, 3) and identity (K, V, 3), float32 metres; triangles (F, 3) int64."""

    mean: np.ndarray
    identity: np.ndarray
    triangles: np.ndarray

    def vertices(self, rng: np.random.Generator) -> np.ndarray:
        """(V, 3) metres of a random identity, neutral."""
        weights = rng.standard_normal(len(self.identity)).astype(np.float32)
        return self.mean + np.tensordot(weights, self.identity, 1)


def load_ict(path: Path) -> IctModel:
    """Read the archive.

    Raises:
        UsageError: it is no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            mean, identity, quads = archive["V"], archive["I"], archive["F"].astype(np.int64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if mean.shape != (VERTICES, 3) or identity.shape[1:] != mean.shape or quads.ndim != 2 or quads.shape[1] != 4:
        raise _unreadable(path, f"V {mean.shape}, I {identity.shape}, F {quads.shape}")
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return IctModel(
        mean.astype(np.float32) * np.float32(CENTIMETRE),
        identity.astype(np.float32) * np.float32(CENTIMETRE),
        triangles,
    )


def _unreadable(path: Path, got: str) -> UsageError:
    expected = f"ICT-FaceKit as a NumPy archive: V ({VERTICES}, 3), I (K, {VERTICES}, 3), F (Q, 4)"
    return UsageError(f"ICT-FaceKit file {path}", got, expected, "write the archive again from FaceKit's OBJ files")


class IctStudio:
    """ICT-FaceKit's topology in our mean skin.

    face (R,): vertices of the bare face, those over which our `face_weight` is above one half.
    face_triangles (R,), face_barycentrics (R, 3): the point of our topology's surface that each lies over.
    """

    def __init__(self, ict: IctModel, model: MorphableModel, maps: HeadMapsTensor) -> None:
        """`maps`: the head maps to dress it in.

        Raises:
            MissingError: scipy is not installed.
        """
        self.ict, self.maps = ict, maps
        warped = _warped_to_ours(ict.mean, model)
        triangle, weights = _points_of_ours(warped, model)
        triangles, part = _dressed_triangles(ict.triangles)
        uv = (model.corner_uv.numpy()[triangle] * weights[..., None]).sum(1)  # (V, 2)
        corner_uv = uv[triangles]
        torn = np.ptp(corner_uv, axis=1).max(1) > SEAM
        corner_uv[torn] = corner_uv[torn, :1]
        self.renderer = HeadRenderer(
            torch.from_numpy(triangles), torch.from_numpy(corner_uv).float(), torch.from_numpy(part), tuple(PARTS)
        )
        corners = model.triangles.numpy()[triangle]  # (V, 3) vertices of ours
        bare = face_vertices(model)[corners].all(1) & _member("skin")
        self.face = np.flatnonzero(bare)
        self.face_triangles, self.face_barycentrics = triangle[bare], weights[bare]

    @torch.no_grad()
    def photograph(self, vertices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(V, 3) metres -> (512, 512, 3) uint8 sRGB: pose, distance, light and background at random."""
        yaw, pitch = np.clip(rng.normal(0, [0.26, 0.13]), -0.6, 0.6)
        distance = float(np.exp(rng.uniform(np.log(0.55), np.log(2.5))))
        light = sample_light(rng)
        behind = background(PHOTO_SIZE, rng) * 255
        return self.picture(vertices, float(yaw), float(pitch), distance, light, behind)

    def picture(
        self, vertices: np.ndarray, yaw: float, pitch: float, distance: float, light: Light, behind: np.ndarray
    ) -> np.ndarray:
        """(V, 3) metres from a distance in metres and angles in radians before (512, 512, 3) sRGB levels -> uint8."""
        centre = torch.from_numpy(vertices[list(LANDMARKS)].mean(0)).float()
        camera = camera_front(centre, distance, PHOTO_SIZE * distance / FIELD, PHOTO_SIZE, yaw=yaw, pitch=pitch)
        shape = torch.from_numpy(vertices).float()[None]
        return over(picture_of_head(self.renderer, shape, self.maps, camera, light), behind)


def _warped_to_ours(mean: np.ndarray, model: MorphableModel) -> np.ndarray:
    """(V, 3) mean of ICT-FaceKit bent onto our mean head: thin plates through the landmarks, then the eyeballs."""
    try:
        from scipy.interpolate import RBFInterpolator
    except ImportError as error:
        raise MissingError(
            "package scipy", "not installed", "it, for ICT-FaceKit's faces", "pip install 'fitdiff[evaluate]'"
        ) from error
    theirs, ours = mean[list(LANDMARKS)], model.landmarks(model.mean[None])[0].numpy()[list(LANDMARK_68)]
    known = model.landmark_valid.numpy().astype(bool)[list(LANDMARK_68)]
    start = aligned_points(theirs[known], ours[known], scaled=True)
    bent = RBFInterpolator(start(theirs[known]), ours[known], kernel="thin_plate_spline", smoothing=1e-6)
    warped = bent(start(mean))
    parts = model.triangle_part.numpy()
    for eye, (begin, end) in EYEBALLS.items():
        own = model.mean.numpy()[np.unique(model.triangles.numpy()[parts == model.config.part_names.index(eye)])]
        ball = mean[begin:end]
        size = np.ptp(own, axis=0).mean() / np.ptp(ball, axis=0).mean()
        warped[begin:end] = (ball - _middle(ball)) * size + _middle(own)
    return warped


def _middle(points: np.ndarray) -> np.ndarray:
    return (points.min(0) + points.max(0)) / 2


def _points_of_ours(warped: np.ndarray, model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (V,) and barycentrics (V, 3) of our mean head nearest to warped vertices, part by part."""
    triangle, weights = np.zeros(len(warped), np.int64), np.zeros((len(warped), 3))
    parts, names = model.triangle_part.numpy(), model.config.part_names
    for part in PARTS:
        own = np.flatnonzero(parts == names.index(part))
        surface = Surface(model.mean.numpy(), model.triangles.numpy()[own])
        chosen = _member(part)
        _, found, weights[chosen] = surface.closest(warped[chosen])
        triangle[chosen] = own[found]
    return triangle, weights


def _member(part: str) -> np.ndarray:
    """(V,) bool: the vertices that are dressed as a part."""
    index = np.arange(VERTICES)
    return np.any([(index >= begin) & (index < end) for begin, end in PARTS[part]], axis=0)


def _dressed_triangles(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The triangles that are shown, and their part as an index into `PARTS`: that of all their corners, else skin."""
    part = np.full(VERTICES, -1)
    for number, name in enumerate(PARTS):
        part[_member(name)] = number
    corners = part[triangles]
    shown = (corners >= 0).all(1)
    same = (corners == corners[:, :1]).all(1)
    return triangles[shown], np.where(same, corners[:, 0], 0)[shown]
