"""Where the faces of a photo are: YuNet, tried again at other scales when it finds nothing.

Boxes and points are in photo pixels. This file knows no landmarks beyond the detector's own five points.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from ..models.checkpoint import ModelCard, assets_dir, load_weights_file

SCORE_THRESHOLD = 0.6
OVERLAP_THRESHOLD = 0.3


@dataclass(frozen=True, eq=False)
class FaceBox:
    """A detected face, in photo px: `box` (4,) x, y, width, height; `five_points` (5, 2) in template order
    (see `face_chip`); `score` in [0, 1]."""

    box: np.ndarray
    five_points: np.ndarray
    score: float

    @property
    def area(self) -> float:
        return float(self.box[2] * self.box[3])

    @property
    def roll_degrees(self) -> float:
        """Clockwise in the image, 0 when the eyes are level and the right eye is on the image's left."""
        x, y = self.five_points[1] - self.five_points[0]
        return float(np.degrees(np.arctan2(y, x)))

    def __str__(self) -> str:
        x, y, width, height = (round(float(v)) for v in self.box)
        return f"{width} x {height} px at ({x}, {y})"


class Detector(Protocol):
    """What finds the faces of a photo."""

    card: ModelCard

    def detect(self, pixels: np.ndarray, quarter_turns: int = 0) -> list[FaceBox]:
        """(H, W, 3) uint8 sRGB, looked at after `quarter_turns` to the left -> the faces, largest first."""
        ...


@dataclass(frozen=True)
class Attempt:
    """One look at a photo: longest side in px, largest enlargement, border as a share of the longest side."""

    longest: int
    enlarge: float
    border: float


MAX_SIDE = 1280
GREY = (128, 128, 128)
ATTEMPTS = (
    Attempt(640, 1.0, 0.0),
    Attempt(MAX_SIDE, 3.0, 0.0),  # small faces
    Attempt(320, 1.0, 0.3),  # faces that fill the frame or touch it
)


class FaceDetector:
    """YuNet (Wu et al. 2023) through OpenCV. Not thread-safe: one detector a thread."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is the model's without its suffix, by default the embedded one's.

        Raises MissingError when the file is absent or not the one that its manifest describes.
        """
        model = load_weights_file(path or assets_dir() / "detector", ".onnx")
        self.card = model.card
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of a target nobody asked for
        try:
            graph, size = np.frombuffer(model.data, np.uint8), (MAX_SIDE, MAX_SIDE)
            self._yunet = cv2.FaceDetectorYN.create(
                "onnx", graph, np.zeros(0, np.uint8), size, SCORE_THRESHOLD, OVERLAP_THRESHOLD
            )
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, pixels: np.ndarray, quarter_turns: int = 0) -> list[FaceBox]:
        """(H, W, 3) uint8 sRGB -> the faces, largest first; an empty list when there are none.

        The photo is looked at after `quarter_turns` to the left; coordinates are those of the turned photo.
        YuNet also finds faces that stand on their heads, and then guesses their points as if upright.
        """
        reduced, ratio = _resized(pixels, min(1.0, MAX_SIDE / max(pixels.shape[:2])))
        turned = np.rot90(reduced, quarter_turns)
        ratio = ratio[::-1] if quarter_turns % 2 else ratio
        for attempt in ATTEMPTS:
            if faces := self._look(turned, attempt):
                faces = [FaceBox(f.box * np.tile(ratio, 2), f.five_points * ratio, f.score) for f in faces]
                return sorted(faces, key=lambda face: -face.area)
        return []

    def _look(self, pixels: np.ndarray, attempt: Attempt) -> list[FaceBox]:
        image, ratio = _resized(pixels, min(attempt.enlarge, attempt.longest / max(pixels.shape[:2])))
        border = round(attempt.border * max(image.shape))
        image = np.ascontiguousarray(image[..., ::-1])  # the network reads BGR
        if border:
            image = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT, value=GREY)
        self._yunet.setInputSize((image.shape[1], image.shape[0]))
        rows = self._yunet.detect(image)[1]  # (N, 15): box, five points, score
        faces = []
        for row in () if rows is None else rows:
            corner, extent, points = row[:2], row[2:4], row[4:14].reshape(5, 2)
            box = np.concatenate([(corner - border) * ratio, extent * ratio])
            faces.append(FaceBox(box, (points - border) * ratio, float(row[14])))
        return faces


def _resized(pixels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image at about `scale`, and the exact (2,) float32 ratio x, y that takes its pixels back."""
    height, width = pixels.shape[:2]
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    if size == (width, height):
        return pixels, np.ones(2, np.float32)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    ratio = np.array([width / size[0], height / size[1]], np.float32)
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=method), ratio
