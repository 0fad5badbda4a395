"""Skin finer than the face maps: a repeating tile of pores, as strong as the picture underneath leaves room for.

Where the maps hold fine structure of their own little is added, where they are smooth more is, so that face, scalp
and neck look equally sharp. It knows nothing of files of users.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from ...errors import MissingError
from ...runtime.avatar import Avatar
from .enlarging import FloatArray

_ASSET = Path(__file__).parents[2] / "assets" / "skin_detail.safetensors"
_CONTRAST = 0.014  # deviation of the lightness, relative, where the maps are smooth
_LEAST = 0.4  # share of it where they are not
_SLOPE = 0.055  # deviation of the relief's slope there
_FINE, _AROUND = 1.6, 10.0  # texels of the maps: sigma of what counts as fine, and of the neighbourhood


def pore_relief(avatar: Avatar, size: int) -> FloatArray | None:
    """(size, size) lightness to add, relative, of mean 0; None where the atlas has another layout or nothing is to add.

    Strength follows the avatar's own base colour; it is not limited to skin.

    Raises:
        MissingError: the tile is not where fitdiff was installed.
    """
    tile, face_block = _tile()
    side = len(avatar.head_maps.base_color)
    if size <= side or avatar.topology.face_block != face_block:
        return None
    room = cv2.resize(_room(avatar.head_maps.base_color), (size, size), interpolation=cv2.INTER_LINEAR)
    repeats = -(-size // len(tile))
    return np.tile(tile, (repeats, repeats))[:size, :size] * room


def slopes_of_relief(relief: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slopes (dz/dx right, dz/dy up) of the same relief: what is dark is deep."""
    strength = _SLOPE / _CONTRAST
    kernel = np.array([[-0.5, 0.0, 0.5]], np.float32) * strength
    right = cv2.filter2D(relief, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return right, cv2.filter2D(relief, -1, -kernel.T, borderType=cv2.BORDER_REPLICATE)


@cache
def _tile() -> tuple[FloatArray, tuple[int, int, int]]:
    """(N, N) of deviation 1, which repeats without a seam, and the layout that it was made for."""
    try:
        config = json.loads(_ASSET.with_suffix(".json").read_text(encoding="utf-8"))["config"]
        tile = safetensors.numpy.load_file(_ASSET)["relief"].astype(np.float32)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise MissingError("skin detail", str(error), f"a whole {_ASSET}", "install fitdiff again") from error
    x, y, side = config["face_block"]
    return tile / config["levels_per_deviation"], (x, y, side)


def _room(base_color: npt.NDArray[np.float32]) -> FloatArray:
    """(S / 2, S / 2) strength of the relief."""
    light = base_color[..., :3].mean(2)
    fine = (light - cv2.GaussianBlur(light, (0, 0), _FINE)) / np.maximum(light, 0.05)
    half = (len(light) // 2,) * 2
    energy = cv2.resize(fine * fine, half, interpolation=cv2.INTER_AREA)
    energy = cv2.GaussianBlur(energy, (0, 0), _AROUND / 2)
    return np.sqrt(np.maximum(_CONTRAST**2 - energy, (_LEAST * _CONTRAST) ** 2))
