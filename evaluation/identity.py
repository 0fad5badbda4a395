"""Is the avatar the person? Similarity of rendering and photo for each way of making an avatar from it.

Every person's first photo, by name, becomes the avatar; a second one shows how alike two photos of the person are,
and is what the avatar has to find among everybody's. Two recognisers judge: the one that guides, and one that the
avatar has never met. Measures; knows nothing of how an avatar is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import FitDiffError, UsageError
from ..exporter.maps import pixels_from_unit
from ..exporter.sheet import Tile, sheet_from_rows
from ..rendering.camera import Camera
from ..rendering.renderer import HeadMapsTensor, HeadRenderer
from ..rendering.shader import Light, luminance, srgb_from_linear
from ..runtime.avatar_result import AvatarOptions
from ..runtime.face_chip import chip_transform, warp_chip
from ..runtime.face_crop import CROP_SIZE, FaceCrop, crop_face
from ..runtime.guidance import GUIDANCE_PRESETS
from ..runtime.photo import load_photo
from ..runtime.photo_target import photo_target
from ..runtime.pipeline import FitDiffPipeline
from .direct_fitting import DirectFittingConfig, fit_directly
from .identity_table import RECOGNISERS, Verdict, identity_table
from .people import Person, people_in
from .result import Evaluation
from .rows import RowFile
from .second_recogniser import SecondRecogniser
from .similarity import cosine

VARIANTS: dict[str, AvatarOptions | DirectFittingConfig] = {
    "last layer only": AvatarOptions(guidance="none", condition="last"),
    "all layers": AvatarOptions(guidance="none"),
    "classifier-free w = 2": AvatarOptions(guidance="none", cfg=2.0),
    "classifier-free w = 9": AvatarOptions(guidance="none", cfg=9.0),
    "guidance": AvatarOptions(guidance="full"),
    "free texture, 150 Adam steps": DirectFittingConfig(steps=150),
}
DECIMALS = 6  # of the vectors in a row file
SHEET_TILE = 260  # px a column
SHEET_PEOPLE = 100  # a JPEG file ends at 65,535 pixels


@dataclass(frozen=True, eq=False)
class Faces:
    """A person's first photo and, if there is one with a face, the second."""

    name: str
    crops: tuple[FaceCrop, ...]
    vectors: dict[str, np.ndarray]  # by recogniser: (1 or 2, D)


@dataclass(frozen=True, eq=False)
class _Made:
    """A finished head as pictures are made of it."""

    vertices: Tensor
    head_maps: HeadMapsTensor
    camera: Camera
    light: Light
    albedo: np.ndarray  # (S, S, 3) sRGB in [0, 1]
    landmark_error: float
    seconds: float


@dataclass(eq=False)
class _Study:
    """The judges of one run, and the pictures for its sheet."""

    pipeline: FitDiffPipeline
    second: SecondRecogniser | None
    tiles: dict[str, dict[str, Tile]] | None = None  # by person and variant, if they are wanted

    def vectors(self, image: np.ndarray, five_points: np.ndarray) -> dict[str, np.ndarray]:
        """(224, 224, 3) sRGB in [0, 1] -> a vector (D,) by each recogniser."""
        recogniser = self.pipeline.models.recogniser
        transform = torch.from_numpy(chip_transform(five_points, recogniser.chip_template)).float()[None]
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
        with torch.no_grad():
            embedding = recogniser(warp_chip(tensor, transform, recogniser.chip_size)).embedding[0]
        found = {"guiding": embedding.numpy()}
        return found | {"second": self.second(image, five_points)} if self.second else found

    def faces(self, person: Person, note: Callable[[str], None]) -> Faces | None:
        """None without a face in the first photo; a second photo without one is left out."""
        crops: list[FaceCrop] = []
        for path in person.photos[:2]:
            try:
                crops.append(crop_face(load_photo(path), self.pipeline.detector, self.pipeline.models.face_mesh))
            except FitDiffError as error:
                note(f"{person.name}/{path.name}: {error}")
                if not crops:
                    return None
        seen = [self.vectors(crop.image, crop.five_points) for crop in crops]
        return Faces(person.name, tuple(crops), {name: np.stack([v[name] for v in seen]) for name in seen[0]})

    def key(self, faces: Faces, options: AvatarOptions | DirectFittingConfig) -> dict[str, Any]:
        """All that a row depends on but the second recogniser."""
        used: dict[str, Any] = asdict(options)
        if isinstance(options, AvatarOptions):
            preset = GUIDANCE_PRESETS[options.guidance]
            used["guidance"] = asdict(preset) if preset else None
        models = {card.role: card.sha256 for card in self.pipeline.cards}
        photo = {"photo": faces.crops[0].photo_sha256, "in_one_tone": faces.crops[0].is_monochrome}
        return photo | {"models": models, "options": used}

    def has_judged(self, row: dict[str, Any]) -> bool:
        """Did the second recogniser at hand, if there is one, see this row's rendering?"""
        return self.second is None or row["second_recogniser"] == self._second_name()

    def recorded(self, row: dict[str, Any]) -> Verdict:
        """The verdict in a row."""
        names = [name for name in RECOGNISERS if name == "guiding" or self.second]
        return Verdict({name: np.array(row[name]) for name in names}, row["landmark_error"], row["seconds"])

    def row(self, faces: Faces, variant: str, key: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
        """The line that `recorded` reads back."""
        vectors = {name: vector.astype(float).round(DECIMALS).tolist() for name, vector in verdict.vectors.items()}
        return {
            "person": faces.name, "variant": variant, "landmark_error": verdict.landmark_error,
            "seconds": verdict.seconds, "second_recogniser": self._second_name(), "key": key, **vectors,
        }  # fmt: skip

    def measure(self, faces: Faces, variant: str, options: AvatarOptions | DirectFittingConfig) -> Verdict:
        """Make the avatar and look at it in the photo's camera, and in grey if that photo is."""
        crop = faces.crops[0]
        made = _make(self.pipeline, crop, options)
        image = picture_before_background(
            self.pipeline.renderer, made.vertices, made.head_maps, made.camera, made.light, crop.image.mean((0, 1))
        )
        if self.tiles is not None:
            tiles = self.tiles.setdefault(faces.name, {"photo": Tile(pixels_from_unit(crop.image), faces.name)})
            albedo = cv2.resize(made.albedo, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
            tiles[variant] = Tile(pixels_from_unit(np.concatenate([image, albedo])), variant)
        judged = in_one_tone(image) if crop.is_monochrome else image
        return Verdict(self.vectors(judged, crop.five_points), made.landmark_error, made.seconds)

    def _second_name(self) -> str | None:
        return f"{self.second.name} {self.second.sha256}" if self.second else None


def evaluate_identity(
    pipeline: FitDiffPipeline,
    photos: Path,
    *,
    second: SecondRecogniser | None = None,
    limit: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    only: Sequence[str] = (),
    shard: tuple[int, int] = (0, 1),
    rows: Path | None = None,
    sheet: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure the variants on a folder of photos, a sub-folder a person.

    Args:
        second: an independent recogniser; without it its columns stay empty.
        limit: how many people, by name.
        steps: of every variant, for a quick look; None leaves each its own.
        only: names of VARIANTS; none means all of them.
        shard: (i, n) takes every n-th person from the i-th on; the table is of these.
        rows: a file of finished rows, which are not measured again, to go on with. It holds face vectors.
        sheet: a JPEG file of all that was rendered in this run, a row a person.
        say: told of every measurement and of every photo without a face.

    Raises:
        UsageError: no people, an unknown variant, an impossible shard, or nobody with a face.
    """
    variants = _chosen(only, seed, steps)
    index, count = shard
    if not 0 <= index < count:
        raise UsageError("shard", f"{index}/{count}", "i/n with 0 <= i < n", "number the shards from 0")
    study, done = _Study(pipeline, second, {} if sheet else None), RowFile(rows)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        say(text)

    found = [study.faces(person, note) for person in people_in(photos, limit)[index::count]]
    people = [faces for faces in found if faces is not None]
    if not people:
        raise UsageError(f"photos {photos}", "nobody with a face in the first photo", "at least one person",
                         "use other photos or another shard")  # fmt: skip
    verdicts: dict[str, dict[str, Verdict]] = {variant: {} for variant in variants}
    for faces in people:
        for variant, options in variants.items():
            key = study.key(faces, options)
            row = done.find(faces.name, variant, key)
            if row is None or not study.has_judged(row):
                row = study.row(faces, variant, key, study.measure(faces, variant, options))
                done.add(row)
                own = cosine(np.array(row["guiding"]), faces.vectors["guiding"][0])
                say(f"{faces.name}: {variant}: guiding cosine {own:.3f}, {row['seconds']:.1f} s")
            # From the row also when it is new, so that a run that goes on prints the very same table.
            verdicts[variant][faces.name] = study.recorded(row)
        if sheet and study.tiles:
            _write_sheet(sheet, study.tiles, list(variants))
    table = identity_table({faces.name: faces.vectors for faces in people}, verdicts)
    settings = {"seed": seed, "steps": steps, "shard": f"{index}/{count}",
                "second_recogniser": {"alignment": second.name, "sha256": second.sha256} if second else None,
                "models": {card.role: card.sha256 for card in pipeline.cards}}  # fmt: skip
    return replace(table, figures=table.figures | settings, notes=tuple(notes))


@torch.no_grad()
def picture_before_background(
    renderer: HeadRenderer, vertices: Tensor, maps: HeadMapsTensor, camera: Camera, light: Light,
    background: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """A head before a flat sRGB background (3,), the size of the camera: (H, W, 3) float32 sRGB in [0, 1]."""
    rendering = renderer.render(vertices, maps, camera, light)
    color = srgb_from_linear(rendering.color[0]).clamp(0, 1).permute(1, 2, 0).numpy()
    alpha = rendering.alpha[0, 0].numpy()[..., None]
    return (alpha * color + (1 - alpha) * background).astype(np.float32)


def in_one_tone(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) sRGB -> the same in grey, as guidance compares it with a monochrome photo, which shows no colour."""
    return luminance(torch.from_numpy(image).permute(2, 0, 1)[None])[0, 0, ..., None].expand(-1, -1, 3).numpy().copy()


def _chosen(only: Sequence[str], seed: int, steps: int | None) -> dict[str, AvatarOptions | DirectFittingConfig]:
    unknown = [name for name in only if name not in VARIANTS]
    if unknown:
        raise UsageError("variant", unknown[0], " or ".join(VARIANTS), "choose one of these")
    chosen: dict[str, AvatarOptions | DirectFittingConfig] = {}
    for name, options in VARIANTS.items():
        if only and name not in only:
            continue
        options = replace(options, seed=seed) if isinstance(options, AvatarOptions) else options
        chosen[name] = replace(options, steps=steps) if steps else options
    return chosen


def _make(pipeline: FitDiffPipeline, crop: FaceCrop, options: AvatarOptions | DirectFittingConfig) -> _Made:
    if isinstance(options, DirectFittingConfig):
        target = photo_target(crop, pipeline.models)
        fit = fit_directly(pipeline.models, pipeline.denoiser.statistics, target, options)
        albedo = fit.maps[0, :3].permute(1, 2, 0).numpy()
        return _Made(fit.vertices, fit.head_maps, fit.camera, fit.light, albedo, fit.landmark_error, fit.seconds)
    result = pipeline.avatar(crop, options)
    camera, error = result.camera, result.report.landmark_error
    assert camera is not None and error is not None  # there is a photo
    albedo = result.avatar.face_maps.diffuse_albedo
    return _Made(result.vertices, result.head_maps, camera, result.light, albedo, error, result.report.seconds)


def _write_sheet(file: Path, tiles: dict[str, dict[str, Tile]], variants: Sequence[str]) -> None:
    """Photo, then rendering above diffuse albedo for each variant; grey where a row file had it already."""
    blank = np.full((2 * CROP_SIZE, CROP_SIZE, 3), 128, np.uint8)
    rows = [
        [row["photo"], *(row.get(variant, Tile(blank, f"{variant} (from the rows)")) for variant in variants)]
        for row in list(tiles.values())[:SHEET_PEOPLE]
    ]
    pixels = sheet_from_rows(rows, width=SHEET_TILE * (len(variants) + 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes())
