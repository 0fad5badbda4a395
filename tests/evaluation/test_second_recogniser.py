"""The independent recogniser: what its network is fed, which files are refused, and that a real one knows a face."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fitdiff.errors import MissingError, UsageError
from fitdiff.evaluation import second_recogniser
from fitdiff.evaluation.second_recogniser import ARCFACE, FACENET, SecondRecogniser
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.pipeline import FitDiffPipeline

RED = np.tile(np.array([1, 0.5, 0], np.float32), (224, 224, 1))


def averaging_model(path: Path, shape: list[int | str], axes: list[int]) -> Path:
    """An ONNX file whose vector is the mean over `axes`."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'fitdiff[evaluate]'")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("ReduceMean", ["chip"], ["vector"], axes=axes, keepdims=0)
    graph = helper.make_graph(
        [node], "mean", [helper.make_tensor_value_info("chip", kind, shape)],
        [helper.make_tensor_value_info("vector", kind, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def unit(values: list[float]) -> np.ndarray:
    return np.array(values) / np.linalg.norm(values)


def test_arcface_takes_bgr_about_127(tmp_path: Path) -> None:
    recogniser = SecondRecogniser(averaging_model(tmp_path / "a.onnx", [1, 3, 112, 112], [2, 3]))
    expected = unit([-127 / 128, 0.5 / 128, 1.0])  # blue, green, red
    np.testing.assert_allclose(recogniser(RED, ARCFACE), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "axes"), [([1, 3, 160, 160], [2, 3]), (["n", "h", "w", 3], [1, 2])])
def test_facenet_takes_rgb_about_the_middle(tmp_path: Path, shape: list[int | str], axes: list[int]) -> None:
    recogniser = SecondRecogniser(averaging_model(tmp_path / "f.onnx", shape, axes), "facenet")
    assert recogniser.size == 160
    np.testing.assert_allclose(recogniser(RED, ARCFACE), unit([127.5, 0, -127.5]), atol=1e-5)


def test_the_chip_lies_where_the_template_says(tmp_path: Path) -> None:
    """A dot at each of the five points appears at the template's points, pixel centres at +0.5."""
    recogniser = SecondRecogniser(averaging_model(tmp_path / "a.onnx", [1, 3, 224, 224], [2, 3]))
    assert recogniser.size == 224  # the model's own
    points = 0.5 * ARCFACE @ [[0.9, 0.3], [-0.3, 0.9]] + [60.0, 50.0]
    for point, expected in zip(points, 2 * ARCFACE, strict=True):
        y, x = np.mgrid[:224, :224] + 0.5
        dot = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 4).astype(np.float32)
        chip = recogniser._chip(np.repeat(dot[..., None], 3, 2), points)[..., 0]
        found = [(chip * axis).sum() / chip.sum() for axis in (x, y)]
        np.testing.assert_allclose(found, expected, atol=0.1)


def test_facenets_template_is_a_box_with_margin() -> None:
    eyes = FACENET[:2].mean(0)
    np.testing.assert_allclose(eyes, [80, 68], atol=1e-6)
    assert FACENET[1, 0] - FACENET[0, 0] == pytest.approx(47.4, abs=0.1)
    assert (FACENET > 32).all() and (FACENET < 128).all()


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [([1, 1, 64, 64], [2, 3], "1, 1, 64, 64"), ([1, 3, 112, 96], [2, 3], "112, 96"), ([1, 10], [1], "1, 10"),
     ([1, 3, 112, 112], [1, 2, 3], "1, 3, 112, 112")],
)  # fmt: skip
def test_other_models_are_refused_by_their_shape(
    tmp_path: Path, shape: list[int | str], axes: list[int], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        SecondRecogniser(averaging_model(tmp_path / "x.onnx", shape, axes))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'fitdiff[evaluate]'")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="cannot load"):
        SecondRecogniser(tmp_path / "x.onnx")


def test_without_onnxruntime_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_recogniser, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"pip install 'fitdiff\[evaluate\]'"):
        SecondRecogniser(tmp_path / "x.onnx")


@pytest.fixture(scope="module")
def crop(small_pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), small_pipeline.detector, small_pipeline.models.face_mesh)


def test_a_real_one_knows_a_face_again(crop: FaceCrop) -> None:
    """Mirrored and darker it is the same person; upside down it is not."""
    path = os.environ.get("FITDIFF_SECOND_RECOGNISER")
    if not path:
        pytest.skip("FITDIFF_SECOND_RECOGNISER names no ONNX file of a recogniser")
    recogniser = SecondRecogniser(Path(path))
    first = recogniser(crop.image, crop.five_points)
    mirrored = np.ascontiguousarray(crop.image[:, ::-1]) * 0.8
    points = (crop.five_points * [-1, 1] + [224, 0])[[1, 0, 2, 4, 3]]
    again = recogniser(mirrored, points)
    down = recogniser(np.ascontiguousarray(crop.image[::-1]), crop.five_points)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ again > 0.75
    assert first @ down < first @ again - 0.3
