"""Two real viewers open the file, three.js in headless Chromium and Blender: the marks are in place."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
VIEWS = ("front", "left", "right", "below")
SIZE = 256


def three_view(glb: Path, out: Path, *options: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What three.js made of the file, and (SIZE, SIZE, 3) pictures by view."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (ROOT / "tests" / "node_modules" / "playwright-core").is_dir():
        pytest.skip("playwright-core is not installed: run `npm ci --prefix tests`")
    script = ROOT / "tests" / "exporter" / "three_view.mjs"
    command = [node, script, glb, out, "--size", str(SIZE), *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode == 3:
        pytest.skip("Chromium is not installed")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), pictures(out)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {view: np.asarray(Image.open(folder / f"{view}.png").convert("RGB")).astype(int) for view in VIEWS}


def where(picture: np.ndarray, colour: tuple[int, int, int], tolerance: int = 3) -> np.ndarray:
    """(N, 2) rows and columns of the pixels of this colour."""
    return np.argwhere(np.abs(picture - np.array(colour)).max(-1) <= tolerance)


@pytest.fixture(scope="module")
def unlit(glb: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return three_view(glb.path, tmp_path_factory.mktemp("unlit"), "--unlit")[1]


def test_three_reads_materials_and_blendshapes(
    glb: SimpleNamespace, unlit: dict[str, np.ndarray], marks: SimpleNamespace, tmp_path: Path
) -> None:
    report, lit = three_view(glb.path, tmp_path)
    assert report["problems"] == []
    assert [mesh["material"] for mesh in report["meshes"]] == list(glb.summary.materials)
    for mesh in report["meshes"]:
        assert mesh["targets"] == list(marks.blendshapes)
        assert mesh["joints"] == ["head"]
        assert mesh["colorSpaces"] == {
            "map": "srgb",
            "normalMap": "",
            "roughnessMap": "",
            "specularColorMap": "srgb",
        }
        assert mesh["normalScale"] == [1, 1]
        assert mesh["specularIntensity"] == 1 and mesh["specularColor"] == [2, 2, 2]
        assert not mesh["transparent"]
        assert mesh["alphaTest"] == (0.5 if mesh["material"] == "FitDiff_Lashes" else 0)

    # The light comes from above, so the patch whose normals lean up is brighter than the skin beside it.
    rows, columns = where(unlit["front"], marks.tilted, 2).T
    patch = lit["front"][rows, columns, 0].mean()
    band = lit["front"][rows.min() : rows.max() + 1, :, 0]
    left, right = columns.min(), columns.max()
    beside = np.concatenate([band[:, left - 6 : left - 3], band[:, right + 4 : right + 7]]).mean()
    assert patch > 1.1 * beside


def test_three_shows_left_and_up(unlit: dict[str, np.ndarray], marks: SimpleNamespace) -> None:
    front = where(unlit["front"], marks.cheek)  # exact bytes: sRGB in, sRGB out
    assert len(front) > 50
    assert front[:, 1].min() > SIZE / 2  # the character's left is on the right of the picture
    assert len(where(unlit["left"], marks.cheek)) > 50
    assert len(where(unlit["right"], marks.cheek)) == 0
    assert where(unlit["left"], marks.cheek)[:, 1].mean() < SIZE / 2  # there the face looks to the left
    white, mouth = where(unlit["front"], (235, 235, 235)), where(unlit["front"], (120, 30, 40))
    assert white[:, 0].max() < mouth[:, 0].min()  # rows grow downwards: eyes above the mouth
    teeth, tongue = where(unlit["front"], (240, 235, 215)), where(unlit["front"], (200, 90, 100))
    assert teeth[:, 0].mean() < tongue[:, 0].mean()


def test_three_cuts_out_the_lashes(unlit: dict[str, np.ndarray]) -> None:
    """Only the upper half of each card is there: all of it would be 30 mm wide and 12 mm high."""
    rows, columns = where(unlit["front"], (30, 20, 15), 6).T
    left = columns > SIZE / 2
    assert left.any() and (~left).any()
    width, height = np.ptp(columns[left]) + 1, np.ptp(rows[left]) + 1
    assert 0.1 < height / width < 0.3


def test_three_blinks_the_left_eye(
    glb: SimpleNamespace, unlit: dict[str, np.ndarray], tmp_path: Path
) -> None:
    _, closed = three_view(glb.path, tmp_path, "--unlit", "--morph", "eyeBlinkLeft=1")
    changed = np.argwhere(np.abs(closed["front"] - unlit["front"]).max(-1) > 20)
    assert len(changed) > 20
    assert changed[:, 1].min() > SIZE / 2


def test_blender_opens_it(glb: SimpleNamespace, marks: SimpleNamespace, tmp_path: Path) -> None:
    blender = shutil.which("blender")
    if blender is None:
        pytest.skip("Blender is not installed")
    script = ROOT / "benchmarks" / "blender_view.py"
    command = [
        blender,
        "--background",
        "--factory-startup",
        "--python-exit-code",
        "1",
        "--python",
        script,
        "--",
    ]
    options = [glb.path, tmp_path, "--size", "96", "--samples", "1"]
    run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr + run.stdout
    report = json.loads(next(line for line in run.stdout.splitlines() if line.startswith('{"blender"')))
    (mesh,) = report["meshes"]
    assert mesh["shape_keys"] == ["Basis", *marks.blendshapes]
    assert mesh["materials"] == list(glb.summary.materials)
    assert mesh["vertices"] == glb.summary.vertices
    assert mesh["armature"] == ["FitDiffHead"]
    assert {"FitDiff_BaseColor sRGB", "FitDiff_Normal Non-Color"} <= set(mesh["images"])
    views = pictures(tmp_path)
    red = {view: np.argwhere((p[..., 0] > 1.8 * p[..., 1]) & (p[..., 0] > 60)) for view, p in views.items()}
    in_front = red["front"][red["front"][:, 1] > 56]  # right of the mouth card
    assert len(in_front) > 10
    assert len(red["left"]) > 10 > len(red["right"])
