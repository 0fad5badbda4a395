"""The Basel Face Model of 2017 and 2019: HDF5 files such as `model2019_fullHead.h5`.

Datasets: shape/model/{mean (3V), pcaBasis (3V, 199), pcaVariance (199)}, expression/model/{the same, 100},
shape/representer/cells (3, F). Millimetres; skin only (the 2019 heads close at the lips). The colour model is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import licences
from .mat_file import missing_package, require_keys
from .source import SourceHead, unreadable

KEYS = tuple(f"{part}/model/{key}" for part in ("shape", "expression") for key in ("mean", "pcaBasis", "pcaVariance"))
CELLS = "shape/representer/cells"


def read_bfm2019(path: Path) -> SourceHead:
    """Read the .h5 file.

    Raises:
        MissingError: h5py is not installed.
        UsageError: it is no such file.
    """
    try:
        import h5py
    except ImportError as error:
        raise missing_package("h5py") from error
    try:
        with h5py.File(path, "r") as file:
            require_keys(path, "bfm2019", file, (*KEYS, CELLS))
            content: dict[str, Any] = {key: np.asarray(file[key]) for key in (*KEYS, CELLS)}
    except OSError as error:
        raise unreadable(path, "bfm2019", f"{error}", "an HDF5 file") from error
    mean = content["shape/model/mean"].reshape(-1).astype(np.float64)
    neutral = content["expression/model/mean"].reshape(-1)
    cells = content[CELLS].astype(np.int64)
    triangles = cells.T if cells.shape[0] == 3 else cells
    if mean.size % 3 or neutral.shape != mean.shape or triangles.shape[-1] != 3:
        got = f"means {mean.shape} and {neutral.shape}, cells {cells.shape}"
        raise unreadable(path, "bfm2019", got, "means (3V), cells (3, F)")
    return SourceHead(
        name=path.stem.lower(),
        # The mean expression is part of the neutral face: the coefficients are about it.
        vertices=(mean + neutral).reshape(-1, 3).astype(np.float32),
        triangles=np.ascontiguousarray(triangles),
        region=np.zeros(len(triangles), np.uint8),
        identity=_scaled(path, content, "shape", mean.size),
        expression=_scaled(path, content, "expression", mean.size),
        licence=licences.BASEL,
    )


def _scaled(path: Path, content: dict[str, Any], part: str, size: int) -> np.ndarray:
    """(K, V, 3) components at one standard deviation."""
    basis, variance = content[f"{part}/model/pcaBasis"], content[f"{part}/model/pcaVariance"].reshape(-1)
    if basis.shape != (size, variance.size) or (variance < 0).any():
        got = f"{part} basis {basis.shape}, {variance.size} variances"
        raise unreadable(path, "bfm2019", got, f"({size}, K) and K of zero or more")
    return (basis.T * np.sqrt(variance)[:, None]).reshape(variance.size, -1, 3).astype(np.float32)
