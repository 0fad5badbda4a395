"""The pictures of an avatar that a person looks at: in its photo's frame, and everything on one sheet.

Takes the result of a run and a renderer; knows no network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from ..rendering.camera import Camera, camera_front
from ..rendering.pictures import NEUTRAL_GREY, over, picture_of_head
from ..rendering.renderer import HeadRenderer
from ..rendering.shader import Light
from .maps import pixels_from_normals, pixels_from_unit
from .sheet import Tile, sheet_from_rows

if TYPE_CHECKING:
    from ..runtime.face_crop import FaceCrop
    from ..runtime.pipeline import AvatarResult

TILE_SIDE = 512  # px: a third of a sheet, less the gaps
TURNTABLE_YAWS = (-70, -35, 0, 35, 70)  # degrees; positive shows the character's left
TURNTABLE_SIZE = (352, 300)  # height, width
DISTANCE = 1.4  # metres


def studio_light() -> Light:
    """A white key light from the upper right of the picture over a dim, slightly blue room."""
    direction = torch.tensor([[0.55, 0.5, 0.67]])
    ambient, directional = torch.tensor([[0.30, 0.31, 0.34]]), torch.tensor([[0.95, 0.93, 0.88]])
    return Light(ambient, directional, direction / direction.norm())


def picture_in_photo(result: AvatarResult, renderer: HeadRenderer, crop: FaceCrop) -> np.ndarray:
    """The avatar in its photo's own camera and light: (H, W, 4) uint8, pixel for pixel over the photo.

    The photo's frame is that of the file with its EXIF orientation applied, also if it lay on its side.
    """
    height, width = crop.photo.shape[:2]
    scale, offset = crop.crop_from_photo[0, 0], crop.crop_from_photo[:, 2]
    photo_from_crop = np.array([[1 / scale, 0, -offset[0] / scale], [0, 1 / scale, -offset[1] / scale]])
    camera = _camera(result).cropped(torch.from_numpy(photo_from_crop).float(), height, width)
    picture = picture_of_head(renderer, result.vertices, result.head_maps, camera, result.light)
    return np.ascontiguousarray(np.rot90(picture, -crop.quarter_turns))


def preview_sheet(result: AvatarResult, renderer: HeadRenderer, crop: FaceCrop | None) -> np.ndarray:
    """(H, 1600, 3) uint8: photo, rendering, overlay (given a photo); turntable in another light; maps."""
    rows = [_comparison(result, renderer, crop)] if crop is not None else []
    return sheet_from_rows([*rows, _turntable(result, renderer), _maps(result)])


def portrait(result: AvatarResult, renderer: HeadRenderer, yaw_degrees: float = 0.0) -> np.ndarray:
    """(352, 300, 3) uint8: the neutral face, as exported, under the studio light."""
    vertices = torch.from_numpy(result.avatar.vertices)[None]
    camera = _turntable_camera(vertices, math.radians(yaw_degrees))
    return over(picture_of_head(renderer, vertices, result.head_maps, camera, studio_light()), NEUTRAL_GREY)


def contact_sheet(portraits: list[Tile], columns: int = 6) -> np.ndarray:
    """Many faces on one sheet, row by row; the last row is filled up with paper."""
    columns = min(columns, len(portraits))
    blank = Tile(np.full_like(portraits[0].pixels, 250), "")
    padded = portraits + [blank] * (-len(portraits) % columns)
    return sheet_from_rows([padded[start : start + columns] for start in range(0, len(padded), columns)])


def _comparison(result: AvatarResult, renderer: HeadRenderer, crop: FaceCrop) -> list[Tile]:
    camera = _camera(result)
    picture = picture_of_head(
        renderer, result.vertices, result.head_maps, camera.scaled(TILE_SIDE / camera.width), result.light
    )
    photo = _photo_tile(crop)
    similarity = result.report.similarity.get("guiding")
    measured = "" if similarity is None else f", similarity {similarity:.2f}"
    return [
        Tile(photo, "photo"),
        Tile(over(picture, NEUTRAL_GREY), f"avatar in the photo's camera and light{measured}"),
        Tile(over(picture, photo), "avatar over the photo"),
    ]


def _turntable(result: AvatarResult, renderer: HeadRenderer) -> list[Tile]:
    pictures = [portrait(result, renderer, yaw) for yaw in TURNTABLE_YAWS]
    return [
        Tile(picture, f"{yaw:+d}°, other light" if yaw else "neutral face, other light")
        for picture, yaw in zip(pictures, TURNTABLE_YAWS, strict=True)
    ]


def _maps(result: AvatarResult) -> list[Tile]:
    maps = result.avatar.face_maps
    return [
        Tile(pixels_from_unit(maps.diffuse_albedo), "diffuse albedo"),
        Tile(pixels_from_unit(maps.specular_albedo), "specular albedo (F0 / 0.08, linear)"),
        Tile(pixels_from_normals(maps.normal), "normals (tangent space, +Y up)"),
    ]


def _camera(result: AvatarResult) -> Camera:
    if result.camera is None:
        raise ValueError("avatar: got no camera; expected one; it came from no photo, so leave out the crop")
    return result.camera


def _photo_tile(crop: FaceCrop) -> np.ndarray:
    """The crop's square cut out of the photo itself, which is sharper than the networks' 224 pixels."""
    factor = TILE_SIDE / len(crop.image)
    tile_from_photo = crop.crop_from_photo * factor
    # OpenCV puts pixel centres at whole numbers.
    tile_from_photo[:, 2] += tile_from_photo[:, :2] @ [0.5, 0.5] - 0.5
    if tile_from_photo[0, 0] > 0.5:
        return cv2.warpAffine(crop.photo, tile_from_photo, (TILE_SIDE,) * 2, borderMode=cv2.BORDER_REPLICATE)
    image = (crop.image * 255 + 0.5).astype(np.uint8)  # already shrunk without aliasing
    return cv2.resize(image, (TILE_SIDE,) * 2, interpolation=cv2.INTER_CUBIC)


def _turntable_camera(vertices: Tensor, yaw: float) -> Camera:
    """Frames the whole head from any side, upright."""
    low, high = vertices[0].amin(0), vertices[0].amax(0)
    height = float(high[1] - low[1])
    focal = 0.92 * TURNTABLE_SIZE[0] * DISTANCE / height
    return camera_front((low + high) / 2, DISTANCE, focal, TURNTABLE_SIZE, yaw=yaw)
