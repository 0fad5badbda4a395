"""Where a picture shows each texel of the face chart: the way back from pixels to texels. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from .camera import Camera, camera_from_world, project, view_from_camera
from .chart import chart_fragments
from .geometry import vertex_normals
from .interpolation import (
    fragments_from_index,
    image_from_fragments,
    interpolate_corners,
    interpolate_vertices,
)
from .renderer import HeadRenderer
from .vectors import unit

HIDDEN = 0.001  # metres behind the nearest surface from which a texel counts as hidden
DEPTH_FINENESS = 3.0  # pixels of the depth test a pixel of the camera


@dataclass(frozen=True)
class ChartInPhoto:
    """Where each texel of a face chart of side S is seen.

    pixels: (S, S, 2) x, y in the camera's image, centres at +0.5.
    visible: (S, S) bool: on the skin, turned to the camera, with nothing of the head in front.
    normal: (S, S, 3) unit normals of the surface in the view frame (x right, y up, z to the camera); 0 where the chart
        is empty.
    """

    pixels: np.ndarray
    visible: np.ndarray
    normal: np.ndarray

    def sampled(self, image: np.ndarray, image_from_camera: np.ndarray | None = None) -> np.ndarray:
        """(H, W) or (H, W, C) float32 pixels -> the same at the texels, bilinear; 0 beyond the image.

        image_from_camera: (2, 3), one scale and a translation, where the image is not the camera's own.
        """
        at = self.pixels
        if image_from_camera is not None:
            at = at @ image_from_camera[:, :2].T + image_from_camera[:, 2]
        x, y = (np.ascontiguousarray(v, np.float32) for v in np.moveaxis(at - 0.5, -1, 0))
        return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


@torch.no_grad()
def chart_in_photo(
    renderer: HeadRenderer, vertices: Tensor, camera: Camera, face_block: tuple[int, int, int], side: int
) -> ChartInPhoto:
    """Project the texels of the face chart of a head (1, V, 3) into a camera; face_block, side: `chart_fragments`."""
    texels, skin, covered = chart_fragments(renderer, face_block, side)
    corner_vertices = renderer.triangles[skin]
    seen = project(camera, vertices)  # (1, V, 3)
    corners = seen[0][corner_vertices]  # (F', 3, 3)
    edges = corners[:, 1:, :2] - corners[:, :1, :2]
    front = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0] < 0
    at = image_from_fragments(texels, interpolate_corners(texels, corners))[0]  # (3, S, S)
    facing = image_from_fragments(texels, front[texels.triangle].float()[None])[0, 0] > 0
    in_view = view_from_camera(camera_from_world(camera, vertices)).permute(2, 0, 1)
    at_corners = vertex_normals(in_view, renderer.triangles)[:, 0].T[corner_vertices]  # (F', 3, 3)
    normal = image_from_fragments(texels, unit(interpolate_corners(texels, at_corners)))[0]

    large = camera.scaled(DEPTH_FINENESS)
    surface = project(large, vertices)
    nearest = renderer.rasteriser(surface, renderer.triangles, large.height, large.width, True)
    shown = fragments_from_index(surface, renderer.triangles, nearest)
    depth = image_from_fragments(shown, interpolate_vertices(shown, renderer.triangles, surface[..., 2][None]))
    depth = depth[0, 0].masked_fill(nearest[0] < 0, torch.inf)
    column, row = (at[:2] * DEPTH_FINENESS).floor().long()
    inside = (column >= 0) & (column < large.width) & (row >= 0) & (row < large.height)
    front_most = depth[row.clamp(0, large.height - 1), column.clamp(0, large.width - 1)]
    visible = covered[0] & facing & inside & (at[2] < front_most + HIDDEN)
    pixels, normal = (field.permute(1, 2, 0).cpu().numpy() for field in (at[:2], normal))
    return ChartInPhoto(pixels, visible.cpu().numpy(), normal)
