"""An expression as weights of named blendshapes."""

from __future__ import annotations

import numpy as np


def blendshape_weights(
    offset: np.ndarray, blendshapes: np.ndarray, sweeps: int = 60, ridge: float = 1e-3
) -> np.ndarray:
    """Weights in [0, 1] whose blend comes nearest to an offset: least squares by projected coordinate descent.

    offset: (V, 3) metres; blendshapes: (K, V, 3) metres at full weight. `ridge` is relative to the mean energy of a
    shape and keeps two like shapes from being used against each other. Returns (K,) float32.
    """
    basis = blendshapes.reshape(len(blendshapes), -1).astype(np.float64)
    gram = basis @ basis.T
    gram += np.eye(len(gram)) * ridge * np.trace(gram) / len(gram)
    wanted = basis @ offset.reshape(-1)
    weights = np.zeros(len(gram))
    for _ in range(sweeps):
        for k in range(len(gram)):
            rest = wanted[k] - gram[k] @ weights + gram[k, k] * weights[k]
            weights[k] = np.clip(rest / gram[k, k], 0, 1)
    return weights.astype(np.float32)
