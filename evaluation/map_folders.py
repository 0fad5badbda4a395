"""Ground-truth reflectance maps in the face chart, a sub-folder a face, such as a studio's scans.

Each sub-folder has diffuse.png (sRGB-encoded), specular.png (F0 / 0.08, linear), normal.png (tangent space, +Y up,
(n + 1) / 2), of 8 or 16 bits, and may have photo.jpg. Knows nothing of what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from ..errors import UsageError
from ..rendering.shader import linear_from_srgb, srgb_from_linear

NAMES = ("diffuse", "specular", "normal")


@dataclass(frozen=True)
class MapFolder:
    """One face: its folder, and its photo if there is one."""

    folder: Path
    photo: Path | None

    @property
    def name(self) -> str:
        """A name for rows of results: the face's folder in its own."""
        return f"{self.folder.resolve().parent.name}/{self.folder.name}"

    def maps(self, size: int) -> np.ndarray:
        """(9, size, size) float32 in [0, 1]: diffuse albedo, specular albedo, normal, resized where need be.

        Raises:
            UsageError: a picture cannot be read.
        """
        diffuse, specular, normal = (_picture(self.folder / f"{name}.png") for name in NAMES)
        diffuse = srgb_from_linear(torch.from_numpy(_resized(_linear(diffuse), size))).clamp(0, 1).numpy()
        vectors = _resized(normal * 2 - 1, size)
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
        stacked = np.concatenate([diffuse, _resized(specular, size), vectors * 0.5 + 0.5], -1)
        return np.ascontiguousarray(stacked.transpose(2, 0, 1), dtype=np.float32)


def map_folders_in(folder: Path) -> tuple[MapFolder, ...]:
    """The faces of a folder, by name.

    Raises:
        UsageError: there are none, or one lacks a map.
    """
    wanted = "a sub-folder a face with diffuse.png, specular.png and normal.png, or a folder of fitdiff synthesize"
    places = sorted(p for p in folder.iterdir() if p.is_dir())
    places = [p for p in places if any((p / f"{name}.png").is_file() for name in NAMES)]
    if not places:
        raise UsageError(f"data {folder}", "neither maps nor index.json", wanted, "lay the maps out like that")
    for place in places:
        if absent := [f"{name}.png" for name in NAMES if not (place / f"{name}.png").is_file()]:
            raise UsageError(f"data {place}", f"no {', '.join(absent)}", wanted, "add it, or take the folder away")
    return tuple(MapFolder(p, p / "photo.jpg" if (p / "photo.jpg").is_file() else None) for p in places)


def _picture(path: Path) -> np.ndarray:
    """(H, W, 3) float32 RGB in [0, 1]; grey is repeated, alpha left out."""
    data = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        got = "no picture" if pixels is None else f"{pixels.dtype} values"
        raise UsageError(f"map {path}", got, "a PNG of 8 or 16 bits a channel", "save it again as PNG")
    values = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    if values.ndim == 2 or values.shape[2] < 3:
        grey = values if values.ndim == 2 else values[..., 0]
        return np.repeat(grey[..., None], 3, 2)
    return np.ascontiguousarray(values[..., 2::-1])


def _linear(encoded: np.ndarray) -> np.ndarray:
    return linear_from_srgb(torch.from_numpy(encoded)).numpy()


def _resized(values: np.ndarray, size: int) -> np.ndarray:
    if values.shape[:2] == (size, size):
        return values
    method = cv2.INTER_AREA if min(values.shape[:2]) > size else cv2.INTER_LINEAR
    return cv2.resize(values, (size, size), interpolation=method)
