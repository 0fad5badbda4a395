"""Carries the face's colour on to scalp, ears and neck: evens what the avatar's atlas leaves between them.

The atlas takes its surroundings from another person's skin, whose neck and scalp differ from his face in other ways
than the avatar's. Where the face maps rule nothing changes. It knows nothing of files.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.avatar import Avatar
from .enlarging import FloatArray
from .padding import island_mask

_CELLS = 64  # cells of the correction along a side
_CHROMA, _BRIGHTER = 0.5, 0.7  # shares of a difference in tint, and of a lighter tone, that are taken away
_RULED = 2.5 / 255  # a texel that differs from the face map by less is the face map's
_RAMP = 30.0  # texels of an atlas of 1024 over which the correction sets in
_LEAST_RULED = 40  # cells of the face without which its colour is not known


def evenly_toned(avatar: Avatar) -> FloatArray:
    """(S, S, 4) the avatar's base colour, its skin around the face maps in the face's colour."""
    color = avatar.head_maps.base_color
    skin = island_mask(avatar.topology.corner_uv, len(color), avatar.topology.triangles_of("skin"))
    factors = tone_correction(avatar, skin)
    if factors is None:
        return color
    factors = cv2.resize(factors, skin.shape, interpolation=cv2.INTER_LINEAR)
    factors[~skin] = 1
    toned = color.copy()
    toned[..., :3] *= factors
    return toned


def tone_correction(avatar: Avatar, skin: npt.NDArray[np.bool_]) -> FloatArray | None:
    """(64, 64, 3) factors for sRGB-encoded colours, 1 where the face maps rule; None for an atlas of other layout.

    Args:
        skin: (S, S) texels of skin at the size of the avatar's atlas, a multiple of 64.
    """
    color, face = avatar.head_maps.base_color[..., :3], avatar.face_maps.diffuse_albedo
    size, (x, y, side) = len(color), avatar.topology.face_block
    if len(face) != side or (x + side > size) or (y + side > size):
        return None
    ruled = np.zeros((size, size), np.float32)
    ruled[y : y + side, x : x + side] = np.abs(color[y : y + side, x : x + side] - face).max(2) < _RULED
    ruled = cv2.morphologyEx(ruled, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    ruled = cv2.morphologyEx(ruled, cv2.MORPH_CLOSE, np.ones((41, 41), np.uint8))
    away = cv2.distanceTransform((ruled == 0).astype(np.uint8), cv2.DIST_L2, 5) / (size / 1024 * _RAMP)

    weight = _cell_means(skin.astype(np.float32))
    logs = np.log(np.maximum(color, 0.02))
    tone = _cell_means(logs * skin[..., None]) / np.maximum(weight, 1e-3)[..., None]
    inside = (_cell_means(ruled) > 0.9) & (weight > 0.9)
    if inside.sum() < _LEAST_RULED:
        return None
    border = inside & ~cv2.erode(inside.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    target = np.median(tone[border], axis=0)

    apart = tone - target
    lightness = apart.mean(2, keepdims=True)
    wanted = _CHROMA * (apart - lightness) + _BRIGHTER * np.maximum(lightness, 0)
    known = (weight > 0.1).astype(np.float32)
    spread = cv2.GaussianBlur(known, (0, 0), 1.5)[..., None]
    smooth = cv2.GaussianBlur(wanted * known[..., None], (0, 0), 1.5) / np.maximum(spread, 1e-3)
    onset = np.clip(_cell_means(np.minimum(away, 1.0)), 0, 1)[..., None]
    return np.exp(-smooth * onset).astype(np.float32)


def _cell_means(values: FloatArray) -> FloatArray:
    return cv2.resize(values, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
