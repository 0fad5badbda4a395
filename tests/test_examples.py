"""The example runs: with small models always, with the default ones where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make_avatar(photo: Path, out: Path, steps: int, assets: Path) -> float:
    command = [sys.executable, ROOT / "examples" / "make_avatar.py", photo, out, str(steps)]
    environment = os.environ | {"FITDIFF_ASSETS": str(assets)}
    run = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=out.parent, timeout=900
    )
    assert run.returncode == 0, run.stderr
    assert {path.name for path in out.iterdir()} == {"avatar.glb", "maps"}
    return float(run.stdout.split()[-1])


def test_with_small_models(small_assets: Path, astronaut: Path, tmp_path: Path) -> None:
    make_avatar(astronaut, tmp_path / "out", 1, small_assets)


def test_default_avatar(default_models: Path, astronaut: Path, tmp_path: Path) -> None:
    """The default models, few steps: the face is in place and guidance brought it nearer to the person."""
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "fitdiff.cli",
        "avatar",
        str(astronaut),
        "--out",
        str(out),
        "--steps",
        "8",
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["landmark_error"] < 0.12
    first, last = report["guidance"][0], report["guidance"][-1]
    for term in ("total", "identity", "photometric"):
        assert last[term] < first[term], term
    print(f"similarity {report['similarity']}, landmark error {report['landmark_error']:.3f}")
