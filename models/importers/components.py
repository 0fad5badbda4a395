"""Bases of any size made into ours: so many components, each at one standard deviation, independent of each other.

Knows nothing of faces.
"""

from __future__ import annotations

import numpy as np


def fit_components(basis: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """(K, V, 3) components with coefficients N(0, 1) -> (count, V, 3) and the share of the variance that they keep.

    Fewer are padded with zeros. More are replaced by the principal components of what they span, which loses least.
    """
    if len(basis) <= count:
        padded = np.zeros((count, *basis.shape[1:]), np.float32)
        padded[: len(basis)] = basis
        return padded, 1.0
    return principal_mixtures(basis, np.eye(len(basis)), count)


def principal_mixtures(shapes: np.ndarray, moment: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Principal components of random mixtures of K shapes (K, V, 3), whose weights have the second moment (K, K).

    Not centred: a coefficient of zero is no mixture at all. Returns (count, V, 3), scaled to one standard deviation and
    padded with zeros, and the share of the energy that they keep.
    """
    rows = shapes.reshape(len(shapes), -1).astype(np.float64)
    root = _root(moment)  # weights = root @ white
    gram = root.T @ (rows @ rows.T) @ root
    energy, vectors = np.linalg.eigh(gram)
    order = np.argsort(energy)[::-1][:count]
    components = (root @ vectors[:, order]).T @ rows
    found = np.zeros((count, rows.shape[1]), np.float32)
    found[: len(components)] = components
    total = energy.clip(0).sum()
    kept = float(energy[order].clip(0).sum() / total) if total else 1.0
    return found.reshape(count, *shapes.shape[1:]), kept


def projected(shapes: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """(K, V, 3) shapes -> (K, count) coefficients of the basis (count, V, 3) that come nearest; 0 for empty ones."""
    size = basis[0].size
    rows, axes = (array.reshape(len(array), size).astype(np.float64) for array in (shapes, basis))
    gram = axes @ axes.T
    return (rows @ axes.T @ np.linalg.pinv(gram, rcond=1e-10, hermitian=True)).astype(np.float32)


def _root(moment: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(moment)
    return vectors * np.sqrt(values.clip(0))
