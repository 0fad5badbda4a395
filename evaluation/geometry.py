"""How near an avatar's shape comes to the face: landmarks on photos, millimetres on faces whose shape is known.

Beside every figure stands what the mean head reaches on the same faces, so that one sees what the fit brings.
Knows nothing of reflectance maps or of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import FitDiffError, UsageError
from ..models.morphable import MorphableModel
from ..rendering.camera import project
from ..runtime.avatar import Avatar
from ..runtime.avatar_result import AvatarOptions, AvatarResult
from ..runtime.face_crop import CROP_SIZE, FaceCrop, crop_face
from ..runtime.guidance import FOCAL, crop_camera
from ..runtime.photo import Photo, load_photo
from ..runtime.pipeline import FitDiffPipeline
from ..runtime.pose import solve_pose
from .alignment import Surface, aligned_points, distances_to_surface, kd_tree
from .face_region import face_vertices
from .ict import IctStudio, load_ict
from .measured_once import MeasuredOnce
from .people import people_in
from .result import Evaluation
from .synthetic_photos import HeldOutFaces

MILLIMETRE = 0.001
ICT_FACES = 20  # where no limit is given
COLUMNS = ("mean", "90th percentile", "mean head: mean", "mean head: 90th percentile")
LANDMARKS = "photos: landmarks, % of eye distance"
RIGID = "synthetic: vertices, rigid, mm"
SIMILAR = "synthetic: vertices, similarity, mm"
ICT = "ICT-FaceKit: surface, similarity, mm"

Figures = dict[str, dict[str, list[float]]]
"""{row of the table: {"avatar" or "mean head": [mean, 90th percentile] or [one value of this face]}}."""


@dataclass(frozen=True, eq=False)
class ShapeFace:
    """A face to measure: where it belongs, how its photo is had, and what its avatar's figures are."""

    part: str
    name: str
    crop: Callable[[], FaceCrop]
    figures: Callable[[AvatarResult, FaceCrop], Figures]


def evaluate_geometry(
    pipeline: FitDiffPipeline,
    *,
    photos: Path | None,
    data: Path | None,
    ict: Path | None,
    limit: int | None,
    seed: int,
    rows: Path | None,
    say: Callable[[str], None],
) -> Evaluation:
    """Errors of guided avatars and of the mean head; each part is measured if its source is given.

    Millimetres are means over faces of each face's mean and 90th percentile, over points of the bare face; landmark
    errors are a photo's mean, and the percentile is over photos.

    Args:
        photos: a sub-folder a person, the first photo by name is taken: the distance from the surface's landmarks to
            the photo's, in per cent of the distance between the eyes' centres.
        data: a folder of `fitdiff synthesize`: from the avatar's vertices, with its expression, to the same vertices
            of the held-out face; after a rigid motion, and after a similarity, because one photo does not tell scale.
        ict: ICT-FaceKit's archive (see `ict.py`): from the vertices of its face to the avatar's surface, after
            iterated closest points with scale; the faces are drawn from the seed.
        limit: faces in each part; None for all, and for 20 of ICT-FaceKit's.
        seed: of the avatars' noise and of ICT-FaceKit's faces.
        rows: a file of finished faces, which is read and added to.
        say: told of every face.

    Raises:
        UsageError: no source is given, or one is not what it should be. MissingError: scipy is not installed.
    """
    faces = list(_faces(pipeline, photos, data, ict, limit, seed))
    kept = MeasuredOnce(rows, pipeline.cards, seed)
    values: dict[str, dict[str, list[list[float]]]] = {}
    notes = []
    for count, face in enumerate(faces, 1):
        try:
            row = kept.figures(face.part, face.name, lambda face=face: _measured(pipeline, face, seed))
        except FitDiffError as error:
            notes.append(f"{face.name}: {error}")
            continue
        notes += [f"{face.name}: {note}" for note in row["notes"]]
        for name, figures in row["errors"].items():
            for who, numbers in figures.items():
                values.setdefault(name, {}).setdefault(who, []).append(numbers)
        said = ", ".join(f"{name} {figures['avatar'][0]:.2f}" for name, figures in row["errors"].items())
        say(f"{count}/{len(faces)} {face.name}: {said}")
    return Evaluation(
        title="Shape of the face, against the photo or the truth",
        columns=COLUMNS,
        rows={name: (*_summary(found["avatar"]), *_summary(found["mean head"])) for name, found in values.items()},
        figures={
            "faces": {name: len(found["avatar"]) for name, found in values.items()},
            "seed": seed,
            "face_vertices": int(face_vertices(pipeline.morphable).sum()),
        },
        notes=tuple(notes),
    )


def vertex_errors(made: np.ndarray, true: np.ndarray, *, scaled: bool) -> list[float]:
    """Mean and 90th percentile, mm, of the distances between corresponding points (N, 3), metres.

    `made` is moved onto `true` first, and with `scaled` also scaled; never mirrored.
    """
    return _mean_and_percentile(np.linalg.norm(aligned_points(made, true, scaled=scaled)(made) - true, axis=1))


def mean_head_landmark_error(model: MorphableModel, crop: FaceCrop) -> float:
    """Mean distance of the mean head's landmarks to the photo's, in its best pose; share of the eye distance."""
    points = model.landmarks(model.mean[None])
    valid = model.landmark_valid.bool()
    pose = solve_pose(points[0].numpy(), crop.landmarks[:, :2], FOCAL, CROP_SIZE, model.landmark_valid.numpy())
    found = project(crop_camera(pose), points)[0, :, :2]
    distance = (found - torch.from_numpy(crop.landmarks[:, :2].copy()))[valid].norm(dim=1).mean()
    return float(distance) / float(np.linalg.norm(crop.five_points[1] - crop.five_points[0]))


def _faces(
    pipeline: FitDiffPipeline, photos: Path | None, data: Path | None, ict: Path | None, limit: int | None, seed: int
) -> Iterator[ShapeFace]:
    if photos is None and data is None and ict is None:
        raise UsageError(
            "evaluate geometry", "no faces", "photos, a data folder or ICT-FaceKit's file", "name at least one"
        )
    if photos:
        yield from _photographed(pipeline, photos, limit)
    if data:
        yield from _synthetic(pipeline, data, limit)
    if ict:
        yield from _ict(pipeline, ict, limit, seed)


def _photographed(pipeline: FitDiffPipeline, photos: Path, limit: int | None) -> Iterator[ShapeFace]:
    def crop(path: Path) -> FaceCrop:
        return crop_face(load_photo(path), pipeline.detector, pipeline.models.face_mesh)

    def figures(result: AvatarResult, crop: FaceCrop) -> Figures:
        assert result.report.landmark_error is not None
        mean_head = mean_head_landmark_error(pipeline.morphable, crop)
        return {LANDMARKS: {"avatar": [100 * result.report.landmark_error], "mean head": [100 * mean_head]}}

    for person in people_in(photos, limit):
        name = f"{photos.resolve().name}/{person.name}/{person.photos[0].name}"
        yield ShapeFace("landmarks", name, lambda path=person.photos[0]: crop(path), figures)


def _synthetic(pipeline: FitDiffPipeline, data: Path, limit: int | None) -> Iterator[ShapeFace]:
    model, held_out = pipeline.morphable, HeldOutFaces(data)
    face = face_vertices(model)
    mean = model.mean.numpy()[face]

    def figures(index: int, result: AvatarResult) -> Figures:
        identity, expression = (torch.from_numpy(values)[None] for values in held_out.shape(index))
        with torch.no_grad():
            true = model(identity, expression)[0].numpy()[face]
        made = _posed(result.avatar)[face]
        return {
            name: {who: vertex_errors(points, true, scaled=scaled)
                   for who, points in (("avatar", made), ("mean head", mean))}
            for name, scaled in ((RIGID, False), (SIMILAR, True))
        }  # fmt: skip

    for index in held_out.indices[:limit]:
        yield ShapeFace(
            "vertices",
            held_out.name(index),
            lambda index=index: held_out.crop(index, pipeline.detector, pipeline.models.face_mesh),
            lambda result, _, index=index: figures(index, result),
        )


def _ict(pipeline: FitDiffPipeline, path: Path, limit: int | None, seed: int) -> Iterator[ShapeFace]:
    kd_tree(np.zeros((1, 3)))  # a missing scipy is better known before the first avatar
    model, ict = pipeline.morphable, load_ict(path)
    with torch.no_grad():
        studio = IctStudio(ict, model, pipeline.atlas.compose(pipeline.models.autoencoder.chart_mean[None]))

    def crop(index: int) -> FaceCrop:
        rng = np.random.default_rng([seed, index])
        pixels = studio.photograph(ict.vertices(rng), rng)
        photo = Photo(pixels, sha256=f"ICT-FaceKit {seed} {index}", is_monochrome=False)
        return crop_face(photo, pipeline.detector, pipeline.models.face_mesh)

    def figures(index: int, result: AvatarResult) -> Figures:
        true = ict.vertices(np.random.default_rng([seed, index]))[studio.face]
        heads = {"avatar": _posed(result.avatar), "mean head": model.mean.numpy()}
        return {ICT: {who: surface_errors(vertices, true, studio, model) for who, vertices in heads.items()}}

    for index in range(limit or ICT_FACES):
        yield ShapeFace(
            "ict",
            f"{path.name}/{index}",
            lambda index=index: crop(index),
            lambda result, _, index=index: figures(index, result),
        )


def surface_errors(vertices: np.ndarray, true: np.ndarray, studio: IctStudio, model: MorphableModel) -> list[float]:
    """Mean and 90th percentile, mm of the true face, from its points `studio.face` to the skin of our head (V, 3)."""
    skin = (model.triangle_part == model.config.part_names.index("skin")).numpy()
    triangles = model.triangles.numpy()
    below = (vertices[triangles[studio.face_triangles]] * studio.face_barycentrics[..., None]).sum(1)
    start = aligned_points(below, true, scaled=True)
    return _mean_and_percentile(distances_to_surface(true, Surface(vertices, triangles[skin]), start))


def _measured(pipeline: FitDiffPipeline, face: ShapeFace, seed: int) -> dict[str, Any]:
    crop = face.crop()
    result = pipeline.avatar(crop, AvatarOptions(seed=seed))
    return {"errors": face.figures(result, crop), "notes": list(crop.notes)}


def _posed(avatar: Avatar) -> np.ndarray:
    """(V, 3) metres, with the photo's expression."""
    return avatar.vertices + avatar.expression_offset


def _mean_and_percentile(distances: np.ndarray) -> list[float]:
    """Metres -> mm."""
    return [float(distances.mean()) / MILLIMETRE, float(np.percentile(distances, 90)) / MILLIMETRE]


def _summary(values: list[list[float]]) -> tuple[float, float]:
    """Of faces with [mean, 90th percentile]: their means; of faces with one value: its mean and percentile."""
    table = np.array(values)
    if table.shape[1] == 1:
        return float(table.mean()), float(np.percentile(table, 90))
    mean, percentile = table.mean(0)
    return float(mean), float(percentile)
