"""One step of the modified butterfly scheme: every edge gets a vertex, every triangle becomes four.

The scheme (Zorin, Schroeder, Sweldens 1996) interpolates: old vertices stay where they are, and a new one is a fixed
mixture of its neighbours, whatever the shape. It knows nothing of heads and files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

MOST_NEIGHBOURS = 10  # a vertex with more is the hub of a fan, and no stencil smooths that
CREASE = {0: 9 / 16, 1: -1 / 16}  # four-point rule along an open edge


@dataclass(frozen=True, eq=False)
class Subdivision:
    """A mesh of V + E vertices over one with V vertices, E edges, F triangles.

    Attributes:
        mixtures: V + E dictionaries of weight by old vertex; each sums to 1.
        triangles: (4 F, 3) into the V + E vertices.
        corner_source: (4 F, 3, 2) old corners (3 x triangle + corner) in whose middle each corner lies.
    """

    mixtures: list[dict[int, float]]
    triangles: np.ndarray
    corner_source: np.ndarray


def subdivide(triangles: np.ndarray, vertex_count: int) -> Subdivision:
    """Subdivide triangles (F, 3); an edge of more than two triangles gets its plain middle."""
    faces_of_edge: dict[tuple[int, int], list[int]] = defaultdict(list)  # -> face
    for face, (a, b, c) in enumerate(triangles.tolist()):
        for start, end in ((a, b), (b, c), (c, a)):
            faces_of_edge[min(start, end), max(start, end)].append(face)
    mesh = _Neighbours(triangles, faces_of_edge)
    mixtures: list[dict[int, float]] = [{vertex: 1.0} for vertex in range(vertex_count)]
    middle: dict[tuple[int, int], int] = {}
    for edge, faces in sorted(faces_of_edge.items()):
        middle[edge] = len(mixtures)
        mixtures.append({edge[0]: 0.5, edge[1]: 0.5} if len(faces) > 2 else mesh.mixture(*edge))

    fine = np.empty((len(triangles), 4, 3), np.int64)
    source = np.empty((len(triangles), 4, 3, 2), np.int64)
    for face, (a, b, c) in enumerate(triangles.tolist()):
        ab, bc, ca = (middle[min(p, q), max(p, q)] for p, q in ((a, b), (b, c), (c, a)))
        i, j, k = 3 * face, 3 * face + 1, 3 * face + 2
        fine[face] = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
        at = {"a": (i, i), "b": (j, j), "c": (k, k), "ab": (i, j), "bc": (j, k), "ca": (k, i)}
        rows = (("a", "ab", "ca"), ("ab", "b", "bc"), ("ca", "bc", "c"), ("ab", "bc", "ca"))
        source[face] = [[at[name] for name in row] for row in rows]
    return Subdivision(mixtures, fine.reshape(-1, 3), source.reshape(-1, 3, 2))


class _Neighbours:
    def __init__(self, triangles: np.ndarray, faces_of_edge: dict[tuple[int, int], list[int]]) -> None:
        self._faces = faces_of_edge
        self._open: dict[int, list[int]] = defaultdict(list)  # neighbours along open edges
        for (a, b), faces in faces_of_edge.items():
            if len(faces) == 1:
                self._open[a].append(b)
                self._open[b].append(a)
        self._after: dict[int, dict[int, int]] = defaultdict(dict)  # vertex -> neighbour -> next one, counter-clockwise
        for a, b, c in triangles.tolist():
            self._after[a][b], self._after[b][c], self._after[c][a] = c, a, b

    def mixture(self, a: int, b: int) -> dict[int, float]:
        """Weights of the new vertex on the edge a-b."""
        if len(self._faces[min(a, b), max(a, b)]) == 1:
            return self._on_open_edge(a, b)
        ring_a, ring_b = self._ring(a, b), self._ring(b, a)
        if ring_a is None or ring_b is None or max(len(ring_a), len(ring_b)) > MOST_NEIGHBOURS:
            return {a: 0.5, b: 0.5}
        regular_a, regular_b = len(ring_a) == 6, len(ring_b) == 6
        if regular_a and regular_b:
            return self._regular(a, b, ring_a, ring_b)
        if regular_a:
            return self._extraordinary(b, ring_b)
        if regular_b:
            return self._extraordinary(a, ring_a)
        return _sum((0.5, self._extraordinary(a, ring_a)), (0.5, self._extraordinary(b, ring_b)))

    def _ring(self, vertex: int, first: int) -> list[int] | None:
        """Neighbours counter-clockwise from `first`; None where they do not close or are not a disc."""
        after, ring, current = self._after[vertex], [first], first
        while (following := after.get(current)) is not None and following != first:
            ring.append(following)
            current = following
            if len(ring) > len(after):
                return None
        return ring if following == first and len(ring) == len(after) else None

    def _on_open_edge(self, a: int, b: int) -> dict[int, float]:
        if len(self._open[a]) != 2 or len(self._open[b]) != 2:
            return {a: 0.5, b: 0.5}
        (before,) = [vertex for vertex in self._open[a] if vertex != b]
        (behind,) = [vertex for vertex in self._open[b] if vertex != a]
        return _sum((CREASE[0], {a: 1.0, b: 1.0}), (CREASE[1], {before: 1.0}), (CREASE[1], {behind: 1.0}))

    @staticmethod
    def _regular(a: int, b: int, ring_a: list[int], ring_b: list[int]) -> dict[int, float]:
        """The eight-point stencil: 1/2 the edge, 1/8 the two beside it, -1/16 the four beyond."""
        return _sum(
            (0.5, {a: 1.0, b: 1.0}),
            (1 / 8, {ring_a[1]: 1.0}), (1 / 8, {ring_a[5]: 1.0}),
            (-1 / 16, {ring_a[2]: 1.0}), (-1 / 16, {ring_a[4]: 1.0}),
            (-1 / 16, {ring_b[2]: 1.0}), (-1 / 16, {ring_b[4]: 1.0}),
        )  # fmt: skip

    @staticmethod
    def _extraordinary(centre: int, ring: list[int]) -> dict[int, float]:
        count = len(ring)
        if count == 3:
            weights = [5 / 12, -1 / 12, -1 / 12]
        elif count == 4:
            weights = [3 / 8, 0, -1 / 8, 0]
        else:
            turns = [2 * math.pi * i / count for i in range(count)]
            weights = [(0.25 + math.cos(turn) + 0.5 * math.cos(2 * turn)) / count for turn in turns]
        return _sum((1 - sum(weights), {centre: 1.0}), *((w, {v: 1.0}) for w, v in zip(weights, ring, strict=True)))


def _sum(*terms: tuple[float, dict[int, float]]) -> dict[int, float]:
    total: dict[int, float] = defaultdict(float)
    for factor, mixture in terms:
        for vertex, weight in mixture.items():
            total[vertex] += factor * weight
    return {vertex: weight for vertex, weight in total.items() if abs(weight) > 1e-9}
