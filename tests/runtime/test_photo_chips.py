"""Chips of a batch, each by its own map and with its own number of samples."""

import torch

from fitdiff.runtime.face_chip import warp_chip
from fitdiff.runtime.photo_chips import PhotoChips


def test_chips_are_those_of_each_photo_alone() -> None:
    image = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([0.4, 1.2, 0.3, 1.0])  # two of them average several samples a pixel
    maps = torch.zeros(4, 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = scales
    maps[:, :, 2] = torch.tensor([[1.0, 2.0], [-20.0, -9.0], [3.0, 0.0], [-11.0, -17.0]])
    image.requires_grad_()
    chips = PhotoChips(image, maps, 20)(image)
    for row in range(4):
        own = slice(row, row + 1)
        assert torch.equal(chips[own], warp_chip(image[own], maps[own], 20))
    (gradient,) = torch.autograd.grad(chips[2].sum(), image)
    assert gradient[2].any() and not gradient[[0, 1, 3]].any()


def test_photos_of_one_scale_need_no_sorting() -> None:
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = torch.tensor([[[1.0, 0.0, -3.0], [0.0, 1.0, -4.0]], [[1.0, 0.0, -9.0], [0.0, 1.0, -2.0]]])
    chips = PhotoChips(image, maps, 8)(image)
    assert torch.allclose(chips[0], image[0, :, 4:12, 3:11], atol=1e-5)
    assert torch.allclose(chips[1], image[1, :, 2:10, 9:17], atol=1e-5)
