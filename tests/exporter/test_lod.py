"""Levels of detail of the embedded head, and the mixing on a small one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fitdiff.assets.subdivision import subdivide
from fitdiff.errors import UsageError
from fitdiff.exporter.anatomy.head import finished_head
from fitdiff.exporter.anatomy.skeleton import head_skeleton
from fitdiff.exporter.gltf import write_glb
from fitdiff.exporter.lod import TABLE, Level, LevelTable, avatar_at, levels_of, load_levels, skeleton_at, topology_key
from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.validate import document_and_binary_from_glb
from fitdiff.runtime.avatar import Avatar

SIZES = (17000, 8000, 4000, 2000)  # render vertices
MORPH_ERROR_MM = (1.5, 3.0, 6.0, 9.0)  # largest, of any vertex under any blendshape
MEAN_ERROR_MM = (0.03, 0.1, 0.2, 0.5)


@pytest.fixture(scope="module")
def average(importers: ModuleType) -> Avatar:
    return importers.average_head()


@pytest.fixture(scope="module")
def finished(average: Avatar) -> Avatar:
    return finished_head(average)


def test_table_is_for_the_head_that_is_exported(finished: Avatar) -> None:
    """Fails when the topology or a step of finished_head changed: run `python -m fitdiff.assets.make_lods`."""
    assert load_levels().topology == topology_key(finished.topology)


def test_every_identity_has_the_same_topology(average: Avatar, finished: Avatar) -> None:
    stretched = average.vertices * np.array([1.1, 0.95, 1.04], np.float32)
    iris = dataclasses.replace(average.iris, diameter=0.0125)
    other = finished_head(dataclasses.replace(average, vertices=stretched, iris=iris))
    assert topology_key(other.topology) == topology_key(finished.topology)


def test_card_is_of_this_table_and_its_errors_are_small() -> None:
    card = json.loads(TABLE.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256(TABLE.read_bytes()).hexdigest()
    assert "CC0" in TABLE.with_suffix(".LICENSE").read_text(encoding="utf-8")
    for row, size, mean, morph in zip(card["levels"], SIZES, MEAN_ERROR_MM, MORPH_ERROR_MM, strict=True):
        print(row)
        assert abs(row["render_vertices"] - size) <= 0.01 * size
        assert row["mean_error_mm"] < mean and row["largest_morph_error_mm"] < morph


def test_levels_keep_vertices_seams_and_shapes(finished: Avatar) -> None:
    first = avatar_at(finished, load_levels().levels[0])
    known = {tuple(row) for row in np.concatenate([first.vertices, first.topology.blendshapes[24]], 1).tolist()}
    area = surface(first)
    for level in load_levels().levels:
        head = avatar_at(finished, level)
        topology = head.topology
        rows = np.concatenate([head.vertices, topology.blendshapes[24]], 1).tolist()
        assert {tuple(row) for row in rows} <= known  # nothing moved, nothing was fitted anew
        known = {tuple(row) for row in rows}
        assert topology.blendshape_names == finished.topology.blendshape_names
        assert set(np.unique(topology.triangle_part)) == set(range(len(topology.part_names)))
        assert (np.diff(np.sort(topology.triangles, 1), axis=1) > 0).all()
        assert abs(surface(head) / area - 1) < 0.03
        low, high = head.vertices.min(0) - first.vertices.min(0), head.vertices.max(0) - first.vertices.max(0)
        assert np.abs([low, high]).max() < 0.004


def surface(head: Avatar) -> float:
    skin = head.vertices[head.topology.triangles[head.topology.triangles_of("skin")]].astype(np.float64)
    return float(np.linalg.norm(np.cross(skin[:, 1] - skin[:, 0], skin[:, 2] - skin[:, 0]), axis=1).sum() / 2)


def test_first_level_goes_through_the_heads_own_vertices(finished: Avatar) -> None:
    """It is finer where it is skin, and smooth: the head's vertices stay where they are."""
    level = load_levels().levels[0]
    assert len(level.triangles) > 2 * len(finished.topology.triangles)
    head = avatar_at(finished, level)
    own = np.flatnonzero((level.mixture_weight != 0).sum(1) == 1)
    np.testing.assert_array_equal(head.vertices[own], finished.vertices[level.mixture_index[own, 0]])
    lips = finished.vertices[np.unique(finished.topology.triangles[finished.topology.triangles_of("mouth")])]
    assert len(own) > 0.8 * finished.topology.vertex_count and len(lips)


def test_skin_weights_are_shares(finished: Avatar) -> None:
    skeleton = head_skeleton(finished)
    for level in load_levels().levels:
        skin = skeleton_at(skeleton, level)
        np.testing.assert_allclose(skin.joint_weight.sum(1), 1, atol=1e-6)
        assert (skin.joint_weight >= 0).all() and (np.diff(skin.joint_weight, axis=1) <= 0).all()
        eyes = avatar_at(finished, level).topology
        left = np.unique(eyes.triangles[eyes.triangles_of("eye_left", "cornea_left")])
        assert (skin.joint_index[left, 0] == [j.name for j in skeleton.joints].index("eye_left")).all()


def test_mixing_by_hand(avatar: Avatar) -> None:
    """Two triangles over four vertices of the head, one of them the middle of two others."""
    a, b, c = avatar.topology.triangles[0].tolist()
    index = np.array([[a, 0], [b, 0], [c, 0], [a, b]], np.int32)
    weight = np.array([[1, 0], [1, 0], [1, 0], [0.5, 0.5]], np.float32)
    triangles = np.array([[0, 3, 2], [3, 1, 2]], np.int32)
    source = np.array([[[0, 0], [0, 1], [2, 2]], [[0, 1], [1, 1], [2, 2]]], np.int32)
    level = Level(index, weight, triangles, source)
    head = avatar_at(avatar, level)
    np.testing.assert_allclose(head.vertices[3], (avatar.vertices[a] + avatar.vertices[b]) / 2)
    shapes = avatar.topology.blendshapes
    np.testing.assert_allclose(head.topology.blendshapes[:, 3], (shapes[:, a] + shapes[:, b]) / 2)
    uv = avatar.topology.corner_uv[0]
    np.testing.assert_allclose(head.topology.corner_uv[0], [uv[0], (uv[0] + uv[1]) / 2, uv[2]])
    assert (head.topology.triangle_part == avatar.topology.triangle_part[0]).all()
    table = LevelTable(topology_key(avatar.topology), (level,))
    assert levels_of(avatar, 1, table) == [level]


def test_foreign_head_is_one_level(avatar: Avatar) -> None:
    assert levels_of(avatar, 1) == [None]
    with pytest.raises(UsageError, match="another topology"):
        levels_of(avatar, 2)


@pytest.mark.parametrize(
    ("target", "files", "nodes"),
    [("gltf", 1, "MSFT_lod"), ("unity", 1, "_LOD0"), ("unreal", 3, ""), ("godot", 3, "")],
)
def test_levels_go_where_the_target_finds_them(
    average: Avatar, target: str, files: int, nodes: str, tmp_path: Path
) -> None:
    options = ExportOptions(target=target, lod=3, texture_size=512, blendshapes=("jawOpen",))
    write_glb(average, tmp_path / "head.glb", options)
    found = sorted(tmp_path.glob("*.glb"), key=lambda path: -path.stat().st_size)
    assert len(found) == files
    counts = []
    for path in found:
        document, _ = document_and_binary_from_glb(path.read_bytes())
        shown = [document["nodes"][n]["name"] for n in document["scenes"][0]["nodes"]]
        for mesh in document["meshes"]:
            positions = [document["accessors"][p["attributes"]["POSITION"]]["count"] for p in mesh["primitives"]]
            counts.append(sum(positions))
            assert mesh["extras"]["targetNames"] == ["jawOpen"]
        if nodes == "MSFT_lod":
            (with_levels,) = [node for node in document["nodes"] if "extensions" in node]
            ids = with_levels["extensions"]["MSFT_lod"]["ids"]
            assert [document["nodes"][i]["mesh"] for i in ids] == [1, 2] and len(shown) == 2
            assert len(with_levels["extras"]["MSFT_screencoverage"]) == 3
            assert "MSFT_lod" in document["extensionsUsed"]
        elif nodes:
            assert [name[-5:] for name in shown[1:]] == ["_LOD0", "_LOD1", "_LOD2"]
        else:
            assert len(document["meshes"]) == 1
    for count, size in zip(counts, SIZES[:3], strict=True):
        assert abs(count / size - 1) < 0.06


def test_subdivision_makes_a_sphere_rounder() -> None:
    """An icosahedron's new vertices come nearer to its sphere than the middles of its edges."""
    golden = (1 + 5**0.5) / 2
    corners = [(0, s, t * golden) for s in (1, -1) for t in (1, -1)]
    vertices = np.array([p for c in corners for p in (c, (c[1], c[2], c[0]), (c[2], c[0], c[1]))])
    vertices /= np.linalg.norm(vertices[0])
    from scipy.spatial import ConvexHull

    hull = ConvexHull(vertices).simplices
    normal = np.cross(vertices[hull[:, 1]] - vertices[hull[:, 0]], vertices[hull[:, 2]] - vertices[hull[:, 0]])
    inward = (normal * vertices[hull].mean(1)).sum(1) < 0
    hull[inward] = hull[inward][:, ::-1]
    out = subdivide(hull, 12)
    assert len(out.mixtures) == 12 + 30 and len(out.triangles) == 80
    weights = np.zeros((42, 12))
    for row, mixture in enumerate(out.mixtures):
        weights[row, list(mixture)] = list(mixture.values())
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    np.testing.assert_array_equal(weights[:12], np.eye(12))
    radius = np.linalg.norm(weights[12:] @ vertices, axis=1)
    middle = np.linalg.norm((vertices[hull[:, 0]] + vertices[hull[:, 1]]) / 2, axis=1).mean()
    assert np.ptp(radius) < 1e-9 and middle + 0.05 < radius[0] < 1.05


def test_subdivision_keeps_open_edges_and_corners() -> None:
    """A flat grid stays flat and keeps its outline; every new corner lies between its two old ones."""
    x, y = np.meshgrid(np.arange(5), np.arange(5))
    points = np.stack([x.ravel(), y.ravel()], 1).astype(float)
    quads = [(r * 5 + c, r * 5 + c + 1, r * 5 + c + 6, r * 5 + c + 5) for r in range(4) for c in range(4)]
    triangles = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    out = subdivide(triangles, 25)
    fine = np.array([sum(w * points[v] for v, w in mixture.items()) for mixture in out.mixtures])
    assert fine.min() > -0.07 and fine.max() < 4.07  # the outline's corners swing out a little
    np.testing.assert_allclose(
        fine[out.triangles], points[triangles].reshape(-1, 2)[out.corner_source].mean(2), atol=0.26
    )
    corners = fine[out.triangles]
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (edge_1[:, 0] * edge_2[:, 1] > edge_1[:, 1] * edge_2[:, 0]).all()  # none is turned over
