"""Wall seconds of every stage, and peak memory, of the example avatar.

    python benchmarks/avatar_time.py

Each run is a process of its own, so that loading counts and memory is that of one avatar. A table for people,
then one line of JSON.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]


def report_of_run(photo: Path, options: list[str]) -> dict[str, Any]:
    """`report.json` of one `fitdiff avatar`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fitdiff.cli", "avatar", str(photo), "--out", folder, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))


@click.command()
@click.option("--photo", default=ROOT / "examples" / "astronaut.jpg", type=click.Path(path_type=Path))
@click.option("--steps", default=50, show_default=True, type=click.IntRange(1))
@click.option("--guidance", default="full", show_default=True, type=click.Choice(["full", "none"]))
@click.option("--threads", type=click.IntRange(1))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="After one warm-up run.")
def main(photo: Path, steps: int, guidance: str, threads: int | None, repeats: int) -> None:
    """Time the avatar, for example: python benchmarks/avatar_time.py --steps 10 --repeats 1."""
    options = ["--steps", str(steps), "--guidance", guidance]
    options += ["--threads", str(threads)] if threads else []
    report_of_run(photo, ["--steps", "1"])  # warms the file cache
    reports = [report_of_run(photo, options) for _ in range(repeats)]
    stages: dict[str, list[float]] = {"total": [report["seconds"] for report in reports]}
    for report in reports:
        for stage in report["stages"]:
            stages.setdefault(stage["name"], []).append(stage["seconds"])
    peak = max(stage["peak_mib"] for report in reports for stage in report["stages"])

    click.echo(f"{steps} steps, guidance {guidance}, {repeats} runs, seconds")
    click.echo(f"{'':12}{'median':>10}{'fastest':>10}{'slowest':>10}")
    for name, values in stages.items():
        click.echo(f"{name:12}{np.median(values):10.2f}{min(values):10.2f}{max(values):10.2f}")
    click.echo(f"peak memory {peak:.0f} MiB")
    summary = {
        "benchmark": "avatar_time",
        "steps": steps,
        "guidance": guidance,
        "repeats": repeats,
        "seconds": {name: round(float(np.median(values)), 3) for name, values in stages.items()},
        "peak_mib": round(peak, 1),
        "similarity": reports[-1]["similarity"],
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "threads": threads or torch.get_num_threads(),
        },
    }
    click.echo(json.dumps(summary))


if __name__ == "__main__":
    main()
