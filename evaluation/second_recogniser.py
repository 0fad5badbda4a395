"""A second, independent face recogniser from an ONNX file of the user's, for measuring alone.

Guidance climbs on its own recogniser, so that one's verdict says little; this one has never seen the avatar before.
Knows nothing of avatars.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..errors import MissingError, UsageError
from ..runtime.face_chip import chip_transform

ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""The five points in a chip of 112 x 112 (InsightFace's `arcface_dst`)."""

# FaceNet's chips are MTCNN's boxes with a margin of 32 of 160 pixels (davidsandberg/facenet). Such a box is about 2.7
# eye distances high and its middle lies a quarter of an eye distance below the eyes, so that in a square chip of 160
# an eye distance is 128 / 2.7 = 47.4 px and the eye line lies at 80 - 12 = 68 px. The shape of the five points is that
# of ARCFACE, which was itself measured on MTCNN's points.
_EYES = ARCFACE[:2].mean(0)
FACENET = (ARCFACE - _EYES) * (128 / 2.7 / (ARCFACE[1, 0] - ARCFACE[0, 0])) + [80.0, 68.0]
"""The five points in a chip of 160 x 160."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a family of recognisers wants its chips: (value - offset) / scale of 8-bit values."""

    size: int  # px
    template: np.ndarray  # (5, 2) px in a chip of that size
    bgr: bool
    offset: float
    scale: float


ALIGNMENTS = {
    "arcface": Alignment(112, ARCFACE, True, 127.0, 128.0),
    "facenet": Alignment(160, FACENET, False, 127.5, 128.0),
}


class SecondRecogniser:
    """Callable: a picture and its five points -> a unit vector. `sha256` is of the file."""

    def __init__(self, path: Path, alignment: str = "arcface") -> None:
        """`alignment` names a row of ALIGNMENTS. The chip's side is the model's own where its input is of fixed size.

        Raises:
            MissingError: onnxruntime is not installed.
            UsageError: the file is no recogniser that takes one such chip, as (1, 3, S, S) or (1, S, S, 3).
        """
        if find_spec("onnxruntime") is None:
            raise MissingError("package onnxruntime", "not installed", "it, for the second recogniser",
                               "pip install 'fitdiff[evaluate]'")  # fmt: skip
        import onnxruntime

        self.alignment, self.name = ALIGNMENTS[alignment], alignment
        data = path.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise _unusable(path, f"a file that onnxruntime cannot load ({type(error).__name__})") from error
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape) if len(inputs) == 1 else []
        layout = _layout(shape)
        if layout is None:
            raise _unusable(path, f"inputs of shapes {[entry.shape for entry in inputs]}")
        self._input, (self._channels_last, side) = inputs[0].name, layout
        self.size = side or self.alignment.size
        self.template = self.alignment.template * (self.size / self.alignment.size)
        try:
            vector = self._vector(np.zeros((self.size, self.size, 3), np.float32))
        except Exception as error:
            raise _unusable(path, f"input shape {shape}, which takes no chip of {self.size} x {self.size}") from error
        if vector.ndim != 1 or len(vector) < 2:
            raise _unusable(path, f"input shape {shape} and an output of shape {vector.shape} a face")

    def __call__(self, image: np.ndarray, five_points: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32 sRGB in [0, 1] and its (5, 2) points, pixel centres at +0.5 -> unit vector (D,) float32."""
        vector = self._vector(self._chip(image, five_points))
        return vector / np.linalg.norm(vector)

    def _chip(self, image: np.ndarray, five_points: np.ndarray) -> np.ndarray:
        """(S, S, 3) sRGB in [0, 1], aligned."""
        transform = chip_transform(five_points, self.template)
        # warpAffine puts pixel centres at whole numbers.
        transform[:, 2] += transform[:, :2] @ [0.5, 0.5] - 0.5
        smooth = cv2.GaussianBlur(image, (0, 0), 0.6)  # the chip is smaller than the face in the crop
        return cv2.warpAffine(smooth, transform, (self.size, self.size), borderMode=cv2.BORDER_REPLICATE)

    def _vector(self, chip: np.ndarray) -> np.ndarray:
        batch = (chip[..., ::-1] if self.alignment.bgr else chip)[None] * 255 - self.alignment.offset
        batch = batch / self.alignment.scale
        batch = batch if self._channels_last else batch.transpose(0, 3, 1, 2)
        return self._session.run(None, {self._input: np.ascontiguousarray(batch, np.float32)})[0][0]


def _layout(shape: list[Any]) -> tuple[bool, int | None] | None:
    """Are the channels last, and the side where it is fixed; None for what is no picture. Names are free sizes."""
    if len(shape) != 4 or (isinstance(shape[0], int) and shape[0] != 1) or 3 not in (shape[1], shape[3]):
        return None
    channels_last = shape[1] != 3
    sides = {side for side in (shape[1:3] if channels_last else shape[2:]) if isinstance(side, int)}
    return (channels_last, sides.pop() if sides else None) if len(sides) < 2 else None


def _unusable(path: Path, got: str) -> UsageError:
    return UsageError(
        f"second recogniser {path}",
        got,
        "an ONNX face recogniser with one input (1, 3, S, S) or (1, S, S, 3) and a vector a face as its first output",
        "give another file, or leave --second-recogniser out",
    )
