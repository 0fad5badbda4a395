"""The Basel Face Model of 2009: `01_MorphableModel.mat`.

Keys: shapeMU (3V, 1), shapePC (3V, 199) of unit length, shapeEV (199, 1) standard deviations, tl (F, 3) from one and
clockwise. Micrometres; skin only, no expressions. The texture model is not read: ours is the reflectance prior.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import licences
from .mat_file import load_mat
from .source import SourceHead, unreadable

KEYS = ("shapeMU", "shapePC", "shapeEV", "tl")


def read_bfm2009(path: Path) -> SourceHead:
    """Read the .mat file.

    Raises:
        MissingError: scipy is not installed.
        UsageError: it is no such file.
    """
    content = load_mat(path, "bfm2009", KEYS)
    mean, deviation = content["shapeMU"].reshape(-1), content["shapeEV"].reshape(-1)
    components = content["shapePC"]
    if mean.size % 3 or components.shape != (mean.size, deviation.size) or content["tl"].shape[-1] != 3:
        got = ", ".join(f"{key} {content[key].shape}" for key in KEYS)
        raise unreadable(path, "bfm2009", got, "shapeMU (3V, 1), shapePC (3V, K), shapeEV (K, 1), tl (F, 3)")
    triangles = content["tl"].astype(np.int64)[:, ::-1] - 1
    return SourceHead(
        name="basel-face-model-2009",
        vertices=mean.reshape(-1, 3).astype(np.float32),
        triangles=np.ascontiguousarray(triangles),
        region=np.zeros(len(triangles), np.uint8),
        identity=(components.T * deviation[:, None]).reshape(deviation.size, -1, 3).astype(np.float32),
        expression=np.zeros((0, mean.size // 3, 3), np.float32),
        licence=licences.BASEL,
    )
