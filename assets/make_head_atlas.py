"""Make `head_atlas.safetensors`: the textures of everything around the face maps, over the atlas of `atlas_layout`.

    python -m fitdiff.assets.make_head_atlas --skins DIR

DIR holds CC0 skins in MakeHuman's UV layout (2048 x 2048); the scalp, ears, neck and mouth come from one of them.
Eyes, teeth, tongue and lashes are drawn here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from ..models.checkpoint import assets_dir, save_checkpoint
from ..models.morphable import MorphableModel, load_morphable
from ..rendering.shader import srgb_from_linear
from .atlas_layout import (
    ATLAS_SIZE,
    ENAMEL_RECT,
    EYE_EXPONENT,
    EYE_RECT,
    FACE_BLOCK,
    LASH_RECT,
    MOUTH_RECT,
    NECK_RECT,
    SOCKET_RECTS,
    TEETH_RECT,
    TONGUE_RECT,
    makehuman_from_face_chart,
)
from .draw_teeth import PLAIN_ENAMEL, DrawnTeeth, draw_teeth

SKIN = "young_lightskinned_male_diffuse2.png"
IRIS_ANGLE = 0.47  # radians from the gaze to the rim of the iris: 11.8 mm across on an eyeball of 25 mm
PUPIL_ANGLE = 0.15
# Bounding boxes (u0, v0, u1, v1; v up) in MakeHuman's layout of the islands that are stretched to rectangles.
NECK_UV = (0.270335, 0.900668, 0.490726, 0.973856)
MOUTH_UV = (0.757634, 0.011863, 0.923740, 0.136440)
FEATHER = 36  # pixels of the atlas over which the face maps fade into the rest
LICENCE = """CC0 1.0 Universal (public domain dedication) for the skin, from the MakeHuman core assets (September 2020):
https://creativecommons.org/publicdomain/zero/1.0/
Eyes, teeth, tongue and lashes are drawn by make_head_atlas.py and dedicated to the public domain alike.
"""


def island_mask(model: MorphableModel, parts: tuple[str, ...], size: int = ATLAS_SIZE) -> np.ndarray:
    """(size, size) bool: texels that a triangle of these parts covers."""
    rows = [i for i, name in enumerate(model.config.part_names) if name in parts]
    chosen = np.isin(model.triangle_part.numpy(), rows)
    corners = np.round(model.corner_uv.numpy()[chosen] * size * 16 - 8).astype(np.int32)
    mask = np.zeros((size, size), np.uint8)
    for triangle in corners:
        cv2.fillConvexPoly(mask, triangle, 1, shift=4)
    return mask.astype(bool)


def fill_outside(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Continue the colours inside `mask` outwards (pull-push): no background bleeds in under mip-mapping.

    image: (H, W, C) float32; mask: (H, W) bool.
    """
    weight = mask.astype(np.float32)
    levels = [(image * weight[..., None], weight)]
    while min(levels[-1][1].shape) > 1:
        colour, w = levels[-1]
        half = (max(1, w.shape[1] // 2), max(1, w.shape[0] // 2))
        levels.append(
            (
                cv2.resize(colour, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], -1),
                cv2.resize(w, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0]),
            )
        )
    filled = levels[-1][0] / np.maximum(levels[-1][1][..., None], 1e-6)
    for colour, w in levels[-2::-1]:
        up = cv2.resize(filled, w.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(colour.shape)
        known = np.minimum(w * 4, 1)[..., None]
        filled = known * colour / np.maximum(w[..., None], 1e-6) + (1 - known) * up
    return np.where(mask[..., None], image, filled)


def read_skin(path: Path) -> np.ndarray:
    """A skin file -> (H, H, 3) float32, sRGB-encoded RGB in [0, 1]."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or image.shape[0] != image.shape[1]:
        raise ValueError(f"{path}: expected a square colour image in MakeHuman's skin layout")
    return image[..., ::-1].astype(np.float32) / 255


def resample(skin: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Look up a skin at (..., 2) MakeHuman UVs (v up); supersampled by the caller."""
    size = len(skin)
    x, y = uv[..., 0] * size - 0.5, (1 - uv[..., 1]) * size - 0.5
    return cv2.remap(
        skin, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def texel_grid(width: int, height: int, supersample: int = 2) -> np.ndarray:
    """(height * ss, width * ss, 2): centres of the sub-texels of a width x height image, in texels."""
    x = (np.arange(width * supersample) + 0.5) / supersample
    y = (np.arange(height * supersample) + 0.5) / supersample
    return np.stack(np.meshgrid(x, y), -1)


def skin_in_atlas(skin: np.ndarray) -> np.ndarray:
    """The head island of a skin laid out as the atlas: (1024, 1024, 3) sRGB-encoded."""
    x, y, size = FACE_BLOCK
    chart = (texel_grid(ATLAS_SIZE, ATLAS_SIZE) - np.array([x, y])) / size
    return cv2.resize(
        resample(skin, makehuman_from_face_chart(chart)), (ATLAS_SIZE, ATLAS_SIZE), interpolation=cv2.INTER_AREA
    )


def _stretched(skin: np.ndarray, rect: tuple[int, int, int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """A box (u0, v0, u1, v1; v up) of a skin stretched to a rectangle of the atlas with its margin of 4 pixels."""
    _, _, width, height = rect
    grid = (texel_grid(width, height) - 4) / np.array([width - 8, height - 8])
    u = box[0] + grid[..., 0] * (box[2] - box[0])
    v = box[3] - grid[..., 1] * (box[3] - box[1])
    return cv2.resize(resample(skin, np.stack([u, v], -1)), (width, height), interpolation=cv2.INTER_AREA)


def draw_eye(size: int, iris_rgb: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Sclera, iris and pupil over the azimuthal eye chart: (size, size, 3) sRGB-encoded."""
    grid = (texel_grid(size, size, 4) - size / 2) / (size / 2 - 4)
    radius = np.linalg.norm(grid, axis=-1)
    angle = np.pi * np.clip(radius, 0, 1) ** (1 / EYE_EXPONENT)
    heading = np.arctan2(grid[..., 1], grid[..., 0])
    sclera = np.array([0.86, 0.82, 0.79]) - np.clip(angle - 0.6, 0, 1)[..., None] * np.array([0.02, 0.16, 0.16])
    fibres = sum(
        rng.normal(0, 1 / k**0.5) * np.cos(k * heading + rng.uniform(0, 6.3) + 0.6 * np.sin(9 * angle))
        for k in range(8, 60, 3)
    )
    depth = np.clip(angle / IRIS_ANGLE, 0, 1)
    shade = (0.62 + 0.55 * depth * (1 - depth) * 2 + 0.07 * fibres) * (1 - 0.65 * np.clip((depth - 0.8) / 0.2, 0, 1))
    iris = np.array(iris_rgb) * shade[..., None]
    edge = np.clip((angle - IRIS_ANGLE) / 0.045 + 0.5, 0, 1)[..., None]
    colour = iris * (1 - edge) + sclera * edge
    pupil = np.clip((angle - PUPIL_ANGLE) / 0.02 + 0.5, 0, 1)[..., None]
    colour = colour * pupil + 0.012 * (1 - pupil)
    return cv2.resize(colour.clip(0, 1).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def teeth_in_rect(model: MorphableModel, supersample: int = 6) -> DrawnTeeth:
    """Both rows of teeth over their rectangle of the atlas; colours go on beyond the rows' borders."""
    chosen = model.triangle_part.numpy() == model.config.part_names.index("teeth")
    triangles, vertices = model.triangles.numpy()[chosen], model.mean.numpy().astype(np.float64)
    x, y, width, height = TEETH_RECT
    uv = (model.corner_uv.numpy()[chosen].astype(np.float64) * ATLAS_SIZE - [x, y]) * supersample
    rows = sorted(connected_pieces(triangles), key=lambda row: -vertices[row, 1].mean())
    fine = draw_teeth(vertices, triangles, uv, rows, (height * supersample, width * supersample))
    share = cv2.resize(fine.covered.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)

    def reduced(values: np.ndarray) -> np.ndarray:
        sums = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        means = sums.reshape(height, width, -1) / np.maximum(share, 1e-6)[..., None]
        return fill_outside(means, share > 0.3).reshape(sums.shape)

    return DrawnTeeth(reduced(fine.albedo), reduced(fine.slope), reduced(fine.wet), share > 0.3)


def srgb(linear: np.ndarray) -> np.ndarray:
    """Linear values as sRGB encodes them."""
    return srgb_from_linear(torch.from_numpy(np.asarray(linear, np.float32))).numpy()


def draw_lash_alpha(model: MorphableModel, rng: np.random.Generator) -> np.ndarray:
    """Coverage of the lash strips: (1024, 1024) in [0, 1]; hairs run from the lid's edge outwards along each strip.

    The root is the row of vertices nearest to the eyeballs' surface.
    """
    part = model.config.part_names.index("lashes")
    chosen = model.triangle_part.numpy() == part
    triangles, uv = model.triangles.numpy()[chosen], model.corner_uv.numpy()[chosen] * ATLAS_SIZE
    vertices = model.mean.numpy()
    alpha = np.zeros((ATLAS_SIZE * 4, ATLAS_SIZE * 4), np.uint8)
    eyes = [np.unique(model.triangles.numpy()[model.triangle_part.numpy() == model.config.part_names.index(name)])
            for name in ("eye_left", "eye_right")]  # fmt: skip
    centres = np.stack([vertices[e].mean(0) for e in eyes])
    point_uv = {int(v): uv[t, c] for t, row in enumerate(triangles) for c, v in enumerate(row)}
    index = np.array(sorted(point_uv))
    flat = np.array([point_uv[i] for i in index])
    strips = connected_pieces(triangles)
    for strip in strips:
        members = np.isin(index, strip)
        own_uv, own = flat[members], vertices[index[members]]
        side = int(np.linalg.norm(own.mean(0) - centres, axis=1).argmin())
        distance = np.linalg.norm(own - centres[side], axis=1)
        design = np.concatenate([own_uv, np.ones((len(own_uv), 1))], 1)
        outward = np.linalg.lstsq(design, distance, rcond=None)[0][:2]
        axis = int(np.abs(outward).argmax())
        low, high = own_uv.min(0), own_uv.max(0)
        root, tip = (low, high) if outward[axis] > 0 else (high, low)
        upper = own[:, 1].mean() > centres[side][1]
        for _ in range(26 if upper else 16):
            along = rng.uniform(0.08, 0.92)
            reach = rng.uniform(0.3, 0.5) if upper else rng.uniform(0.14, 0.24)
            length = reach * (0.55 + 0.45 * np.sin(np.pi * along))
            bend = rng.normal(0, 0.02)
            line = []
            for s in np.linspace(0, 1, 6):
                point = np.empty(2)
                point[1 - axis] = low[1 - axis] + (along + bend * s * s) * (high[1 - axis] - low[1 - axis])
                point[axis] = root[axis] + s * length * (tip[axis] - root[axis])
                line.append(point)
            pixels = np.round(np.array(line) * 4 * 16).astype(np.int32)
            cv2.polylines(alpha, [pixels], False, 255, thickness=3, lineType=cv2.LINE_AA, shift=4)
    return cv2.resize(alpha, (ATLAS_SIZE, ATLAS_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def connected_pieces(triangles: np.ndarray) -> list[np.ndarray]:
    """Vertex sets of the connected pieces of a triangle list."""
    pieces: list[set[int]] = []
    for triangle in triangles.tolist():
        touching = [piece for piece in pieces if piece & set(triangle)]
        pieces = [piece for piece in pieces if piece not in touching] + [set(triangle).union(*touching)]
    return [np.array(sorted(piece)) for piece in pieces]


def blend_mask(face_island: np.ndarray) -> np.ndarray:
    """(1024, 1024) in [0, 1]: 1 where the face maps rule, falling to 0 at the block's and the island's edge."""
    x, y, size = FACE_BLOCK
    inside = np.zeros((ATLAS_SIZE, ATLAS_SIZE), np.uint8)
    inside[y : y + size, x : x + size] = 1
    inside &= face_island.astype(np.uint8)
    # Eye and mouth openings are no borders: close them before measuring the distance.
    closed = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((61, 61), np.uint8))
    closed[:y], closed[y + size :], closed[:, :x], closed[:, x + size :] = 0, 0, 0, 0
    distance = cv2.distanceTransform(closed, cv2.DIST_L2, 5)
    ramp = np.clip((distance - 2) / FEATHER, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def paste(atlas: np.ndarray, rect: tuple[int, int, int, int], patch: np.ndarray | float) -> None:
    x, y, width, height = rect
    atlas[y : y + height, x : x + width] = patch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skins", type=Path, required=True, help="folder of skins in MakeHuman's layout")
    skin = read_skin(parser.parse_args().skins / SKIN)
    model, _ = load_morphable()
    rng = np.random.default_rng(0)

    island = island_mask(model, ("skin",))
    head = island.copy()
    head[FACE_BLOCK[1] + FACE_BLOCK[2] + 8 :] = False
    albedo = fill_outside(skin_in_atlas(skin), cv2.erode(head.astype(np.uint8), np.ones((5, 5))).astype(bool))
    paste(albedo, NECK_RECT, _stretched(skin, NECK_RECT, NECK_UV))
    paste(albedo, MOUTH_RECT, _stretched(skin, MOUTH_RECT, MOUTH_UV) * np.array([0.50, 0.35, 0.35]))
    for rect in SOCKET_RECTS.values():
        paste(albedo, rect, np.array([0.55, 0.33, 0.29], np.float32))
    paste(albedo, EYE_RECT, draw_eye(EYE_RECT[2], (0.42, 0.28, 0.17), rng))
    teeth = teeth_in_rect(model)
    paste(albedo, TEETH_RECT, srgb(teeth.albedo))
    paste(albedo, ENAMEL_RECT, srgb(PLAIN_ENAMEL))
    noise = cv2.GaussianBlur(rng.normal(0, 1, (TONGUE_RECT[3], TONGUE_RECT[2])).astype(np.float32), (0, 0), 1.2)
    paste(albedo, TONGUE_RECT, np.array([0.53, 0.27, 0.26], np.float32) * (1 + 0.12 * noise[..., None]))
    paste(albedo, LASH_RECT, np.array([0.10, 0.075, 0.06], np.float32))
    alpha = np.ones((ATLAS_SIZE, ATLAS_SIZE), np.float32)
    x, y, width, height = LASH_RECT
    alpha[y : y + height, x : x + width] = draw_lash_alpha(model, rng)[y : y + height, x : x + width]

    specular = np.full((ATLAS_SIZE, ATLAS_SIZE), 0.35, np.float32)  # F0 = .028: skin
    roughness = np.full((ATLAS_SIZE, ATLAS_SIZE), 0.52, np.float32)
    for rect, f0, rough in (
        (EYE_RECT, 0.025, 0.12), (TEETH_RECT, 0.04, 0.25), (TONGUE_RECT, 0.03, 0.35), (MOUTH_RECT, 0.025, 0.4),
        (SOCKET_RECTS["left"], 0.02, 0.6), (SOCKET_RECTS["right"], 0.02, 0.6), (LASH_RECT, 0.0, 0.9),
    ):  # fmt: skip
        paste(specular, rect, f0 / 0.08)
        paste(roughness, rect, rough)
    luminance = np.log(np.maximum(albedo.mean(2), 0.02))
    height_map = (luminance - cv2.GaussianBlur(luminance, (0, 0), 4)) * 0.6
    height_map[y - 200 :] = 0
    slope_x, slope_y = np.gradient(height_map, axis=1), np.gradient(height_map, axis=0)
    normal = np.stack([-slope_x, slope_y, np.ones_like(slope_x)], -1)
    paste(normal, TEETH_RECT, np.concatenate([teeth.slope * [-1, 1], np.ones_like(teeth.slope[..., :1])], -1))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    paste(roughness, TEETH_RECT, 0.22 + 0.13 * teeth.wet)
    paste(normal, ENAMEL_RECT, np.array([0.0, 0.0, 1.0]))
    paste(roughness, ENAMEL_RECT, 0.22)

    def bytes_of(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((image.clip(0, 1) * 255 + 0.5).astype(np.uint8))

    tensors = {
        "albedo": bytes_of(albedo).permute(2, 0, 1).contiguous(),
        "alpha": bytes_of(alpha)[None],
        "specular": bytes_of(specular)[None],
        "roughness": bytes_of(roughness)[None],
        "normal": bytes_of(normal * 0.5 + 0.5).permute(2, 0, 1).contiguous(),
        "blend": bytes_of(blend_mask(head))[None],
        "skin": bytes_of(island.astype(np.float32))[None],
    }
    card = {
        "role": "head_atlas", "name": "makehuman-skin-atlas", "licence": "CC0-1.0", "commercial": True,
        "source": f"{SKIN} of the MakeHuman core assets (September 2020); eyes, teeth, tongue, lashes drawn",
    }  # fmt: skip
    config = {"face_block": FACE_BLOCK, "eye_rect": EYE_RECT, "neck_rect": NECK_RECT}
    save_checkpoint(assets_dir() / "head_atlas.safetensors", tensors, config, card, LICENCE)


if __name__ == "__main__":
    main()
