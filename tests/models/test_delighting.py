"""The delighting network: what it is told of a photo, what it may say, and what a wrong file is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fitdiff.errors import MissingError
from fitdiff.models.checkpoint import ModelCard, save_checkpoint
from fitdiff.models.delighting import (
    COLUMNS,
    ROWS,
    SIDE,
    DelightingConfig,
    DelightingNet,
    about_zero,
    delighting_inputs,
    json_from_config,
    load_delighting,
    window_size,
)

SMALL = DelightingConfig(widths=(8, 8, 16), place=2)


def photo(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator, (height, width) = torch.Generator().manual_seed(0), window_size()
    colours, shown, normal = (torch.rand(batch, n, height, width, generator=generator) for n in (3, 1, 3))
    return colours * 0.4 + 0.05, (shown > 0.3).float(), normal * 2 - 1


def test_the_window_is_the_same_from_both_sides() -> None:
    assert COLUMNS.start == SIDE - COLUMNS.stop and 0 <= ROWS.start < ROWS.stop <= SIDE
    assert all(side % 16 == 0 for side in window_size())


def test_brightness_of_the_photo_is_not_told() -> None:
    colours, shown, normal = photo()
    torch.testing.assert_close(
        delighting_inputs(colours, shown, normal), delighting_inputs(2 * colours, shown, normal), atol=2e-3, rtol=0
    )
    warmer = colours * torch.tensor([1.2, 1.0, 0.9])[:, None, None]
    assert (delighting_inputs(colours, shown, normal) - delighting_inputs(warmer, shown, normal)).abs().max() > 0.1


def test_what_is_hidden_tells_nothing() -> None:
    colours, shown, normal = photo()
    painted = torch.where(shown > 0, colours, 0.9)
    assert torch.equal(delighting_inputs(colours, shown, normal), delighting_inputs(painted, shown, normal))
    nothing = delighting_inputs(colours, torch.zeros_like(shown), normal)
    assert torch.isfinite(nothing).all() and not nothing[:, :4].any()


def test_an_untrained_network_says_the_usual_face_and_keeps_photos_apart() -> None:
    network, inputs = DelightingNet(SMALL).eval(), delighting_inputs(*photo())
    network.mean.copy_(torch.randn_like(network.mean))
    network.weight.copy_(torch.rand_like(network.weight))
    with torch.no_grad():
        network.head.bias.fill_(0.7)  # the whole of a face is not its to say
        usual = about_zero(network.mean, network.weight)
        torch.testing.assert_close(network(inputs), usual.expand(2, -1, -1, -1), atol=1e-4, rtol=0)
        network.head.weight.normal_()
        both = network(inputs)
        torch.testing.assert_close(both[1:], network(inputs[1:]), atol=1e-3, rtol=1e-4)
        assert (both * network.weight).sum((2, 3)).abs().max() < 0.5  # of some 18 000 texels


def test_both_sides_of_the_face_are_seen_at_once() -> None:
    """A texel's answer depends on the photo at its mirror image, far beyond the convolutions' reach."""
    torch.manual_seed(0)
    network = DelightingNet(DelightingConfig(widths=(8, 8), place=2)).eval()
    torch.nn.init.normal_(network.head.weight)
    network.weight.zero_()[..., 0, 0] = 1  # the mean is that corner alone
    inputs = delighting_inputs(*photo(1))
    row, column, width = 100, 10, window_size()[1]
    with torch.no_grad():
        before = network(inputs)
        marked = inputs.clone()
        marked[..., row, width - 1 - column] += 5
        change = (network(marked) - before)[0, 0, row].abs()
    assert change[column] > 0.01 and change[width - 1 - column] > 0.01


def test_files(tmp_path: Path) -> None:
    network, card = DelightingNet(SMALL), ModelCard("delighting", "small", "made by the tests", "Apache-2.0", True)
    save_checkpoint(tmp_path / "ours", network.state_dict(), json_from_config(SMALL), card, "none")
    found, its_card = load_delighting(tmp_path / "ours")
    assert found.config == SMALL and its_card.name == "small"
    assert not any(parameter.requires_grad for parameter in found.parameters())
    save_checkpoint(tmp_path / "other", network.state_dict(), {"architecture": "else"}, card, "none")
    with pytest.raises(MissingError, match="delighting-unet"):
        load_delighting(tmp_path / "other")
    with pytest.raises(MissingError):
        load_delighting(tmp_path / "absent")
