"""Gaussian blur, as a convolution with repeated borders."""

import numpy as np
import pytest
import torch

from fitdiff.rendering.blur import blurred


def test_blur_keeps_the_mean_and_spreads_a_point() -> None:
    point = torch.zeros(1, 2, 41, 41)
    point[:, 1, 20, 20] = 1.0
    soft = blurred(point, 2.0)
    assert soft[:, 0].abs().max() == 0 and soft[0, 1].sum() == pytest.approx(1.0, abs=1e-4)
    variance = (soft[0, 1].sum(0) * (torch.arange(41) - 20).square()).sum()
    assert variance == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("sigma", [0.9, 6.0, 16.0])
def test_blur_is_the_convolution_with_repeated_borders(sigma: float) -> None:
    x = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    reach = int(np.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2
    padded = torch.nn.functional.pad(x.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    expected = torch.nn.functional.conv2d(padded, kernel).view_as(x)
    assert torch.allclose(blurred(x, sigma), expected, atol=1e-5)
