"""Vertex attributes in small integers, as KHR_mesh_quantization allows.

Positions fill 16 signed bits over the head's longest side; the way back lies in the inverse bind matrices, because a
skinned mesh hears of no other transform. It knows nothing of accessors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PositionGrid:
    """position = centre + scale * (normalized 16-bit integer); metres."""

    centre: tuple[float, float, float]
    scale: float

    def positions(self, values: FloatArray) -> npt.NDArray[np.int16]:
        """(N, 3) metres -> integers."""
        return signed((values - np.array(self.centre)) / self.scale, np.int16)

    def offsets(self, values: FloatArray) -> npt.NDArray[np.int16]:
        """(N, 3) differences of positions, metres -> integers."""
        return signed(values / self.scale, np.int16)

    def matrix(self) -> npt.NDArray[np.float64]:
        """(4, 4) from stored positions to metres."""
        matrix = np.diag([self.scale, self.scale, self.scale, 1.0])
        matrix[:3, 3] = self.centre
        return matrix


def position_grid(vertices: FloatArray) -> PositionGrid:
    """The grid over vertices (V, 3)."""
    low, high = vertices.min(0).astype(np.float64), vertices.max(0).astype(np.float64)
    x, y, z = ((low + high) / 2).tolist()
    return PositionGrid((x, y, z), float((high - low).max() / 2))


def signed(values: npt.NDArray[np.floating], dtype: type[np.signedinteger]) -> npt.NDArray:
    """[-1, 1] -> normalized integers; what lies outside is clipped."""
    top = np.iinfo(dtype).max
    return np.rint(np.clip(values, -1, 1) * top).astype(dtype)


def unsigned16(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """[0, 1] -> normalized 16-bit integers."""
    return np.rint(np.clip(values, 0, 1) * 65535).astype(np.uint16)


def byte_weights(weights: FloatArray) -> npt.NDArray[np.uint8]:
    """(N, 4) shares that sum to 1 -> bytes that sum to exactly 255; the first takes what rounding leaves.

    The rows must have their largest share first.
    """
    whole = np.rint(weights * 255).astype(np.int64)
    whole[:, 0] += 255 - whole.sum(1)
    return whole.astype(np.uint8)
