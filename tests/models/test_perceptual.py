"""The perceptual distance: zero for equals, rising with damage, confined by its mask, differentiable."""

import pytest
import torch
from torch.nn import functional as F

from fitdiff.models.perceptual import (
    EfficientNetLite0Features,
    SamePaddedConv2d,
    feature_distance,
    load_perceptual,
    perceptual_distance,
)


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0Features:
    return load_perceptual()[0]


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    data = pytest.importorskip("skimage.data", reason="the photo comes with scikit-image")
    whole = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(whole[:, :, :300, 80:380], (128, 128), mode="bilinear", antialias=True)


def test_embedded_network_is_frozen() -> None:
    network, card = load_perceptual()
    assert card.licence == "Apache-2.0"
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_feature_shapes(network: EfficientNetLite0Features) -> None:
    shapes = [tuple(f.shape[1:]) for f in network(torch.rand(1, 3, 224, 224))]
    assert shapes == [(16, 112, 112), (24, 56, 56), (40, 28, 28), (80, 14, 14), (112, 14, 14)]


@pytest.mark.parametrize(("side", "kernel", "stride"), [(9, 3, 2), (8, 3, 2), (9, 5, 2), (8, 5, 2), (7, 5, 1)])
def test_same_padding_of_tensorflow(side: int, kernel: int, stride: int) -> None:
    convolution = SamePaddedConv2d(1, 1, kernel, stride)
    assert convolution(torch.zeros(1, 1, side, side)).shape[-1] == -(-side // stride)
    # With an even side and stride 2 there is less padding above than below, so the first window starts later.
    torch.nn.init.ones_(convolution.weight)
    torch.nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
    covered = convolution(torch.ones(1, 1, side, side))[0, 0]
    assert covered[0, 0] >= covered[-1, -1]


def test_zero_for_equal_images_and_symmetric(network: EfficientNetLite0Features, photo: torch.Tensor) -> None:
    other = photo.flip(3)
    assert perceptual_distance(network, photo, photo).item() == 0
    forth, back = perceptual_distance(network, photo, other), perceptual_distance(network, other, photo)
    assert torch.allclose(forth, back)
    assert 0 < forth.item() < 20


def test_rises_with_noise_and_blur(network: EfficientNetLite0Features, photo: torch.Tensor) -> None:
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    noisy = [perceptual_distance(network, photo, photo + s * noise).item() for s in (0.01, 0.03, 0.1)]
    blurred = [
        perceptual_distance(network, photo, F.avg_pool2d(photo, k, 1, k // 2, count_include_pad=False)).item()
        for k in (3, 5, 9)
    ]
    assert 0 < noisy[0] < noisy[1] < noisy[2]
    assert 0 < blurred[0] < blurred[1] < blurred[2]


def test_mask_weighs_pixels(network: EfficientNetLite0Features, photo: torch.Tensor) -> None:
    damaged = photo.clone()
    damaged[..., 64:] = 0.5
    left, right, everywhere, nowhere = (torch.zeros(1, 1, 128, 128) for _ in range(4))
    left[..., :16] = 1  # far enough from the damage that only the deepest features can see it
    right[..., 80:] = 1
    everywhere += 1
    at_left, at_right = (perceptual_distance(network, photo, damaged, m).item() for m in (left, right))
    assert at_left < 0.1 * at_right
    whole = perceptual_distance(network, photo, damaged)
    assert torch.allclose(perceptual_distance(network, photo, damaged, everywhere), whole, rtol=1e-4)
    assert perceptual_distance(network, photo, damaged, nowhere).item() == 0


def test_kept_features_give_the_same_distance(network: EfficientNetLite0Features, photo: torch.Tensor) -> None:
    batch = torch.cat([photo, photo.flip(2)])
    kept = network(torch.cat([photo.flip(3)] * 2))
    distance = feature_distance(network(batch), kept)
    assert distance.shape == (2,)
    assert torch.allclose(distance[:1], perceptual_distance(network, photo, photo.flip(3)), rtol=1e-4)


def test_gradient_step_comes_nearer(network: EfficientNetLite0Features, photo: torch.Tensor) -> None:
    x = F.avg_pool2d(photo, 5, 1, 2).requires_grad_()
    distance = perceptual_distance(network, x, photo)
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    assert torch.isfinite(gradient).all()
    moved = x.detach() - 0.1 * gradient / gradient.norm()
    assert perceptual_distance(network, moved, photo).item() < distance.item()


def test_gradient_is_finite_where_images_are_equal(network: EfficientNetLite0Features, photo: torch.Tensor) -> None:
    x = photo.clone().requires_grad_()
    perceptual_distance(network, x, photo).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
