"""The example runs: with small models always, with the default ones where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]


def make_avatar(photo: Path, out: Path, steps: int, assets: Path) -> float:
    command = [sys.executable, ROOT / "examples" / "make_avatar.py", photo, out, str(steps)]
    environment = os.environ | {"FITDIFF_ASSETS": str(assets)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out.parent, timeout=900)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in out.iterdir()} == {"avatar.glb", "maps"}
    return float(run.stdout.split()[-1])


def test_with_small_models(small_assets: Path, astronaut: Path, tmp_path: Path) -> None:
    make_avatar(astronaut, tmp_path / "out", 1, small_assets)


def test_default_avatar(default_models: Path, astronaut: Path, tmp_path: Path) -> None:
    """The default models, few steps: the face is in place and guidance brings it nearer to the person."""
    reports = {}
    for guidance in ("none", "full"):
        out = tmp_path / guidance
        command = [sys.executable, "-m", "fitdiff.cli", "avatar", str(astronaut), "--out", str(out)]
        command += ["--steps", "20", "--guidance", guidance]
        run = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert run.returncode == 0, run.stderr
        reports[guidance] = json.loads((out / "report.json").read_text())
        print(guidance, reports[guidance]["similarity"], reports[guidance]["landmark_error"])
    plain, guided = reports["none"], reports["full"]
    assert guided["similarity"]["guiding"] > plain["similarity"]["guiding"] + 0.03
    assert plain["landmark_error"] < 0.12 and guided["landmark_error"] < 0.5 * plain["landmark_error"]
    assert guided["guidance"][-1]["total"] < guided["guidance"][0]["total"]
    assert not (tmp_path / "none" / "maps" / "folds.png").exists()  # nothing of the photo is in those maps
    folds = np.asarray(Image.open(tmp_path / "full" / "maps" / "folds.png")) / 128
    cheeks, forehead = folds[270:400, 150:360], folds[60:150, 180:330]  # she smiles
    assert np.percentile(cheeks, 2) < 0.93 and abs(forehead - 1).mean() < 0.01
