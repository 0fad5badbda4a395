"""SCRFD's anchors, by a network of its form that sees red squares: places, colours, sizes, overlaps, refusals."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fitdiff.errors import MissingError
from fitdiff.runtime.scrfd_detector import ScrfdDetector

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

REACH = (1.0, 2.0, 3.0, 4.0)  # left, top, right, bottom, in strides
POINTS = (-0.5, -1.0, 1.5, -1.0, 0.5, 0.5, -0.5, 2.0, 1.5, 2.0)


class RedSquares(nn.Module):
    """Scores where cells are red, at one stride; boxes and points always at the same place about them."""

    def __init__(self, stride: int = 8, batched: bool = False) -> None:
        super().__init__()
        self.stride, self.batched = stride, batched

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        red = x[:, :1] - x[:, 1:2].abs() * 0.1 + x[:, 2:] * -0.5  # blue is none
        scores, boxes, points = [], [], []
        for stride in (8, 16, 32):
            cells = torch.nn.functional.avg_pool2d(red, stride).reshape(-1, 1)
            score = (cells * (0.9 if stride == self.stride else 0.0)).expand(-1, 2).reshape(-1, 1)
            scores.append(score)
            boxes.append(score * 0 + torch.tensor(REACH))
            points.append(score * 0 + torch.tensor(POINTS))
        answers = (*scores, *boxes, *points)
        return tuple(answer[None] for answer in answers) if self.batched else answers


def written(network: nn.Module, path: Path, side: int | None = None) -> Path:
    axes = None if side else {"input.1": {2: "h", 3: "w"}}
    example = torch.rand(1, 3, side or 640, side or 640)
    torch.onnx.export(
        network.eval(), (example,), str(path), dynamo=False, opset_version=11, input_names=["input.1"],
        dynamic_axes=axes,
    )  # fmt: skip
    return path


def photo(width: int, height: int, *squares: tuple[int, int, int]) -> np.ndarray:
    """Green with red squares (x, y, side), and a blue one."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 1] = 127
    pixels[8:16, 8:16] = (0, 127, 255)
    for x, y, side in squares:
        pixels[y : y + side, x : x + side] = (255, 127, 0)
    return pixels


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> ScrfdDetector:
    return ScrfdDetector(written(RedSquares(), tmp_path_factory.mktemp("pack") / "det_10g.onnx"))


def test_box_and_points_lie_where_the_anchor_says(detector: ScrfdDetector) -> None:
    (face,) = detector.detect(photo(640, 480, (160, 240, 8)))
    assert face.box.tolist() == pytest.approx([152, 224, 32, 48])
    expected = np.array([160, 240]) + 8 * np.array(POINTS).reshape(5, 2)
    assert np.allclose(face.five_points, expected)
    right_eye, left_eye = face.five_points[:2]
    assert right_eye[0] < left_eye[0] and face.roll_degrees == pytest.approx(0)
    assert detector.card.role == "detector" and not detector.card.commercial


@pytest.mark.parametrize("batched", [False, True])
def test_each_stride_has_its_own_cells(tmp_path: Path, batched: bool) -> None:
    for stride in (8, 16, 32):
        detector = ScrfdDetector(written(RedSquares(stride, batched), tmp_path / f"{stride}.onnx"))
        (face,) = detector.detect(photo(640, 640, (320, 64, stride)))
        assert face.box.tolist() == pytest.approx([320 - stride, 64 - 2 * stride, 4 * stride, 6 * stride])


def test_a_large_photo_comes_back_in_its_own_pixels(detector: ScrfdDetector) -> None:
    (face,) = detector.detect(photo(960, 1280, (320, 480, 16)))
    assert face.box.tolist() == pytest.approx([304, 448, 64, 96])


def test_a_turned_photo_is_looked_at_turned(detector: ScrfdDetector) -> None:
    upright = photo(640, 480, (160, 240, 8))
    (face,) = detector.detect(np.rot90(upright, -1), quarter_turns=1)
    assert face.box.tolist() == pytest.approx([152, 224, 32, 48])


def test_what_overlaps_is_one_face_and_the_largest_comes_first(tmp_path: Path, detector: ScrfdDetector) -> None:
    assert len(detector.detect(photo(640, 640, (160, 240, 16)))) == 1  # four cells side by side
    apart = detector.detect(photo(640, 640, (160, 240, 8), (400, 240, 8)))
    assert sorted(round(float(face.box[0])) for face in apart) == [152, 392]


def test_nothing_is_found_in_nothing(detector: ScrfdDetector) -> None:
    assert detector.detect(photo(300, 200)) == []


def test_a_fixed_input_is_kept_to(tmp_path: Path) -> None:
    detector = ScrfdDetector(written(RedSquares(), tmp_path / "fixed.onnx", side=320))
    (face,) = detector.detect(photo(640, 640, (320, 320, 16)))
    assert face.box.tolist() == pytest.approx([304, 288, 64, 96])


def test_other_files_are_refused(tmp_path: Path, paper_networks: ModuleType) -> None:
    path = written(nn.Conv2d(3, 2, 3), tmp_path / "other.onnx")
    with pytest.raises(MissingError, match="1 outputs; expected 9"):
        ScrfdDetector(path)
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:50])
    with pytest.raises(MissingError, match="a whole ONNX file"):
        ScrfdDetector(tmp_path / "cut.onnx")
    with pytest.raises(MissingError, match="no such file"):
        ScrfdDetector(tmp_path / "absent.onnx")
