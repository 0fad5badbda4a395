import cv2
import numpy as np
import pytest
import torch

from fitdiff.models.landmark_indices import LANDMARK_COUNT, LEFT_EYE, NOSE_TIP, RIGHT_EYE
from fitdiff.runtime.face_chip import chip_transform, five_points_from_landmarks, warp_chip

TEMPLATE = np.array([[54, 67], [96, 67], [75, 92], [58, 113], [92, 113]], np.float64)


def _similarity(scale: float, degrees: float, x: float, y: float) -> np.ndarray:
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, x], [s, c, y]])


@pytest.fixture(scope="module")
def smooth_image() -> np.ndarray:
    noise = np.random.default_rng(3).random((96, 96, 3))
    return cv2.GaussianBlur(noise, (0, 0), 3)


def test_five_points_in_numpy_and_torch() -> None:
    landmarks = np.random.default_rng(0).random((2, LANDMARK_COUNT, 3)).astype(np.float32)
    points = five_points_from_landmarks(landmarks)
    assert points.shape == (2, 5, 2)
    assert np.allclose(points[:, 0], landmarks[:, list(RIGHT_EYE), :2].mean(1))
    assert np.allclose(points[:, 1], landmarks[:, list(LEFT_EYE), :2].mean(1))
    assert np.allclose(points[:, 2], landmarks[:, NOSE_TIP, :2])
    tensor = torch.from_numpy(landmarks).requires_grad_()
    same = five_points_from_landmarks(tensor)
    assert np.allclose(same.detach().numpy(), points, atol=1e-6)
    (gradient,) = torch.autograd.grad(same.sum(), tensor)
    assert gradient.sum().item() == pytest.approx(same.numel(), rel=1e-4)


@pytest.mark.parametrize("degrees", [0, 35, -90, 170])
def test_similarity_is_recovered(degrees: float) -> None:
    truth = _similarity(0.7, degrees, 12, -30)
    inverse = np.linalg.inv(truth[:, :2])
    points = (TEMPLATE - truth[:, 2]) @ inverse.T
    assert np.allclose(chip_transform(points, TEMPLATE), truth, atol=1e-9)


def test_similarity_never_mirrors() -> None:
    mirrored = TEMPLATE * [-1, 1]
    linear = chip_transform(mirrored, TEMPLATE)[:, :2]
    assert np.linalg.det(linear) > 0
    assert linear[0, 0] == pytest.approx(linear[1, 1])
    assert linear[0, 1] == pytest.approx(-linear[1, 0])


def test_similarity_is_the_least_squares_one() -> None:
    points = TEMPLATE + np.random.default_rng(1).normal(0, 3, TEMPLATE.shape)
    best = chip_transform(points, TEMPLATE)

    def error(transform: np.ndarray) -> float:
        return float(((points @ transform[:, :2].T + transform[:, 2] - TEMPLATE) ** 2).sum())

    for change in np.random.default_rng(2).normal(0, 1e-3, (20, 4)):
        assert error(best + _similarity(1, 0, 0, 0) * change[0]) >= error(best)
        assert error(best + [[0, -change[1], change[2]], [change[1], 0, change[3]]]) >= error(best)


def test_coinciding_points_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        chip_transform(np.ones((5, 2)), TEMPLATE)
    with pytest.raises(ValueError, match="expected the same"):
        chip_transform(TEMPLATE[:4], TEMPLATE)


def test_warp_agrees_with_opencv(smooth_image: np.ndarray) -> None:
    chip_from_crop = _similarity(1.3, 20, -8, -30)
    image = torch.from_numpy(smooth_image).permute(2, 0, 1)[None]
    chip = warp_chip(image, torch.from_numpy(chip_from_crop)[None], 64)[0].permute(1, 2, 0).numpy()
    # OpenCV's pixel centres are whole numbers: shift both frames by half a pixel.
    half = chip_from_crop.copy()
    half[:, 2] += half[:, :2] @ [0.5, 0.5] - 0.5
    expected = cv2.warpAffine(smooth_image, half, (64, 64), borderMode=cv2.BORDER_REPLICATE)
    difference = np.abs(chip - expected)
    print(f"largest {difference.max():.2e}, mean {difference.mean():.2e}")
    assert difference.max() < 3e-3  # OpenCV rounds its weights to 1/32 px


def test_identity_returns_the_image(smooth_image: np.ndarray) -> None:
    image = torch.from_numpy(smooth_image).permute(2, 0, 1)[None]
    chip = warp_chip(image, torch.eye(3, dtype=torch.float64)[None, :2], 96)
    assert torch.allclose(chip, image, atol=1e-9)


@pytest.mark.parametrize("factor", [2, 4])
def test_shrinking_averages(factor: int) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    transform = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]])
    chip = warp_chip(image, transform, 64 // factor)
    expected = torch.nn.functional.avg_pool2d(image, factor)
    assert torch.allclose(chip, expected, atol=1e-5)


def test_stripes_do_not_alias() -> None:
    stripes = (torch.arange(128) % 2).float().expand(1, 1, 128, 128)
    transform = torch.from_numpy(_similarity(0.3, 10, 0, 8)).float()[None]
    chip = warp_chip(stripes, transform, 24)[..., 8:, 4:]
    assert (chip - 0.5).abs().max() < 0.2


def test_rows_do_not_depend_on_the_batch() -> None:
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    transforms = torch.from_numpy(np.stack([_similarity(s, 5, 3, 2) for s in (0.3, 0.6, 1.4)])).float()
    together = warp_chip(images, transforms, 20)
    for row in range(3):
        alone = warp_chip(images[row : row + 1], transforms[row : row + 1], 20)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("scale", [0.6, 1.5])
def test_gradients(smooth_image: np.ndarray, scale: float) -> None:
    image = torch.from_numpy(smooth_image[:6, :6, :1]).permute(2, 0, 1)[None].clone().requires_grad_()
    transform = torch.from_numpy(_similarity(scale, 12, 0.3, -0.4))[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda i, t: warp_chip(i, t, 3), (image, transform), eps=1e-6, atol=1e-5)
