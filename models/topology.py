"""What never changes from face to face: triangles, texture coordinates, parts and blendshapes.

Plain numpy, so that what reads a finished avatar needs no PyTorch. It knows nothing of identities, textures
or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PART_NAMES = ("skin", "mouth", "eye_left", "eye_right", "teeth", "tongue", "lashes")


@dataclass(frozen=True, eq=False)
class HeadTopology:
    """Connectivity of a head whose V vertices are welded: a texture seam splits corners, never vertices.

    Left and right are the character's. All parts share one texture atlas.

    Attributes:
        triangles: (F, 3) int32 vertex indices, counter-clockwise seen from outside.
        corner_uv: (F, 3, 2) float32, u right, v down, in [0, 1]: the texture coordinates of glTF.
        triangle_part: (F,) uint8, index into `part_names`.
        part_names: names of the parts, by default `PART_NAMES`.
        blendshapes: (K, V, 3) float32 metres, offsets at full weight.
        blendshape_names: K unique names in the spelling of ARKit ("eyeBlinkLeft").
        face_block: (x, y, size) pixels of the face chart in a 1024 x 1024 atlas.

    Raises:
        ValueError: an array has another shape or type, or an index points outside.
    """

    triangles: npt.NDArray[np.int32]
    corner_uv: npt.NDArray[np.float32]
    triangle_part: npt.NDArray[np.uint8]
    blendshapes: npt.NDArray[np.float32]
    blendshape_names: tuple[str, ...]
    face_block: tuple[int, int, int]
    part_names: tuple[str, ...] = PART_NAMES

    def __post_init__(self) -> None:
        faces = len(self.triangles)
        _require_array("triangles", self.triangles, np.int32, (faces, 3))
        _require_array("corner_uv", self.corner_uv, np.float32, (faces, 3, 2))
        _require_array("triangle_part", self.triangle_part, np.uint8, (faces,))
        shapes = len(self.blendshape_names)
        vertices = self.blendshapes.shape[1] if self.blendshapes.ndim == 3 else -1
        _require_array("blendshapes", self.blendshapes, np.float32, (shapes, vertices, 3))
        if len(set(self.blendshape_names)) != shapes:
            raise ValueError(f"blendshape_names: got a name twice in {self.blendshape_names}; expected unique names")
        if faces and not (0 <= self.triangles.min() and self.triangles.max() < vertices):
            got = f"vertex indices {self.triangles.min()}..{self.triangles.max()}"
            raise ValueError(f"triangles: got {got}; expected 0..{vertices - 1}")
        if faces and self.triangle_part.max() >= len(self.part_names):
            got = self.triangle_part.max()
            raise ValueError(f"triangle_part: got {got}; expected less than {len(self.part_names)}, the parts")

    @property
    def vertex_count(self) -> int:
        """V, the number of welded vertices."""
        return self.blendshapes.shape[1]

    def triangles_of(self, *parts: str) -> npt.NDArray[np.bool_]:
        """(F,) mask of the triangles of any of the named parts; ValueError for an unknown name."""
        return np.isin(self.triangle_part, [self.part_names.index(part) for part in parts])


def _require_array(name: str, array: npt.NDArray, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ValueError(f"{name}: got {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}")
