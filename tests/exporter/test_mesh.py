"""Render vertices: what is split, what is shared, and in which order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fitdiff.exporter.anatomy.skeleton import head_skeleton
from fitdiff.exporter.material import MATERIALS
from fitdiff.exporter.mesh import NORMAL_EPSILON, Primitive, primitives_from_avatar
from fitdiff.exporter.tangents import vertex_normals
from fitdiff.runtime.avatar import Avatar

SKIN, MOUTH, EYE, TEETH, TONGUE, LASHES = range(6)
PRIMITIVES = [material for material in MATERIALS if material.surface != "film"]  # the head is not a finished one


@pytest.fixture(scope="module")
def primitives(avatar: Avatar) -> list[Primitive | None]:
    return primitives_from_avatar(avatar, head_skeleton(avatar), [material.parts for material in PRIMITIVES])


def test_every_corner_keeps_its_place_and_texture_coordinate(avatar: Avatar, primitives: list[Primitive]) -> None:
    topology = avatar.topology
    for material, primitive in zip(PRIMITIVES, primitives, strict=True):
        mask = topology.triangles_of(*material.parts)
        np.testing.assert_array_equal(primitive.source_vertex[primitive.triangles], topology.triangles[mask])
        np.testing.assert_array_equal(primitive.uv[primitive.triangles], topology.corner_uv[mask])
        np.testing.assert_array_equal(primitive.positions, avatar.vertices[primitive.source_vertex])


def test_vertices_are_shared_except_at_the_seam(primitives: list[Primitive]) -> None:
    skin = primitives[SKIN]
    assert (np.diff(skin.source_vertex.astype(int)) >= 0).all()
    sources, copies = np.unique(skin.source_vertex, return_counts=True)
    assert len(sources) == 24 * 15 + 2
    doubled = sources[copies > 1]
    assert len(doubled) == 15 + 2  # the meridian at the back, and the poles
    assert (skin.positions[np.isin(skin.source_vertex, doubled)][:, 2] < 1e-6).all()


def test_no_seam_in_the_normals(avatar: Avatar, primitives: list[Primitive]) -> None:
    welded = vertex_normals(avatar.vertices, avatar.topology.triangles)
    for primitive in primitives:
        np.testing.assert_allclose(primitive.normals, welded[primitive.source_vertex], atol=1e-7)


def test_only_the_mirrored_chart_has_negative_handedness(primitives: list[Primitive]) -> None:
    for part, primitive in enumerate(primitives):
        assert set(primitive.tangents[:, 3]) == ({-1.0} if part == TEETH else {1.0})


def test_tangents_run_along_the_parallels_of_the_sphere(primitives: list[Primitive]) -> None:
    skin = primitives[SKIN]
    x, y, z = skin.positions.T
    middle = (np.abs(y) < 0.08) & (z < 0.05)  # away from the poles and the nose
    east = np.stack([z / 1.0**2, np.zeros_like(x), -x / 0.85**2], axis=1)[middle]
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    assert (skin.tangents[middle, :3] * east).sum(1).min() > 0.99


def test_targets_hold_only_what_moves(avatar: Avatar, primitives: list[Primitive]) -> None:
    blink, jaw, tongue = (avatar.topology.blendshape_names.index(n) for n in ("eyeBlinkLeft", "jawOpen", "tongueOut"))
    skin = primitives[SKIN]
    target = skin.targets[blink]
    assert 0 < len(target.position_index) < len(skin.positions) / 4
    assert (skin.positions[target.position_index][:, 0] >= 0).all()  # the character's left
    np.testing.assert_array_equal(
        target.position_delta, avatar.topology.blendshapes[blink][skin.source_vertex[target.position_index]]
    )
    assert len(skin.targets[tongue].position_index) == 0 == len(skin.targets[tongue].normal_index)
    assert len(primitives[TONGUE].targets[tongue].position_index) == 4
    assert len(primitives[TONGUE].targets[tongue].normal_index) == 0  # it only slides
    assert len(primitives[MOUTH].targets[jaw].position_index) == 4


def test_normals_of_a_target_are_those_of_the_moved_head(avatar: Avatar, primitives: list[Primitive]) -> None:
    moved = vertex_normals(avatar.vertices + avatar.topology.blendshapes[0], avatar.topology.triangles)
    skin = primitives[SKIN]
    normals = skin.normals.copy()
    normals[skin.targets[0].normal_index] += skin.targets[0].normal_delta
    np.testing.assert_allclose(normals, moved[skin.source_vertex], atol=NORMAL_EPSILON)


def test_part_without_triangles_has_no_primitive(avatar: Avatar) -> None:
    topology = avatar.topology
    keep = ~topology.triangles_of("lashes")
    bald = dataclasses.replace(
        topology,
        triangles=topology.triangles[keep],
        corner_uv=topology.corner_uv[keep],
        triangle_part=topology.triangle_part[keep],
    )
    groups = [("lashes",), ("tongue",), ("cornea_left", "no such part")]
    primitives = primitives_from_avatar(dataclasses.replace(avatar, topology=bald), head_skeleton(avatar), groups)
    assert primitives[0] is None and primitives[2] is None
    assert primitives[1] is not None
