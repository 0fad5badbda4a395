"""Training of the autoencoder: it learns, resumes exactly, and refuses what does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fitdiff.errors import FitDiffError, MissingError, UsageError
from fitdiff.models.autoencoder import AutoencoderConfig, load_autoencoder
from fitdiff.models.checkpoint import load_checkpoint, save_checkpoint
from fitdiff.models.discriminator import DiscriminatorConfig
from fitdiff.training.chart_crops import ChartFolder, mirrored
from fitdiff.training.losses import (
    MapWeights,
    adaptive_weight,
    chroma_loss,
    hinge_discriminator_loss,
    moment_loss,
    reconstruction_loss,
)
from fitdiff.training.state import Budget, MovingAverage, check_finite, learning_rate_factor
from fitdiff.training.train_autoencoder import AutoencoderTrainer, AutoencoderTrainingConfig, train_autoencoder

SIZE = 128
CONFIG = AutoencoderTrainingConfig(
    model=AutoencoderConfig(
        chart_size=SIZE,
        decoder_channels=(24, 16, 12, 8),
        decoder_blocks=(1, 1, 1),
        encoder_channels=(8, 12, 16, 16),
        encoder_blocks=1,
        codes=256,
    ),
    discriminator=DiscriminatorConfig(channels=(6, 8, 8)),
    budget=Budget(steps=8),
    crop=64,
    batch=4,
    learning_rate=3e-3,
    warmup=5,
    average_decay=0.97,
    bfloat16=False,
    num_threads=1,
    validate_minutes=1e9,
    checkpoint_minutes=1e9,
    validation_charts=2,
    quiet=True,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve charts of a smooth tone, spots, a stroke for a brow; the last two are held out."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    maps = np.empty((12, 9, SIZE, SIZE), np.uint8)
    for chart in maps:
        tone = random.uniform(0.3, 0.8) * np.array([1.0, 0.75, 0.6])[:, None, None]
        shade = 1 + 0.15 * np.sin(2 * np.pi * (x * random.uniform(0.5, 1.5) + random.uniform()))
        spots = np.zeros((SIZE, SIZE))
        for cx, cy in random.uniform(0.1, 0.9, (8, 2)):
            spots += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.0006)
        brow = np.exp(-(((y - 0.3 - 0.05 * random.normal()) / 0.02) ** 2)) * (abs(x - 0.5) > 0.1)
        diffuse = tone * shade * (1 - 0.4 * np.clip(spots, 0, 1)) * (1 - 0.7 * brow)
        slope = np.stack(np.gradient(spots + brow))[::-1] * 2
        normal = np.concatenate((slope, np.ones((1, SIZE, SIZE))))
        normal /= np.linalg.norm(normal, axis=0)
        specular = np.repeat((0.5 - 0.3 * brow)[None], 3, 0)
        chart[:] = np.clip(np.concatenate((diffuse, specular, normal / 2 + 0.5)) * 255 + 0.5, 0, 255)
    np.save(folder / "maps.npy", maps)
    (folder / "index.json").write_text(json.dumps({"held_out": [10, 11]}))
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    return load_autoencoder(folder / "autoencoder").state_dict()


def test_it_learns_within_seconds(data: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, bfloat16=True)  # as the default is
    before = train_autoencoder(replace(config, budget=Budget(steps=1)), data, tmp_path / "before")
    after = train_autoencoder(replace(config, budget=Budget(steps=80)), data, tmp_path / "after")
    print("PSNR before and after 80 steps:", before.psnr, after.psnr)
    assert after.steps == 80
    assert after.psnr["diffuse"] > before.psnr["diffuse"] + 2
    model = load_autoencoder(after.checkpoint)
    assert model.quantiser.is_initialised
    mean, spread = ChartFolder(data).statistics(mirror=True)
    assert torch.allclose(model.chart_mean, mean, atol=1e-3)
    assert torch.allclose(model.chart_spread, spread, atol=1e-3)
    measured = ChartFolder(data).lightness_measures(mirror=True)
    for found, expected in zip((model.lightness_spread, model.lightness_depth), measured, strict=True):
        assert torch.allclose(found, expected, atol=1e-3) and found.max() > 0


def test_a_resumed_run_is_the_run_that_did_not_stop(data: Path, tmp_path: Path) -> None:
    """Adversarial and perceptual losses and quantisation included; compared bit for bit."""

    def perceptual(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean((1, 2, 3))

    config = replace(
        CONFIG,
        perceptual_weight=0.1,
        perceptual_crops=2,
        adversarial_weight=0.1,
        adversarial_after=0.0,
        quantise_after=0.0,
        warmup=0,
    )
    whole = train_autoencoder(config, data, tmp_path / "whole", perceptual=perceptual)

    class Stopped(Exception):
        pass

    calls = 0

    def stops(a: Tensor, b: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise Stopped
        return perceptual(a, b)

    frequent = replace(config, checkpoint_minutes=0.0)
    with pytest.raises(Stopped):
        train_autoencoder(frequent, data, tmp_path / "parts", perceptual=stops)
    parts = train_autoencoder(frequent, data, tmp_path / "parts", resume=True, perceptual=perceptual)
    assert parts.steps == whole.steps == 8
    expected = weights(tmp_path / "whole")
    for name, tensor in weights(tmp_path / "parts").items():
        assert torch.equal(tensor, expected[name]), name
    assert parts.psnr == whole.psnr


def test_resuming_nothing_or_another_run_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="training state"):
        train_autoencoder(CONFIG, data, tmp_path, resume=True)
    train_autoencoder(replace(CONFIG, budget=Budget(steps=1)), data, tmp_path)
    with pytest.raises(UsageError, match="another batch"):
        train_autoencoder(replace(CONFIG, batch=2), data, tmp_path, resume=True)


def test_fine_tuning_begins_with_the_weights_and_the_mean_chart(data: Path, tmp_path: Path) -> None:
    before = train_autoencoder(replace(CONFIG, quantise_after=0.0), data, tmp_path / "before")
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "maps.npy", 255 - np.load(data / "maps.npy"))
    (other / "index.json").write_text(json.dumps({"held_out": [10, 11]}))
    trainer = AutoencoderTrainer(CONFIG, ChartFolder(other))
    trainer.begin(before.checkpoint)
    expected = weights(tmp_path / "before")
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert not trainer.optimiser.state_dict()["state"] and trainer.model.quantiser.is_initialised
    after = train_autoencoder(CONFIG, other, tmp_path / "after", init=before.checkpoint)
    tuned = load_autoencoder(after.checkpoint)
    assert torch.equal(tuned.chart_mean, expected["chart_mean"])
    assert not torch.equal(tuned.encoder.stem.weight, expected["encoder.stem.weight"])

    deeper = replace(CONFIG, model=replace(CONFIG.model, codes=32, encoder_blocks=2))
    with pytest.raises(UsageError, match="encoder_blocks 1, codes 256; expected encoder_blocks 2, codes 32"):
        train_autoencoder(deeper, data, tmp_path / "deeper", init=before.checkpoint)
    with pytest.raises(UsageError, match="resume together"):
        train_autoencoder(CONFIG, data, tmp_path / "after", resume=True, init=before.checkpoint)
    manifest = json.loads((tmp_path / "before" / "autoencoder.json").read_text())
    manifest["card"]["role"] = "denoiser"
    (tmp_path / "before" / "autoencoder.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="role 'denoiser'"):
        train_autoencoder(CONFIG, data, tmp_path / "role", init=before.checkpoint)


def test_a_checkpoint_without_measures_of_lightness_loads_and_fine_tuning_measures_them(
    data: Path, tmp_path: Path
) -> None:
    made = train_autoencoder(replace(CONFIG, quantise_after=0.0), data, tmp_path / "made")
    whole = load_checkpoint(made.checkpoint)
    measures = ("lightness_spread", "lightness_depth")
    assert all(whole.tensors[name].any() for name in measures)
    for absent in (measures, measures[1:]):  # the depth came later
        older = {name: tensor for name, tensor in whole.tensors.items() if name not in absent}
        save_checkpoint(tmp_path / "older", older, whole.config, whole.card)
        assert not any(load_autoencoder(tmp_path / "older").get_buffer(name).any() for name in absent)
        trainer = AutoencoderTrainer(CONFIG, ChartFolder(data))
        trainer.begin(tmp_path / "older")
        measured = ChartFolder(data).lightness_measures(mirror=CONFIG.mirror)
        for name, expected in zip(measures, measured, strict=True):
            assert torch.equal(trainer.model.get_buffer(name), expected)
    save_checkpoint(tmp_path / "broken", {}, whole.config, whole.card)
    with pytest.raises(RuntimeError, match="encoder.stem.weight"):  # nothing else may be missing
        load_autoencoder(tmp_path / "broken")


def test_specular_detail_weighs_most() -> None:
    assert MapWeights() == MapWeights(diffuse=1.0, specular=1.5, normal=1.0)


def test_a_state_of_before_there_were_processes_is_resumed(data: Path, tmp_path: Path) -> None:
    """Its format: one generator, no word of others."""
    train_autoencoder(replace(CONFIG, budget=Budget(steps=2)), data, tmp_path)
    path = tmp_path / "autoencoder.state.pt"
    document = torch.load(path, weights_only=True)
    assert document.pop("other_generators") == []
    assert set(document) == {"parts", "generator", "global_generator", "signature", "step", "seconds"}
    torch.save(document, path)
    assert train_autoencoder(replace(CONFIG, budget=Budget(steps=3)), data, tmp_path, resume=True).steps == 3


def test_options_that_do_not_fit_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="crop: got 60"):
        train_autoencoder(replace(CONFIG, crop=60), data, tmp_path)
    with pytest.raises(UsageError, match="perceptual: got none"):
        train_autoencoder(replace(CONFIG, perceptual_weight=1.0), data, tmp_path)
    with pytest.raises(MissingError, match="maps.npy"):
        train_autoencoder(CONFIG, tmp_path, tmp_path)
    with pytest.raises(UsageError, match="budget"):
        Budget()


def test_a_loss_that_is_not_finite_says_so(data: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, perceptual_weight=1.0)
    with pytest.raises(FitDiffError, match="autoencoder loss: got nan at step 0"):
        train_autoencoder(config, data, tmp_path, perceptual=lambda a, b: (a - b).sum((1, 2, 3)) * torch.nan)
    with pytest.raises(FitDiffError, match="norm: got inf at step 3"):
        check_finite("norm", torch.tensor(torch.inf), 3)


def test_crops_are_where_they_say(data: Path) -> None:
    charts = ChartFolder(data)
    assert list(charts.held_out) == [10, 11] and len(charts.training) == 10
    originals = torch.stack([charts.chart(int(i)) for i in charts.training])
    for mirror in (False, True):
        source = torch.cat((originals, mirrored(originals))) if mirror else originals
        batch = charts.crops(16, 64, mirror, torch.Generator().manual_seed(1))
        seen = set()
        for maps, (row, column) in zip(batch.maps, batch.origin.tolist(), strict=True):
            window = source[:, :, row * 8 : row * 8 + 64, column * 8 : column * 8 + 64]
            error = (window - maps).abs().amax((1, 2, 3))
            assert error.min() < 1e-6
            seen.add(int(error.argmin()) >= len(originals))
        assert seen == ({False, True} if mirror else {False})


def test_mirroring_twice_is_nothing_and_turns_normals() -> None:
    maps = torch.rand(2, 9, 8, 8)
    assert torch.allclose(mirrored(mirrored(maps)), maps)
    assert torch.allclose(mirrored(maps)[:, 6], 1 - maps[:, 6].flip(-1))
    assert torch.equal(mirrored(maps)[:, 7], maps[:, 7].flip(-1))


def test_adaptive_weight_is_the_ratio_of_gradient_norms_at_the_last_layer() -> None:
    """The slow twin differentiates both losses all the way."""
    torch.manual_seed(0)
    body, head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)
    output = head(body(torch.rand(1, 3, 12, 12)))

    def losses(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.abs().mean(), -(x * x).sum()

    leaf = output.detach().requires_grad_()
    gradients = [torch.autograd.grad(loss, leaf)[0] for loss in losses(leaf)]
    fast = adaptive_weight(output, head.weight, gradients[0], gradients[1])
    norms = [torch.autograd.grad(loss, head.weight, retain_graph=True)[0].norm() for loss in losses(output)]
    slow = norms[0] / (norms[1] + 1e-6)
    print(f"adaptive weight: fast {fast.item():.6f}, slow {slow.item():.6f}")
    assert torch.allclose(fast, slow, rtol=1e-4)


def test_reconstruction_loss_by_hand() -> None:
    target = torch.zeros(1, 9, 2, 2)
    maps = target.clone()
    maps[:, 3:6] = 0.5  # specular
    loss = reconstruction_loss(maps, target, MapWeights(specular=2.0), square=1.0)
    assert float(loss) == pytest.approx(2.0 * (0.5 + 0.25) / 3)
    importance = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])
    assert torch.allclose(loss, reconstruction_loss(maps, target, MapWeights(specular=2.0), importance))


def test_chroma_loss_sees_hue_and_neither_lightness_nor_fine_grain() -> None:
    target = torch.full((1, 9, 32, 32), 0.5)
    lighter, grain, reddish = target.clone(), target.clone(), target.clone()
    lighter[:, :3] += 0.2
    lighter[:, 3:] = 0.0  # specular and normals are not its business
    grain[:, 0, ::2] += 0.1
    grain[:, 0, 1::2] -= 0.1
    reddish[:, 0] += 0.1
    assert float(chroma_loss(lighter, target)) < 1e-6
    assert float(chroma_loss(grain, target)) < 1e-6
    assert float(chroma_loss(reddish, target)) == pytest.approx((0.1 + 0.05) / 2, rel=1e-4)
    assert float(chroma_loss(reddish, target, torch.full((1, 1, 32, 32), 2.0))) == pytest.approx(0.15, rel=1e-4)


def test_losses_vanish_where_they_should() -> None:
    assert float(hinge_discriminator_loss(torch.full((4,), 1.5), torch.full((4,), -1.5))) == 0
    z = torch.randn(5000)
    assert float(moment_loss((z - z.mean()) / z.std())) < 1e-6
    assert float(moment_loss(z * 0.1 + 1)) > 1


def test_the_schedule_warms_up_and_comes_down() -> None:
    assert learning_rate_factor(0, 10, 0.0) == pytest.approx(0.1)
    assert learning_rate_factor(100, 10, 0.5) == pytest.approx(0.51)
    assert learning_rate_factor(100, 10, 1.0) == pytest.approx(0.02)
    assert Budget(steps=10, minutes=1).progress(2, 30.0) == pytest.approx(0.5)
    assert Budget(steps=10).progress(20, 0.0) == 1.0


def test_averaged_weights_are_applied_and_taken_back() -> None:
    layer = nn.Linear(2, 2)
    average = MovingAverage(layer, 0.9)
    first = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1.0
    average.update(layer)
    with average.applied(layer):
        assert not layer.training
        assert torch.all((layer.weight > first) & (layer.weight < first + 1))
    assert layer.training and torch.equal(layer.weight, first + 1)
