"""`fitdiff evaluate cleanliness`: are the maps the person's skin and nothing else?

(a) The diffuse albedo from two photos of one person, against that of two people: light, camera and expression that
    stayed in the maps make the first as large as the second.
(b) The change of the albedo when glasses, a fringe or a hand are pasted onto the photo.
(c) Synthetic faces under light that the photo did not have, against the same from their true maps.

What is compared how stands in `map_distance` and `relighting`. Knows nothing of the command line.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..assets.atlas_layout import FACE_BLOCK
from ..errors import ImageError, NoFaceError
from ..rendering.unwrap import chart_in_photo
from ..runtime.avatar import ReflectanceMaps
from ..runtime.avatar_result import AvatarOptions, AvatarResult
from ..runtime.face_crop import FaceCrop, crop_face
from ..runtime.photo import Photo, load_photo
from ..runtime.pipeline import FitDiffPipeline
from ..training.skins import face_weight
from .map_distance import (
    SIDE,
    Reduced,
    mean_ratio,
    occluder_change,
    pair_distances,
    reduced_albedo,
    reduced_weight,
)
from .occluders import OCCLUDERS, Occluder, toned_like
from .people import Person, people_in
from .relighting import FrontView, relighting_errors
from .result import Evaluation
from .rows import RowFile
from .synthetic_photos import STORED_POINTS, HeldOutFaces

RATIO_GOAL, CHANGE_GOAL, RELIGHTING_GOAL = 0.5, 0.05, 1.2
ALBEDO, OCCLUDER, RELIGHTING = "albedo of ", "with ", "relit"  # how the variants of rows begin
Row = dict[str, Any]


def evaluate_cleanliness(
    pipeline: FitDiffPipeline,
    photos: Path,
    *,
    data: Path | None,
    limit: int | None,
    seed: int,
    rows: Path | None,
    say: Callable[[str], None],
    occluded: int | None = None,
) -> Evaluation:
    """Measure all three parts, with full guidance.

    The value of (a) is the mean distance within people over the mean distance between people (`map_distance`), that
    of (b) the change of the albedo over the contrast of what was pasted, at the texels that it covers; that of (c)
    the mean over faces of the avatar's error over the mean of the reconstruction's (`relighting`), as they are and
    with the best gain given to both.

    Args:
        photos: a sub-folder for each person; the first two photos of each are used, occluders go on the first.
        data: a folder of `fitdiff synthesize`, whose held-out faces are relit; None leaves that part out.
        limit: how many people, and how many synthetic faces, at most.
        occluded: on the photos of how many of these people something is pasted; None for all of them.
        seed: of the sampling noise and of the occluders.
        rows: a file of finished pieces, read and added to; None keeps nothing. Its lines know the denoiser and the
            autoencoder by their hashes, but not the code of the guidance: start a new file when that changes.
        say: called with a line for people after every piece.

    Raises:
        UsageError: no person has two photos, or `data` is not a folder of `fitdiff synthesize`.
    """
    people = people_in(photos, limit, least=2)
    faces = HeldOutFaces(data) if data else None
    study = _Study(pipeline, seed, RowFile(rows), say)
    for number, person in enumerate(people):
        study.person(person, OCCLUDERS if occluded is None or number < occluded else {})
    if faces:
        study.synthetic(faces, limit)
    return _evaluation(study.rows, study.weight, seed)


@dataclass(frozen=True, eq=False)
class _Taken:
    crop: FaceCrop
    result: AvatarResult

    @property
    def albedo(self) -> np.ndarray:
        return self.result.avatar.face_maps.diffuse_albedo

    @property
    def photo_from_crop(self) -> np.ndarray:
        """(2, 3)."""
        return np.hstack([np.eye(2), -self.crop.crop_from_photo[:, 2:]]) / self.crop.crop_from_photo[0, 0]

    @property
    def landmarks(self) -> np.ndarray:
        """(468, 2) px of the photo as `crop.photo` holds it, upright."""
        transform = self.photo_from_crop
        return self.crop.landmarks[:, :2] @ transform[:, :2].T + transform[:, 2]


class _Study:
    """One run: what it makes avatars with, and the rows so far, new ones and those that the file had."""

    def __init__(self, pipeline: FitDiffPipeline, seed: int, file: RowFile, say: Callable[[str], None]) -> None:
        self.pipeline, self.seed, self.file, self.say = pipeline, seed, file, say
        self.rows: list[Row] = []
        self.weight = reduced_weight(face_weight(pipeline.morphable))
        models = {card.role: card.sha256 for card in pipeline.cards if card.role in ("denoiser", "autoencoder")}
        self._key = {"seed": seed, "models": models}

    def person(self, person: Person, occluders: Mapping[str, Occluder]) -> None:
        """Parts (a) and (b); an avatar is made when the first row asks for it, and serves the others."""
        made: dict[Path, _Taken | str] = {}

        def taken(path: Path) -> _Taken | str:
            if path not in made:
                made[path] = self._take(lambda: load_photo(path))
            return made[path]

        first, second = person.photos[:2]
        for path in (first, second):
            key = {"photo": path.name}
            self._row(person.name, ALBEDO + path.name, key, lambda path=path: _albedo_row(taken(path)))
        for name, draw in occluders.items():
            rng = np.random.default_rng([self.seed, zlib.crc32(f"{person.name} {name}".encode())])
            key = {"photo": first.name}
            self._row(
                person.name, OCCLUDER + name, key, lambda draw=draw, rng=rng: self._occluded(taken(first), draw, rng)
            )

    def synthetic(self, faces: HeldOutFaces, limit: int | None) -> None:
        """Part (c)."""
        view = FrontView(self.pipeline.renderer, self.pipeline.models.atlas, self.pipeline.morphable)
        for index in faces.indices[:limit]:
            self._row(faces.name(index), RELIGHTING, {}, lambda index=index: self._relit(view, faces, index))

    def _row(self, person: str, variant: str, key: Row, measure: Callable[[], Row]) -> None:
        key = self._key | key
        row = self.file.find(person, variant, key)
        if row is None:
            row = {"person": person, "variant": variant, "key": key, **measure()}
            self.file.add(row)
        self.rows.append(row)
        self.say(_told(row))

    def _take(self, photo: Callable[[], Photo]) -> _Taken | str:
        """The avatar of a photo, or why there is none."""
        try:
            crop = crop_face(photo(), self.pipeline.detector, self.pipeline.models.face_mesh)
        except (NoFaceError, ImageError) as error:
            return f"{error.thing}: {error.got}"
        return _Taken(crop, self.pipeline.avatar(crop, AvatarOptions(seed=self.seed)))

    def _occluded(self, clean: _Taken | str, draw: Occluder, rng: np.random.Generator) -> Row:
        """One occluder on one photo, which the product then sees as any other photo, from the detector on."""
        if isinstance(clean, str):
            return {"note": clean}
        crop, result, landmarks = clean.crop, clean.result, clean.landmarks
        assert result.camera is not None
        image = crop.photo.astype(np.float32) / 255
        painted, mask = draw(image, landmarks, rng)
        if crop.is_monochrome:
            painted = np.where(mask[..., None] > 0, toned_like(painted, image), image)
        pixels = (painted * 255 + 0.5).astype(np.uint8)
        covered = self._take(lambda: Photo(pixels, hashlib.sha256(pixels.tobytes()).hexdigest(), crop.is_monochrome))
        if isinstance(covered, str):
            return {"note": covered}
        away = np.abs(covered.landmarks.mean(0) - landmarks.mean(0))
        if covered.crop.quarter_turns or (away > np.ptp(landmarks, axis=0) / 2).any():
            return {"note": "another face is found"}
        place = chart_in_photo(self.pipeline.renderer, result.vertices, result.camera, FACE_BLOCK, SIDE)
        at = clean.photo_from_crop
        change = occluder_change(
            (clean.albedo, covered.albedo),
            (place.sampled(image, at), place.sampled(painted, at)),
            place.sampled(mask, at) * place.visible,
            self.weight,
        )
        if change is None:
            return {"note": "it covers nothing of the face, or looks like the skin"}
        return {
            "share": change.share, "rest_share": change.rest_share, "contrast": change.contrast,
            "texels": round(change.texels),
        }  # fmt: skip

    @torch.no_grad()
    def _relit(self, view: FrontView, faces: HeldOutFaces, index: int) -> Row:
        """Errors of the avatar's maps and of the reconstruction of the true maps."""
        crop = faces.crop(index, self.pipeline.detector, self.pipeline.models.face_mesh)
        result = self.pipeline.avatar(crop, AvatarOptions(seed=self.seed))
        true = torch.from_numpy(faces.maps(index))[None]
        autoencoder = self.pipeline.models.autoencoder
        found = {
            "avatar": tensor_from_maps(result.avatar.face_maps),
            "reconstruction": autoencoder.decode(autoencoder.encode(true)),
        }
        identity = torch.from_numpy(faces.shape(index)[0])[None]
        row: Row = {**relighting_errors(view, self.pipeline.morphable(identity), true, found)}
        return row | {"note": STORED_POINTS} if STORED_POINTS in crop.notes else row


def tensor_from_maps(maps: ReflectanceMaps) -> Tensor:
    """An avatar's face maps -> (1, 9, S, S) in [0, 1], as the autoencoder has them."""
    joined = np.concatenate([maps.diffuse_albedo, maps.specular_albedo, maps.normal * 0.5 + 0.5], -1)
    return torch.from_numpy(joined).permute(2, 0, 1)[None].contiguous()


def _albedo_row(taken: _Taken | str) -> Row:
    if isinstance(taken, str):
        return {"note": taken}
    return {"monochrome": taken.crop.is_monochrome, "albedo": _text_from_chart(reduced_albedo(taken.albedo))}


def _evaluation(rows: list[Row], weight: np.ndarray, seed: int) -> Evaluation:
    """The table of finished rows."""
    charts = [
        Reduced(row["person"], _chart_from_text(row["albedo"]), row["monochrome"]) for row in rows if "albedo" in row
    ]
    kinds = pair_distances(charts, weight)
    ratio, pairs = mean_ratio(kinds)
    table: dict[str, tuple[float | None, ...]] = {
        "(a) two photos of one person / two people": (ratio, RATIO_GOAL, pairs)
    }
    distances = {
        kind: {"within": _mean(pair.within), "within_pairs": len(pair.within), "between": _mean(pair.between),
               "between_pairs": len(pair.between), "ratio": pair.ratio}
        for kind, pair in kinds.items()
    }  # fmt: skip

    pasted = {}
    for name in OCCLUDERS:
        some = [row for row in rows if row["variant"] == OCCLUDER + name and "share" in row]
        pasted[name] = {
            "change": _mean([row["share"] for row in some]), "rest": _mean([row["rest_share"] for row in some]),
            "contrast": _mean([row["contrast"] for row in some]), "texels": _mean([row["texels"] for row in some]),
            "photos": len(some),
        }  # fmt: skip
        table[f"(b) {name}"] = (pasted[name]["change"], CHANGE_GOAL, len(some))
    seen = [values for values in pasted.values() if values["photos"]]
    count = sum(values["photos"] for values in seen)
    table["(b) mean"] = (_mean([values["change"] for values in seen]), CHANGE_GOAL, count)
    table["(b) mean, rest of the face"] = (_mean([values["rest"] for values in seen]), None, count)

    relit = [row for row in rows if row["variant"] == RELIGHTING]
    errors = {
        name: _mean([row[name] for row in relit])
        for name in ("avatar", "reconstruction", "avatar_best_gain", "reconstruction_best_gain")
    }
    for label, end, goal in (("", "", RELIGHTING_GOAL), (", best gain", "_best_gain", None)):
        above, below = errors[f"avatar{end}"], errors[f"reconstruction{end}"]
        value = above / below if above is not None and below else None
        table[f"(c) relighting{label}"] = (value, goal, len(relit))

    notes = [_told(row) for row in rows if "note" in row]
    if any(pair.within and pair.ratio is None for pair in kinds.values()):
        notes.append("(a) leaves out the pairs of a kind (colour, lightness) in which no two people can be compared")
    figures = {"seed": seed, "albedo_lab_distance": distances, "occluders": pasted, "relighting_rmse": errors}
    return Evaluation("Cleanliness of the maps", ("value", "goal", "count"), table, figures, tuple(notes))


def _told(row: Row) -> str:
    """One line about a row."""
    numbers = [f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float)]
    notes = [row["note"]] if "note" in row else []
    return f"{row['person']}, {row['variant']}: " + ", ".join(numbers + notes or ["done"])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _text_from_chart(chart: np.ndarray) -> str:
    """(S, S, 3) uint8 -> PNG as base64."""
    return base64.b64encode(cv2.imencode(".png", chart[..., ::-1])[1].tobytes()).decode("ascii")


def _chart_from_text(text: str) -> np.ndarray:
    chart = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    assert chart is not None
    return np.ascontiguousarray(chart[..., ::-1])
