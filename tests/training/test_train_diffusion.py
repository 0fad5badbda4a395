"""Training of the denoiser: it learns, resumes exactly, and prepares its data once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from fitdiff.errors import MissingError, UsageError
from fitdiff.models.autoencoder import AutoencoderConfig, BranchedAutoencoder
from fitdiff.models.denoiser import DenoiserConfig, TrainedWith, load_denoiser
from fitdiff.models.latent import LatentLayout
from fitdiff.models.recogniser import IdentityFeatures, Recogniser
from fitdiff.models.unet import UNetConfig
from fitdiff.training.diffusion_data import DiffusionData, FeatureConfig, prepare, statistics_from_data
from fitdiff.training.diffusion_losses import (
    DiffusionBatch,
    noise_loss,
    noise_weights,
    vertex_gram,
    vertex_loss,
)
from fitdiff.training.state import Budget
from fitdiff.training.train_diffusion import DiffusionTrainer, DiffusionTrainingConfig, train_diffusion

MAP_SHAPES = ((8, 17, 17), (12, 8, 8), (16, 4, 4))
EMBEDDING = 24
TRAINED_WITH = TrainedWith("synthetic", "recogniser-hash", "morphable-hash", "autoencoder-hash")


def synthetic_data(layout: LatentLayout, photos: int = 1200, factors: int = 6) -> DiffusionData:
    """Two mirrored modes and a product of factors, which no linear denoiser can hold."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    maps = photos // 2
    skin = normal(maps, factors)
    mode = normal(maps, 1).sign()
    patterns = F.interpolate(normal(3 * factors, 1, 8, 8), size=layout.texture_size, mode="bicubic")[:, 0]
    weights = torch.cat([mode * skin, skin * skin.roll(1, 1), mode.expand(-1, factors)], dim=1)
    texture = torch.tanh(torch.einsum("nf,fhw->nhw", weights, patterns) / factors**0.5) * 2 + 0.3
    texture = texture + 0.1 * normal(*texture.shape)

    map_index = torch.arange(maps).repeat_interleave(2)
    shape = normal(photos, 8)
    vector = torch.tanh(shape @ normal(8, layout.vector)) + 0.5 * (mode * skin)[map_index] @ normal(
        factors, layout.vector
    )
    hidden = torch.cat([skin[map_index], mode[map_index], shape], dim=1)
    embedding = torch.tanh(hidden @ normal(hidden.shape[1], EMBEDDING) / 2)
    features = tuple(
        F.interpolate((hidden @ normal(hidden.shape[1], c * 4)).view(-1, c, 2, 2), size=(h, w), mode="bilinear")
        for c, h, w in MAP_SHAPES
    )
    held_out = np.flatnonzero(map_index.numpy() % 8 == 0)
    return DiffusionData(
        texture=texture.flatten(1).numpy(),
        map_index=map_index.numpy(),
        vector=vector.numpy(),
        maps=tuple(m[None].half().numpy() for m in features),
        embedding=embedding[None].numpy(),
        empty=IdentityFeatures(tuple(torch.zeros(1, *s) for s in MAP_SHAPES), torch.zeros(1, EMBEDDING)),
        training=np.setdiff1d(np.arange(photos), held_out),
        held_out=held_out,
        trained_with=TRAINED_WITH,
    )


SMALL = DenoiserConfig(
    unet=UNetConfig(
        base_channels=8,
        multipliers=(1, 2, 2),
        attention_levels=(2,),
        head_channels=8,
        condition_maps=tuple(shape[0] for shape in MAP_SHAPES),
        condition_embedding=EMBEDDING,
        condition_channels=16,
        vector_channels=32,
    ),
    layout=LatentLayout(texture_size=16, identity=20, expression=8, light=4),
    prior_components=48,
)
GRAM = torch.eye(28) * 0.01
CONFIG = DiffusionTrainingConfig(
    budget=Budget(steps=6),
    model=SMALL,
    batch=8,
    warmup=2,
    weighting="plain",
    validation_photos=16,
    num_threads=1,
    quiet=True,
)


def test_the_unet_learns_what_the_linear_prior_cannot(tmp_path: Path) -> None:
    data = synthetic_data(SMALL.layout)
    config = replace(CONFIG, budget=Budget(steps=160), batch=16, learning_rate=2e-3, bfloat16=False)
    result = train_diffusion(config, data, GRAM, tmp_path)
    print({name: round(value, 3) for name, value in result.validation.items()})
    # 1 is the linear prior. So short a run gains on the texture's cleaner steps alone.
    assert result.validation["texture/50"] < 0.95
    assert result.validation["texture/200"] < 0.95
    assert list((tmp_path / "logs").iterdir())
    model = load_denoiser(result.checkpoint)
    assert model.trained_with == TRAINED_WITH
    assert torch.allclose(model.statistics.mean, statistics_from_data(data, SMALL.layout).mean)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    data = synthetic_data(SMALL.layout, photos=160)
    whole = train_diffusion(CONFIG, data, GRAM, tmp_path / "whole")
    trainer = DiffusionTrainer(CONFIG, data, GRAM)
    trainer.fit_closed_form()
    for step in range(3):  # as far as a run that is cut off, its learning rates those of the whole
        trainer.step(step / 6)
        trainer.state.step += 1
    trainer.state.save(tmp_path / "cut" / "state.pt")
    resumed = train_diffusion(CONFIG, data, GRAM, tmp_path / "cut", resume=True)
    assert (resumed.steps, whole.steps) == (6, 6)
    expected = load_denoiser(whole.checkpoint).state_dict()
    for name, tensor in load_denoiser(resumed.checkpoint).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_resuming_with_another_configuration_is_refused(tmp_path: Path) -> None:
    data = synthetic_data(SMALL.layout, photos=160)
    train_diffusion(replace(CONFIG, budget=Budget(steps=1)), data, GRAM, tmp_path)
    with pytest.raises(UsageError, match="another batch"):
        train_diffusion(replace(CONFIG, batch=4), data, GRAM, tmp_path, resume=True)
    with pytest.raises(MissingError, match="run without --resume"):
        train_diffusion(CONFIG, data, GRAM, tmp_path / "nowhere", resume=True)


def test_a_layer_dropout_leaves_the_embedding_alone() -> None:
    """Maps that are the same for every photo, the embedding untouched; an absent face stays an empty image."""
    config = replace(CONFIG, batch=64, condition_dropout=0.25, layer_dropout=0.5)
    data = synthetic_data(SMALL.layout, photos=160)
    trainer = DiffusionTrainer(config, data, GRAM)
    trainer.begin()
    samples = trainer.draw()
    given, present = data.features(samples.photos), samples.present.bool()
    mean = trainer.model.conditioner.embedding_only(given)
    flat, whole = (
        torch.stack([(a == b).flatten(1).all(1) for a, b in zip(samples.features.maps, of.maps, strict=True)]).all(0)
        for of in (mean, given)
    )
    print(f"of 64: {int((~present).sum())} absent, {int(flat.sum())} with the embedding alone")
    assert torch.equal(flat ^ whole, present)
    assert 4 < (~present).sum() < 28 and 12 < flat.sum() < 36
    assert torch.equal(samples.features.embedding[present], given.embedding[present])
    assert not samples.features.embedding[~present].any()
    none = DiffusionTrainer(replace(config, layer_dropout=0.0, condition_dropout=0.0), data, GRAM)
    none.begin()
    samples = none.draw()
    assert all(
        torch.equal(a, b) for a, b in zip(samples.features.maps, data.features(samples.photos).maps, strict=True)
    )


def test_fine_tuning_begins_with_the_weights_and_fits_the_rest_anew(tmp_path: Path) -> None:
    data = synthetic_data(SMALL.layout, photos=160)
    before = train_diffusion(replace(CONFIG, learning_rate=4e-3), data, GRAM, tmp_path / "before")
    other = replace(data, texture=data.texture * 2 + 1)
    trainer = DiffusionTrainer(CONFIG, other, GRAM)
    trainer.begin(before.checkpoint)
    expected = load_denoiser(before.checkpoint)
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, expected.state_dict()[name]), name
        assert torch.equal(trainer.average.shadow[name], parameter), name
    assert torch.allclose(trainer.model.statistics.mean, statistics_from_data(other, SMALL.layout).mean)
    assert not torch.allclose(trainer.model.statistics.mean, expected.statistics.mean)
    assert not trainer.optimiser.state_dict()["state"] and trainer.state.step == 0
    after = train_diffusion(CONFIG, other, GRAM, tmp_path / "after", init=before.checkpoint.with_suffix(".safetensors"))
    assert after.steps == 6

    wider = replace(CONFIG, model=replace(SMALL, unet=replace(SMALL.unet, base_channels=16)))
    with pytest.raises(UsageError, match=r"init .*unet.base_channels 8; expected unet.base_channels 16"):
        train_diffusion(wider, data, GRAM, tmp_path / "wider", init=before.checkpoint)
    with pytest.raises(UsageError, match="resume together"):
        train_diffusion(CONFIG, data, GRAM, tmp_path / "after", resume=True, init=before.checkpoint)
    with pytest.raises(MissingError, match="no such file"):
        train_diffusion(CONFIG, data, GRAM, tmp_path / "none", init=tmp_path / "none")


def test_no_held_out_photos_are_refused(tmp_path: Path) -> None:
    data = replace(synthetic_data(SMALL.layout, photos=160), held_out=np.zeros(0, np.int64))
    with pytest.raises(UsageError, match="and 0 held out"):
        train_diffusion(CONFIG, data, GRAM, tmp_path)


def test_identity_losses_reach_the_unet() -> None:
    seen: list[DiffusionBatch] = []

    def identity_losses(estimate: Tensor, batch: DiffusionBatch) -> tuple[Tensor, Tensor]:
        seen.append(batch)
        assert estimate.shape == batch.z_0.shape == (2, *SMALL.layout.shape)
        error = (estimate - batch.z_0).square().mean((1, 2, 3))
        return error, 2 * error

    config = replace(CONFIG, identity_every=2, identity_samples=2)
    data = synthetic_data(SMALL.layout, photos=160)
    trainer = DiffusionTrainer(config, data, GRAM, identity_losses)
    trainer.fit_closed_form()
    for step in range(4):
        values = trainer.step(step / 6)
        assert ("loss/identity" in values) == (step % 2 == 0)
        trainer.state.step += 1
    assert len(seen) == 2 and torch.isin(seen[0].photos, torch.from_numpy(data.training)).all()


def test_the_vertex_loss_is_the_distance_of_vertices() -> None:
    generator = torch.Generator().manual_seed(0)
    layout = SMALL.layout
    identity = torch.randn(20, 50, 3, generator=generator) * 0.002
    expression = torch.randn(8, 50, 3, generator=generator) * 0.001
    a, b = (torch.randn(3, *layout.shape, generator=generator) for _ in range(2))
    got = vertex_loss(a, b, vertex_gram(identity, expression), layout)
    pa, pb = layout.split(a), layout.split(b)
    moved = torch.einsum("bk,kvc->bvc", pa.identity - pb.identity, identity)
    moved = moved + torch.einsum("bk,kvc->bvc", pa.expression - pb.expression, expression)
    assert torch.allclose(got, (moved * 100).square().sum(-1).mean(-1), rtol=1e-4)


def test_the_noise_loss_and_its_weights() -> None:
    alpha_bar = torch.tensor([0.99, 0.5, 1e-4])
    assert torch.equal(noise_weights(alpha_bar, "plain"), torch.ones(3))
    assert torch.allclose(noise_weights(alpha_bar, "min_snr"), torch.tensor([5 / 99, 1.0, 1.0]), rtol=1e-4)
    assert torch.allclose(noise_weights(alpha_bar, "balanced"), torch.tensor([1 / 0.99, 2.0, 25.0]))
    layout = SMALL.layout
    noise = torch.zeros(3, *layout.shape)
    predicted = noise.clone()
    predicted[:, :, layout.texture_size :] = 1.0
    loss = noise_loss(predicted, noise, torch.ones(3), layout, vector_weight=4.0)
    assert float(loss) == pytest.approx(4 * layout.vector / layout.size)


class TinyRecogniser(Recogniser):
    """Pools a chip; stands in for a real network."""

    @property
    def chip_size(self) -> int:
        return 16

    @property
    def chip_template(self) -> np.ndarray:
        return np.array([[4, 5], [12, 5], [8, 9], [5, 12], [11, 12]], np.float32)

    @property
    def feature_shapes(self) -> tuple[tuple[int, int, int], ...]:
        return ((3, 4, 4), (3, 2, 2), (3, 1, 1))

    def __init__(self) -> None:
        super().__init__(3)
        self.calls = 0

    def forward(self, chips: Tensor) -> IdentityFeatures:
        self.calls += 1
        maps = tuple(F.adaptive_avg_pool2d(chips, side) for _, side, _ in self.feature_shapes)
        return IdentityFeatures(maps, chips.mean((2, 3)))


def write_training_folder(folder: Path) -> None:
    """Six photos of three 64-pixel maps, the third held out."""
    rng = np.random.default_rng(0)
    np.save(folder / "maps.npy", rng.integers(0, 255, (3, 9, 64, 64), np.uint8))
    np.save(folder / "photos.npy", rng.integers(0, 255, (6, 224, 224, 3), np.uint8))
    points = TinyRecogniser().chip_template[None] * 14 + rng.normal(size=(6, 5, 2))
    faces = {
        "map_index": np.array([0, 0, 1, 1, 2, 2], np.int32),
        "identity": rng.normal(size=(6, 4)).astype(np.float32),
        "expression": rng.normal(size=(6, 2)).astype(np.float32),
        "light": rng.normal(size=(6, 2)).astype(np.float32),
        "five_points": points.astype(np.float32),
        "landmarks": np.zeros((6, 468, 2), np.float32),
    }
    safetensors.numpy.save_file(faces, folder / "faces.safetensors")
    (folder / "index.json").write_text(json.dumps({"held_out": [2]}))


def test_maps_and_photos_are_encoded_once(tmp_path: Path) -> None:
    write_training_folder(tmp_path)
    autoencoder = BranchedAutoencoder(AutoencoderConfig(chart_size=64)).eval()
    recogniser = TinyRecogniser()
    layout = LatentLayout(texture_size=8, identity=4, expression=2, light=2)

    def run(config: FeatureConfig, trained_with: TrainedWith = TRAINED_WITH) -> DiffusionData:
        return prepare(
            tmp_path, autoencoder, recogniser, trained_with, config, lambda picture, *_: 1 - picture, quiet=True
        )

    data = run(FeatureConfig(variants=2))
    calls = recogniser.calls
    assert data.training.tolist() == [0, 1, 2, 3] and data.held_out.tolist() == [4, 5]
    assert data.versions == 2
    maps = torch.from_numpy(np.load(tmp_path / "maps.npy")).float() / 255
    with torch.no_grad():
        encoded = autoencoder.encode(maps)
    photos = np.array([5, 0])
    assert torch.allclose(layout.split(data.latents(photos, layout)).texture, encoded[[2, 0]], atol=1e-5)
    clean, turned = data.features(photos), data.features(photos, 1)
    assert [m.shape for m in clean.maps] == [(2, *shape) for shape in recogniser.feature_shapes]
    assert (clean.embedding + turned.embedding - 1).abs().max() < 0.05  # the augmentation turns values over

    again = run(FeatureConfig(variants=2))
    assert recogniser.calls == calls
    assert np.array_equal(again.embedding, data.embedding) and np.array_equal(again.texture, data.texture)
    run(FeatureConfig(variants=2), replace(TRAINED_WITH, recogniser_sha256="another"))
    assert recogniser.calls == 2 * calls
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no index.json, maps.npy.*run fitdiff synthesize"):
        prepare(tmp_path, BranchedAutoencoder(), TinyRecogniser(), TRAINED_WITH)
