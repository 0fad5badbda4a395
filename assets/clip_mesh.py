"""Cut a triangle mesh along the zero level of a function on its vertices, keeping what moves with the vertices linear.

New vertices lie on edges: each is a fixed mix of two old ones, so bases and targets are cut by the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClippedMesh:
    """The part of a mesh where the level is positive.

    triangles: (F, 3) into the new vertices; corner_uv: (F, 3, 2); source: (F,) the old triangle of each new one;
    parents: (V, 2) old vertices and mix: (V,) weight of the second: new = old[first] * (1 - mix) + old[second] * mix.
    """

    triangles: np.ndarray
    corner_uv: np.ndarray
    source: np.ndarray
    parents: np.ndarray
    mix: np.ndarray

    def apply(self, old: np.ndarray) -> np.ndarray:
        """Carry per-vertex values (..., V_old, 3) over to the new vertices."""
        mix = self.mix[:, None].astype(old.dtype)
        return old[..., self.parents[:, 0], :] * (1 - mix) + old[..., self.parents[:, 1], :] * mix


def clip_mesh(triangles: np.ndarray, corner_uv: np.ndarray, level: np.ndarray) -> ClippedMesh:
    """Keep `level` > 0. triangles: (F, 3); corner_uv: (F, 3, 2); level: (V,), no vertex exactly at zero."""
    vertices: dict[tuple[int, int], int] = {}
    mixes: list[float] = []

    def vertex(first: int, second: int) -> int:
        key = (min(first, second), max(first, second))
        if key not in vertices:
            vertices[key] = len(vertices)
            low, high = level[key[0]], level[key[1]]
            mixes.append(0.0 if first == second else float(low / (low - high)))
        return vertices[key]

    faces, uvs, source = [], [], []
    for row, (triangle, uv) in enumerate(zip(triangles.tolist(), corner_uv, strict=True)):
        if all(level[v] <= 0 for v in triangle):
            continue
        polygon: list[tuple[int, np.ndarray]] = []
        for i in range(3):
            a, b, uv_a, uv_b = triangle[i], triangle[(i + 1) % 3], uv[i], uv[(i + 1) % 3]
            if level[a] > 0:
                polygon.append((vertex(a, a), uv_a))
            if (level[a] > 0) != (level[b] > 0):
                share = level[a] / (level[a] - level[b])
                polygon.append((vertex(a, b), uv_a + share * (uv_b - uv_a)))
        for i in range(1, len(polygon) - 1):
            fan = (polygon[0], polygon[i], polygon[i + 1])
            faces.append([v for v, _ in fan])
            uvs.append([w for _, w in fan])
            source.append(row)
    return ClippedMesh(
        np.array(faces), np.array(uvs), np.array(source), np.array(list(vertices)), np.array(mixes, np.float32)
    )
