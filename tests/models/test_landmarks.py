"""The face mesh against TensorFlow Lite's own interpreter, on a photo, and its named points."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fitdiff.assets.make_landmarks import WEIGHTS
from fitdiff.errors import MissingError
from fitdiff.models import landmark_indices as indices
from fitdiff.models.checkpoint import save_checkpoint
from fitdiff.models.landmarks import FaceMesh, FaceMeshConfig, json_from_config, load_face_mesh


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return load_face_mesh()[0]


@pytest.fixture(scope="module")
def photo_crop() -> torch.Tensor:
    data = pytest.importorskip("skimage.data", reason="the photo comes with scikit-image")
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(photo[:, :, 30:210, 130:310], (192, 192), mode="bilinear", antialias=True)


def pattern(size: int) -> torch.Tensor:
    """(1, 3, size, size) stripes that no random generator can change."""
    y, x, c = np.meshgrid(np.arange(size), np.arange(size), np.arange(3), indexing="ij")
    return torch.from_numpy((x * 7 + y * 13 + c * 50) % 256).permute(2, 0, 1)[None].float() / 255


def test_embedded_network_is_frozen() -> None:
    network, card = load_face_mesh()
    assert card.licence == "Apache-2.0"
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_points_of_a_photo(mesh: FaceMesh, photo_crop: torch.Tensor) -> None:
    points, logit = mesh(photo_crop)
    assert points.shape == (1, 468, 3)
    assert logit.item() > 5
    xy = points[0, :, :2]
    right_eye, left_eye = xy[list(indices.RIGHT_EYE)].mean(0), xy[list(indices.LEFT_EYE)].mean(0)
    assert right_eye[0] < xy[indices.NOSE_TIP, 0] < left_eye[0]  # the character's right is image left
    assert xy[indices.RIGHT_MOUTH_CORNER, 0] < xy[indices.LEFT_MOUTH_CORNER, 0]
    assert right_eye[1] < xy[indices.NOSE_TIP, 1] < xy[indices.LIPS_INNER[5], 1] < xy[indices.CHIN, 1]
    # Where one sees the eyes and the nose in the photo, to 4 of 192 pixels.
    assert torch.allclose(right_eye, torch.tensor([76.0, 75.5]), atol=4)
    assert torch.allclose(left_eye, torch.tensor([125.0, 78.0]), atol=4)


def test_no_face_in_stripes(mesh: FaceMesh) -> None:
    assert mesh(pattern(192))[1].item() < 0


def test_batch_equals_single(mesh: FaceMesh, photo_crop: torch.Tensor) -> None:
    batch = torch.cat([photo_crop, pattern(192)])
    assert torch.allclose(mesh(batch)[0][0], mesh(photo_crop)[0][0], atol=1e-3)


def test_gradient_moves_points_with_the_pixels(mesh: FaceMesh, photo_crop: torch.Tensor) -> None:
    x = photo_crop.clone().requires_grad_()
    mesh(x)[0][..., :2].sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    step = 1e-3 * x.grad / x.grad.norm()
    with torch.no_grad():
        change = mesh(x + step)[0][..., :2].double().sum() - mesh(x - step)[0][..., :2].double().sum()
    assert change.item() == pytest.approx(2 * (x.grad * step).sum().item(), rel=0.05)


def test_agrees_with_tensorflow_lite(mesh: FaceMesh, photo_crop: torch.Tensor) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    sources = os.environ.get("FITDIFF_ASSET_SOURCES")
    if not sources:
        pytest.skip("FITDIFF_ASSET_SOURCES names no folder with face_landmark.tflite")
    interpreter = litert.Interpreter(model_content=WEIGHTS.read(Path(sources)))
    interpreter.allocate_tensors()
    points_index, score_index = (detail["index"] for detail in interpreter.get_output_details())
    for x in (photo_crop, pattern(192)):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.permute(0, 2, 3, 1).contiguous().numpy())
        interpreter.invoke()
        points, logit = mesh(x)
        error = np.abs(interpreter.get_tensor(points_index).reshape(1, 468, 3) - points.numpy())
        print(f"face mesh against LiteRT: largest {error.max():.1e} px, mean {error.mean():.1e} px")
        assert error.max() < 2e-3
        assert interpreter.get_tensor(score_index).item() == pytest.approx(logit.item(), abs=1e-3)


def test_other_architecture_is_refused(tmp_path: Path) -> None:
    config = {**json_from_config(FaceMeshConfig()), "architecture": "other"}
    card = {"role": "landmarks", "name": "n", "source": "s", "licence": "MIT", "commercial": True}
    save_checkpoint(tmp_path / "net", FaceMesh().state_dict(), config, card)
    with pytest.raises(MissingError, match="'other'"):
        load_face_mesh(tmp_path / "net")


def test_named_points_are_sound() -> None:
    assert len(indices.LANDMARK_68) == len(set(indices.LANDMARK_68)) == 68
    named = [indices.RIGHT_EYE, indices.LEFT_EYE, indices.RIGHT_BROW, indices.LEFT_BROW]
    named += [indices.LIPS_OUTER, indices.LIPS_INNER, indices.FACE_OVAL, indices.LANDMARK_68]
    for contour in named:
        assert len(set(contour)) == len(contour)
        assert 0 <= min(contour) <= max(contour) < indices.LANDMARK_COUNT
    assert (len(indices.RIGHT_EYE), len(indices.LEFT_EYE)) == (16, 16)
    assert 33 in indices.RIGHT_EYE
    assert 263 in indices.LEFT_EYE
    assert {61, 291} <= set(indices.LIPS_OUTER)


def test_sixty_eight_points_lie_in_order(mesh: FaceMesh, photo_crop: torch.Tensor) -> None:
    xy = mesh(photo_crop)[0][0, list(indices.LANDMARK_68), :2]
    for first, last in ((0, 16), (17, 26), (31, 35), (48, 54), (60, 64)):
        assert (xy[first + 1 : last + 1, 0] > xy[first:last, 0]).all(), f"{first} to {last} run to image right"
    assert (xy[28:31, 1] > xy[27:30, 1]).all(), "the nose runs down"
    assert xy[8, 1] == xy[:, 1].max(), "the chin is lowest"
    assert xy[37, 1] < xy[41, 1] and xy[43, 1] < xy[47, 1], "upper lid above lower lid"
    assert (xy[51, 1] < xy[62, 1]) and (xy[66, 1] < xy[57, 1]), "lips from outside to inside"
