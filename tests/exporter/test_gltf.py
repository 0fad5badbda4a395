"""The written file, read back by pygltflib and trimesh and compared with the avatar."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pygltflib
import pytest
import trimesh
from PIL import Image

from fitdiff.exporter.anatomy.head import finished_head
from fitdiff.exporter.anatomy.skeleton import head_skeleton
from fitdiff.exporter.gltf import write_glb
from fitdiff.exporter.material import MATERIALS
from fitdiff.exporter.mesh import POSITION_EPSILON
from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.textures.head_textures import head_textures
from fitdiff.exporter.validate import InvalidGltfError
from fitdiff.runtime.avatar import Avatar

DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Loaded:
    """A file as pygltflib has it, with its accessors as arrays and its images as pixels."""

    def __init__(self, path: Path) -> None:
        self.gltf: Any = pygltflib.GLTF2().load(str(path))
        self.blob = self.gltf.binary_blob()
        self.primitives: dict[str, Any] = {
            self.gltf.materials[primitive.material].name: primitive for primitive in self.gltf.meshes[0].primitives
        }

    def array(self, index: int) -> np.ndarray:
        accessor = self.gltf.accessors[index]
        width, dtype = WIDTHS[accessor.type], DTYPES[accessor.componentType]
        array = np.zeros((accessor.count, width), dtype)
        if accessor.bufferView is not None:
            dense = self._read(accessor.bufferView, accessor.byteOffset, dtype, accessor.count * width)
            array = dense.reshape(array.shape).copy()
        if accessor.sparse is not None:
            keys, values = accessor.sparse.indices, accessor.sparse.values
            rows = self._read(keys.bufferView, keys.byteOffset, DTYPES[keys.componentType], accessor.sparse.count)
            array[rows] = self._read(values.bufferView, values.byteOffset, dtype, len(rows) * width).reshape(-1, width)
        return array

    def image(self, texture: int) -> np.ndarray:
        view = self.gltf.bufferViews[self.gltf.images[self.gltf.textures[texture].source].bufferView]
        return np.asarray(Image.open(io.BytesIO(self.blob[view.byteOffset : view.byteOffset + view.byteLength])))

    def _read(self, view: int, offset: int | None, dtype: type, count: int) -> np.ndarray:
        return np.frombuffer(self.blob, dtype, count, self.gltf.bufferViews[view].byteOffset + (offset or 0))


@pytest.fixture(scope="module")
def finished(avatar: Avatar) -> Avatar:
    return finished_head(avatar)


@pytest.fixture(scope="module")
def loaded(glb: SimpleNamespace) -> Loaded:
    return Loaded(glb.path)


def nearest(positions: np.ndarray, direction: np.ndarray) -> int:
    """Vertex whose direction from the middle of the head is nearest."""
    return int((positions / np.linalg.norm(positions, axis=1, keepdims=True) @ direction).argmax())


def test_summary_is_of_this_file(finished: Avatar, glb: SimpleNamespace, loaded: Loaded) -> None:
    summary = glb.summary
    assert summary.bytes == glb.path.stat().st_size
    assert summary.triangles == len(finished.topology.triangles)
    assert summary.vertices == sum(
        loaded.gltf.accessors[p.attributes.POSITION].count for p in loaded.primitives.values()
    )
    assert summary.materials == tuple(loaded.primitives)
    assert summary.materials == tuple(f"FitDiff_{material.part}" for material in MATERIALS)
    assert summary.morph_targets == finished.topology.blendshape_names
    assert summary.levels == ((summary.vertices, summary.triangles),)


def test_joints_and_weights(finished: Avatar, loaded: Loaded) -> None:
    gltf, skeleton = loaded.gltf, head_skeleton(finished)
    roots = [gltf.nodes[index] for index in gltf.scenes[gltf.scene].nodes]
    assert [node.name for node in roots] == ["FitDiffHead", "FitDiffHeadMesh"]
    assert roots[1].mesh == 0 == roots[1].skin
    joints = [gltf.nodes[index] for index in gltf.skins[0].joints]
    assert [joint.name for joint in joints] == [joint.name for joint in skeleton.joints]
    assert [joint.name for joint in joints] == ["neck", "head", "eye_left", "eye_right"]
    by_name = {joint.name: joint for joint in joints}
    assert [gltf.nodes[child].name for child in by_name["neck"].children] == ["head"]
    assert [gltf.nodes[child].name for child in by_name["head"].children] == ["eye_left", "eye_right"]
    matrices = loaded.array(gltf.skins[0].inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
    placed = {}
    for number, joint in enumerate(joints):
        parent = next((other for other in joints if number + 1 in (other.children or [])), None)
        placed[joint.name] = np.array(joint.translation) + (placed[parent.name] if parent else 0)
        np.testing.assert_allclose(placed[joint.name], skeleton.joints[number].position, atol=1e-9)
        np.testing.assert_allclose(matrices[number] @ [*placed[joint.name], 1], [0, 0, 0, 1], atol=1e-7)
    assert placed["eye_left"][0] > 0 > placed["eye_right"][0]  # +X is the character's left
    for name, primitive in loaded.primitives.items():
        index, weights = loaded.array(primitive.attributes.JOINTS_0), loaded.array(primitive.attributes.WEIGHTS_0)
        assert gltf.accessors[primitive.attributes.WEIGHTS_0].normalized
        assert (weights.astype(int).sum(1) == 255).all()
        assert not index[weights == 0].any()
        if name in ("FitDiff_Eye", "FitDiff_Cornea"):
            left = loaded.array(primitive.attributes.POSITION)[:, 0] > 0
            np.testing.assert_array_equal(index[:, 0], np.where(left, 2, 3))


def test_metres_up_and_facing(finished: Avatar, loaded: Loaded) -> None:
    """The nose is the point with the largest z, the eyes are above it, and every number is the avatar's."""
    skin = loaded.array(loaded.primitives["FitDiff_Skin"].attributes.POSITION)
    np.testing.assert_allclose(skin.max(0) - skin.min(0), [0.17, 0.24, 0.23], atol=0.01)
    nose = skin[skin[:, 2].argmax()]
    np.testing.assert_allclose(nose, [0, 0, 0.13], atol=1e-6)
    eyes = loaded.array(loaded.primitives["FitDiff_Eye"].attributes.POSITION)
    teeth = loaded.array(loaded.primitives["FitDiff_Teeth"].attributes.POSITION)
    assert eyes[:, 1].min() > nose[1] > teeth[:, 1].max()
    own = np.unique(finished.topology.triangles[finished.topology.triangles_of("skin")])
    np.testing.assert_array_equal(np.unique(skin, axis=0), np.unique(finished.vertices[own], axis=0))


def test_red_patch_is_on_the_left_cheek(loaded: Loaded, marks: SimpleNamespace) -> None:
    primitive = loaded.primitives["FitDiff_Skin"]
    positions, uv = loaded.array(primitive.attributes.POSITION), loaded.array(primitive.attributes.TEXCOORD_0)
    texture = loaded.image(loaded.gltf.materials[primitive.material].pbrMetallicRoughness.baseColorTexture.index)

    def colour(direction: np.ndarray) -> np.ndarray:
        u, v = uv[nearest(positions, direction)]
        return texture[int(v * len(texture)), int(u * len(texture))].astype(int)

    def red(direction: np.ndarray) -> bool:
        r, g, b = colour(direction)
        return bool(r > 2.5 * max(g, b))

    assert red(marks.cheek_direction)
    assert not red(marks.cheek_direction * [-1, 1, 1])  # the right cheek
    assert not red(marks.cheek_direction * [1, -1, 1])  # the left temple


def test_left_eye_wears_the_blue_stripe(loaded: Loaded) -> None:
    primitive = loaded.primitives["FitDiff_Eye"]
    positions, uv = loaded.array(primitive.attributes.POSITION), loaded.array(primitive.attributes.TEXCOORD_0)
    assert ((positions[:, 0] > 0) == (uv[:, 0] < 0.79)).all()  # each eye has its own chart


def test_tilted_normals_lean_up(loaded: Loaded, marks: SimpleNamespace) -> None:
    """Texel, normal, tangent and w together give the direction that the map was made for."""
    primitive = loaded.primitives["FitDiff_Skin"]
    positions, uv = loaded.array(primitive.attributes.POSITION), loaded.array(primitive.attributes.TEXCOORD_0)
    texture = loaded.image(loaded.gltf.materials[primitive.material].normalTexture.index)
    index = np.abs(uv * marks.side - marks.tilted_texel[::-1]).sum(1).argmin()
    assert positions[index, 0] < -0.03 and positions[index, 1] < 0  # the right cheek
    u, v = uv[index]
    texel = texture[int(v * len(texture)), int(u * len(texture))] / 255 * 2 - 1
    np.testing.assert_allclose(texel, marks.tilted_normal, atol=0.05)  # pores lie over it
    normal, tangent = (loaded.array(a)[index] for a in (primitive.attributes.NORMAL, primitive.attributes.TANGENT))
    bitangent = tangent[3] * np.cross(normal, tangent[:3])
    world = texel[0] * tangent[:3] + texel[1] * bitangent + texel[2] * normal
    assert world[1] > normal[1] + 0.3
    assert tangent[0] > 0.5  # +u is +X, the character's left


def test_textures_hold_the_pixels(finished: Avatar, loaded: Loaded) -> None:
    textures = head_textures(finished)
    material = loaded.gltf.materials[0]
    packed = loaded.image(material.pbrMetallicRoughness.metallicRoughnessTexture.index)
    assert (packed[..., 0] == 255).all() and not packed[..., 2].any()
    np.testing.assert_array_equal(packed[..., 1], textures.roughness)
    np.testing.assert_array_equal(loaded.image(material.normalTexture.index), textures.normal)
    base = loaded.image(material.pbrMetallicRoughness.baseColorTexture.index)
    assert np.abs(base.astype(int) - textures.base_color[..., :3]).mean() < 2


def test_reflectance_at_normal_incidence(finished: Avatar, loaded: Loaded) -> None:
    """KHR_materials_specular: F0 = 0.04 * colour factor * colour texture * specular, and F90 = specular."""
    stored = head_textures(finished).specular / 255
    for material in loaded.gltf.materials:
        if material.name in ("FitDiff_Cornea", "FitDiff_Lashes"):
            continue
        extension = material.extensions["KHR_materials_specular"]
        encoded = loaded.image(extension["specularColorTexture"]["index"]) / 255
        assert extension.get("specularFactor", 1) == 1 and "specularTexture" not in extension
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        f0 = 0.04 * np.array(extension["specularColorFactor"]) * linear
        assert np.abs(f0 - 0.08 * stored[..., None]).mean() < 0.08 * 0.006


def test_surfaces(loaded: Loaded) -> None:
    for material in loaded.gltf.materials:
        part = material.name.removeprefix("FitDiff_")
        expected = {"Lashes": ("MASK", True), "Cornea": ("BLEND", False)}.get(part, ("OPAQUE", False))
        assert (material.alphaMode, bool(material.doubleSided)) == expected
        assert material.pbrMetallicRoughness.metallicFactor == 0
        if part == "Cornea":
            assert material.pbrMetallicRoughness.baseColorFactor == [0, 0, 0, 0.12]
            assert material.pbrMetallicRoughness.baseColorTexture is None
        elif part != "Lashes":
            assert material.pbrMetallicRoughness.roughnessFactor == 1


def test_blendshapes(finished: Avatar, loaded: Loaded) -> None:
    avatar = finished
    mesh = loaded.gltf.meshes[0]
    assert mesh.extras["targetNames"] == list(avatar.topology.blendshape_names)
    assert mesh.weights == [0.0] * len(avatar.topology.blendshape_names)
    for primitive in mesh.primitives:
        assert len(primitive.targets) == len(avatar.topology.blendshape_names)
        positions = loaded.array(primitive.attributes.POSITION)
        material = loaded.gltf.materials[primitive.material].name.removeprefix("FitDiff_")
        parts = next(row.parts for row in MATERIALS if row.part == material)
        own = np.unique(avatar.topology.triangles[avatar.topology.triangles_of(*parts)])
        lookup = {tuple(avatar.vertices[index]): index for index in own}
        source = [lookup[tuple(vertex)] for vertex in positions]
        for name, target, offsets in zip(
            mesh.extras["targetNames"], primitive.targets, avatar.topology.blendshapes, strict=True
        ):
            accessor = loaded.gltf.accessors[target["POSITION"]]
            deltas = loaded.array(target["POSITION"])
            np.testing.assert_allclose(deltas, offsets[source], atol=5e-6, err_msg=name)
            assert [accessor.min, accessor.max] == [deltas.min(0).tolist(), deltas.max(0).tolist()]
            moved = int((np.linalg.norm(offsets[source], axis=1) > POSITION_EPSILON).sum())
            assert (accessor.sparse.count if accessor.sparse else 0) == moved  # only what moves is stored
            assert len(loaded.array(target["NORMAL"])) == len(positions)


def test_provenance(loaded: Loaded) -> None:
    assert loaded.gltf.asset.extras["fitdiff"] == {
        "models": [
            {
                "role": "recogniser",
                "name": "marked",
                "source": "test",
                "licence": "CC0-1.0",
                "commercial": True,
                "sha256": "0" * 64,
            }
        ],
        "seed": 7,
        "expression_weights": {"jawOpen": 0.25},
        "target": "gltf",
        "options": ExportOptions().to_json(),
    }


def test_trimesh_opens_it(finished: Avatar, glb: SimpleNamespace, loaded: Loaded) -> None:
    scene = trimesh.load_scene(glb.path)
    assert len(scene.geometry) == len(MATERIALS)
    np.testing.assert_allclose(scene.bounds, [finished.vertices.min(0), finished.vertices.max(0)], atol=1e-7)
    for mesh in scene.geometry.values():
        primitive = loaded.primitives[mesh.visual.material.name]
        np.testing.assert_array_equal(mesh.vertices, loaded.array(primitive.attributes.POSITION))
        if primitive.attributes.TEXCOORD_0 is None:
            continue
        uv = loaded.array(primitive.attributes.TEXCOORD_0)
        np.testing.assert_allclose(mesh.visual.uv, np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1), atol=1e-6)
    skin = next(m for m in scene.geometry.values() if m.visual.material.name == "FitDiff_Skin")
    assert skin.volume > 0.9 * 4 / 3 * np.pi * 0.085 * 0.12 * 0.1  # counter-clockwise seen from outside


def test_same_avatar_gives_the_same_bytes(avatar: Avatar, glb: SimpleNamespace, tmp_path: Path) -> None:
    again = write_glb(avatar, tmp_path / "again.glb")
    assert again.sha256 == glb.summary.sha256
    assert (tmp_path / "again.glb").read_bytes() == glb.path.read_bytes()


def test_broken_avatar_writes_nothing(avatar: Avatar, tmp_path: Path) -> None:
    vertices = avatar.vertices.copy()
    vertices[5, 1] = np.nan
    with pytest.raises(InvalidGltfError, match="NaN"):
        write_glb(dataclasses.replace(avatar, vertices=vertices), tmp_path / "broken.glb")
    with pytest.raises(InvalidGltfError, match="document"):
        weights = {"jawOpen": float("nan")}
        write_glb(dataclasses.replace(avatar, expression_weights=weights), tmp_path / "broken.glb")
    assert not list(tmp_path.iterdir())


def test_head_without_blendshapes_or_lashes(avatar: Avatar, tmp_path: Path) -> None:
    topology = dataclasses.replace(avatar.topology, blendshapes=avatar.topology.blendshapes[:0], blendshape_names=())
    plain = dataclasses.replace(avatar, topology=topology, expression_weights={})
    write_glb(plain, tmp_path / "plain.glb", ExportOptions(parts=("skin", "eyes")))
    loaded = Loaded(tmp_path / "plain.glb")
    assert not loaded.gltf.meshes[0].primitives[0].targets
    assert not any(image.name == "FitDiff_Lashes_BaseColor" for image in loaded.gltf.images)
    assert all(loaded.image(number).shape[2] == 3 for number in range(len(loaded.gltf.textures)))  # no alpha
    assert "weights" not in json.loads(loaded.gltf.to_json())["meshes"][0]
