"""Renders a textured head under a light, differentiable in vertices, maps, camera and light.

Takes a mesh's topology tensors, not a morphable model; knows no network and no photo. Visibility is constant
in the gradient, so silhouettes and alpha give none.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .camera import Camera, camera_from_world, pixels_from_camera, view_from_camera
from .geometry import TangentLayout, bent_normals, tangent_layout, vertex_normals, vertex_tangents
from .interpolation import (
    Fragments,
    fragments_from_index,
    image_from_fragments,
    interpolate_corners,
    interpolate_vertices,
)
from .rasteriser import Rasteriser, default_rasteriser
from .shader import Light, shade, shade_diffuse
from .vectors import columns_at, unit

ALPHA_CUTOFF = 0.5  # glTF's alphaCutoff
LASHES = "lashes"  # the part with alpha: drawn in a pass of its own

_Batched = TypeVar("_Batched", bound="Light | HeadMapsTensor")


@dataclass(frozen=True)
class HeadMapsTensor:
    """Texture maps on one square atlas of side T; a batch of 1 serves every image.

    Attributes:
        albedo: (B, 3, T, T) linear RGB in [0, 1].
        specular: (B, 1, T, T) linear F0 in [0, 0.08]; None for a Lambert surface.
        normal: (B, 3, T, T) tangent space in [-1, 1], +Y up; None for the mesh's own normals.
        roughness: (B, 1, T, T) in [0, 1]; needed with `specular`.
        alpha: (B, 1, T, T) in [0, 1]; None counts as opaque. Only the lashes are tested.
    """

    albedo: Tensor
    specular: Tensor | None = None
    normal: Tensor | None = None
    roughness: Tensor | None = None
    alpha: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.specular is None) != (self.roughness is None):
            raise ValueError("head maps: got one of specular and roughness; expected both or neither; add the other")
        for name, channels in (("albedo", 3), ("specular", 1), ("normal", 3), ("roughness", 1), ("alpha", 1)):
            value = cast("Tensor | None", getattr(self, name))
            if value is not None and (value.ndim != 4 or value.shape[1] != channels):
                raise ValueError(f"head map {name}: got {tuple(value.shape)}; expected (B, {channels}, T, T)")

    def reduced(self, factor: int) -> "HeadMapsTensor":
        """Maps averaged over `factor` x `factor` texels.

        Where the image has fewer pixels than the maps have texels, this means less aliasing and a gradient
        that reaches every texel.
        """
        return mapped(self, lambda value: functional.avg_pool2d(value, factor))


@dataclass(frozen=True)
class Rendering:
    """A batch of rendered images.

    Attributes:
        color: (B, 3, H, W) linear RGB, >= 0, unbounded above; 0 where empty.
        alpha: (B, 1, H, W) coverage, 0 or 1.
        part: (B, H, W) long index into the part names, -1 where empty.
        triangle: (B, H, W) int32, -1 where empty.
        normal: (B, 3, H, W) unit shading normal, view frame; 0 where empty.
    """

    color: Tensor
    alpha: Tensor
    part: Tensor
    triangle: Tensor
    normal: Tensor


class HeadRenderer(nn.Module):
    """Renderer of one mesh topology; holds no parameters, only the topology as buffers."""

    triangles: Tensor
    corner_uv: Tensor
    triangle_part: Tensor
    _opaque: Tensor
    _opaque_triangles: Tensor
    _lashes: Tensor
    _lash_triangles: Tensor
    _corner_slot: Tensor
    _edge_weight: Tensor
    _tangent_sign: Tensor

    def __init__(
        self,
        triangles: Tensor,
        corner_uv: Tensor,
        triangle_part: Tensor,
        part_names: tuple[str, ...],
        *,
        rasteriser: Rasteriser | None = None,
        cull: bool = True,
    ) -> None:
        """Prepare a topology.

        Args:
            triangles: (F, 3) integer, counter-clockwise seen from outside.
            corner_uv: (F, 3, 2) u right, v down, [0, 1].
            triangle_part: (F,) integer index into `part_names`.
            part_names: names of the parts; one called "lashes" is drawn only on demand.
            rasteriser: None for `default_rasteriser()`.
            cull: leave out triangles that show their back, as a single-sided glTF material does.
        """
        super().__init__()
        self.part_names = part_names
        self.rasteriser = rasteriser or default_rasteriser()
        self.cull = cull
        part = triangle_part.long()
        lash = torch.tensor([name == LASHES for name in part_names], device=part.device)[part]
        layout = tangent_layout(triangles.long(), corner_uv)
        self._tangent_count = layout.count
        for name, value in (
            ("triangles", triangles.long()),
            ("corner_uv", corner_uv),
            ("triangle_part", part),
            ("_opaque", (~lash).nonzero().squeeze(1)),
            ("_opaque_triangles", triangles.long()[~lash]),
            ("_lashes", lash.nonzero().squeeze(1)),
            ("_lash_triangles", triangles.long()[lash]),
            ("_corner_slot", layout.corner_slot),
            ("_edge_weight", layout.edge_weight),
            ("_tangent_sign", layout.sign),
        ):
            self.register_buffer(name, value.contiguous(), persistent=False)

    def render(
        self, vertices: Tensor, maps: HeadMapsTensor, camera: Camera, light: Light, *, lashes: bool = False
    ) -> Rendering:
        """Render a batch; any argument with a batch of 1 serves every image.

        Args:
            vertices: (B, V, 3) world metres.
            maps: textures; leave out `specular` and `roughness`, or `normal`, to skip that work.
            camera: one a batch row.
            light: one a batch row, view frame.
            lashes: draw the lashes too, alpha-tested and double-sided.

        Raises:
            ValueError: the batch sizes differ.
        """
        batch = _common_batch(vertices, camera.focal, maps.albedo, light.direction)
        in_camera = camera_from_world(camera, vertices).expand(batch, -1, -1)
        in_pixels = pixels_from_camera(camera, in_camera)
        with torch.no_grad():
            index = self._visible(in_pixels.detach(), maps, camera, lashes)
        fragments = fragments_from_index(in_pixels, self.triangles, index)

        uv = interpolate_corners(fragments, self.corner_uv)
        normal = self._normals(view_from_camera(in_camera).permute(2, 0, 1), maps, fragments, uv)
        own_light = light if len(light.direction) == 1 else mapped(light, lambda rows: _of_image(rows, fragments))
        albedo = _sample(maps.albedo, uv, fragments)
        if maps.specular is None or maps.roughness is None:
            color = shade_diffuse(albedo, normal, own_light)
        else:
            f0, roughness = _sample(maps.specular, uv, fragments), _sample(maps.roughness, uv, fragments)
            color = shade(albedo, f0, roughness, normal, _view_directions(camera, fragments), own_light)

        part = torch.where(index >= 0, self.triangle_part[index.long().clamp_min(0)], -1)
        return Rendering(
            color=image_from_fragments(fragments, color),
            alpha=(index >= 0)[:, None].to(color.dtype),
            part=part,
            triangle=index,
            normal=image_from_fragments(fragments, normal),
        )

    def _visible(self, in_pixels: Tensor, maps: HeadMapsTensor, camera: Camera, lashes: bool) -> Tensor:
        """(B, H, W) int32 triangle of every pixel: the opaque parts, then lashes that pass the alpha test."""
        index = self._rasterised(in_pixels, camera, self._opaque, self._opaque_triangles, cull=self.cull)
        if not lashes or not self._lashes.numel():
            return index
        lash_index = self._rasterised(in_pixels, camera, self._lashes, self._lash_triangles, cull=False)
        over = fragments_from_index(in_pixels, self.triangles, lash_index)
        below = fragments_from_index(in_pixels, self.triangles, index)
        depth = torch.full((index.numel(),), torch.inf, dtype=over.depth.dtype, device=index.device)
        depth[below.pixel] = below.depth
        keep = over.depth < depth[over.pixel]
        if maps.alpha is not None:
            keep &= _sample(maps.alpha, interpolate_corners(over, self.corner_uv), over)[0] > ALPHA_CUTOFF
        flat = index.flatten()
        flat[over.pixel[keep]] = over.triangle[keep].int()
        return flat.reshape(index.shape)

    def _rasterised(
        self, in_pixels: Tensor, camera: Camera, subset: Tensor, triangles: Tensor, *, cull: bool
    ) -> Tensor:
        """Rasterise the triangles (S, 3) of `subset` (S,); the answer counts in all triangles."""
        index = self.rasteriser(in_pixels, triangles, camera.height, camera.width, cull)
        if len(subset) in (0, len(self.triangles)):
            return index
        return torch.where(index >= 0, subset[index.long().clamp_min(0)].int(), index)

    def _normals(self, in_view: Tensor, maps: HeadMapsTensor, fragments: Fragments, uv: Tensor) -> Tensor:
        """(3, B, V) vertices in the view frame -> (3, N) unit shading normals of the side that is seen."""
        normal = unit(interpolate_vertices(fragments, self.triangles, vertex_normals(in_view, self.triangles)))
        if maps.normal is not None:
            layout = TangentLayout(self._corner_slot, self._tangent_count, self._edge_weight, self._tangent_sign)
            tangents = vertex_tangents(in_view, self.triangles, layout)
            tangent = interpolate_vertices(fragments, self._corner_slot, tangents)
            sign = self._tangent_sign[fragments.triangle]
            normal = bent_normals(normal, tangent, sign, _sample(maps.normal, uv, fragments))
        # glTF: a double-sided surface seen from behind has its normal reversed.
        return torch.where(fragments.front, normal, -normal)


def _view_directions(camera: Camera, fragments: Fragments) -> Tensor:
    """(3, N) unit vectors from the pixels' surface points towards the camera, view frame."""
    image = fragments.image if camera.focal.shape[0] > 1 else torch.zeros_like(fragments.image)
    x, y = (fragments.centre - camera.principal.T[:, image]) / camera.focal[image]
    return unit(torch.stack([-x, y, torch.ones_like(x)]))


def _of_image(rows: Tensor, fragments: Fragments) -> Tensor:
    """(B, C), a row for each image -> (N, C), the row of each pixel's image."""
    return columns_at(rows.T, fragments.image).T


def _sample(texture: Tensor, uv: Tensor, fragments: Fragments) -> Tensor:
    """Bilinear texels: (B, C, T, T) or (1, C, T, T) at (2, N) UVs -> (C, N); the border repeats."""
    grid = uv * 2 - 1
    if texture.shape[0] == 1:
        texels = functional.grid_sample(texture, grid.T[None, None], padding_mode="border", align_corners=False)
        return texels[0, :, 0]
    # Every pixel of every image, covered or not: how many are covered would have to be waited for on a GPU.
    grids = image_from_fragments(fragments, grid).permute(0, 2, 3, 1)  # (B, H, W, 2)
    texels = functional.grid_sample(texture, grids, padding_mode="border", align_corners=False)
    return columns_at(texels.transpose(0, 1).flatten(1), fragments.pixel)


def _common_batch(*tensors: Tensor) -> int:
    sizes = {tensor.shape[0] for tensor in tensors} - {1}
    if len(sizes) > 1:
        raise ValueError(f"batch: got sizes {sorted(sizes)}; expected one size, or 1; expand the smaller one")
    return sizes.pop() if sizes else 1


def mapped(batched: _Batched, function: Callable[[Tensor], Tensor]) -> _Batched:
    """The same light or maps with `function` applied to every tensor that is there."""
    values = {field.name: getattr(batched, field.name) for field in fields(batched)}
    return replace(batched, **{name: function(value) for name, value in values.items() if value is not None})
