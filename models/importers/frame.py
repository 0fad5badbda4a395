"""Units and axes of a foreign head: told by its size, and by which turn shows a face.

Ours are metres, +Y up, facing +Z, +X the character's left. Knows nothing of networks: whether a face is in sight is
judged by the caller.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from ...errors import UsageError

UNITS = {"um": 1e-6, "mm": 1e-3, "cm": 1e-2, "dm": 1e-1, "m": 1.0}
# Metres along the longest axis: from a bare face to a head with shoulders. Less than a factor of ten, so at most one
# unit fits.
SMALLEST, LARGEST = 0.13, 0.75


def unit_of(vertices: np.ndarray) -> str:
    """The unit in which (V, 3) vertices are of the size of a head.

    Raises:
        UsageError: in no unit.
    """
    extent = float(np.ptp(vertices, axis=0).max())
    for name, metres in UNITS.items():
        if SMALLEST <= extent * metres <= LARGEST:
            return name
    raise UsageError(
        "morphable model", f"a head {extent:.4g} units long", "one of human size in " + ", ".join(UNITS),
        "give the unit with --unit; 'eyes' scales it so that the eyes are as far apart as people's",
    )  # fmt: skip


def upright_turns() -> list[np.ndarray]:
    """The 24 rotations (3, 3) that bring axes onto axes, the identity first."""
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return sorted(found, key=lambda matrix: -float(np.trace(matrix)))


def is_inside_out(vertices: np.ndarray, triangles: np.ndarray) -> bool:
    """Whether the triangles of a head, or of a bare face, which bulges outwards too, are wound clockwise."""
    a, b, c = (vertices[triangles[:, i]].astype(np.float64) for i in range(3))
    area = np.cross(b - a, c - a)
    away = (a + b + c) / 3 - vertices[np.unique(triangles)].mean(0)
    return bool((area * away).sum() < 0)
