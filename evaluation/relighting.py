"""A synthetic face under light that its photo did not have: maps that were found, against the true ones.

The true head seen from the front, so that only the maps differ. Knows nothing of photos, folders and tables.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..models.morphable import MorphableModel
from ..rendering.camera import Camera, camera_front, project
from ..rendering.head_atlas import HeadAtlas
from ..rendering.renderer import HeadMapsTensor, HeadRenderer
from ..rendering.shader import Light, srgb_from_linear
from ..runtime.face_crop import CROP_SIZE, framing_transform
from ..training.skins import face_weight

AMBIENT, DIRECTIONAL = 0.25, 0.9  # linear radiance of the new lights, grey
LIGHTS = {  # towards the light, view frame: left and right are the picture's
    "front": (0.0, 0.15, 1.0),
    "left": (-1.0, 0.2, 0.5),
    "right": (1.0, 0.2, 0.5),
    "above": (0.0, 1.0, 0.35),
}
DISTANCE = 1.2  # metres


class FrontView:
    """A neutral head of a morphable model from the front, framed as photos are, under each of LIGHTS."""

    def __init__(self, renderer: HeadRenderer, atlas: HeadAtlas, model: MorphableModel) -> None:
        self.renderer, self.atlas, self.model = renderer, atlas, model
        x, y, side = (value * atlas.size // 1024 for value in atlas.config.face_block)
        texels = torch.zeros(1, 3, atlas.size, atlas.size)
        face = torch.from_numpy(face_weight(model))[None, None]
        texels[:, :, y : y + side, x : x + side] = functional.interpolate(face, side, mode="area")
        self._face = HeadMapsTensor(texels)

    @torch.no_grad()
    def weight(self, vertices: Tensor) -> Tensor:
        """(1, V, 3) metres -> (224, 224) in [0, 1]: the bare skin of the face, `face_weight` as this view shows it."""
        one, none = torch.ones(1, 3), torch.zeros(1, 3)
        flat = Light(one, none, torch.tensor([[0.0, 0.0, 1.0]]))
        return self.renderer.render(vertices, self._face, self._camera(vertices), flat).color[0, 0]

    @torch.no_grad()
    def lit(self, vertices: Tensor, maps: Tensor) -> Tensor:
        """(1, V, 3) metres, (1, 9, S, S) maps in [0, 1] -> (4, 3, 224, 224) linear RGB, one for each of LIGHTS."""
        head = self.atlas.compose(functional.avg_pool2d(maps, maps.shape[-1] * 2 // self.atlas.size))
        grey = torch.ones(len(LIGHTS), 3)
        light = Light(grey * AMBIENT, grey * DIRECTIONAL, functional.normalize(torch.tensor([*LIGHTS.values()])))
        return self.renderer.render(vertices, head, self._camera(vertices), light).color

    def _camera(self, vertices: Tensor) -> Camera:
        camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), DISTANCE, 1000.0, CROP_SIZE)
        points = project(camera, self.model.landmarks(vertices))[0, :, :2].numpy()
        return camera.cropped(torch.from_numpy(framing_transform(points)).float(), CROP_SIZE, CROP_SIZE)


def relighting_errors(view: FrontView, vertices: Tensor, true: Tensor, found: dict[str, Tensor]) -> dict[str, float]:
    """Errors of some maps against the true ones on one head.

    Args:
        vertices: (1, V, 3) metres, the true neutral head.
        true: (1, 9, S, S) maps in [0, 1].
        found: maps alike, by name.

    Returns:
        For each name the `srgb_error` over the face and all LIGHTS, and as "NAME_best_gain" the same after the best
        single factor for each of red, green and blue: how strong the light was and how bright the skin is, a photo
        does not say.
    """
    weight = view.weight(vertices)
    face = weight > 0.01
    weight = weight[face]
    wanted = srgb_from_linear(view.lit(vertices, true)[..., face]).clamp(0, 1)
    errors = {}
    for name, maps in found.items():
        linear = view.lit(vertices, maps)[..., face]
        errors[name] = srgb_error(linear, wanted, weight)
        errors[f"{name}_best_gain"] = srgb_error(linear * best_gain(linear, wanted, weight)[:, None], wanted, weight)
    return errors


def srgb_error(linear: Tensor, wanted: Tensor, weight: Tensor) -> float:
    """Root mean square error of linear RGB pixels (L, 3, N), encoded, against sRGB ones like them; weight (N,)."""
    return float((_squared_errors(linear, wanted, weight).mean()).sqrt())


def best_gain(linear: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """(3,): the factor of each channel of the linear pixels with the least `srgb_error`; arguments as there.

    A search over factors from 1/7 to 7, each round eight times as fine, to about one part in 2000.
    """
    centre, span = torch.zeros(3), 2.0  # of the logarithm
    for _ in range(4):
        tried = torch.linspace(-span, span, 17)[:, None] + centre  # (17, 3)
        errors = torch.stack([_squared_errors(linear * g.exp()[:, None], wanted, weight) for g in tried])
        centre = tried.gather(0, errors.argmin(0, keepdim=True))[0]
        span /= 8
    return centre.exp()


def _squared_errors(linear: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """(3,): weighted mean square error of each channel."""
    squared = (srgb_from_linear(linear).clamp(0, 1) - wanted).square()
    return (squared * weight).sum((0, 2)) / (weight.sum() * len(linear))
