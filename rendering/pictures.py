"""Eight-bit pictures of a rendered head: smooth edges, any size, transparent where nothing is.

For people to look at, so nothing here is differentiable. Knows nothing of files or layouts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .camera import Camera, project
from .renderer import HeadMapsTensor, HeadRenderer
from .shader import Light, srgb_from_linear

TILE = 512  # px: bounds the memory of one call of the renderer
SUPERSAMPLING = 2  # samples a pixel along each axis
SHARPEST = 2048  # px: a head larger than this shows no more detail, its atlas has 1024 texels
NEUTRAL_GREY = 178  # sRGB level behind pictures of a head


@torch.no_grad()
def picture_of_head(
    renderer: HeadRenderer, vertices: Tensor, maps: HeadMapsTensor, camera: Camera, *lights: Light
) -> np.ndarray:
    """Render one head, lashes included.

    Args:
        vertices: (1, V, 3) world metres.
        camera: of batch 1; its height and width are the picture's.
        lights: one or more, which add up.

    Returns:
        (height, width, 4) uint8, sRGB with straight alpha.
    """
    picture = np.zeros((camera.height, camera.width, 4), np.uint8)
    left, top, right, bottom = _extent(camera, vertices)
    if right <= left or bottom <= top:
        return picture
    window = _window(camera, left, top, right - left, bottom - top)
    factor = min(1.0, SHARPEST / max(window.height, window.width))
    pixels = _tiled(renderer, vertices, maps, window.scaled(factor) if factor < 1 else window, lights)
    if factor < 1:
        pixels = cv2.resize(pixels, (window.width, window.height), interpolation=cv2.INTER_LINEAR)
    picture[top:bottom, left:right] = _eight_bit(pixels)
    return picture


def over(picture: np.ndarray, background: np.ndarray | int) -> np.ndarray:
    """(H, W, 4) uint8 before (H, W, 3) uint8 or one grey level -> (H, W, 3) uint8."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    mixed = picture[..., :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)
    return (mixed + 0.5).astype(np.uint8)


def _extent(camera: Camera, vertices: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the head in whole pixels, within the picture."""
    points = project(camera, vertices)[0]
    points = points[points[:, 2] > 0, :2]
    if not len(points):
        return 0, 0, 0, 0
    limits = points.new_tensor([camera.width, camera.height])
    low = points.amin(0).floor().clamp_min(0).long().tolist()
    high = points.amax(0).ceil().minimum(limits).long().tolist()
    return low[0], low[1], high[0], high[1]


def _window(camera: Camera, left: int, top: int, width: int, height: int) -> Camera:
    corner = camera.principal.new_tensor([left, top])
    return replace(camera, principal=camera.principal - corner, height=height, width=width)


def _tiled(
    renderer: HeadRenderer, vertices: Tensor, maps: HeadMapsTensor, camera: Camera, lights: Sequence[Light]
) -> np.ndarray:
    """(H, W, 4) float32: linear colour times alpha, and alpha."""
    pixels = np.empty((camera.height, camera.width, 4), np.float32)
    for top in range(0, camera.height, TILE):
        for left in range(0, camera.width, TILE):
            height, width = min(TILE, camera.height - top), min(TILE, camera.width - left)
            fine = _window(camera, left, top, width, height).scaled(SUPERSAMPLING)
            renderings = [renderer.render(vertices, maps, fine, light, lashes=True) for light in lights]
            color, alpha = sum(rendering.color for rendering in renderings), renderings[0].alpha
            samples = torch.cat([torch.as_tensor(color).clamp(0, 1) * alpha, alpha], 1)
            tile = functional.avg_pool2d(samples, SUPERSAMPLING)[0].permute(1, 2, 0).numpy()
            pixels[top : top + height, left : left + width] = tile
    return pixels


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Linear colour times alpha and alpha -> uint8 sRGB with straight alpha, some rows at a time."""
    result = np.empty(pixels.shape, np.uint8)
    rows = max(1, math.ceil(2**20 / pixels.shape[1]))
    for start in range(0, len(pixels), rows):
        block = torch.from_numpy(pixels[start : start + rows])
        alpha = block[..., 3:]
        straight = srgb_from_linear(block[..., :3] / alpha.clamp_min(1e-6))
        rounded = torch.cat([straight * (alpha > 0), alpha], 2).clamp(0, 1) * 255 + 0.5
        result[start : start + rows] = rounded.to(torch.uint8).numpy()
    return result
