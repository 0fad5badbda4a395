"""The .usdz, opened by USD itself: numbers, blendshapes, joints, materials. Skips without usd-core."""

from __future__ import annotations

import importlib
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fitdiff.errors import MissingError
from fitdiff.exporter.assembly import AssembledHead, assembled_head
from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.usd import usd_bytes
from fitdiff.exporter.usd_package import ALIGNMENT, usdz_bytes
from fitdiff.runtime.avatar import Avatar

OPTIONS = ExportOptions(texture_size=512)


@pytest.fixture(scope="module")
def head(avatar: Avatar) -> AssembledHead:
    return assembled_head(avatar, OPTIONS)


@pytest.fixture(scope="module")
def pxr() -> SimpleNamespace:
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'fitdiff[usd]'")
    names = ("Usd", "UsdGeom", "UsdSkel", "UsdShade", "Vt")
    return SimpleNamespace(**{name: importlib.import_module(f"pxr.{name}") for name in names})


@pytest.fixture(scope="module")
def path(pxr: SimpleNamespace, head: AssembledHead, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("usd") / "head.usdz"
    path.write_bytes(usd_bytes(head, OPTIONS))
    return path


@pytest.fixture(scope="module")
def stage(pxr: SimpleNamespace, path: Path) -> Any:
    return pxr.Usd.Stage.Open(str(path))


def test_stage_is_in_metres_y_up(pxr: SimpleNamespace, stage: Any) -> None:
    assert pxr.UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert pxr.UsdGeom.GetStageUpAxis(stage) == "Y"
    assert stage.GetDefaultPrim().GetName() == "FitDiffHead"


def test_meshes_are_the_primitives(pxr: SimpleNamespace, head: AssembledHead, stage: Any) -> None:
    names = head.blendshape_names
    for material, primitive in head.levels[0].primitives:
        prim = stage.GetPrimAtPath(f"/FitDiffHead/{material.part}")
        mesh = pxr.UsdGeom.Mesh(prim)
        np.testing.assert_array_equal(np.array(mesh.GetPointsAttr().Get()), primitive.positions)
        np.testing.assert_array_equal(
            np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), primitive.triangles
        )
        st = np.array(pxr.UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get())
        if material.surface != "cut_out":
            np.testing.assert_allclose(st, np.stack([primitive.uv[:, 0], 1 - primitive.uv[:, 1]], 1), atol=1e-6)
        binding = pxr.UsdSkel.BindingAPI(prim)
        assert tuple(binding.GetBlendShapesAttr().Get()) == names
        for target, shape_path in zip(primitive.targets, binding.GetBlendShapeTargetsRel().GetTargets(), strict=True):
            shape = pxr.UsdSkel.BlendShape(stage.GetPrimAtPath(shape_path))
            dense = np.zeros_like(primitive.positions)
            dense[np.array(shape.GetPointIndicesAttr().Get(), int)] = np.array(shape.GetOffsetsAttr().Get()).reshape(
                -1, 3
            )
            expected = np.zeros_like(dense)
            expected[target.position_index] = target.position_delta
            np.testing.assert_array_equal(dense, expected)


def test_skeleton_rests_where_the_joints_are(pxr: SimpleNamespace, head: AssembledHead, stage: Any) -> None:
    skeleton = pxr.UsdSkel.Skeleton(stage.GetPrimAtPath("/FitDiffHead/Skeleton"))
    joints = head.levels[0].skeleton.joints
    assert [path.split("/")[-1] for path in skeleton.GetJointsAttr().Get()] == [joint.name for joint in joints]
    assert skeleton.GetJointsAttr().Get()[-1] == "neck/head/eye_right"
    query = pxr.UsdSkel.Cache().GetSkelQuery(skeleton)
    for matrix, joint in zip(query.ComputeJointSkelTransforms(0, atRest=True), joints, strict=True):
        np.testing.assert_allclose(matrix.ExtractTranslation(), joint.position, atol=1e-6)


def test_rest_pose_moves_nothing(pxr: SimpleNamespace, head: AssembledHead, stage: Any) -> None:
    """USD's own skinning of the rest pose gives the points back."""
    root = pxr.UsdSkel.Root(stage.GetDefaultPrim())
    cache = pxr.UsdSkel.Cache()
    cache.Populate(root, pxr.Usd.PrimDefaultPredicate)
    (binding,) = cache.ComputeSkelBindings(root, pxr.Usd.PrimDefaultPredicate)
    matrices = cache.GetSkelQuery(binding.GetSkeleton()).ComputeSkinningTransforms(0)
    primitives = {material.part: primitive for material, primitive in head.levels[0].primitives}
    assert len(binding.GetSkinningTargets()) == len(primitives)
    for target in binding.GetSkinningTargets():
        primitive = primitives[target.GetPrim().GetName()]
        points = pxr.Vt.Vec3fArray.FromNumpy(primitive.positions.copy())
        assert target.ComputeSkinnedPoints(matrices, points, 0)
        np.testing.assert_allclose(np.array(points), primitive.positions, atol=1e-6)


def test_materials_name_textures_of_the_package(pxr: SimpleNamespace, path: Path, stage: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        packed = set(archive.namelist())
        assert archive.namelist()[0] == "FitDiffHead.usdc"
    used = set()
    for prim in stage.Traverse():
        shader = pxr.UsdShade.Shader(prim)
        if shader and shader.GetIdAttr().Get() == "UsdUVTexture":
            file = shader.GetInput("file").Get()
            assert file.resolvedPath, file.path
            used.add(file.path)
            space = shader.GetInput("sourceColorSpace").Get()
            color = "base_color" in file.path or "lashes" in file.path
            assert space == ("sRGB" if color else "raw"), file.path
    assert used == {name for name in packed if name.startswith("textures/")}
    normal = pxr.UsdShade.Shader(stage.GetPrimAtPath("/FitDiffHead/Materials/Skin/Normal"))
    assert tuple(normal.GetInput("scale").Get()) == (2, 2, 2, 1)
    assert tuple(normal.GetInput("bias").Get()) == (-1, -1, -1, 0)
    surface = pxr.UsdShade.Shader(stage.GetPrimAtPath("/FitDiffHead/Materials/Skin/Surface"))
    assert surface.GetInput("useSpecularWorkflow").Get() == 1
    assert pxr.UsdShade.MaterialBindingAPI(stage.GetPrimAtPath("/FitDiffHead/Skin")).ComputeBoundMaterial()[0]


def test_same_head_same_bytes(head: AssembledHead, path: Path) -> None:
    assert usd_bytes(head, OPTIONS) == path.read_bytes()


def test_missing_package_is_named(head: AssembledHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(MissingError, match=r"fitdiff\[usd\]"):
        usd_bytes(head, OPTIONS)


def test_package_is_aligned_and_stored(tmp_path: Path) -> None:
    files = {"a.usdc": b"x" * 5, "textures/long_name.png": b"y" * 130, "z": b""}
    data = usdz_bytes(files)
    assert data == usdz_bytes(files)
    (tmp_path / "p.usdz").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "p.usdz") as archive:
        assert archive.namelist() == list(files)
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            name, extra = (int.from_bytes(data[entry.header_offset + at :][:2], "little") for at in (26, 28))
            assert (entry.header_offset + 30 + name + extra) % ALIGNMENT == 0
            assert archive.read(entry.filename) == files[entry.filename]
