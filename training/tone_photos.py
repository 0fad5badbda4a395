"""Photographs of people whose skin's lightness somebody has told: from a list of labels to the recogniser's features.

A list is text with a photo or a folder of photos and an L* on each line, apart by a tab; # begins a comment. Photos are
cropped as those of users are; one that cannot be used is reported and left out. Knows nothing of the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from ..errors import FitDiffError, MissingError, UsageError
from ..models.linear_prior import pooled_inputs
from ..models.recogniser import Recogniser
from ..runtime.covered_views import covered_features
from ..runtime.face_chip import chip_transform
from ..runtime.face_crop import FaceCrop, LandmarkNetwork, crop_face
from ..runtime.face_detector import FaceDetector
from ..runtime.identity_views import IdentityViews
from ..runtime.photo import load_photo
from .calibrate_tone import FacesSeenTwice, ToneSamples, tone_from_lightness
from .diffusion_data import Augmentation
from .import_triplets import PHOTO_SUFFIXES

LIGHTNESS_RANGE = (15.0, 85.0)  # L* of human faces, with room
_PEOPLE = 4  # fewer cannot be left out in turn


@dataclass(frozen=True)
class LabelledPerson:
    """A line of the list: whose photos, and the L* of the face's albedo on average."""

    photos: tuple[Path, ...]
    lightness: float


def read_labels(labels: Path, photos: Path) -> list[LabelledPerson]:
    """The people in a list; names are below the folder `photos`.

    Raises:
        MissingError: no such list, photo or folder.
        UsageError: a line that is not a name, a tab and an L* of human skin; or fewer than four people.
    """
    if not labels.is_file():
        raise MissingError(f"labels {labels}", "no such file", "a photo or folder and an L* a line", "write one")
    people = []
    for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), 1):
        text = line.split("#")[0].strip()
        if text:
            people.append(_person(f"labels {labels}, line {number}", text, photos))
    if len(people) < _PEOPLE:
        remedy = "label more people"
        raise UsageError(f"labels {labels}", f"{len(people)} people", f"at least {_PEOPLE}", remedy)
    return people


def _person(thing: str, text: str, photos: Path) -> LabelledPerson:
    name, _, value = text.partition("\t")
    low, high = LIGHTNESS_RANGE
    try:
        lightness = float(value)
    except ValueError:
        lightness = -1.0
    if not low <= lightness <= high:
        raise UsageError(thing, repr(text), f"a name, a tab and an L* of {low:.0f} to {high:.0f}", "mend the line")
    path = photos / name
    files = [path] if path.is_file() else sorted(x for x in path.glob("*") if x.suffix.lower() in PHOTO_SUFFIXES)
    if not files:
        raise MissingError(thing, f"no photo at {path}", "a photo or a folder of photos", "mend the name")
    return LabelledPerson(tuple(files), lightness)


def tone_samples(
    people: list[LabelledPerson],
    detector: FaceDetector,
    landmark_network: LandmarkNetwork,
    recogniser: Recogniser,
    grid: int,
    versions: int = 4,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda photo: None,
) -> tuple[FacesSeenTwice, list[str]]:
    """Features of every photo in so many versions, the first as it is; and a sentence for each that was left out.

    Args:
        grid: see `pooled_inputs`.
        augmentation: what happens to versions after the first; every other one loses its colours besides.

    Raises:
        UsageError: photos of fewer than four people can be used.
    """
    left_out: list[str] = []
    inputs: list[tuple[torch.Tensor, torch.Tensor]] = []
    tones, persons = [], []
    for number, person in enumerate(people):
        for path in person.photos:
            progress(path.name)
            try:
                crop = crop_face(load_photo(path), detector, landmark_network)
            except FitDiffError as error:
                left_out.append(f"photo {path}: {error}")
                continue
            chance = np.random.default_rng([seed, len(inputs)])
            pictures = [_version(crop, version, augmentation, chance) for version in range(versions)]
            transform = chip_transform(crop.five_points, recogniser.chip_template)
            inputs.append(tone_inputs(np.stack(pictures), [crop.landmarks] * versions, transform, recogniser, grid))
            tones += [person.lightness] * versions
            persons += [number] * versions
    if len(set(persons)) < _PEOPLE:
        got = f"usable photos of {len(set(persons))} people"
        raise UsageError("labelled photos", got, f"at least {_PEOPLE}", "; ".join(left_out) or "label more people")
    tone, person = tone_from_lightness(torch.tensor(tones)), torch.tensor(persons)
    plain, covered = (ToneSamples(torch.cat(kind), tone, person) for kind in zip(*inputs, strict=True))
    return FacesSeenTwice(plain, covered), left_out


def _version(
    crop: FaceCrop, version: int, augmentation: Augmentation | None, chance: np.random.Generator
) -> np.ndarray:
    picture = crop.image
    if version and augmentation is not None:
        picture = augmentation(picture, crop.landmarks[:, :2], chance)
    if version and (crop.is_monochrome or version % 2):
        picture = cv2.cvtColor(cv2.cvtColor(np.float32(picture), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return picture


@torch.no_grad()
def tone_inputs(
    pictures: np.ndarray, landmarks: Sequence[np.ndarray], chip_from_crop: np.ndarray, recogniser: Recogniser, grid: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the pipeline asks the prior for the tone with, both (B, D): means of all views, as they are and covered.

    Args:
        pictures: (B, S, S, 3) float32 sRGB, crops; landmarks: of each (468, 2 or 3) px.
        chip_from_crop: (2, 3) or (B, 2, 3).
    """
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    transform = torch.from_numpy(chip_from_crop).float().expand(len(images), -1, -1)
    plain = IdentityViews(images, transform, recogniser).steady
    covered = covered_features(images, landmarks, transform, recogniser)
    return pooled_inputs(plain, grid), pooled_inputs(covered, grid)
