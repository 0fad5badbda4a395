"""The pictures of an avatar that a person looks at: in its photo's frame, and everything on one sheet.

Takes the result of a run and a renderer; knows no network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..rendering.camera import Camera, camera_front
from ..rendering.pictures import over, picture_of_head
from ..rendering.renderer import HeadRenderer
from ..rendering.shader import Light
from .maps import pixels_from_normals, pixels_from_unit
from .picture_head import picture_head
from .sheet import PAPER, Tile, sheet_from_rows

if TYPE_CHECKING:
    from ..runtime.avatar_result import AvatarResult
    from ..runtime.face_crop import FaceCrop

TILE_SIDE = 512  # px: a third of a sheet, less the gaps
TURNTABLE_YAWS = (-70, -35, 0, 35, 70)  # degrees; positive shows the character's left
TURNTABLE_SIZE = (372, 300)  # height, width
CLOSE_UP_SIDE = 384  # px
DISTANCE = 1.4  # metres
_GLOW = (108, 52)  # sRGB levels of the backdrop, behind the head and in the corners


def studio_lights() -> tuple[Light, ...]:
    """A soft white key from the upper right of the picture in a dim, slightly blue room, and a rim from behind.

    What one light cannot show: the key models the face, the rim parts the head from the backdrop.
    """
    return (
        _light((0.30, 0.31, 0.335), (0.90, 0.875, 0.835), (0.50, 0.55, 0.67)),
        _light((0.0, 0.0, 0.0), (0.42, 0.46, 0.54), (-0.86, 0.30, -0.42)),
    )


def _light(ambient: tuple[float, ...], directional: tuple[float, ...], direction: tuple[float, ...]) -> Light:
    towards = torch.tensor([direction])
    return Light(torch.tensor([ambient]), torch.tensor([directional]), towards / towards.norm())


def backdrop(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: neutral grey, lighter behind the head. Dithered, for steps of one level would show."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    off = np.hypot((x / width - 0.5) * 1.15, y / height - 0.45)
    glow = np.exp(-((off / 0.42) ** 2))
    noise = np.random.default_rng(0).uniform(0, 1, (height, width))
    grey = _GLOW[1] + (_GLOW[0] - _GLOW[1]) * glow + noise
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def picture_in_photo(result: AvatarResult, renderer: HeadRenderer, crop: FaceCrop) -> np.ndarray:
    """The avatar in its photo's own camera and light: (H, W, 4) uint8, pixel for pixel over the photo.

    The photo's frame is that of the file with its EXIF orientation applied, also if it lay on its side.
    """
    height, width = crop.photo.shape[:2]
    scale, offset = crop.crop_from_photo[0, 0], crop.crop_from_photo[:, 2]
    photo_from_crop = np.array([[1 / scale, 0, -offset[0] / scale], [0, 1 / scale, -offset[1] / scale]])
    camera = _camera(result).cropped(torch.from_numpy(photo_from_crop).float(), height, width)
    head = picture_head(result.avatar, renderer)
    picture = picture_of_head(head.renderer, head.expressive, head.expressive_maps, camera, result.light)
    return np.ascontiguousarray(np.rot90(picture, -crop.quarter_turns))


def preview_sheet(result: AvatarResult, renderer: HeadRenderer, crop: FaceCrop | None) -> np.ndarray:
    """(H, 1600, 3) uint8: photo, rendering, overlay (given a photo); turntable in studio light; maps.

    All of the avatar is as exported: the finished mesh with its textures.
    """
    rows = [_comparison(result, renderer, crop)] if crop is not None else []
    return sheet_from_rows([*rows, _turntable(result, renderer), _maps(result, renderer)])


def portrait(result: AvatarResult, renderer: HeadRenderer, yaw_degrees: float = 0.0) -> np.ndarray:
    """(372, 300, 3) uint8: the neutral face, as exported, under the studio lights."""
    head = picture_head(result.avatar, renderer)
    camera = _turntable_camera(head.neutral, math.radians(yaw_degrees))
    return over(
        picture_of_head(head.renderer, head.neutral, head.maps, camera, *studio_lights()), backdrop(*TURNTABLE_SIZE)
    )


def _geometry(result: AvatarResult, renderer: HeadRenderer) -> np.ndarray:
    """(384, 384, 3) uint8: the mesh alone, three-quarter view."""
    head = picture_head(result.avatar, renderer)
    camera = _turntable_camera(head.neutral, math.radians(28), (CLOSE_UP_SIDE, CLOSE_UP_SIDE))
    return over(
        picture_of_head(head.renderer, head.neutral, head.clay, camera, *studio_lights()),
        backdrop(CLOSE_UP_SIDE, CLOSE_UP_SIDE),
    )


def contact_sheet(portraits: list[Tile], columns: int = 6) -> np.ndarray:
    """Many faces on one sheet, row by row; the last row is filled up with paper."""
    columns = min(columns, len(portraits))
    blank = Tile(np.full_like(portraits[0].pixels, PAPER), "")
    padded = portraits + [blank] * (-len(portraits) % columns)
    return sheet_from_rows([padded[start : start + columns] for start in range(0, len(padded), columns)])


def _comparison(result: AvatarResult, renderer: HeadRenderer, crop: FaceCrop) -> list[Tile]:
    camera = _camera(result)
    head = picture_head(result.avatar, renderer)
    picture = picture_of_head(
        head.renderer, head.expressive, head.expressive_maps, camera.scaled(TILE_SIDE / camera.width), result.light
    )
    photo = pixels_from_unit(crop.image_of(TILE_SIDE))  # of the photo itself, sharper than the networks' 224 pixels
    similarity = result.report.similarity.get("guiding")
    measured = "" if similarity is None else f", similarity {similarity:.2f}"
    return [
        Tile(photo, "Photo"),
        Tile(over(picture, backdrop(TILE_SIDE, TILE_SIDE)), "Avatar in the photo's camera and light"),
        Tile(over(picture, photo), f"Avatar over the photo{measured}"),
    ]


def _turntable(result: AvatarResult, renderer: HeadRenderer) -> list[Tile]:
    pictures = [portrait(result, renderer, yaw) for yaw in TURNTABLE_YAWS]
    return [
        Tile(picture, f"{yaw:+d}°" if yaw else "Neutral face, studio light")
        for picture, yaw in zip(pictures, TURNTABLE_YAWS, strict=True)
    ]


def _maps(result: AvatarResult, renderer: HeadRenderer) -> list[Tile]:
    maps = result.avatar.face_maps
    return [
        Tile(pixels_from_unit(maps.diffuse_albedo), "Diffuse albedo (sRGB)"),
        Tile(pixels_from_unit(maps.specular_albedo), "Specular albedo (F0 / 0.08, linear)"),
        Tile(pixels_from_normals(maps.normal), "Normals (tangent space, +Y up)"),
        Tile(_geometry(result, renderer), "Geometry"),
    ]


def _camera(result: AvatarResult) -> Camera:
    if result.camera is None:
        raise ValueError("avatar: got no camera; expected one; it came from no photo, so leave out the crop")
    return result.camera


def _turntable_camera(vertices: Tensor, yaw: float, size: tuple[int, int] = TURNTABLE_SIZE) -> Camera:
    """Frames the whole head from any side, upright."""
    low, high = vertices[0].amin(0), vertices[0].amax(0)
    height, depth = float(high[1] - low[1]), float(high[2] - low[2])
    focal = min(0.90 * size[0] / height, 0.92 * size[1] / depth) * DISTANCE
    return camera_front((low + high) / 2, DISTANCE, focal, size, yaw=yaw)
