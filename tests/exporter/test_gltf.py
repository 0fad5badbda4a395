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

from fitdiff.exporter.gltf import write_glb
from fitdiff.exporter.material import MATERIALS
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
            self.gltf.materials[primitive.material].name: primitive
            for primitive in self.gltf.meshes[0].primitives
        }

    def array(self, index: int) -> np.ndarray:
        accessor = self.gltf.accessors[index]
        width, dtype = WIDTHS[accessor.type], DTYPES[accessor.componentType]
        array = np.zeros((accessor.count, width), dtype)
        if accessor.bufferView is not None:
            array = self._read(
                accessor.bufferView, accessor.byteOffset, dtype, accessor.count * width
            ).reshape(array.shape)
        if accessor.sparse is not None:
            keys, values = accessor.sparse.indices, accessor.sparse.values
            rows = self._read(
                keys.bufferView, keys.byteOffset, DTYPES[keys.componentType], accessor.sparse.count
            )
            array[rows] = self._read(values.bufferView, values.byteOffset, dtype, len(rows) * width).reshape(
                -1, width
            )
        return array

    def image(self, texture: int) -> np.ndarray:
        view = self.gltf.bufferViews[self.gltf.images[self.gltf.textures[texture].source].bufferView]
        return np.asarray(
            Image.open(io.BytesIO(self.blob[view.byteOffset : view.byteOffset + view.byteLength]))
        )

    def _read(self, view: int, offset: int | None, dtype: type, count: int) -> np.ndarray:
        return np.frombuffer(self.blob, dtype, count, self.gltf.bufferViews[view].byteOffset + (offset or 0))


@pytest.fixture(scope="module")
def loaded(glb: SimpleNamespace) -> Loaded:
    return Loaded(glb.path)


def nearest(positions: np.ndarray, direction: np.ndarray) -> int:
    """Vertex whose direction from the middle of the head is nearest."""
    return int((positions / np.linalg.norm(positions, axis=1, keepdims=True) @ direction).argmax())


def test_summary_is_of_this_file(avatar: Avatar, glb: SimpleNamespace, loaded: Loaded) -> None:
    summary = glb.summary
    assert summary.bytes == glb.path.stat().st_size
    assert summary.triangles == len(avatar.topology.triangles)
    assert summary.vertices == sum(
        loaded.gltf.accessors[p.attributes.POSITION].count for p in loaded.primitives.values()
    )
    assert summary.materials == tuple(material.name for material in MATERIALS) == tuple(loaded.primitives)
    assert summary.morph_targets == avatar.topology.blendshape_names


def test_nodes_and_the_only_joint(loaded: Loaded) -> None:
    gltf = loaded.gltf
    roots = [gltf.nodes[index] for index in gltf.scenes[gltf.scene].nodes]
    assert [node.name for node in roots] == ["FitDiffHead", "FitDiffHeadMesh"]
    assert (
        [gltf.nodes[index].name for index in roots[0].children]
        == ["head"]
        == [gltf.nodes[index].name for index in gltf.skins[0].joints]
    )
    assert roots[1].mesh == 0 == roots[1].skin
    np.testing.assert_array_equal(loaded.array(gltf.skins[0].inverseBindMatrices)[0].reshape(4, 4), np.eye(4))
    for primitive in loaded.primitives.values():
        assert not loaded.array(primitive.attributes.JOINTS_0).any()
        weights = gltf.accessors[primitive.attributes.WEIGHTS_0]
        assert weights.normalized
        assert (loaded.array(primitive.attributes.WEIGHTS_0) == [255, 0, 0, 0]).all()


def test_metres_up_and_facing(avatar: Avatar, loaded: Loaded) -> None:
    """The nose is the point with the largest z, the eyes are above it, and every number is the avatar's."""
    skin = loaded.array(loaded.primitives["FitDiff_Skin"].attributes.POSITION)
    np.testing.assert_allclose(skin.max(0) - skin.min(0), [0.17, 0.24, 0.23], atol=0.01)
    nose = skin[skin[:, 2].argmax()]
    np.testing.assert_allclose(nose, [0, 0, 0.13], atol=1e-6)
    eyes = loaded.array(loaded.primitives["FitDiff_Eye"].attributes.POSITION)
    teeth = loaded.array(loaded.primitives["FitDiff_Teeth"].attributes.POSITION)
    assert eyes[:, 1].min() > nose[1] > teeth[:, 1].max()
    np.testing.assert_array_equal(
        np.unique(skin, axis=0), np.unique(avatar.vertices[avatar_skin(avatar)], axis=0)
    )


def avatar_skin(avatar: Avatar) -> np.ndarray:
    return np.unique(avatar.topology.triangles[avatar.topology.triangles_of("skin")])


def test_red_patch_is_on_the_left_cheek(loaded: Loaded, marks: SimpleNamespace) -> None:
    primitive = loaded.primitives["FitDiff_Skin"]
    positions, uv = loaded.array(primitive.attributes.POSITION), loaded.array(primitive.attributes.TEXCOORD_0)
    texture = loaded.image(
        loaded.gltf.materials[primitive.material].pbrMetallicRoughness.baseColorTexture.index
    )

    def colour(direction: np.ndarray) -> list[int]:
        u, v = uv[nearest(positions, direction)]
        return texture[int(v * marks.side), int(u * marks.side)].tolist()

    assert colour(marks.cheek_direction) == [*marks.cheek, 255]
    assert colour(marks.cheek_direction * [-1, 1, 1]) == [*marks.skin, 255]  # the right cheek
    assert colour(marks.cheek_direction * [1, -1, 1]) == [*marks.skin, 255]  # the left temple


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
    texel = texture[int(v * marks.side), int(u * marks.side)] / 255 * 2 - 1
    np.testing.assert_allclose(texel, marks.tilted_normal, atol=1 / 255)
    normal, tangent = (
        loaded.array(a)[index] for a in (primitive.attributes.NORMAL, primitive.attributes.TANGENT)
    )
    bitangent = tangent[3] * np.cross(normal, tangent[:3])
    world = texel[0] * tangent[:3] + texel[1] * bitangent + texel[2] * normal
    assert world[1] > normal[1] + 0.3
    assert tangent[0] > 0.5  # +u is +X, the character's left


def test_textures_hold_the_maps(avatar: Avatar, loaded: Loaded, marks: SimpleNamespace) -> None:
    material = loaded.gltf.materials[0]
    packed = loaded.image(material.pbrMetallicRoughness.metallicRoughnessTexture.index)
    assert (packed[..., 0] == 255).all() and not packed[..., 2].any()
    np.testing.assert_array_equal(packed[..., 1], np.rint(avatar.head_maps.roughness * 255))
    base = loaded.image(material.pbrMetallicRoughness.baseColorTexture.index)
    np.testing.assert_array_equal(base, np.rint(avatar.head_maps.base_color * 255))


def test_reflectance_at_normal_incidence(loaded: Loaded, marks: SimpleNamespace) -> None:
    """KHR_materials_specular: F0 = 0.04 * colour factor * colour texture * specular, and F90 = specular."""
    for material in loaded.gltf.materials:
        extension = material.extensions["KHR_materials_specular"]
        image = loaded.image(extension["specularColorTexture"]["index"])
        assert extension.get("specularFactor", 1) == 1 and "specularTexture" not in extension
        for texel, stored in ((marks.cheek_texel, marks.cheek_specular), ((5, 5), marks.skin_specular)):
            encoded = image[texel] / 255
            linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
            f0 = 0.04 * np.array(extension["specularColorFactor"]) * linear
            np.testing.assert_allclose(f0, 0.08 * stored, atol=0.08 * 0.006)


def test_only_lashes_are_cut_out(loaded: Loaded) -> None:
    for material in loaded.gltf.materials:
        lashes = material.name == "FitDiff_Lashes"
        assert (material.alphaMode, bool(material.doubleSided)) == (
            ("MASK", True) if lashes else ("OPAQUE", False)
        )
        assert material.pbrMetallicRoughness.metallicFactor == 0
        assert material.pbrMetallicRoughness.roughnessFactor == 1


def test_blendshapes(avatar: Avatar, loaded: Loaded) -> None:
    mesh = loaded.gltf.meshes[0]
    assert mesh.extras["targetNames"] == list(avatar.topology.blendshape_names)
    assert mesh.weights == [0.0] * len(avatar.topology.blendshape_names)
    for primitive in mesh.primitives:
        assert len(primitive.targets) == len(avatar.topology.blendshape_names)
        positions = loaded.array(primitive.attributes.POSITION)
        lookup = {tuple(vertex): index for index, vertex in enumerate(avatar.vertices)}
        source = [lookup[tuple(vertex)] for vertex in positions]
        for name, target, offsets in zip(
            mesh.extras["targetNames"], primitive.targets, avatar.topology.blendshapes, strict=True
        ):
            accessor = loaded.gltf.accessors[target["POSITION"]]
            deltas = loaded.array(target["POSITION"])
            np.testing.assert_allclose(deltas, offsets[source], atol=1e-6, err_msg=name)
            assert [accessor.min, accessor.max] == [deltas.min(0).tolist(), deltas.max(0).tolist()]
            assert accessor.bufferView is None  # only what moves is stored
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
    }


def test_trimesh_opens_it(avatar: Avatar, glb: SimpleNamespace, loaded: Loaded) -> None:
    scene = trimesh.load_scene(glb.path)
    assert len(scene.geometry) == len(MATERIALS)
    np.testing.assert_allclose(scene.bounds, [avatar.vertices.min(0), avatar.vertices.max(0)], atol=1e-7)
    for mesh in scene.geometry.values():
        primitive = loaded.primitives[mesh.visual.material.name]
        np.testing.assert_array_equal(mesh.vertices, loaded.array(primitive.attributes.POSITION))
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


def test_head_without_blendshapes_or_holes(avatar: Avatar, tmp_path: Path) -> None:
    topology = dataclasses.replace(
        avatar.topology, blendshapes=avatar.topology.blendshapes[:0], blendshape_names=()
    )
    color = avatar.head_maps.base_color.copy()
    color[..., 3] = 1
    plain = dataclasses.replace(
        avatar,
        topology=topology,
        expression_weights={},
        head_maps=dataclasses.replace(avatar.head_maps, base_color=color),
    )
    write_glb(plain, tmp_path / "plain.glb")
    loaded = Loaded(tmp_path / "plain.glb")
    assert not loaded.gltf.meshes[0].primitives[0].targets
    assert loaded.image(0).shape == (256, 256, 3)  # no alpha where nothing is cut out
    assert "weights" not in json.loads(loaded.gltf.to_json())["meshes"][0]
