"""The Khronos validator finds nothing at all in the file."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

TESTS = Path(__file__).parents[1]


def test_no_error_no_warning_no_hint(glb: SimpleNamespace) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (TESTS / "node_modules" / "gltf-validator").is_dir():
        pytest.skip("gltf-validator is not installed: run `npm ci --prefix tests`")
    script = TESTS / "exporter" / "khronos_validate.mjs"
    run = subprocess.run([node, script, glb.path], capture_output=True, text=True, timeout=120)
    assert run.returncode in (0, 1), run.stderr
    report = json.loads(run.stdout)
    issues = report["issues"]
    counts = [issues[key] for key in ("numErrors", "numWarnings", "numInfos", "numHints")]
    assert counts == [0, 0, 0, 0], issues["messages"]
    assert report["info"]["totalTriangleCount"] == glb.summary.triangles
    assert report["info"]["totalVertexCount"] == glb.summary.vertices
