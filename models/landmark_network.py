"""What guidance asks of a landmark network: which points it finds, in which square of the face, from which pixels.

Every network's points are points of the 468-point face mesh too, which is how the morphable model knows where they lie
on its surface. Knows no network and no photo.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class LandmarkNetwork(nn.Module, ABC):
    """From an upright crop of a face to N points in it; gradients flow from the points to the pixels."""

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Width and height S of a crop in pixels."""

    @property
    @abstractmethod
    def mesh_indices(self) -> tuple[int, ...]:
        """(N) for each point, the point of the face mesh that marks the same place of the head."""

    @property
    def sliding(self) -> tuple[int, ...]:
        """Points that stay on the visible contour when the head turns, and so leave their place on it."""
        return ()

    @abstractmethod
    def region(self, width: float, height: float) -> tuple[float, float]:
        """Side of the square to look at, and by how much its middle lies above the face's.

        Args:
            width, height: extents of the face mesh's points with the eyes level, in any unit.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find the points.

        Args:
            x: (B, 3, S, S) sRGB-encoded in [0, 1].

        Returns:
            points: (B, N, 3) x, y in pixels of the crop (0 is its left or top edge), z in the same unit: less is nearer
                to the camera; 0 throughout from a network that does not tell.
            face_logit: (B,) above 0 where a face is more likely than not.
        """
