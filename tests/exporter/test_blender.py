"""Blender imports the file, plays each of its blendshapes, and shows the head from the front and in profile."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SHOWN = 96  # pixels


def blender(script: Path, *arguments: object) -> str:
    program = shutil.which("blender")
    if program is None:
        pytest.skip("Blender is not installed")
    command = [program, "--background", "--factory-startup", "--python-exit-code", "1", "--python", script, "--"]
    run = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr + run.stdout
    return run.stdout


@pytest.fixture(scope="module")
def played(head_glb: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("blender") / "shapes.npz"
    blender(ROOT / "tests" / "exporter" / "blender_shapes.py", head_glb.path, out)
    with np.load(out) as arrays:
        return dict(arrays)


def test_every_blendshape_moves_every_vertex_as_the_file_says(
    played: dict[str, np.ndarray], head_glb: SimpleNamespace
) -> None:
    head = head_glb.file
    objects = {key.partition("/")[0] for key in played}
    worst = 0.0
    for name in sorted(objects):
        rest = played[f"{name}/rest"]
        meshes = {p.mesh for p in head.primitives}
        (mesh,) = [m for m in meshes if sum(len(p.positions) for p in head.primitives if p.mesh == m) == len(rest)]
        primitives = [p for p in head.primitives if p.mesh == mesh]
        np.testing.assert_allclose(rest, np.concatenate([p.positions for p in primitives]), atol=1e-5)
        for index, shape in enumerate(head.shapes):
            expected = np.concatenate([p.morphs[index] for p in primitives])
            got = played[f"{name}/{shape}"] - rest
            assert np.abs(expected).max() > 1e-4 or name != mesh, shape
            worst = max(worst, float(np.abs(got - expected).max()))
    print(f"{len(head.shapes)} shapes, largest difference {worst * 1000:.5f} mm")
    assert len(head.shapes) == 52
    assert worst < 1e-5


def test_it_names_them_in_our_order(played: dict[str, np.ndarray], head_glb: SimpleNamespace) -> None:
    names = [key.partition("/")[2] for key in played]
    names = list(dict.fromkeys(name for name in names if name != "rest"))
    assert names == list(head_glb.avatar.topology.blendshape_names)


def test_front_and_profile_have_our_silhouette(
    head_glb: SimpleNamespace, importers: ModuleType, tmp_path: Path
) -> None:
    """`blender_view.py` has a camera of its own: the boxes around the heads are compared, not their pixels."""
    script = ROOT / "benchmarks" / "blender_view.py"
    text = blender(script, head_glb.path, tmp_path, "--size", SHOWN, "--samples", 1)
    report = json.loads(next(line for line in text.splitlines() if line.startswith('{"blender"')))
    images = {image for mesh in report["meshes"] for image in mesh["images"]}
    assert any("BaseColor sRGB" in image for image in images)
    assert any("Normal Non-Color" in image for image in images)
    for view, yaw in (("front", 0.0), ("left", 90.0)):
        picture = np.asarray(Image.open(tmp_path / f"{view}.png").convert("RGB")).astype(int)
        theirs = np.abs(picture - picture[0, 0]).max(-1) > 12
        ours = importers.our_picture(
            head_glb.file, importers.camera_of(head_glb.file, SHOWN, yaw), importers.flat_light()
        )
        mask = ours[..., 3] > 127
        iou = importers.overlap(boxed(mask), boxed(theirs))
        print(f"{view}: IoU of the silhouettes, each in its box, {iou:.3f}")
        assert iou > 0.95
        assert picture[theirs].std() > 10  # textured and lit, not one grey


def boxed(mask: np.ndarray) -> np.ndarray:
    """The mask's bounding box at 64 x 64."""
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(Image.fromarray(cut).resize((64, 64), Image.Resampling.BILINEAR)) > 0
