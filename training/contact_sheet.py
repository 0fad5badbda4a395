"""Sheets of many heads in several lights: how the appearance model, or a trained one, is judged by eye.

Knows the product's renderer; where the heads come from is the caller's business, but for `contact_sheet`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..rendering.camera import camera_front
from ..rendering.head_atlas import load_head_atlas
from ..rendering.renderer import HeadMapsTensor, HeadRenderer
from ..rendering.shader import Light, srgb_from_linear
from .synthetic import SyntheticStudio, with_irises

TILE = (260, 300)  # height, width: one large picture and, beside it, the other lights at half the size
_BACKGROUND = 0.32
# Ambient, directional, direction towards it in the view, and the head's yaw in radians.
_VIEWS = (
    (0.36, 0.80, (-0.55, 0.45, 0.75), 0.0),  # key from the front left
    (0.16, 1.45, (0.95, 0.25, -0.12), 0.55),  # rim from the side and behind
    (0.88, 0.12, (0.1, 0.8, 0.6), -0.4),  # soft ambient
)
_SUPERSAMPLE = 2


def contact_sheet(
    skins: Path, count: int = 64, seed: int = 0, lights: int = 3, morphable: Path | None = None
) -> np.ndarray:
    """Random faces of the appearance model: (rows * 260, columns * 300, 3) uint8 sRGB, eight faces a row at most.

    Raises:
        UsageError: the folder of skins holds none, or they come from one photographed person.
    """
    studio = SyntheticStudio(skins, morphable=morphable)
    atlas = load_head_atlas()[0]

    def heads() -> Iterable[tuple[Tensor, HeadMapsTensor]]:
        for index in range(count):
            maps = torch.from_numpy(studio.maps(seed, index))[None].float() / 255
            head = with_irises(atlas.compose(maps), np.random.default_rng([seed, index, 3]))
            yield studio.model(torch.from_numpy(studio.identity(seed, index))[None]), head

    return sheet_of_heads(heads(), studio.renderer, columns=min(8, count), lights=lights)


@torch.no_grad()
def sheet_of_heads(
    heads: Iterable[tuple[Tensor, HeadMapsTensor]], renderer: HeadRenderer, columns: int = 8, lights: int = 3
) -> np.ndarray:
    """A tile of 260 x 300 for every head (vertices (1, V, 3), linear maps of one head), in rows of `columns`.

    lights: 1 to 3. The first is a large picture from the front, the others small ones from the sides beside it.
    Returns (rows * 260, columns * 300, 3) uint8 sRGB; places without a head are empty.

    Raises:
        UsageError: there is no head.
    """
    tiles = [_tile(vertices, maps, renderer, lights) for vertices, maps in heads]
    if not tiles:
        raise UsageError("contact sheet", "no heads", "one at least", "ask for a larger count")
    empty = np.full((*TILE, 3), round(_BACKGROUND * 255), np.uint8)
    tiles += [empty] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def write_sheet(path: Path, sheet: np.ndarray, limit: int = 1_500_000) -> None:
    """Write (H, W, 3) uint8 sRGB as the best JPEG of less than `limit` bytes.

    Raises:
        UsageError: the file cannot be written, or is not named as a JPEG.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        raise UsageError(f"sheet {path}", f"a name ending in {path.suffix or 'nothing'}", ".jpg", "rename it")
    code = b""
    for quality in (92, 88, 84, 78, 70, 60, 45):
        code = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(code) < limit:
            break
    try:
        path.write_bytes(code)
    except OSError as error:
        raise UsageError(f"sheet {path}", str(error.strerror), "a place to write it", "choose another path") from error


def _tile(vertices: Tensor, maps: HeadMapsTensor, renderer: HeadRenderer, lights: int) -> np.ndarray:
    height, width = TILE
    tile = np.full((height, width, 3), round(_BACKGROUND * 255), np.uint8)
    tile[:, : width * 2 // 3] = _portrait(vertices, maps, renderer, 0, height, width * 2 // 3)
    for view in range(1, lights):
        top = (view - 1) * height // 2
        small = _portrait(vertices, maps, renderer, view, height // 2, width // 3)
        tile[top : top + height // 2, width * 2 // 3 :] = small
    return tile


def _portrait(
    vertices: Tensor, maps: HeadMapsTensor, renderer: HeadRenderer, view: int, height: int, width: int
) -> np.ndarray:
    """(height, width, 3) uint8 sRGB of a head in one of the lights."""
    ambient, directional, direction, yaw = _VIEWS[view]
    size = (height * _SUPERSAMPLE, width * _SUPERSAMPLE)
    distance = 1.3
    focal = size[1] * distance / 0.205  # pixels; the picture is 205 mm wide at the head
    camera = camera_front(torch.tensor([0.0, 0.0, 0.03]), distance, focal, size, yaw=yaw)
    towards = torch.nn.functional.normalize(torch.tensor([direction]), dim=1)
    light = Light(torch.full((1, 3), ambient), torch.full((1, 3), directional), towards)
    rendering = renderer.render(vertices, maps, camera, light, lashes=True)
    linear = _BACKGROUND**2.2 * (1 - rendering.alpha) + rendering.color
    small = torch.nn.functional.avg_pool2d(linear.clamp(0, 1), _SUPERSAMPLE)
    return (srgb_from_linear(small)[0].clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).numpy()
