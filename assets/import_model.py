"""`fitdiff import-model`: another morphable model, from the user's own copy, in our form.

Reads it (`models.importers`), finds unit, axes and face, brings its mean onto our mean head for texture coordinates and
landmark points, fits the sizes of its bases to our latent, and writes a checkpoint that stands in the place of
`morphable.safetensors`. Knows nothing of what is trained with it afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import UsageError
from ..evaluation.alignment import Similarity, aligned_points
from ..models.checkpoint import ModelCard, save_checkpoint
from ..models.importers import SourceHead, read_source
from ..models.importers.components import fit_components, principal_mixtures, projected
from ..models.importers.frame import UNITS, is_inside_out, unit_of
from ..models.importers.licences import Licence
from ..models.importers.source import REGION_PART
from ..models.landmark_indices import LEFT_EYE, RIGHT_EYE
from ..models.landmarks import FaceMesh, load_face_mesh
from ..models.morphable import MorphableConfig, MorphableModel, load_morphable
from ..models.topology import PART_NAMES
from ..rendering.head_atlas import load_head_atlas
from ..rendering.renderer import HeadMapsTensor
from .atlas_layout import ATLAS_SIZE, FACE_BLOCK
from .foreign_atlas import foreign_atlas_uv
from .foreign_landmarks import find_face
from .foreign_neck import cut_at_neck
from .foreign_registration import Registration, register
from .make_landmark_points import OPEN_JAW
from .makehuman_sampling import sample_expression_weights
from .surface_landmarks import Surface, SurfacePoints, closest_on_skin, surface_points

IDENTITY, EXPRESSION = 158, 25
EXPRESSIONS = 4000  # random expressions that the expression basis is made of, where there are blendshapes
EYES_UNIT = "eyes"
PUPILS = (0.05, 0.078)  # metres between the middles of the eyes: what people have
_PARTS = np.array([PART_NAMES.index(part) for part in REGION_PART.values()], np.uint8)


@dataclass(frozen=True)
class ImportOptions:
    """format: None guesses it; unit: one of `UNITS`, "eyes" (by the distance of the eyes) or None (by the head's size).

    name, licence, commercial, licence_text: instead of what the format's publisher says.
    """

    format: str | None = None
    unit: str | None = None
    name: str | None = None
    licence: str | None = None
    commercial: bool | None = None
    licence_text: str | None = None


@dataclass(frozen=True, eq=False)
class ImportReport:
    """What was found and done; lengths in metres. `lines` says it in words."""

    card: ModelCard
    format: str
    unit: str
    turned: bool
    inside_out: bool
    vertices: int
    triangles: int
    parts: tuple[str, ...]
    identity: tuple[int, float]  # components of the source, share of their variance kept
    expression: tuple[int, float]  # the same of expressions, of blendshapes where it has them
    blendshapes: int
    landmarks: int
    logit: float
    pupils: float
    registered: float  # median distance of the face's skin to our head after registration

    def lines(self) -> list[str]:
        """The report for people, a fact a line."""
        size = f"{self.vertices} vertices, {self.triangles} triangles: {', '.join(self.parts)}"
        frame = f"unit {self.unit}, eyes {self.pupils * 1000:.1f} mm apart"
        frame += ", axes turned to +Y up and +Z front" if self.turned else ""
        frame += ", triangles turned over" if self.inside_out else ""
        points = f"{self.landmarks} of 468 landmarks on the skin, face logit {self.logit:.1f}, "
        points += f"{self.registered * 1000:.2f} mm (median) from the embedded head after registration"
        return [
            f"{self.format}: {size}", frame, points,
            _kept("identity components", self.identity, IDENTITY),
            _kept("expressions", self.expression, EXPRESSION) + f"; {self.blendshapes} blendshapes",
            f"licence {self.card.licence}, commercial use: {'yes' if self.card.commercial else 'no'}",
        ]  # fmt: skip


def import_model(
    path: Path, out: Path, options: ImportOptions = ImportOptions(), progress: Callable[[str], None] = lambda text: None
) -> ImportReport:
    """Convert `path` and write `out` (with or without .safetensors), its manifest and its licence.

    Raises:
        MissingError: a package that the format, or the registration, needs is not installed; or no embedded models.
        UsageError: the file is not of its format, of no human size, or shows no face.
    """
    progress("read")
    source, format_name = read_source(path, options.format)
    model, network = load_morphable()[0], load_face_mesh()[0]
    atlas = load_head_atlas()[0]
    with torch.no_grad():
        maps = atlas.compose(atlas.neutral_face())
    unit = options.unit or unit_of(source.vertices)
    scale = UNITS[unit] if unit in UNITS else 0.25 / float(np.ptp(source.vertices, axis=0).max())
    metres = source.vertices * scale

    progress("find the face")
    inside_out = is_inside_out(metres, source.triangles)
    if inside_out:
        source = _turned_over(source)
    part = _PARTS[source.region]
    face = find_face(metres, source.triangles, part, maps, network)
    points = face.points.positions(metres @ face.turn.T, source.triangles)
    ours = model.landmarks(model.mean[None])[0].numpy()
    both = face.points.valid & model.landmark_valid.numpy()
    if unit == EYES_UNIT:
        factor = _pupils(ours) / _pupils(points)
        scale, points = scale * factor, points * factor
    upright = aligned_points(points[both], ours[both], scaled=False)
    rotation = upright.rotation @ face.turn
    placed = Similarity(scale, rotation, upright.translation)
    source = _placed(source, placed)
    points = upright(points)
    _check_pupils(points, unit)

    progress("bring it onto the embedded head")
    skin = source.triangles[source.region == 0]
    registration = register(source.vertices, skin, np.where(both[:, None], points, np.nan), ours, model)
    source, registration = cut_at_neck(source, registration)
    part = _PARTS[source.region]
    progress("texture coordinates")
    corner_uv = foreign_atlas_uv(source, source.vertices, registration.points, model)
    progress("landmarks")
    landmarks = _landmarks(source, part, corner_uv, registration, maps, model, network)

    progress("bases")
    tensors, kept = _tensors(source, part, corner_uv, landmarks)
    card = _card(source, path, format_name, options)
    config = MorphableConfig(PART_NAMES, tuple(source.blendshapes), FACE_BLOCK, ATLAS_SIZE)
    text = options.licence_text or source.licence.text
    card = save_checkpoint(out, tensors, asdict(config), card, text)
    on_face = registration.distance[np.unique(source.triangles[landmarks.triangle])]
    return ImportReport(
        card, format_name, unit, bool(not np.allclose(face.turn, np.eye(3))), inside_out, len(source.vertices),
        len(source.triangles), tuple(PART_NAMES[i] for i in np.unique(part)),
        (len(source.identity), kept[0]), (len(source.blendshapes) if kept[2] else len(source.expression), kept[1]),
        len(source.blendshapes), int(landmarks.valid.sum()), landmarks.logit, _pupils(points),
        float(np.nanmedian(on_face)),
    )  # fmt: skip


def _turned_over(source: SourceHead) -> SourceHead:
    uv = source.own_uv
    return replace(
        source,
        triangles=np.ascontiguousarray(source.triangles[:, ::-1]),
        own_uv=None if uv is None else np.ascontiguousarray(uv[:, ::-1]),
    )


def _placed(source: SourceHead, motion: Similarity) -> SourceHead:
    """The source in metres and in our frame; offsets are turned and scaled, not moved."""
    matrix = (motion.scale * motion.rotation).astype(np.float32)
    return replace(
        source,
        vertices=motion(source.vertices.astype(np.float64)).astype(np.float32),
        identity=source.identity @ matrix.T,
        expression=source.expression @ matrix.T,
        blendshapes={name: offsets @ matrix.T for name, offsets in source.blendshapes.items()},
    )


def _pupils(points: np.ndarray) -> float:
    """Distance between the middles of the eyes' contours among (468, 3) points."""
    return float(np.linalg.norm(points[list(LEFT_EYE)].mean(0) - points[list(RIGHT_EYE)].mean(0)))


def _check_pupils(points: np.ndarray, unit: str) -> None:
    found = _pupils(points)
    if not PUPILS[0] <= found <= PUPILS[1]:
        raise UsageError(
            "morphable model", f"eyes {found * 1000:.0f} mm apart in the unit {unit}",
            f"{PUPILS[0] * 1000:.0f} to {PUPILS[1] * 1000:.0f} mm", f"give another --unit, or --unit {EYES_UNIT}",
        )  # fmt: skip


def _landmarks(
    source: SourceHead,
    part: np.ndarray,
    corner_uv: np.ndarray,
    registration: Registration,
    maps: HeadMapsTensor,
    model: MorphableModel,
    network: FaceMesh,
) -> SurfacePoints:
    """Points on the dressed head; those that the network cannot see are carried over from our head."""
    triangles = torch.from_numpy(source.triangles)
    surface = Surface(triangles, torch.from_numpy(corner_uv), torch.from_numpy(part), PART_NAMES, maps)
    found = surface_points(network, surface, torch.from_numpy(source.vertices))
    if "jawOpen" in source.blendshapes:
        opened = torch.from_numpy(source.vertices + OPEN_JAW * source.blendshapes["jawOpen"])
        found = found.with_lips_of(surface_points(network, surface, opened))
    ours = model.landmarks(model.mean[None])[0].numpy()
    triangle, weights, _ = closest_on_skin(surface, registration.points.astype(np.float32), ours)
    carried = ~found.valid & model.landmark_valid.numpy()
    return replace(
        found,
        triangle=np.where(found.valid, found.triangle, triangle),
        barycentrics=np.where(found.valid[:, None], found.barycentrics, weights),
        valid=found.valid | carried,
    )


def _tensors(
    source: SourceHead, part: np.ndarray, corner_uv: np.ndarray, landmarks: SurfacePoints
) -> tuple[dict[str, torch.Tensor], tuple[float, float, bool]]:
    """The checkpoint's tensors, and what of the variance of identity and expressions they keep."""
    identity, identity_kept = fit_components(source.identity, IDENTITY)
    names = list(source.blendshapes)
    shapes = np.stack(list(source.blendshapes.values())) if names else np.zeros((0, len(source.vertices), 3))
    from_shapes = not len(source.expression) and "mouthSmileLeft" in names
    if from_shapes:
        weights = sample_expression_weights(names, EXPRESSIONS, seed=5).astype(np.float64)
        moment = weights.T @ weights / len(weights)
        expression, expression_kept = principal_mixtures(shapes, moment, EXPRESSION)
    else:
        expression, expression_kept = fit_components(source.expression, EXPRESSION)
    tensors = {
        "mean": torch.from_numpy(source.vertices).float(),
        "identity_basis": torch.from_numpy(identity).half(),
        "expression_basis": torch.from_numpy(expression).half(),
        "blendshapes": torch.from_numpy(shapes.astype(np.float32)).half(),
        "triangles": torch.from_numpy(source.triangles),
        "corner_uv": torch.from_numpy(corner_uv),
        "triangle_part": torch.from_numpy(part.astype(np.int64)),
        "expression_of_blendshapes": torch.from_numpy(projected(shapes, expression)),
        "attribute_regression": torch.zeros(IDENTITY + 1, 0),
        "landmark_triangles": torch.from_numpy(landmarks.triangle),
        "landmark_barycentrics": torch.from_numpy(landmarks.barycentrics).float(),
        "landmark_valid": torch.from_numpy(landmarks.valid),
    }
    return tensors, (identity_kept, expression_kept, from_shapes)


def _card(source: SourceHead, path: Path, format_name: str, options: ImportOptions) -> ModelCard:
    licence: Licence = source.licence
    file = path if path.is_file() else path / "generic_neutral_mesh.obj"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return ModelCard(
        role="morphable",
        name=options.name or source.name,
        source=f"imported from {path.name} ({format_name}, SHA-256 {digest[:16]})",
        licence=options.licence or licence.identifier,
        commercial=licence.commercial if options.commercial is None else options.commercial,
    )


def _kept(what: str, found: tuple[int, float], room: int) -> str:
    count, share = found
    if not count:
        return f"no {what}: their {room} components are zero"
    if count <= room and share == 1.0:
        return f"{count} {what}, all kept" + (f"; the other {room - count} components are zero" if count < room else "")
    return f"{count} {what} in {room} components, which keep {share:.2%} of the variance"
