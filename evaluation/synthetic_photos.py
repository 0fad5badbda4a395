"""The held-out faces of a folder that `fitdiff synthesize` wrote: their photos as crops, and the truth behind them.

Knows nothing of what is measured. The folder's format is in docs/training.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from ..errors import NoFaceError, UsageError
from ..runtime.face_chip import five_points_from_landmarks
from ..runtime.face_crop import FaceCrop, LandmarkNetwork, crop_face
from ..runtime.face_detector import FaceBox, FaceDetector
from ..runtime.photo import Photo, is_monochrome
from ..training.synthetic import FORMAT

STORED_POINTS = "no face was found; the stored landmarks are used"


class HeldOutFaces:
    """Faces that took no part in training, by their index in maps.npy, and the first photo of each."""

    def __init__(self, folder: Path) -> None:
        """Read the index; maps and photos are read as they are asked for.

        Raises:
            UsageError: the folder is not, or not wholly, one that `fitdiff synthesize` wrote.
        """
        self.folder = folder
        wanted = f"a whole folder of fitdiff synthesize, format {FORMAT}"
        remedy = "make it with fitdiff synthesize, or name another folder"
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if index["format"] != FORMAT:
                raise UsageError(f"data {folder}", f"format {index['format']!r}", wanted, remedy)
            self.indices = tuple(int(i) for i in index["held_out"])
            self._maps = np.load(folder / "maps.npy", mmap_mode="r")
            self._photos = np.load(folder / "photos.npy", mmap_mode="r")
            self._truth = load_file(folder / "faces.safetensors")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"data {folder}", f"{type(error).__name__}: {error}", wanted, remedy) from error
        shown = self._truth["map_index"]
        self._first_photo = {i: int(np.flatnonzero(shown == i)[0]) for i in self.indices if (shown == i).any()}
        self.indices = tuple(self._first_photo)
        if not self.indices:
            raise UsageError(f"data {folder}", "no held-out face with a photo", "at least one", remedy)

    def name(self, index: int) -> str:
        """A name for rows of results: the folder's and the face's index."""
        return f"{self.folder.resolve().name}/{index}"

    def maps(self, index: int) -> np.ndarray:
        """(9, 512, 512) float32 in [0, 1], as maps.npy stores them."""
        return np.asarray(self._maps[index], np.float32) / 255

    def shape(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Identity (158,) and expression (25,) coefficients of the first photo."""
        photo = self._first_photo[index]
        return self._truth["identity"][photo], self._truth["expression"][photo]

    def crop(self, index: int, detector: FaceDetector, landmark_network: LandmarkNetwork) -> FaceCrop:
        """The first photo as the product sees a user's; see `crop_of_picture`."""
        photo = self._first_photo[index]
        pixels = np.array(self._photos[photo])
        return crop_of_picture(pixels, self._truth["landmarks"][photo], detector, landmark_network)


def crop_of_picture(
    pixels: np.ndarray, landmarks: np.ndarray, detector: FaceDetector, landmark_network: LandmarkNetwork
) -> FaceCrop:
    """A picture that is framed like a crop, as a FaceCrop of the product's own detector and landmark network.

    Nothing is padded: the detector frames a tight picture by itself, and what lies beyond the picture is then known
    to be no photo. Where no face is found, the true landmarks take their place and a note says so.

    Args:
        pixels: (224, 224, 3) uint8 sRGB.
        landmarks: (468, 2) true landmarks, px.
    """
    photo = Photo(pixels, hashlib.sha256(pixels.tobytes()).hexdigest(), is_monochrome(pixels))
    try:
        return crop_face(photo, detector, landmark_network)
    except NoFaceError:
        return _crop_from_landmarks(photo, landmarks)


def _crop_from_landmarks(photo: Photo, landmarks: np.ndarray) -> FaceCrop:
    points = np.hstack([landmarks, np.zeros((len(landmarks), 1))]).astype(np.float32)
    five = five_points_from_landmarks(points)
    low, high = landmarks.min(0), landmarks.max(0)
    box = np.concatenate([low, high - low]).astype(np.float32)
    return FaceCrop(
        photo=photo.pixels,
        image=photo.pixels.astype(np.float32) / 255,
        crop_from_photo=np.eye(2, 3),
        landmarks=points,
        five_points=five,
        box=box,
        face_index=0,
        faces=(FaceBox(box, five, 0.0),),
        quarter_turns=0,
        photo_sha256=photo.sha256,
        is_monochrome=photo.is_monochrome,
        notes=(STORED_POINTS,),
    )
