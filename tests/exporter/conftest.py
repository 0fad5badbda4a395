"""A small avatar whose every part is marked, so that a mirrored, flipped or swapped export cannot pass."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from fitdiff.exporter.gltf import write_glb
from fitdiff.models.topology import PART_NAMES, HeadTopology
from fitdiff.runtime.avatar import Avatar, HeadMaps, ReflectanceMaps

SIDE = 256  # pixels of the atlas
RADIUS = 0.1  # metres
CHEEK = (200, 40, 30)  # sRGB bytes of the patch on the character's left cheek
CHEEK_DIRECTION = np.array([0.55, -0.25, 0.8])  # +X is the character's left
SKIN = (190, 150, 130)
SKIN_SPECULAR, CHEEK_SPECULAR = 0.35, 0.8  # F0 / 0.08
TILTED_NORMAL = np.array([0.0, 0.6, 0.8], np.float32)  # on the right cheek: leans up
TILTED = (190, 150, 140)  # sRGB bytes of that patch
TILTED_DIRECTION = np.array([-0.5, -0.35, 0.8])
NAMES = ("eyeBlinkLeft", "jawOpen", "tongueOut")


def skin_uv(points: np.ndarray) -> np.ndarray:
    """(N, 3) -> (N, 2): longitude right, latitude down, seam at the back, in the left 60% of the atlas."""
    unit = points / np.linalg.norm(points, axis=-1, keepdims=True)
    longitude = np.arctan2(unit[..., 0], unit[..., 2]) / (2 * np.pi) + 0.5
    latitude = np.arccos(np.clip(unit[..., 1], -1, 1)) / np.pi
    return np.stack([0.02 + 0.56 * longitude, 0.02 + 0.96 * latitude], axis=-1)


def skin_texel(direction: np.ndarray) -> tuple[int, int]:
    """(row, column) of the texel that shows the skin in this direction from the middle of the head."""
    u, v = skin_uv(direction[None])[0]
    return int(v * SIDE), int(u * SIDE)


@dataclass
class Pieces:
    vertices: list
    triangles: list
    corner_uv: list
    parts: list

    def add(self, part: str, vertices: np.ndarray, triangles: np.ndarray, corner_uv: np.ndarray) -> None:
        start = sum(map(len, self.vertices))
        self.vertices.append(vertices)
        self.triangles.append(triangles + start)
        self.corner_uv.append(corner_uv)
        self.parts.append(np.full(len(triangles), PART_NAMES.index(part)))


def welded_sphere(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit sphere without double vertices: (V, 3), triangles (F, 3), corner uv (F, 3, 2) with a seam."""
    ring = np.arange(columns) / columns * 2 * np.pi - np.pi  # longitude from +Z towards +X, the seam at -Z
    heights = np.arange(1, rows) / rows * np.pi
    body = np.stack(
        [
            np.sin(heights)[:, None] * np.sin(ring),
            np.cos(heights)[:, None] * np.ones(columns),
            np.sin(heights)[:, None] * np.cos(ring),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = np.concatenate([[[0, 1, 0]], body, [[0, -1, 0]]])
    triangles, uv = [], []

    def corner(row: int, column: float) -> tuple[int, tuple[float, float]]:
        index = 0 if row == 0 else len(vertices) - 1 if row == rows else 1 + (row - 1) * columns + int(column) % columns
        return index, (column / columns, row / rows)

    for row in range(rows):
        for column in range(columns):
            a, b = corner(row, column), corner(row + 1, column)
            c, d = corner(row + 1, column + 1), corner(row, column + 1)
            for triangle in ((a, b, c), (a, c, d)):
                if len({index for index, _ in triangle}) == 3:
                    triangles.append([index for index, _ in triangle])
                    uv.append([place for _, place in triangle])
    return vertices, np.array(triangles), np.array(uv)


def card(center: tuple[float, float, float], width: float, height: float, box: tuple[float, ...]) -> tuple:
    """A rectangle that faces +Z, with the atlas box (u0, v0, u1, v1) on it; u0 > u1 mirrors the picture."""
    x, y, z = center
    vertices = np.array([[x + i * width / 2, y + j * height / 2, z] for j in (1, -1) for i in (-1, 1)])
    u0, v0, u1, v1 = box
    place = np.array([[u0, v0], [u1, v0], [u0, v1], [u1, v1]])
    triangles = np.array([[0, 2, 3], [0, 3, 1]])
    return vertices, triangles, place[triangles]


def make_topology() -> tuple[np.ndarray, HeadTopology]:
    """Vertices (V, 3) of the neutral face and the topology."""
    pieces = Pieces([], [], [], [])
    sphere, triangles, uv = welded_sphere(24, 16)
    nose = np.exp(-((sphere - [0, 0, 1]) ** 2).sum(1) / 0.05)
    skin = sphere * RADIUS * [0.85, 1.2, 1.0] + nose[:, None] * [0, 0, 0.03]
    pieces.add("skin", skin, triangles, uv * [0.56, 0.96] + 0.02)
    small, small_triangles, small_uv = welded_sphere(10, 6)
    for part, x, u in (("eye_left", 0.03, 0.62), ("eye_right", -0.03, 0.8)):
        pieces.add(part, small * 0.015 + [x, 0.03, 0.095], small_triangles, small_uv * [0.16, 0.16] + [u, 0.02])
    pieces.add("mouth", *card((0, -0.05, 0.12), 0.05, 0.02, (0.62, 0.3, 0.7, 0.35)))
    pieces.add("teeth", *card((0.01, -0.045, 0.122), 0.02, 0.006, (0.8, 0.4, 0.7, 0.45)))  # mirrored chart
    pieces.add("tongue", *card((0, -0.055, 0.123), 0.02, 0.006, (0.8, 0.5, 0.9, 0.55)))
    for x in (0.03, -0.03):
        pieces.add("lashes", *card((x, 0.048, 0.115), 0.03, 0.012, (0.62, 0.6, 0.9, 0.7)))
    vertices = np.concatenate(pieces.vertices).astype(np.float32)
    parts = np.concatenate(pieces.parts).astype(np.uint8)
    triangles = np.concatenate(pieces.triangles).astype(np.int32)

    shapes = np.zeros((3, len(vertices), 3), np.float32)
    shapes[0, :, 1] = -0.012 * np.exp(-((vertices - [0.03, 0.045, 0.09]) ** 2).sum(1) / 3e-4)
    shapes[0][np.abs(shapes[0]) < 1e-5] = 0
    shapes[1, :, 1] = np.where(vertices[:, 1] < -0.03, (vertices[:, 1] + 0.03) * 0.4, 0)
    shapes[2][np.unique(triangles[parts == PART_NAMES.index("tongue")]), 2] = 0.03
    return vertices, HeadTopology(
        triangles=triangles,
        corner_uv=np.concatenate(pieces.corner_uv).astype(np.float32),
        triangle_part=parts,
        blendshapes=shapes,
        blendshape_names=NAMES,
        face_block=(0, 0, SIDE // 2),
    )


def make_maps() -> tuple[ReflectanceMaps, HeadMaps]:
    base_color = np.ones((SIDE, SIDE, 4), np.float32)
    base_color[..., :3] = np.array(SKIN) / 255
    specular = np.full((SIDE, SIDE), SKIN_SPECULAR, np.float32)
    normal = np.zeros((SIDE, SIDE, 3), np.float32)
    normal[..., 2] = 1
    roughness = np.full((SIDE, SIDE), 0.45, np.float32)

    def box(u0: float, v0: float, u1: float, v1: float) -> tuple[slice, slice]:
        return slice(round(v0 * SIDE), round(v1 * SIDE)), slice(round(u0 * SIDE), round(u1 * SIDE))

    row, column = skin_texel(CHEEK_DIRECTION)
    patch = slice(row - 10, row + 11), slice(column - 7, column + 8)
    base_color[patch][..., :3] = np.array(CHEEK) / 255
    specular[patch] = CHEEK_SPECULAR
    row, column = skin_texel(TILTED_DIRECTION)
    patch = slice(row - 10, row + 11), slice(column - 7, column + 8)
    normal[patch] = TILTED_NORMAL
    base_color[patch][..., :3] = np.array(TILTED) / 255

    for (u0, v0, u1, v1), colour in {
        (0.60, 0.0, 1.0, 0.2): (235, 235, 235),  # eyes
        (0.60, 0.25, 1.0, 0.37): (120, 30, 40),  # mouth
        (0.60, 0.38, 1.0, 0.47): (240, 235, 215),  # teeth
        (0.60, 0.48, 1.0, 0.57): (200, 90, 100),  # tongue
        (0.60, 0.58, 1.0, 0.72): (30, 20, 15),  # lashes
    }.items():
        base_color[box(u0, v0, u1, v1)] = [*np.array(colour) / 255, 1]
    base_color[box(0.70, 0.03, 0.715, 0.17)][..., :3] = [0.1, 0.2, 0.5]
    base_color[box(0.6, 0.65, 1.0, 0.72)][..., 3] = 0  # the lower half of the lashes is cut out
    roughness[box(0.60, 0.0, 1.0, 0.2)] = 0.1

    face = ReflectanceMaps(
        diffuse_albedo=base_color[: SIDE // 2, : SIDE // 2, :3].copy(),
        specular_albedo=np.repeat(specular[: SIDE // 2, : SIDE // 2, None], 3, axis=2),
        normal=normal[: SIDE // 2, : SIDE // 2].copy(),
    )
    return face, HeadMaps(base_color=base_color, specular=specular, normal=normal, roughness=roughness)


@pytest.fixture(scope="session")
def avatar() -> Avatar:
    from fitdiff.models.checkpoint import ModelCard

    vertices, topology = make_topology()
    face_maps, head_maps = make_maps()
    card_of_model = ModelCard("recogniser", "marked", "test", "CC0-1.0", True, "0" * 64)
    return Avatar(
        vertices=vertices,
        expression_offset=np.zeros_like(vertices),
        expression_weights={"jawOpen": 0.25},
        topology=topology,
        face_maps=face_maps,
        head_maps=head_maps,
        light={"ambient": [0.5, 0.5, 0.5], "directional": [1.0, 1.0, 1.0], "direction": [0.0, 0.0, 1.0]},
        pose=None,
        models=(card_of_model,),
        seed=7,
    )


@pytest.fixture(scope="session")
def glb(avatar: Avatar, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The avatar as a file: `path` and `summary`."""
    path: Path = tmp_path_factory.mktemp("glb") / "avatar.glb"
    return SimpleNamespace(path=path, summary=write_glb(avatar, path))


@pytest.fixture(scope="session")
def marks() -> SimpleNamespace:
    """The marks of the avatar: bytes, texels as (row, column) and directions from the middle of the head."""
    return SimpleNamespace(
        skin=SKIN,
        cheek=CHEEK,
        cheek_direction=CHEEK_DIRECTION / np.linalg.norm(CHEEK_DIRECTION),
        cheek_texel=skin_texel(CHEEK_DIRECTION),
        cheek_specular=CHEEK_SPECULAR,
        skin_specular=SKIN_SPECULAR,
        tilted=TILTED,
        tilted_texel=skin_texel(TILTED_DIRECTION),
        tilted_normal=TILTED_NORMAL,
        blendshapes=NAMES,
        side=SIDE,
    )


@pytest.fixture(scope="session")
def importers() -> ModuleType:
    """`importers.py`: what the tests of importers share."""
    name = "fitdiff_test_importers"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("importers.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def head_glb(importers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The mean head, exported: `path`, `avatar`, and `file`, which is the file read back."""
    path = tmp_path_factory.mktemp("head") / "avatar.glb"
    avatar = importers.average_head()
    write_glb(avatar, path)
    return SimpleNamespace(path=path, avatar=avatar, file=importers.read_head(path))
