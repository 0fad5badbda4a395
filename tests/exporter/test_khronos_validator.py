"""The Khronos validator finds nothing in any target's files, levels of detail and formats included."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fitdiff.exporter.assembly import AssembledHead, assembled_head
from fitdiff.exporter.gltf import write_assembled, write_glb
from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.targets import TARGETS

TESTS = Path(__file__).parents[1]
# What the validator says of extensions that it does not know, and of nodes that only MSFT_lod refers to.
ALLOWED = {"UNSUPPORTED_EXTENSION", "UNUSED_OBJECT"}


def validated(path: Path) -> dict[str, Any]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (TESTS / "node_modules" / "gltf-validator").is_dir():
        pytest.skip("gltf-validator is not installed: run `npm ci --prefix tests`")
    script = TESTS / "exporter" / "khronos_validate.mjs"
    run = subprocess.run([node, script, path], capture_output=True, text=True, timeout=120)
    assert run.returncode in (0, 1), run.stderr
    return json.loads(run.stdout)


def test_no_error_no_warning_no_hint(glb: SimpleNamespace) -> None:
    report = validated(glb.path)
    issues = report["issues"]
    counts = [issues[key] for key in ("numErrors", "numWarnings", "numInfos", "numHints")]
    assert counts == [0, 0, 0, 0], issues["messages"]
    assert report["info"]["totalTriangleCount"] == glb.summary.triangles
    assert report["info"]["totalVertexCount"] == glb.summary.vertices


@pytest.fixture(scope="module")
def assembled(importers: ModuleType) -> AssembledHead:
    return assembled_head(importers.average_head(), ExportOptions(lod=4, texture_size=512))


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_with_every_level(assembled: AssembledHead, target: str, tmp_path: Path) -> None:
    options = ExportOptions(target=target, lod=4, texture_size=512)
    write_assembled(assembled, tmp_path / "head.glb", options)
    files = sorted(tmp_path.glob("*.glb"))
    assert len(files) == (4 if TARGETS[target].lods == "files" else 1)
    for path in files:
        accepted(path)


@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(texture_size=512, texture_format="png", normal_bits=16, blendshapes="none", mouth=False),
        ExportOptions(texture_size=512, texture_format="webp", compression="quantize"),
        ExportOptions(texture_size=512, compression="quantize", parts=("lashes",)),
        ExportOptions(texture_size=512, compression="meshopt", lod=2),
        ExportOptions(texture_size=512, parts=("eyes",), blendshapes=("eyeLookInLeft",)),
    ],
    ids=lambda options: f"{options.texture_format}-{options.compression}-{'-'.join(options.parts)}",
)
def test_other_options(importers: ModuleType, options: ExportOptions, tmp_path: Path) -> None:
    if options.compression == "meshopt":
        pytest.importorskip("meshoptimizer", reason="meshoptimizer is not installed: pip install 'fitdiff[meshopt]'")
    write_glb(importers.average_head(), tmp_path / "head.glb", options)
    accepted(tmp_path / "head.glb")


def accepted(path: Path) -> None:
    issues = validated(path)["issues"]
    assert (issues["numErrors"], issues["numWarnings"], issues["numHints"]) == (0, 0, 0), issues["messages"]
    assert {message["code"] for message in issues["messages"]} <= ALLOWED, issues["messages"]
