"""`fitdiff view` serves until it is interrupted, and says what is wrong with its arguments."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from fitdiff.cli_view import view
from fitdiff.errors import ImageError, UsageError


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_it_serves_until_ctrl_c(tmp_path: Path, astronaut: Path) -> None:
    glb = tmp_path / "head.glb"
    glb.write_bytes(b"glTF" + bytes(16))
    command = [sys.executable, "-c", "from fitdiff.cli_view import view; view()"]
    arguments = [str(glb), "--no-browser", "--photo", str(astronaut)]
    # A shell's background job ignores Ctrl-C, and what it starts would too.
    running = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=_heed_interrupts,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"FitDiff" in answer.read()
        with urllib.request.urlopen(f"{url}photo.jpg", timeout=10) as answer:
            photo = Image.open(io.BytesIO(answer.read()))
        assert photo.size == (512, 512) and not photo.getexif()
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) == 0
    finally:
        running.kill()
        running.communicate()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(view, [str(tmp_path), "--no-browser"])
    assert isinstance(result.exception, UsageError) and "avatar.glb" in str(result.exception)
    glb = tmp_path / "avatar.glb"
    glb.write_bytes(b"glTF")
    result = CliRunner().invoke(view, [str(glb), "--no-browser", "--photo", str(glb)])
    assert isinstance(result.exception, ImageError)
    assert CliRunner().invoke(view, [str(glb), "--port", "70000"]).exit_code == 2
    assert CliRunner().invoke(view, [str(tmp_path / "absent")]).exit_code == 2
