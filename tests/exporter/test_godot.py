"""Godot imports the file without an error: the headless server of Godot 3, whose glTF importer Godot 4's grew from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

PROJECT = 'config_version=4\n[application]\nconfig/name="FitDiff"\n'
IMPORT = """[remap]
importer="scene"
type="PackedScene"
[deps]
source_file="res://avatar.glb"
[params]
materials/storage=0
meshes/storage=0
animation/import=false
"""
# What this build says on every start, with or without a file.
ITS_OWN = (
    "Unsupported locale",
    "Invalid locale",
    "p_ptr",
    "_first",
    "Resources still in use",
    "MemoryPool",
    "ObjectDB",
)


@pytest.fixture(scope="module")
def imported(head_glb: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    server = shutil.which("godot3-server")
    if server is None:
        pytest.skip("godot3-server is not installed")
    project = tmp_path_factory.mktemp("godot")
    home = tmp_path_factory.mktemp("godot_home")
    (project / "project.godot").write_text(PROJECT)
    (project / "avatar.glb.import").write_text(IMPORT)
    shutil.copy(head_glb.path, project / "avatar.glb")
    shutil.copy(Path(__file__).with_name("godot_dump.gd"), project)
    environment = os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}
    log = project / "log.txt"
    with log.open("w") as stream:
        # The editor imports when it starts, and does not always end by itself.
        command = [server, "--path", project, "--editor", "--quit"]
        editor = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_for_import(project / ".import", editor)
        finally:
            editor.kill()
            editor.wait()
    command = [server, "--path", project, "-s", "godot_dump.gd"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (project / "shapes.json").is_file(), run.stdout + run.stderr
    surfaces = json.loads((project / "shapes.json").read_text())
    return SimpleNamespace(surfaces=surfaces, log=log.read_text() + run.stdout + run.stderr)


def wait_for_import(folder: Path, editor: subprocess.Popen[bytes]) -> None:
    """Until the scene is written and the checksum that Godot writes after it."""
    for _ in range(600):
        if list(folder.glob("*.scn")) and list(folder.glob("*.md5")):
            return
        if editor.poll() is not None and not list(folder.glob("*.scn")):
            break
        time.sleep(0.1)
    pytest.fail("Godot wrote no scene")


def test_no_error(imported: SimpleNamespace) -> None:
    errors = [line for line in imported.log.splitlines() if line.startswith(("ERROR", "SCRIPT ERROR"))]
    assert [line for line in errors if not any(known in line for known in ITS_OWN)] == []


def test_metres_axes_and_materials(imported: SimpleNamespace, head_glb: SimpleNamespace) -> None:
    primitives = head_glb.file.primitives
    assert [s["material"] for s in imported.surfaces] == [p.material["name"] for p in primitives]
    for surface, primitive in zip(imported.surfaces, primitives, strict=True):
        assert surface["count"] == len(primitive.positions)
        assert surface["skinned"]
        np.testing.assert_allclose(surface["low"], primitive.positions.min(0), atol=1e-5)
        np.testing.assert_allclose(surface["high"], primitive.positions.max(0), atol=1e-5)


def test_every_blendshape_moves_as_far_as_ours(imported: SimpleNamespace, head_glb: SimpleNamespace) -> None:
    for surface, primitive in zip(imported.surfaces, head_glb.file.primitives, strict=True):
        assert surface["names"] == list(head_glb.file.shapes)
        expected = np.linalg.norm(primitive.morphs, axis=2).max(1)
        np.testing.assert_allclose(surface["moves"], expected, atol=1e-5, err_msg=surface["material"])
