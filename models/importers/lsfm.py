"""The Large Scale Facial Model as `menpo/lsfm` exports it: one MATLAB file.

Keys: components (3V, K) of unit length, eigenvalues (K), mean (3V), trilist (F, 3) from zero. Skin only, no
expressions. Any model of a studio's own scans can be written in this form.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import licences
from .mat_file import load_mat
from .source import SourceHead, unreadable

KEYS = ("components", "eigenvalues", "mean", "trilist")


def read_lsfm(path: Path) -> SourceHead:
    """Read the .mat file.

    Raises:
        MissingError: scipy is not installed.
        UsageError: it is no such file.
    """
    content = load_mat(path, "lsfm", KEYS)
    mean = content["mean"].astype(np.float64).reshape(-1)
    components, variance = content["components"], content["eigenvalues"].reshape(-1)
    if components.shape != (len(mean), len(variance)):  # some exports have a component a row
        components = components.T
    if mean.size % 3 or components.shape != (len(mean), len(variance)) or (variance < 0).any():
        got = f"mean {content['mean'].shape}, components {content['components'].shape}, {len(variance)} eigenvalues"
        raise unreadable(path, "lsfm", got, "mean (3V), components (3V, K), K eigenvalues of zero or more")
    triangles = content["trilist"].astype(np.int64).reshape(-1, 3)
    if triangles.min() == 1 and triangles.max() == mean.size // 3:
        triangles = triangles - 1
    scaled = components.T * np.sqrt(variance)[:, None]
    return SourceHead(
        name="lsfm",
        vertices=mean.reshape(-1, 3).astype(np.float32),
        triangles=triangles,
        region=np.zeros(len(triangles), np.uint8),
        identity=scaled.reshape(len(variance), -1, 3).astype(np.float32),
        expression=np.zeros((0, mean.size // 3, 3), np.float32),
        licence=licences.LSFM,
    )
