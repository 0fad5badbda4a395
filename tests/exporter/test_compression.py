"""Quantised and compressed files against the float one: each number within its step, decoded by another decoder."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitdiff.errors import MissingError
from fitdiff.exporter.anatomy.skeleton import head_skeleton
from fitdiff.exporter.compression import EXTENSION
from fitdiff.exporter.engine_check.glb_file import GlbFile
from fitdiff.exporter.gltf import write_glb
from fitdiff.exporter.mesh import Primitive, primitives_from_avatar
from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.quantisation import byte_weights, position_grid, signed
from fitdiff.exporter.vertex_order import reordered
from fitdiff.runtime.avatar import Avatar

TESTS = Path(__file__).parents[1]


def written(avatar: Avatar, folder: Path, compression: str) -> GlbFile:
    path = folder / f"{compression}.glb"
    write_glb(avatar, path, ExportOptions(compression=compression, texture_size=512))  # type: ignore[arg-type]
    return GlbFile.from_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compression")


@pytest.fixture(scope="module")
def plain(avatar: Avatar, folder: Path) -> GlbFile:
    return written(avatar, folder, "none")


@pytest.fixture(scope="module")
def quantised(avatar: Avatar, folder: Path) -> GlbFile:
    return written(avatar, folder, "quantize")


def in_metres(file: GlbFile, values: np.ndarray, *, offsets: bool = False) -> np.ndarray:
    """Stored positions -> metres, by the head joint's inverse bind matrix and the joint's own place."""
    skin = file.document["skins"][0]
    matrix = file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4)[0].T.astype(np.float64)
    place = np.array(file.document["nodes"][skin["joints"][0]]["translation"])
    moved = values @ matrix[:3, :3].T
    return moved if offsets else moved + matrix[:3, 3] + place


def turned(indices: np.ndarray) -> np.ndarray:
    """Triangles with their smallest corner first: the codec turns them, and never over."""
    triangles = indices.reshape(-1, 3)
    return np.take_along_axis(triangles, (triangles.argmin(1)[:, None] + np.arange(3)) % 3, 1)


def compared(plain: GlbFile, other: GlbFile) -> dict[str, float]:
    """Largest difference of each attribute over all primitives, positions in metres."""
    worst: dict[str, float] = {}
    pairs = zip(plain.document["meshes"][0]["primitives"], other.document["meshes"][0]["primitives"], strict=True)
    for first, second in pairs:
        for name, accessor in first["attributes"].items():
            ours, theirs = plain.array(accessor).astype(float), other.array(second["attributes"][name]).astype(float)
            if name == "POSITION":
                theirs = in_metres(other, theirs)
            worst[name] = max(worst.get(name, 0), float(np.abs(ours - theirs).max()))
        for one, two in zip(first["targets"], second["targets"], strict=True):
            moved = in_metres(other, other.array(two["POSITION"]).astype(float), offsets=True)
            bent = other.array(two["NORMAL"]).astype(float)
            difference = np.abs(plain.array(one["POSITION"]) - moved).max()
            worst["morph POSITION"] = max(worst.get("morph POSITION", 0), float(difference))
            difference = np.abs(plain.array(one["NORMAL"]).clip(-1, 1) - bent).max()
            worst["morph NORMAL"] = max(worst.get("morph NORMAL", 0), float(difference))
        np.testing.assert_array_equal(turned(plain.array(first["indices"])), turned(other.array(second["indices"])))
    return worst


def test_quantised_numbers_are_within_half_a_step(plain: GlbFile, quantised: GlbFile) -> None:
    assert quantised.document["extensionsRequired"] == ["KHR_mesh_quantization"]
    worst = compared(plain, quantised)
    print(worst)
    assert worst["POSITION"] < 5e-6 and worst["morph POSITION"] < 5e-6  # metres
    assert worst["NORMAL"] < 0.51 / 127 and worst["TANGENT"] < 0.51 / 127 and worst["morph NORMAL"] < 0.51 / 127
    assert worst["TEXCOORD_0"] < 0.51 / 65535
    assert worst["JOINTS_0"] == 0 == worst["WEIGHTS_0"]


def test_meshopt_decodes_to_the_quantised_numbers(
    avatar: Avatar, folder: Path, plain: GlbFile, quantised: GlbFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("meshoptimizer", reason="meshoptimizer is not installed: pip install 'fitdiff[meshopt]'")
    monkeypatch.setattr("fitdiff.exporter.gltf.reordered", lambda primitive: primitive)  # to compare vertex by vertex
    file = written(avatar, folder, "meshopt")
    assert EXTENSION in file.document["extensionsRequired"]
    node = shutil.which("node")
    if node is None or not (TESTS / "node_modules" / "three").is_dir():
        pytest.skip("node or three is not installed: run `npm ci --prefix tests`")
    script = TESTS / "exporter" / "meshopt_decode.mjs"
    command = [node, script, folder / "meshopt.glb", folder / "decoded.bin"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    back = decoded(file, (folder / "decoded.bin").read_bytes())
    assert compared(plain, back) == compared(plain, quantised)
    sizes = {kind: (folder / f"{kind}.glb").stat().st_size for kind in ("none", "quantize", "meshopt")}
    print(sizes)
    assert sizes["meshopt"] < sizes["none"]


def decoded(file: GlbFile, fallback: bytes) -> GlbFile:
    """The file as one buffer without compression."""
    views: list[dict[str, Any]] = []
    start = len(file.binary)
    for view in file.document["bufferViews"]:
        if view["buffer"] == 1:
            kept = {key: value for key, value in view.items() if key != "extensions"}
            views.append({**kept, "buffer": 0, "byteOffset": start + view["byteOffset"]})
        else:
            views.append(view)
    return GlbFile({**file.document, "bufferViews": views}, file.binary + fallback)


def test_reordering_changes_no_surface(avatar: Avatar) -> None:
    pytest.importorskip("meshoptimizer", reason="meshoptimizer is not installed: pip install 'fitdiff[meshopt]'")
    skeleton = head_skeleton(avatar)
    for primitive in primitives_from_avatar(avatar, skeleton, [("skin",), ("teeth",), ("eye_left", "eye_right")]):
        assert primitive is not None
        other = reordered(primitive)
        assert sorted(corners(primitive)) == sorted(corners(other))
        assert (np.diff(np.unique(other.triangles.ravel(), return_index=True)[1]) > 0).all()  # as first used
        for target in other.targets:
            assert (np.diff(target.position_index.astype(int)) > 0).all()
            assert (np.diff(target.normal_index.astype(int)) > 0).all()


def corners(primitive: Primitive) -> list[tuple[float, ...]]:
    """Every triangle with all that its corners carry, its smallest corner first."""
    count = len(primitive.positions)
    columns = [primitive.positions, primitive.normals, primitive.tangents, primitive.uv, primitive.joint_weight]
    for target in primitive.targets:
        moved, bent = np.zeros((2, count, 3), np.float32)
        moved[target.position_index], bent[target.normal_index] = target.position_delta, target.normal_delta
        columns += [moved, bent]
    rows = [tuple(row) for row in np.concatenate(columns, 1).tolist()]
    found = []
    for triangle in primitive.triangles.tolist():
        own = [rows[vertex] for vertex in triangle]
        start = own.index(min(own))
        found.append(sum(own[start:] + own[:start], ()))
    return found


def test_missing_package_is_named(avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "meshoptimizer", None)
    with pytest.raises(MissingError, match=r"fitdiff\[meshopt\]"):
        written(avatar, tmp_path, "meshopt")
    assert not list(tmp_path.iterdir())


def test_container_says_where_data_is(avatar: Avatar, tmp_path: Path) -> None:
    pytest.importorskip("meshoptimizer", reason="meshoptimizer is not installed: pip install 'fitdiff[meshopt]'")
    written(avatar, tmp_path, "meshopt")
    data = (tmp_path / "meshopt.glb").read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    document = json.loads(data[20 : 20 + length])
    first, second = document["buffers"]
    assert first["byteLength"] == len(data) - length - 28
    assert second["extensions"][EXTENSION] == {"fallback": True} and "uri" not in second
    for view in document["bufferViews"]:
        packed = view.get("extensions", {}).get(EXTENSION)
        assert (view["buffer"] == 1) == (packed is not None)
        if packed:
            assert view["byteLength"] == packed["count"] * packed["byteStride"]
            assert view["byteOffset"] + view["byteLength"] <= second["byteLength"]
            assert packed["byteOffset"] + packed["byteLength"] <= first["byteLength"]


def test_grid_keeps_the_corners() -> None:
    vertices = np.array([[-0.1, 0, 0.02], [0.08, 0.25, -0.12]], np.float32)
    grid = position_grid(vertices)
    stored = grid.positions(vertices)
    back = stored / 32767 @ grid.matrix()[:3, :3].T + grid.matrix()[:3, 3]
    np.testing.assert_allclose(back, vertices, atol=grid.scale / 32767)
    assert np.abs(stored).max() == 32767
    np.testing.assert_array_equal(grid.offsets(np.zeros((1, 3), np.float32)), 0)


def test_byte_weights_always_sum_to_255() -> None:
    shares = np.sort(np.random.default_rng(0).dirichlet(np.full(4, 0.4), 1000).astype(np.float32))[:, ::-1]
    whole = byte_weights(np.ascontiguousarray(shares))
    assert (whole.astype(int).sum(1) == 255).all()
    assert np.abs(whole / 255 - shares).max() < 2.6 / 255
    assert signed(np.array([-2.0, -1, 0, 0.5, 1]), np.int8).tolist() == [-127, -127, 0, 64, 127]
