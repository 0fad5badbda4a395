"""PyTorch3D as a rasteriser, where it is installed: the same interface and, but for ties, the same pictures.

What differs over there, and is put right here: x runs to the left and y upwards; the shorter side of the picture spans
[-1, 1]; triangles of a batch are counted through; one with a corner behind the camera is still drawn; a pixel centre
on an edge belongs to none of its triangles. Where it belongs here is the top-left rule; there the nearest triangle has
it, and of two at one depth either. Knows no cameras and gives no gradients, like every rasteriser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import MissingError

Rasterise = Callable[[Sequence[Tensor], Sequence[Tensor], tuple[int, int]], Tensor]
"""(vertices (V, 3) of each image in PyTorch3D's NDC, triangles (F, 3) of each, (height, width)) -> (B, H, W) index of
the nearest triangle, counted through the batch, -1 where empty."""

EDGE = 1e-14  # squared NDC: about 1e-5 px, so that centres on a shared edge are not lost
REMEDY = "install it from its own pages (it is built for one PyTorch and CUDA), or take the native rasteriser"


class PyTorch3DRasteriser:
    """`rasterize_meshes` behind the interface of `rasteriser.Rasteriser`, on the device of the vertices."""

    def __init__(self, rasterise: Rasterise | None = None) -> None:
        """Raises MissingError where PyTorch3D is not installed.

        Args:
            rasterise: what stands in for PyTorch3D; for tests.
        """
        self._rasterise = rasterise or _pytorch3d()

    def __call__(self, vertices_px: Tensor, triangles: Tensor, height: int, width: int, cull: bool = False) -> Tensor:
        vertices, triangles = vertices_px.detach().float(), triangles.to(vertices_px.device).long()
        drawn = [_drawn(image[triangles], cull) for image in vertices]  # (F,) each
        kept = [mask.nonzero().squeeze(1) for mask in drawn]
        index = torch.full((len(vertices), height, width), -1, dtype=torch.int32, device=vertices.device)
        # A mesh without triangles is none to PyTorch3D.
        shown = [row for row, faces in enumerate(kept) if len(faces)]
        if not shown:
            return index
        ndc = ndc_from_pixels(vertices, height, width)
        counted = self._rasterise([ndc[row] for row in shown], [triangles[kept[row]] for row in shown], (height, width))
        first = 0
        for place, row in enumerate(shown):
            faces = counted[place] - first
            index[row] = torch.where(faces >= 0, kept[row][faces.clamp(min=0)], -1).int()
            first += len(kept[row])
        return index


def ndc_from_pixels(vertices_px: Tensor, height: int, width: int) -> Tensor:
    """(B, V, 3) x, y in pixels, right and down, depth -> PyTorch3D's x to the left, y up, depth.

    The middle of the picture is (0, 0), its shorter side 2 long; pixel centres lie at +0.5 of a pixel on both sides.
    """
    scale = 2.0 / min(height, width)
    x, y, depth = vertices_px.unbind(-1)
    return torch.stack([(width / 2 - x) * scale, (height / 2 - y) * scale, depth], -1)


def _drawn(corners: Tensor, cull: bool) -> Tensor:
    """(F, 3, 3) pixels and depth -> (F,) bool: in front of the camera, finite and, with `cull`, seen from the front."""
    a, b, c = corners.unbind(1)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    shown = (corners[:, :, 2] > 0).all(1) & corners.isfinite().all(2).all(1)
    return shown & (area < 0) if cull else shown & (area != 0)


def _pytorch3d() -> Rasterise:
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import (  # pyright: ignore[reportMissingImports]
            rasterize_meshes,
        )
        from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingError("package pytorch3d", "not installed", "it, as the rasteriser", REMEDY) from error

    def rasterise(vertices: Sequence[Tensor], triangles: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        meshes: Any = Meshes(verts=list(vertices), faces=list(triangles))
        fragments = rasterize_meshes(
            meshes, image_size=size, blur_radius=EDGE, faces_per_pixel=1, perspective_correct=True,
            clip_barycentric_coords=False, cull_backfaces=False,
        )  # fmt: skip
        return fragments[0][..., 0]

    return rasterise
