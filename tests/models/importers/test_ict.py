"""ICT-FaceKit: the real archive where there is one, and the folder of OBJ files written from it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fitdiff.errors import UsageError
from fitdiff.models.importers import read_source
from fitdiff.models.importers.ict import POLYGONS, VERTICES, arkit_shapes
from fitdiff.models.importers.source import REGIONS, SourceHead
from fitdiff.models.morphable import load_morphable


@pytest.fixture(scope="module")
def ict_file() -> Path:
    named = os.environ.get("FITDIFF_ICT")
    if not named:
        pytest.skip("FITDIFF_ICT names no file with ICT-FaceKit as a NumPy archive")
    return Path(named)


@pytest.fixture(scope="module")
def ict(ict_file: Path) -> SourceHead:
    source, found = read_source(ict_file)
    assert found == "ict"
    return source


def test_names_of_arkit() -> None:
    one = np.ones((2, 3))
    units = {"eyeBlink_L": one, "browInnerUp_L": one, "browInnerUp_R": 2 * one, "jawOpen": one, "PupilDilate_L": one}
    found = arkit_shapes(units)
    assert set(found) == {"eyeBlinkLeft", "browInnerUp", "jawOpen"} and (found["browInnerUp"] == 3).all()


def test_another_topology_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", V=np.zeros((5, 3)), I=np.zeros((2, 5, 3)), E=np.zeros((1, 5, 3)), ex=["jawOpen.obj"],
             F=np.zeros((3, 4), np.int32), FT=np.zeros((3, 4), np.int32), VT=np.zeros((4, 2)))  # fmt: skip
    with pytest.raises(UsageError, match=f"{VERTICES} vertices, {POLYGONS} polygons"):
        read_source(tmp_path / "x.npz")
    with pytest.raises(UsageError, match="generic_neutral_mesh.obj"):
        read_source(tmp_path)


def test_all_52_shapes_of_arkit_and_each_on_its_side(ict: SourceHead) -> None:
    assert set(ict.blendshapes) == set(load_morphable()[0].config.blendshape_names)
    skin = ict.members("skin")
    for stem in ("eyeBlink", "mouthSmile", "browDown", "cheekSquint", "noseSneer", "mouthUpperUp"):
        for side, sign in (("Left", 1), ("Right", -1)):
            moved = np.linalg.norm(ict.blendshapes[stem + side][skin], axis=1)
            assert (moved * ict.vertices[skin, 0]).sum() * sign > 0, stem + side
    for region in ("tongue", "teeth", "gums"):
        assert len(ict.members(region)), region
    assert ict.licence.commercial and ict.identity.shape[0] == 100


def test_regions_lie_where_they_should(ict: SourceHead) -> None:
    left, right = (ict.vertices[ict.members(f"eye_{side}")].mean(0) for side in ("left", "right"))
    assert left[0] > 2 > -2 > right[0] and abs(left[1] - right[1]) < 0.1
    tongue, teeth = ict.vertices[ict.members("tongue")], ict.vertices[ict.members("teeth")]
    assert np.abs(tongue[:, 0]).max() < 2.3 and tongue[:, 2].max() < teeth[:, 2].max()
    lashes = ict.vertices[ict.members("lashes")]
    assert lashes[:, 1].min() > left[1] - 2 and lashes[:, 1].max() < left[1] + 2
    assert set(np.unique(ict.region)) == set(range(len(REGIONS)))


def test_jaw_carries_the_lower_teeth_and_the_gaze_the_eyes(ict: SourceHead) -> None:
    teeth = ict.members("teeth")
    jaw = ict.blendshapes["jawOpen"][teeth, 1]
    low = ict.vertices[teeth, 1] < np.median(ict.vertices[teeth, 1])
    assert jaw[low].mean() < -1 and np.abs(jaw[~low]).mean() < 0.3
    eye = ict.members("eye_left")
    front = eye[ict.vertices[eye, 2].argmax()]
    assert ict.blendshapes["eyeLookOutLeft"][front, 0] > 0.5 and ict.blendshapes["eyeLookDownLeft"][front, 1] < -0.5
    assert not ict.blendshapes["eyeLookOutRight"][eye].any()


def test_the_tongue_comes_out_in_one_piece(ict: SourceHead) -> None:
    out = ict.blendshapes["tongueOut"]
    tip = ict.members("tongue")[ict.vertices[ict.members("tongue"), 2].argmax()]
    assert 2 < out[tip, 2] < 3.5 and not out[ict.members("teeth")].any() and not out[ict.members("skin")].any()
    edges = np.concatenate([ict.triangles[:, [0, 1]], ict.triangles[:, [1, 2]]])
    length = np.linalg.norm(ict.vertices[edges[:, 0]] - ict.vertices[edges[:, 1]], axis=1)
    stretch = np.linalg.norm(out[edges[:, 0]] - out[edges[:, 1]], axis=1)
    assert stretch.max() < 1.5 and (stretch[length > 0.3]).max() < 1.5  # centimetres: nothing is torn off


def test_the_folder_of_obj_files_is_the_same_model(ict_file: Path, ict: SourceHead, tmp_path: Path) -> None:
    content = np.load(ict_file)
    mean, names = content["V"].astype(np.float64), {"identity000": content["I"][0], "jawOpen": content["E"][30]}
    assert str(content["ex"][30]) == "jawOpen.obj"
    names |= {"generic_neutral_mesh": np.zeros_like(mean), "mouthSmile_L": content["E"][49]}
    faces = "\n".join("f " + " ".join(f"{v}/{t}" for v, t in zip(q, uv, strict=True))
                      for q, uv in zip(content["F"] + 1, content["FT"] + 1, strict=True))  # fmt: skip
    places = "\n".join(f"vt {u:.6f} {v:.6f}" for u, v in content["VT"])
    for name, offsets in names.items():
        points = "\n".join(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mean + offsets)
        (tmp_path / f"{name}.obj").write_text(f"{points}\n{places}\n{faces}\n")
    source, found = read_source(tmp_path)
    assert found == "ict" and np.array_equal(source.triangles, ict.triangles)
    assert source.vertices == pytest.approx(ict.vertices, abs=2e-6) and len(source.identity) == 1
    assert source.identity[0] == pytest.approx(ict.identity[0], abs=1e-5)
    assert source.blendshapes["jawOpen"] == pytest.approx(ict.blendshapes["jawOpen"], abs=1e-5)
    assert source.own_uv == pytest.approx(ict.own_uv, abs=1e-5)
