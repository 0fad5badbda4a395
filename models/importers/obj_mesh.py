"""Wavefront OBJ: vertices, and quads with their texture coordinates. Knows nothing of normals, groups or materials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .source import unreadable


@dataclass(frozen=True, eq=False)
class ObjMesh:
    """vertices (V, 3); uv (T, 2), v up; quads (Q, 4) and quad_uv (Q, 4) indices, a triangle with its last one twice."""

    vertices: np.ndarray
    uv: np.ndarray
    quads: np.ndarray
    quad_uv: np.ndarray


def read_obj(path: Path) -> ObjMesh:
    """Read a file whose faces have three or four corners.

    Raises:
        UsageError: the file cannot be read, or a face has another number of corners.
    """
    vertices, uv, quads, quad_uv = [], [], [], []
    try:
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append(rest.split()[:3])
            elif kind == "vt":
                uv.append(rest.split()[:2])
            elif kind == "f":
                corners = [corner.split("/") for corner in rest.split()]
                if len(corners) not in (3, 4):
                    raise ValueError(f"a face of {len(corners)} corners")
                corners += corners[-1:] * (4 - len(corners))
                quads.append([int(c[0]) for c in corners])
                quad_uv.append([int(c[1]) if len(c) > 1 and c[1] else 1 for c in corners])
        return ObjMesh(
            np.array(vertices, np.float64).reshape(-1, 3),
            np.array(uv or [[0, 0]], np.float64),
            np.array(quads, np.int64).reshape(-1, 4) - 1,
            np.array(quad_uv, np.int64).reshape(-1, 4) - 1,
        )
    except (OSError, ValueError) as error:
        raise unreadable(path, "ict", f"{error}", "a Wavefront OBJ file of triangles and quads") from error


def read_obj_vertices(path: Path) -> np.ndarray:
    """(V, 3) vertices of a file, and nothing else of it."""
    return read_obj(path).vertices
