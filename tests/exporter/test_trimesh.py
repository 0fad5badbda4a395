"""Two Python readers, trimesh and pygltflib, find the avatar's own numbers in the file."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest


def test_trimesh_reads_the_same_mesh(head_glb: SimpleNamespace) -> None:
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(head_glb.path)
    by_material = {g.visual.material.name: g for g in scene.geometry.values()}
    assert set(by_material) == {p.material["name"] for p in head_glb.file.primitives}
    for primitive in head_glb.file.primitives:
        mesh = by_material[primitive.material["name"]]
        np.testing.assert_allclose(
            np.sort(mesh.bounds, 0), [primitive.positions.min(0), primitive.positions.max(0)], atol=1e-6
        )
        assert len(mesh.faces) == len(primitive.triangles)
        area = np.linalg.norm(np.cross(*edges(primitive.positions[primitive.triangles])), axis=1).sum() / 2
        assert mesh.area == pytest.approx(area, rel=1e-4)
    skin = by_material["FitDiff_Skin"]
    # trimesh turns v up: the textures' first row is v = 1 there.
    uv = next(p.uv for p in head_glb.file.primitives if p.material["name"] == "FitDiff_Skin")
    assert np.ptp(skin.visual.uv[:, 1]) == pytest.approx(np.ptp(uv[:, 1]), abs=1e-6)
    assert skin.visual.material.baseColorTexture.size[0] >= 512


def test_pygltflib_reads_the_same_numbers(head_glb: SimpleNamespace) -> None:
    pygltflib = pytest.importorskip("pygltflib")
    gltf = pygltflib.GLTF2().load(str(head_glb.path))
    blob = gltf.binary_blob()
    seen = 0
    for mesh in gltf.meshes:
        for primitive in mesh.primitives:
            accessor = gltf.accessors[primitive.attributes.POSITION]
            view = gltf.bufferViews[accessor.bufferView]
            start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
            got = np.frombuffer(blob, "<f4", accessor.count * 3, start).reshape(-1, 3)
            np.testing.assert_array_equal(got, head_glb.file.primitives[seen].positions)
            assert len(primitive.targets) == 52
            seen += 1
    assert seen == len(head_glb.file.primitives)


def test_the_skin_is_the_avatars(head_glb: SimpleNamespace) -> None:
    """The file's skin lies on the avatar's face; where the export left a vertex alone, it moves as the avatar says."""
    spatial = pytest.importorskip("scipy.spatial")
    avatar, head = head_glb.avatar, head_glb.file
    skin = next(p for p in head.primitives if p.material["name"] == "FitDiff_Skin")
    topology = avatar.topology
    face = np.unique(topology.triangles[topology.triangles_of("skin")])
    face = face[avatar.vertices[face, 1] > np.percentile(avatar.vertices[face, 1], 15)]  # above the neck
    distance, index = spatial.cKDTree(skin.positions).query(avatar.vertices[face])
    same = distance < 1e-6  # an export may round lids and lips, and refine
    assert np.percentile(distance, 99) < 4e-3 and same.mean() > 0.5
    order = [head.shapes.index(name) for name in topology.blendshape_names]
    ours = topology.blendshapes[:, face[same]].reshape(len(order), -1)
    theirs = skin.morphs[order][:, index[same]].reshape(len(order), -1)
    moving = np.linalg.norm(ours, axis=1) > 1e-3  # some shapes move the eyes or the tongue alone
    ours, theirs = (m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-9) for m in (ours, theirs))
    alike = theirs @ ours.T  # cosine of each of the file's shapes with each of the avatar's
    print(f"{same.sum()} of {len(face)} vertices; cosines of equal names {alike.diagonal()[moving].min():.3f} and more")
    assert moving.sum() > 30
    assert (alike.argmax(1) == np.arange(len(order)))[moving].all()
    assert alike.diagonal()[moving].min() > 0.9


def edges(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
