"""What every reader makes of a file: a linear head model in the file's own units and axes.

Plain numpy. Knows nothing of files, of our UV atlas or of landmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import UsageError
from .licences import Licence

REGION_PART = {
    "skin": "skin", "socket_left": "skin", "socket_right": "skin", "mouth": "mouth", "gums": "mouth",
    "eye_left": "eye_left", "eye_right": "eye_right", "teeth": "teeth", "tongue": "tongue", "lashes": "lashes",
}  # fmt: skip
"""Region of a source -> part of our topology (`models.topology.PART_NAMES`)."""
REGIONS = tuple(REGION_PART)


@dataclass(frozen=True, eq=False)
class SourceHead:
    """A morphable model as a file has it: V vertices, F triangles.

    Attributes:
        name: for the model card.
        vertices: (V, 3) float32, the mean, in the file's units and axes.
        triangles: (F, 3) int64.
        region: (F,) uint8, index into `REGIONS`. Left and right are the character's.
        identity: (K, V, 3) float32, each component at one standard deviation.
        expression: (E, V, 3) float32, the same, or (0, V, 3) where the file has none or has blendshapes instead.
        blendshapes: name in the spelling of ARKit -> (V, 3) float32 offsets at full weight.
        licence: that of the file's publisher, unless the user says otherwise.
        own_uv: (F, 3, 2) float32, v up, where the file has texture coordinates; each region in a range of its own.

    Raises:
        UsageError: an array has another shape, is not finite, or an index points outside.
    """

    name: str
    vertices: np.ndarray
    triangles: np.ndarray
    region: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    licence: Licence
    blendshapes: Mapping[str, np.ndarray] = field(default_factory=dict)
    own_uv: np.ndarray | None = None

    def __post_init__(self) -> None:
        count, faces = len(self.vertices), len(self.triangles)
        shapes = {
            "vertices": (self.vertices, (count, 3)),
            "triangles": (self.triangles, (faces, 3)),
            "region": (self.region, (faces,)),
            "identity": (self.identity, (len(self.identity), count, 3)),
            "expression": (self.expression, (len(self.expression), count, 3)),
        }
        shapes |= {f"blendshape {name}": (offsets, (count, 3)) for name, offsets in self.blendshapes.items()}
        if self.own_uv is not None:
            shapes["own_uv"] = (self.own_uv, (faces, 3, 2))
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise _unusable(self.name, f"{name} {array.shape}", f"{shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise _unusable(self.name, f"{name} with NaN or infinity", "finite numbers")
        if not faces or not len(self.identity):
            raise _unusable(self.name, f"{faces} triangles, {len(self.identity)} identity components", "some of each")
        low, high = int(self.triangles.min()), int(self.triangles.max())
        if low < 0 or high >= count:
            raise _unusable(self.name, f"triangles over vertices {low} to {high}", f"0 to {count - 1}")

    def members(self, *regions: str) -> np.ndarray:
        """Indices of the vertices that triangles of these regions use."""
        rows = [REGIONS.index(region) for region in regions]
        return np.unique(self.triangles[np.isin(self.region, rows)])


def unreadable(path: Path, format_name: str, got: str, expected: str) -> UsageError:
    """The error for a file that is not what its format says."""
    remedy = "check the file and --format; docs/morphable_models.md says which files each format has"
    return UsageError(f"{format_name} model {path}", got, expected, remedy)


def triangles_from_quads(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q, 4) quads, triangles among them with a corner twice -> (F, 3) triangles and the (F, 3) quad corners they are.

    The second result holds flat indices into the (Q * 4) corners, to split other attributes alike.
    """
    corner = np.arange(quads.size).reshape(-1, 4)
    halves = np.concatenate([corner[:, [0, 1, 2]], corner[:, [0, 2, 3]]])
    triangles = quads.reshape(-1)[halves]
    whole = (triangles != np.roll(triangles, 1, axis=1)).all(1)
    return triangles[whole].astype(np.int64), halves[whole]


def without_unused(vertices_used: np.ndarray, count: int) -> np.ndarray:
    """(U,) indices of used vertices -> (count,) their new index, -1 for the others."""
    new = np.full(count, -1, np.int64)
    new[vertices_used] = np.arange(len(vertices_used))
    return new


def _unusable(name: str, got: str, expected: str) -> UsageError:
    return UsageError(f"morphable model {name}", got, expected, "check the file; a damaged download is the usual cause")
