"""Arithmetic on face vectors: cosines, their calibration by strangers, rank-1. Knows no recogniser and no photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors (D,)."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def impostor_mean(people: Sequence[np.ndarray]) -> float | None:
    """Mean cosine over all pairs of photos of different people; (n, D) vectors a person. None with fewer than two."""
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in people]
    pairs = [(a @ b.T).ravel() for index, a in enumerate(unit) for b in unit[:index]]
    return float(np.concatenate(pairs).mean()) if pairs else None


def calibrated(plain: float | None, impostors: float | None) -> float | None:
    """(cos - m) / (1 - m): 1 for the same picture, 0 for what strangers score on average, whatever the recogniser."""
    if plain is None or impostors is None:
        return None
    return (plain - impostors) / (1 - impostors)


def rank1(probes: np.ndarray, gallery: np.ndarray, own: Sequence[int]) -> float | None:
    """Share of probes (P, D) whose best match in the gallery (G, D) is entry `own[p]`.

    None without a probe, or with one person alone in the gallery: nothing is found where nothing can be missed.
    """
    if not len(probes) or len(gallery) < 2:
        return None
    probes, gallery = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (probes, gallery))
    return float(((probes @ gallery.T).argmax(1) == np.asarray(own)).mean())
