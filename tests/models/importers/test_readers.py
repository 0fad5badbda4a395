"""Each format's file, small, with its real keys: the numbers come out as they went in, damage is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flame_pickle
import numpy as np
import pytest

from fitdiff.errors import UsageError
from fitdiff.models.importers import FORMATS, guess_format, read_source
from fitdiff.models.importers.obj_mesh import read_obj
from fitdiff.models.importers.source import REGIONS, triangles_from_quads
from fitdiff.models.topology import PART_NAMES

STATISTICAL = ("lsfm", "bfm2009", "bfm2019")


@pytest.mark.parametrize("name", STATISTICAL)
def test_statistical_models_come_out_at_one_standard_deviation(
    name: str, numbers: Any, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(f"{name}_file")
    source, found = read_source(path)
    assert found == name == guess_format(path)
    assert source.vertices == pytest.approx(numbers.mean, abs=1e-6)
    assert np.array_equal(source.triangles, numbers.triangles)
    assert source.identity == pytest.approx(numbers.scaled_identity(), abs=1e-5)
    if name == "bfm2019":
        assert source.expression == pytest.approx(numbers.scaled_expression(), abs=1e-5)
    else:
        assert source.expression.shape == (0, len(numbers.mean), 3)
    assert not source.licence.commercial and not source.blendshapes and (source.region == 0).all()


def test_lsfm_with_a_component_a_row_and_triangles_from_one(numbers: Any, tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io", reason="scipy is not installed")
    content = {"components": numbers.identity.reshape(7, -1), "eigenvalues": numbers.identity_std[None] ** 2,
               "mean": numbers.mean, "trilist": numbers.triangles + 1}  # fmt: skip
    io.savemat(str(tmp_path / "own.mat"), content)
    source, _ = read_source(tmp_path / "own.mat", "lsfm")
    assert source.identity == pytest.approx(numbers.scaled_identity(), abs=1e-5)
    assert np.array_equal(source.triangles, numbers.triangles)


def test_gnm_parts_gaze_and_the_outer_eye_left_out(numbers: Any, gnm_file: Path) -> None:
    source, found = read_source(gnm_file)
    assert found == "gnm" and source.licence.commercial and source.licence.identifier == "Apache-2.0"
    regions = [REGIONS[i] for i in source.region]
    assert regions == ["skin", "skin", "eye_left", "eye_left", "eye_right", "teeth", "tongue"]
    kept = [*range(6), 20, 21, 22, 23, 26, 27, 28, 32, 33, 34, 35, 36, 37]
    assert source.vertices == pytest.approx(numbers.mean[kept], abs=1e-6)
    assert source.identity == pytest.approx(numbers.scaled_identity()[:, kept], abs=1e-5)
    assert source.expression == pytest.approx(numbers.scaled_expression()[:, kept], abs=1e-5)
    assert source.own_uv is not None and source.own_uv.shape == (7, 3, 2)
    out = source.blendshapes["eyeLookOutLeft"]
    assert set(np.flatnonzero(out.any(1))) == set(source.members("eye_left"))
    arms = source.vertices[source.members("eye_left")] - [0.3, 0, 0]  # turned about the eye's joint
    turned = arms + out[source.members("eye_left")]
    assert np.linalg.norm(turned, axis=1) == pytest.approx(np.linalg.norm(arms, axis=1), abs=1e-5)


def flame_content() -> dict[str, Any]:
    """A head of 30 vertices: 0-9 skull, 10-19 jaw before its joint, 20-24 left eye, 25-29 right eye."""
    rng = np.random.default_rng(3)
    vertices = rng.normal(0, 0.01, (30, 3))
    vertices[10:20] += [0, -0.05, 0.08]
    vertices[20:25] += [0.03, 0.03, 0.05]
    vertices[25:] += [-0.03, 0.03, 0.05]
    weights = np.zeros((30, 5))
    weights[:10, 1], weights[10:20, 2], weights[20:25, 3], weights[25:, 4] = 1, 1, 1, 1
    regressor = np.zeros((5, 30))
    regressor[0, :10], regressor[1, :10], regressor[2, :10] = 0.1, 0.1, 0.1
    regressor[3, 20:25], regressor[4, 25:] = 0.2, 0.2
    from scipy.sparse import csc_matrix

    return {
        "v_template": flame_pickle.Ch(vertices), "shapedirs": flame_pickle.Ch(rng.normal(size=(30, 3, 400))),
        "posedirs": rng.normal(0, 1e-3, (30, 3, 36)), "J_regressor": csc_matrix(regressor), "weights": weights,
        "f": np.array([[0, 1, 2], [10, 11, 12], [20, 21, 22], [25, 26, 27]], np.uint32), "bs_type": "lrotmin",
        "bs_style": "lbs", "kintree_table": np.array([[0, 0, 1, 1, 1], [0, 1, 2, 3, 4]]), "J": np.zeros((5, 3)),
    }  # fmt: skip


def test_flame_bases_eyes_and_jaw(tmp_path: Path) -> None:
    pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    content = flame_content()
    flame_pickle.write_flame(tmp_path / "generic_model.pkl", content)
    source, found = read_source(tmp_path / "generic_model.pkl")
    assert found == "flame" and source.name == "generic_model" and not source.licence.commercial
    directions = content["shapedirs"].x
    assert source.identity == pytest.approx(np.moveaxis(directions[..., :300], 2, 0), abs=1e-5)
    assert source.expression == pytest.approx(np.moveaxis(directions[..., 300:], 2, 0), abs=1e-5)
    assert [REGIONS[i] for i in source.region] == ["skin", "skin", "eye_left", "eye_right"]
    jaw = source.blendshapes["jawOpen"]
    assert jaw[10:20, 1].mean() < -0.01 and np.abs(jaw[:10]).max() < 0.01  # the jaw falls, the skull stays
    assert source.blendshapes["jawLeft"][10:20, 0].mean() > 0.003 > source.blendshapes["jawRight"][10:20, 0].mean()
    ahead = content["v_template"].x[20:25].argmax(0)[2] + 20
    assert source.blendshapes["eyeLookUpLeft"][ahead, 1] > 0 and not source.blendshapes["eyeLookUpLeft"][25:].any()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", ("empty", "text", "other keys"))
def test_other_files_are_refused(name: str, damage: str, tmp_path: Path) -> None:
    suffix = {"bfm2019": ".h5", "flame": ".pkl", "ict": ".npz", "gnm": ".npz"}.get(name, ".mat")
    for package in ("scipy", "h5py"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    path = tmp_path / f"model{suffix}"
    if damage == "other keys":
        _write_other_keys(path)
    else:
        path.write_bytes(b"" if damage == "empty" else b"no model at all")
    with pytest.raises(UsageError, match="model"):
        read_source(path, name)


def _write_other_keys(path: Path) -> None:
    import pickle

    import h5py
    from scipy.io import savemat

    if path.suffix == ".mat":
        savemat(str(path), {"other": np.zeros(3)})
    elif path.suffix == ".npz":
        np.savez(path, other=np.zeros(3))
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({"other": np.zeros(3)}))
    else:
        with h5py.File(path, "w") as file:
            file["other"] = np.zeros(3)


def test_numbers_that_are_not_finite_are_refused(bfm2009_file: Path, numbers: Any) -> None:
    from scipy.io import loadmat, savemat

    content = {k: v for k, v in loadmat(str(bfm2009_file)).items() if not k.startswith("__")}
    content["shapePC"][0, 0] = np.nan
    savemat(str(bfm2009_file), content)
    with pytest.raises(UsageError, match="NaN"):
        read_source(bfm2009_file)
    content["shapePC"][0, 0], content["tl"][0, 0] = 0, 1000
    savemat(str(bfm2009_file), content)
    with pytest.raises(UsageError, match="0 to 39"):
        read_source(bfm2009_file)


def test_a_pickled_archive_is_refused(gnm_file: Path) -> None:
    content: dict[str, Any] = dict(np.load(gnm_file)) | {"version": np.array([{"a": 1}], object)}
    np.savez(gnm_file, **content)
    with pytest.raises(UsageError, match="pickled"):
        read_source(gnm_file, "gnm")


def test_a_file_that_tells_no_format(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="--format lsfm"):
        guess_format(tmp_path / "model.bin")
    with pytest.raises(UsageError, match="no such file"):
        read_source(tmp_path / "absent.mat")


def test_obj_with_quads_triangles_and_texture(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text("o face\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvn 0 0 1\n"
                    "f 1/1/1 2/2/1 3/3/1 4/1/1\nf 1/1 2/2 3/3\n")  # fmt: skip
    mesh = read_obj(path)
    assert mesh.vertices.shape == (4, 3) and mesh.quads.tolist() == [[0, 1, 2, 3], [0, 1, 2, 2]]
    assert mesh.quad_uv.tolist() == [[0, 1, 2, 0], [0, 1, 2, 2]]
    triangles, corners = triangles_from_quads(mesh.quads)
    assert sorted(map(tuple, triangles)) == [(0, 1, 2), (0, 1, 2), (0, 2, 3)]
    assert np.array_equal(mesh.quads.ravel()[corners], triangles)
    path.write_text("v 0 0 0\nf 1 1 1 1 1\n")
    with pytest.raises(UsageError, match="5 corners"):
        read_obj(path)


def test_every_region_has_a_part() -> None:
    from fitdiff.models.importers.source import REGION_PART

    assert set(REGION_PART.values()) == set(PART_NAMES)
