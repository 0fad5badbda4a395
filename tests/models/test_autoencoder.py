"""The branched autoencoder: a crop agrees with the full chart, half size is the coarse output."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fitdiff.errors import MissingError
from fitdiff.models.autoencoder import (
    AutoencoderConfig,
    BranchedAutoencoder,
    config_from_json,
    json_from_config,
    load_autoencoder,
)
from fitdiff.models.checkpoint import ModelCard, save_checkpoint
from fitdiff.models.discriminator import BranchedDiscriminator
from fitdiff.models.quantiser import VectorQuantizer

SMALL = AutoencoderConfig(
    chart_size=256,
    decoder_channels=(16, 12, 8, 8),
    decoder_blocks=(1, 1, 1),
    encoder_channels=(8, 8, 8, 12),
    encoder_blocks=1,
    codes=64,
)


@pytest.fixture
def model() -> BranchedAutoencoder:
    """Small, with every weight random: untrained blocks would else be the identity, and hide mistakes."""
    torch.manual_seed(0)
    model = BranchedAutoencoder(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    model.chart_mean.copy_(torch.rand_like(model.chart_mean) * 0.6 + 0.2)
    return model.requires_grad_(False)


def largest(a: Tensor, b: Tensor, what: str) -> float:
    error = (a - b).detach().abs()
    print(f"{what}: largest error {error.max():.2e}, mean {error.mean():.2e}")
    return float(error.max())


def test_full_size_shapes_and_ranges() -> None:
    model = BranchedAutoencoder(AutoencoderConfig(decoder_channels=(8, 8, 8, 4), decoder_blocks=(1, 1, 1)))
    with torch.no_grad():
        z = model.encode(torch.rand(1, 9, 512, 512))
        assert z.shape == (1, 1, 64, 64) and model.latent_size == 64
        assert model.decode(z).shape == (1, 9, 512, 512)
        assert model.decode(z, resolution=256).shape == (1, 9, 256, 256)


def test_before_training_it_returns_the_mean_chart() -> None:
    model = BranchedAutoencoder(SMALL)
    mean = torch.rand_like(model.chart_mean)
    model.chart_mean.copy_(mean)
    torch.nn.init.zeros_(model.decoder.albedo.head256.weight)
    torch.nn.init.zeros_(model.decoder.albedo.head256.bias)  # type: ignore[arg-type]
    assert torch.equal(model.decode(torch.randn(1, 1, 32, 32))[0, :6], mean[:6])


def test_output_is_in_range_with_unit_normals(model: BranchedAutoencoder) -> None:
    maps = model.decode(3 * torch.randn(2, 1, 32, 32))
    assert maps.min() >= 0 and maps.max() <= 1
    length = (maps[:, 6:] * 2 - 1).norm(dim=1)
    # The smallest raw normals fall short of a unit: the root is guarded against zero.
    assert largest(length, torch.ones_like(length), "normal length") < 1e-3


def test_half_size_is_the_coarse_output_of_the_full_pass(model: BranchedAutoencoder) -> None:
    z = torch.randn(1, 1, 32, 32)
    coarse, fine = model.decode_pyramid(z)
    assert fine is not None
    assert torch.equal(model.decode(z, resolution=128), coarse.clamp(0, 1))
    assert torch.equal(model.decode(z), fine.clamp(0, 1))


def test_a_crop_is_the_full_chart_away_from_its_border(model: BranchedAutoencoder) -> None:
    """The slow twin is the full pass; the receptive field of the small network reaches 8 cells."""
    maps = torch.rand(1, 9, 256, 256)
    row, column, side, reach = 4, 8, 24, 8
    full = model.encode(maps)
    y, x = row * 8, column * 8
    part = model.encode(maps[:, :, y : y + side * 8, x : x + side * 8], (row, column))
    inner = slice(reach, side - reach)
    expected = full[:, :, row : row + side, column : column + side]
    assert largest(part[:, :, inner, inner], expected[:, :, inner, inner], "encode") < 1e-5
    decoded = model.decode(expected, origin=(row, column))
    expected = model.decode(full)[:, :, y : y + side * 8, x : x + side * 8]
    inner = slice(reach * 8, (side - reach) * 8)
    assert largest(decoded[:, :, inner, inner], expected[:, :, inner, inner], "decode") < 1e-5


def test_each_crop_of_a_batch_has_its_own_origin(model: BranchedAutoencoder) -> None:
    maps = torch.rand(2, 9, 64, 64)
    origin = torch.tensor([[0, 0], [20, 7]])
    together = model.encode(maps, origin)
    apart = torch.cat([model.encode(maps[i : i + 1], tuple(origin[i].tolist())) for i in range(2)])
    assert largest(together, apart, "encode") < 1e-5
    assert not torch.allclose(together[1], model.encode(maps[1:], (0, 0))[0])
    decoded = model.decode(together, origin=origin)
    apart = torch.cat([model.decode(together[i : i + 1], None, tuple(origin[i].tolist())) for i in range(2)])
    assert largest(decoded, apart, "decode") < 1e-5


def test_gradient_reaches_the_latent(model: BranchedAutoencoder) -> None:
    z = torch.randn(1, 1, 8, 8, requires_grad=True)
    model.decode(z, resolution=128).square().sum().backward()
    assert z.grad is not None and float(z.grad.abs().min()) > 0


def test_wrong_shapes_are_refused(model: BranchedAutoencoder) -> None:
    with pytest.raises(ValueError, match="maps: got shape"):
        model.encode(torch.rand(1, 6, 256, 256))
    with pytest.raises(ValueError, match="origin: got"):
        model.encode(torch.rand(1, 9, 64, 64), (30, 0))
    with pytest.raises(ValueError, match="resolution: got 512"):
        model.decode(torch.rand(1, 1, 32, 32), resolution=512)


def test_a_saved_model_is_the_model_that_loads(model: BranchedAutoencoder, tmp_path: Path) -> None:
    model.quantiser.initialise(torch.randn(1000))
    config = json_from_config(SMALL)
    card = ModelCard("autoencoder", "small", "a test", "Apache-2.0", True)
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    save_checkpoint(tmp_path / "autoencoder", tensors, config, card)
    loaded = load_autoencoder(tmp_path / "autoencoder")
    assert loaded.config == SMALL == config_from_json(config) and asdict(loaded.config) == asdict(SMALL)
    assert loaded.quantiser.is_initialised and not loaded.training
    z = torch.randn(1, 1, 32, 32)
    assert largest(loaded.decode(z), model.decode(z), "float16 weights") < 0.02
    with pytest.raises(MissingError):
        load_autoencoder(tmp_path / "absent")


def test_the_code_found_by_search_is_the_nearest() -> None:
    """The slow twin is the table of all distances."""
    torch.manual_seed(0)
    quantiser = VectorQuantizer(64, 3.0).eval()
    quantiser.codes.copy_(torch.randn(64))  # in no order
    z = 2 * torch.randn(2, 1, 9, 9)
    distances = (z[..., None] - quantiser.codes).abs()
    codes, loss, indices = quantiser(z)
    assert torch.equal(distances.gather(-1, indices[..., None])[..., 0], distances.min(-1).values)
    assert largest(codes, quantiser.codes[indices], "straight-through value") < 1e-6
    assert float(loss) == pytest.approx(0.25 * float((codes - z).square().mean()), rel=1e-4)


def test_the_codebook_follows_the_latents_and_restarts_what_is_unused() -> None:
    torch.manual_seed(0)
    quantiser = VectorQuantizer(32, 4.0, decay=0.9)
    first = torch.randn(2048)
    quantiser.initialise(first)
    assert quantiser.is_initialised and quantiser.codes.diff().min() >= 0
    for _ in range(150):
        quantiser(10 + torch.randn(2048))
    latents = 10 + torch.randn(2048)
    codes, _, indices = quantiser.eval()(latents)
    assert 6 < float(quantiser.codes.min()), "codes that stayed at the first latents were not restarted"
    assert len(indices.unique()) >= 28
    assert float((codes - latents).square().mean().sqrt()) < 0.15


def test_the_quantiser_passes_gradients_straight_through() -> None:
    z = torch.randn(4, 1, 3, 3, requires_grad=True)
    codes, _, _ = VectorQuantizer(16, 3.0).eval()(z)
    (gradient,) = torch.autograd.grad((codes * codes).sum(), z)
    assert torch.allclose(gradient, 2 * codes)


def test_each_branch_of_the_discriminator_sees_its_own_maps_in_patches_of_70() -> None:
    torch.manual_seed(0)
    discriminator = BranchedDiscriminator().eval()
    maps = torch.rand(1, 9, 128, 128, requires_grad=True)
    albedo, normal = discriminator(maps)
    assert albedo.shape == normal.shape == (1, 1, 14, 14)
    (gradient,) = torch.autograd.grad(albedo[0, 0, 7, 7], maps)
    assert not gradient[:, 6:].any()
    touched = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert int(touched.max() - touched.min()) + 1 == 70
