"""The committed networks are what their scripts make of the published files."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fitdiff.assets.make_detector import make_detector
from fitdiff.assets.make_landmarks import make_landmarks
from fitdiff.assets.make_perceptual import BATCH_NORM_EPSILON, folded, make_perceptual
from fitdiff.assets.make_recogniser import DlibArchive, make_recogniser
from fitdiff.models.checkpoint import ModelCard, assets_dir


@pytest.mark.parametrize(
    ("role", "make"),
    [
        ("recogniser", make_recogniser),
        ("landmarks", make_landmarks),
        ("perceptual", make_perceptual),
        ("detector", make_detector),
    ],
)
def test_script_makes_the_committed_file(role: str, make: Callable[[Path, Path], ModelCard], tmp_path: Path) -> None:
    sources = os.environ.get("FITDIFF_ASSET_SOURCES")
    if not sources:
        pytest.skip("FITDIFF_ASSET_SOURCES names no folder with the source packages")
    if role == "landmarks":
        pytest.importorskip("tflite", reason="tflite is not installed")
    make(tmp_path / role, Path(sources))
    for suffix in (".json", ".LICENSE"):
        assert (tmp_path / f"{role}{suffix}").read_text() == (assets_dir() / f"{role}{suffix}").read_text()
    card = json.loads((assets_dir() / f"{role}.json").read_text())["card"]
    assert card["sha256"] in (assets_dir() / "README.md").read_text(encoding="utf-8")


def test_folded_convolution_equals_the_two_layers() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=BATCH_NORM_EPSILON)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor.uniform_(0.5, 2)
    norm.eval()
    source = {f"conv.{k}": v for k, v in convolution.state_dict().items()}
    source |= {f"norm.{k}": v for k, v in norm.state_dict().items()}
    weight, bias = folded(source, "conv", "norm")
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(nn.functional.conv2d(x, weight, bias), norm(convolution(x)), atol=1e-5)


@pytest.mark.parametrize(("data", "value"), [(b"\x00", 0), (b"\x01\x07", 7), (b"\x02\x00\x01", 256), (b"\x81\x05", -5)])
def test_integers_of_dlib(data: bytes, value: int) -> None:
    archive = DlibArchive(data + b"rest", 0)
    assert archive.integer() == value
    assert archive.offset == len(data)
