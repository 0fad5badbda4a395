"""The finished avatar: everything an exporter needs and nothing about how it was made.

Plain numpy in the frame of glTF (metres, +Y up, the face looks to +Z, +X is the character's left). It knows
nothing of networks, of photos or of file formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..models.topology import HeadTopology

if TYPE_CHECKING:
    from ..models.checkpoint import ModelCard  # its module imports PyTorch, this one must not

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReflectanceMaps:
    """The face maps that the method is about, over the square face chart.

    Attributes:
        diffuse_albedo: (N, N, 3) float32, sRGB-encoded, in [0, 1].
        specular_albedo: (N, N, 3) float32, linear, in [0, 1]: reflectance at normal incidence F0 / 0.08,
            grey.
        normal: (N, N, 3) float32 unit vectors in tangent space, x along u, y up in the image, z out of the
            skin.

    Raises:
        ValueError: a map has another shape than the others.
    """

    diffuse_albedo: FloatArray
    specular_albedo: FloatArray
    normal: FloatArray

    def __post_init__(self) -> None:
        side = len(self.diffuse_albedo)
        for name in ("diffuse_albedo", "specular_albedo", "normal"):
            _require_shape(name, getattr(self, name), (side, side, 3))


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """The texture atlas of the whole head: face maps blended into the rest, eyes, teeth, tongue, lashes.

    Attributes:
        base_color: (T, T, 4) float32 in [0, 1], colour sRGB-encoded, alpha as coverage (only the lashes are
            cut out by it).
        specular: (T, T) float32, linear, in [0, 1]: F0 / 0.08.
        normal: (T, T, 3) float32 unit vectors in tangent space, y up.
        roughness: (T, T) float32, linear, in [0, 1], perceptual roughness as in glTF (GGX alpha is its
            square).

    Raises:
        ValueError: a map has another shape than the others.
    """

    base_color: FloatArray
    specular: FloatArray
    normal: FloatArray
    roughness: FloatArray

    def __post_init__(self) -> None:
        side = len(self.base_color)
        _require_shape("base_color", self.base_color, (side, side, 4))
        _require_shape("specular", self.specular, (side, side))
        _require_shape("normal", self.normal, (side, side, 3))
        _require_shape("roughness", self.roughness, (side, side))


@dataclass(frozen=True)
class Iris:
    """The person's irises; both eyes share one.

    Attributes:
        color: sRGB-encoded albedo in [0, 1] of the iris between pupil and limbal ring.
        diameter: metres across the visible iris, on the head's own eyeballs. The human mean is 11.7 mm; the
            embedded model's eyes lie 57 mm apart where people's lie 63, which makes it 10.6.
        confidence: 0 for the default, which was not measured, to 1.

    Raises:
        ValueError: a colour outside [0, 1], a diameter that is not positive, or a confidence outside [0, 1].
    """

    color: tuple[float, float, float] = (0.36, 0.235, 0.145)
    diameter: float = 0.0106
    confidence: float = 0.0

    def __post_init__(self) -> None:
        if len(self.color) != 3 or not all(0 <= value <= 1 for value in self.color):
            raise ValueError(f"iris color: got {self.color}; expected three numbers in [0, 1]")
        if not self.diameter > 0:
            raise ValueError(f"iris diameter: got {self.diameter}; expected metres above 0")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"iris confidence: got {self.confidence}; expected a number in [0, 1]")


BROWN_IRIS = Iris()


@dataclass(frozen=True, eq=False)
class Avatar:
    """A head with its face, its materials and where it came from.

    Attributes:
        vertices: (V, 3) float32 metres, the neutral face (identity only).
        expression_offset: (V, 3) float32 metres, added to `vertices` it gives the expression of the photo.
        expression_weights: the same expression as weights of the topology's blendshapes, by name.
        topology: triangles, texture coordinates, parts and blendshapes.
        face_maps: the maps over the face chart.
        head_maps: the atlas of the whole head.
        light: light of the photo: "ambient", "directional" (linear RGB) and "direction" (unit, towards the
            light, view frame).
        pose: head pose in the photo, None for an avatar that came from no photo.
        models: every model that took part, with its licence.
        seed: seed of the sampling noise.
        iris: colour and size of the irises, as the photo shows them; brown where it does not.
        folds: (S, S) over the face chart, in [0, 2): what the linear diffuse albedo is times where the photo's
            expression folds the skin, 1 where it does not; the maps are those of the face at rest. None for none.

    Raises:
        ValueError: an array does not fit the topology, or a weight has no blendshape.
    """

    vertices: FloatArray
    expression_offset: FloatArray
    expression_weights: Mapping[str, float]
    topology: HeadTopology
    face_maps: ReflectanceMaps
    head_maps: HeadMaps
    light: Mapping[str, list[float]]
    pose: Mapping[str, object] | None
    models: tuple[ModelCard, ...]
    seed: int
    iris: Iris = BROWN_IRIS
    folds: FloatArray | None = None

    def __post_init__(self) -> None:
        count = self.topology.vertex_count
        _require_shape("vertices", self.vertices, (count, 3))
        _require_shape("expression_offset", self.expression_offset, (count, 3))
        if self.folds is not None:
            _require_shape("folds", self.folds, self.face_maps.diffuse_albedo.shape[:2])
        unknown = sorted(set(self.expression_weights) - set(self.topology.blendshape_names))
        if unknown:
            raise ValueError(f"expression_weights: got {unknown}; expected names of the topology's blendshapes")


def _require_shape(name: str, array: npt.NDArray, shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.shape != shape:
        raise ValueError(f"{name}: got {array.dtype} {array.shape}; expected float32 {shape}")
