"""Assimp, on which many tools are built, loads the file and writes it again with the same mesh."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


def assimp(*arguments: object) -> str:
    program = shutil.which("assimp")
    if program is None:
        pytest.skip("assimp is not installed")
    run = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def number(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found, f"no {name} in {text}"
    return int(found[1])


def test_info_counts_what_we_wrote(head_glb: SimpleNamespace) -> None:
    text = assimp("info", head_glb.path)
    assert "Unable to load" not in text, text
    primitives = head_glb.file.primitives
    assert number(text, "Meshes") == len(primitives)
    assert number(text, "Vertices") == sum(len(p.positions) for p in primitives)
    assert number(text, "Faces") == sum(len(p.triangles) for p in primitives)
    # Base colour, normals and the packed channels; it has no KHR_materials_specular.
    assert number(text, "Textures \\(embed.\\)") >= 3


def test_export_keeps_every_vertex(head_glb: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "again.ply"
    assimp("export", head_glb.path, out)
    raw = out.read_bytes()
    head, _, _ = raw.partition(b"end_header\n")
    count = int(re.search(rb"element vertex (\d+)", head)[1])  # pyright: ignore[reportOptionalSubscript]
    rows = raw[len(head) + len(b"end_header\n") :].split(b"\n")[:count]
    got = np.array([row.split()[:3] for row in rows], float)
    ours = np.concatenate([p.positions for p in head_glb.file.primitives])
    np.testing.assert_allclose(got, ours, atol=1e-5)
