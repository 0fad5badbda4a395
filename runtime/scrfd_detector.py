"""Where the faces of a photo are: InsightFace's SCRFD, from the user's own copy of a model pack.

The same interface as `face_detector.FaceDetector`. Source: Guo et al., "Sample and Computation Redistribution for
Efficient Face Detection" (2021); the weights are for non-commercial research, nothing of them is in this package.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import MissingError
from ..models.checkpoint import ModelCard
from .face_detector import FaceBox

LICENCE = "LicenseRef-InsightFace-non-commercial"
SCORE_THRESHOLD = 0.5
OVERLAP_THRESHOLD = 0.4
STRIDES = (8, 16, 32)
ANCHORS = 2  # at each place
OUTPUTS = 3 * len(STRIDES)  # scores of each stride, then boxes, then points
MEAN, SCALE = 127.5, 128.0
SIDES = (640, 192)  # the second look finds faces that fill the frame


class ScrfdDetector:
    """SCRFD through ONNX Runtime on the CPU; `det_10g.onnx` of buffalo_l, `scrfd_10g_bnkps.onnx` of antelopev2."""

    def __init__(self, path: Path) -> None:
        """Raises MissingError: no such file, no SCRFD with points, or `onnxruntime` is not installed."""
        try:
            import onnxruntime
        except ImportError as error:
            remedy = "pip install onnxruntime"
            raise MissingError("package onnxruntime", "not installed", f"it, to run {path}", remedy) from error
        thing = f"detector {path}"
        if not path.is_file():
            raise MissingError(thing, "no such file", "an ONNX file", "check the path")
        data = path.read_bytes()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no name of their own
            got = f"{type(error).__name__}: {str(error):.80}"
            raise MissingError(thing, got, "a whole ONNX file", "download it again") from error
        outputs = session.get_outputs()
        if len(outputs) != OUTPUTS:
            got, expected = f"{len(outputs)} outputs", f"{OUTPUTS}, those of an SCRFD with five points"
            raise MissingError(thing, got, expected, "give det_10g.onnx of buffalo_l")
        self._session, self._input = session, session.get_inputs()[0]
        side = self._input.shape[2]
        self._sides = (side,) if isinstance(side, int) else SIDES
        source = f"{path.name} of InsightFace's pack {path.parent.name}, from the user's own copy"
        sha256 = hashlib.sha256(data).hexdigest()
        self.card = ModelCard("detector", f"scrfd-{path.stem}", source, LICENCE, False, sha256)

    def detect(self, pixels: np.ndarray, quarter_turns: int = 0) -> list[FaceBox]:
        """(H, W, 3) uint8 sRGB -> the faces, largest first; an empty list when there are none.

        The photo is looked at after `quarter_turns` to the left; coordinates are those of the turned photo.
        """
        turned = np.ascontiguousarray(np.rot90(pixels, quarter_turns))
        for side in self._sides:
            if faces := self._look(turned, side):
                return sorted(faces, key=lambda face: -face.area)
        return []

    def _look(self, pixels: np.ndarray, side: int) -> list[FaceBox]:
        """The photo in the top left corner of a black square, as large as it goes."""
        height, width = pixels.shape[:2]
        scale = side / max(height, width)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        square = np.zeros((side, side, 3), np.uint8)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        square[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=method)
        given = ((square.astype(np.float32) - MEAN) / SCALE).transpose(2, 0, 1)[None]
        answers = [rows.reshape(-1, rows.shape[-1]) for rows in self._session.run(None, {self._input.name: given})]
        strided = zip(answers[:3], answers[3:6], answers[6:], STRIDES, strict=True)
        found = [_decoded(scores, boxes, points, stride, side) for scores, boxes, points, stride in strided]
        scores, boxes, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        return [
            FaceBox(np.concatenate([boxes[i, :2], boxes[i, 2:] - boxes[i, :2]]) * np.tile(ratio, 2),
                    points[i] * ratio, float(scores[i]))
            for i in _apart(scores, boxes)
        ]  # fmt: skip


def _decoded(
    scores: np.ndarray, boxes: np.ndarray, points: np.ndarray, stride: int, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One stride's answers (N, 1), (N, 4), (N, 10), in strides from their anchors -> those that count:
    scores (M,), corners (M, 4) px and points (M, 5, 2) px of the square."""
    cells = side // stride
    y, x = np.divmod(np.arange(cells * cells).repeat(ANCHORS), cells)
    anchors = np.stack([x, y], 1).astype(np.float32) * stride  # (N, 2)
    kept = scores[:, 0] >= SCORE_THRESHOLD
    at, reach = anchors[kept], boxes[kept] * stride  # left, top, right, bottom
    corners = np.concatenate([at - reach[:, :2], at + reach[:, 2:]], 1)
    return scores[kept, 0], corners, at[:, None] + points[kept].reshape(-1, 5, 2) * stride


def _apart(scores: np.ndarray, boxes: np.ndarray) -> list[int]:
    """Indices of the surest boxes (N, 4) of corners, none of which overlaps a surer one by much."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        low, high = np.maximum(boxes[kept, :2], boxes[index, :2]), np.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = (high - low).clip(0).prod(1)
        if (shared <= OVERLAP_THRESHOLD * (area[kept] + area[index] - shared)).all():
            kept.append(int(index))
    return kept
