"""Detail that a crop of 224 pixels does not show, taken from the photo itself: hairs of a brow, wrinkles, pores.

What is finer than the crop's pixels is hardly light or shade, so it goes onto the skin as it is. A photo without more
pixels than the crop adds nothing. Each photo by itself: a batch changes nothing. Knows nothing of the sampling loop.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..rendering.blur import blurred
from ..rendering.camera import Camera
from ..rendering.head_atlas import HeadAtlas
from ..rendering.lightness import lightness
from ..rendering.renderer import HeadRenderer
from ..rendering.shader import Light, srgb_from_linear
from .face_crop import CROP_SIZE, FaceCrop

LARGEST = 2.5  # times the crop's pixels: the maps have no more texels
LEAST = 1.3  # below which a photo has nothing to add
COARSEST = 0.8  # sigma in pixels of the crop: what is broader is in the maps already
SPECKLE = 1.0  # times the median departure of bare skin: film grain and noise
DARKEST, LIGHTEST = 0.35, 0.10  # log sRGB: a hair may be dark, what is lighter shines
_BLUR = 0.6  # texels


def fine_detail(
    face_maps: Tensor,
    shown: Tensor,
    crop: FaceCrop,
    atlas: HeadAtlas,
    renderer: HeadRenderer,
    vertices: Tensor,
    camera: Camera,
    light: Light,
) -> Tensor:
    """(1, 4, S, S): the residual of `with_detail` that brings the photo's finest lightness onto the face maps.

    Args:
        face_maps: (1, 9, S, S) in [0, 1], of the atlas' resolution.
        shown: (1, 1, s, s) in [0, 1]: how well the photo shows each texel as bare skin.
        vertices: (1, V, 3) metres, with the photo's expression.
        camera: of the crop.
    """
    nothing = torch.zeros_like(face_maps[:, :4])
    larger = min(LARGEST, 1 / float(crop.crop_from_photo[0, 0]))
    if larger < LEAST:
        return nothing
    side = round(CROP_SIZE * larger)
    image = torch.from_numpy(crop.image_of(side)).permute(2, 0, 1)[None].to(face_maps)
    seen_lightness = lightness(image)
    fine = seen_lightness - blurred(seen_lightness, COARSEST * side / CROP_SIZE)
    maps = face_maps.clone().requires_grad_()
    with torch.enable_grad():
        rendering = renderer.render(vertices, atlas.compose(maps), camera.scaled(side / CROP_SIZE), light)
        on_skin = srgb_from_linear(rendering.color) * (rendering.part == 0)[:, None]
        (weighted,) = torch.autograd.grad((on_skin * fine).sum(), maps, retain_graph=True)
        (weight,) = torch.autograd.grad(on_skin.sum(), maps)
    weighted, weight = (blurred(g[:, :3].sum(1, keepdim=True), _BLUR) for g in (weighted, weight))
    share = functional.interpolate(shown, weight.shape[-1], mode="bilinear", align_corners=False)
    seen = weight > 0.1 * weight.amax()
    change = torch.where(seen, weighted / weight.clamp_min(1e-6), 0.0)
    bare = change[(share > 0.9) & seen]
    if not len(bare):
        return nothing
    speckle = SPECKLE * bare.abs().median()
    change = change.sign() * (change.abs() - speckle).clamp_min(0)
    limit = torch.where(change > 0, LIGHTEST, DARKEST)
    change = limit * (change / limit).tanh() * share
    return torch.cat([change.expand(-1, 3, -1, -1), torch.zeros_like(change)], 1)
