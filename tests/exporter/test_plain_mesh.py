"""PLY and OBJ, read back by trimesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from fitdiff.exporter.anatomy.head import finished_head
from fitdiff.exporter.export import write_export
from fitdiff.exporter.options import ExportOptions
from fitdiff.runtime.avatar import Avatar


@pytest.fixture(scope="module")
def folder(avatar: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_export(avatar, folder, ExportOptions(texture_size=512, ply=True, obj=True))
    return folder


def test_ply_is_the_neutral_head_with_its_colours(avatar: Avatar, folder: Path) -> None:
    head = finished_head(avatar)
    mesh = trimesh.load_mesh(folder / "FitDiffHead.ply", process=False)
    used, flat = np.unique(head.topology.triangles, return_inverse=True)
    np.testing.assert_array_equal(mesh.vertices, head.vertices[used])
    np.testing.assert_array_equal(mesh.faces, flat.reshape(-1, 3))
    lengths = np.linalg.norm(mesh.vertex_normals, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    outward = mesh.vertices[mesh.vertices[:, 2].argmax()]
    assert mesh.vertex_normals[mesh.vertices[:, 2].argmax(), 2] > 0.5 and outward[2] > 0.12  # the nose looks to +Z
    visual: Any = mesh.visual
    colors = visual.vertex_colors[:, :3].astype(int)
    red = (colors[:, 0] > 2.5 * colors[:, 1]) & (colors[:, 0] > 130)  # the mouth is darker
    assert red.any() and (mesh.vertices[red, 0] > 0).all()  # the patch on the character's left cheek


def test_obj_has_parts_materials_and_upright_texture_coordinates(avatar: Avatar, folder: Path) -> None:
    scene = trimesh.load_scene(folder / "FitDiffHead.obj", process=False, split_object=False, group_material=True)
    assert {mesh.visual.material.name for mesh in scene.geometry.values()} == {
        f"FitDiff_{part}" for part in ("Skin", "Mouth", "Eye", "Cornea", "Teeth", "Tongue", "Lashes")
    }
    head = finished_head(avatar)
    np.testing.assert_allclose(scene.bounds, [head.vertices.min(0), head.vertices.max(0)], atol=1e-6)
    assert sum(len(mesh.faces) for mesh in scene.geometry.values()) == len(head.topology.triangles)
    skin = next(mesh for mesh in scene.geometry.values() if mesh.visual.material.name == "FitDiff_Skin")
    picture = np.asarray(Image.open(folder / "FitDiffHead_base_color.jpg")).astype(int)
    u, v = skin.visual.uv.T  # OBJ's v runs upwards
    side = len(picture)
    texel = picture[((1 - v) * side).astype(int).clip(0, side - 1), (u * side).astype(int).clip(0, side - 1)]
    red = (texel[:, 0] > 2.5 * texel[:, 1]) & (texel[:, 0] > 100)
    assert red.any() and (skin.vertices[red, 0] > 0).all()
    assert skin.volume > 0  # counter-clockwise seen from outside


def test_mtl_names_files_that_are_there(folder: Path) -> None:
    library = (folder / "FitDiffHead.mtl").read_text()
    named = {line.split()[-1] for line in library.splitlines() if line.startswith("map_")}
    assert named == {"FitDiffHead_base_color.jpg", "FitDiffHead_lashes.png"}
    assert all((folder / name).is_file() for name in named)
    assert np.asarray(Image.open(folder / "FitDiffHead_lashes.png")).shape[2] == 4


def test_textures_of_an_obj_are_readable_whatever_the_glb_has(avatar: Avatar, tmp_path: Path) -> None:
    write_export(avatar, tmp_path, ExportOptions(texture_size=512, obj=True, texture_format="webp", parts=("skin",)))
    assert {path.suffix for path in tmp_path.iterdir()} == {".glb", ".obj", ".mtl", ".jpg"}
