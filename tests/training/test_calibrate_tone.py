"""The tone of skins told by photographs: the closed form learns it, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fitdiff.errors import MissingError, UsageError
from fitdiff.models.checkpoint import assets_dir, load_checkpoint
from fitdiff.models.denoiser import DenoiserConfig, FitDiffDenoiser, load_denoiser
from fitdiff.models.latent import LatentLayout
from fitdiff.models.linear_prior import PriorRegression, linear_prior_from_data, pooled_inputs
from fitdiff.models.recogniser import IdentityFeatures
from fitdiff.models.unet import UNetConfig
from fitdiff.training.calibrate_tone import (
    FacesSeenTwice,
    ToneCalibration,
    ToneSamples,
    calibrate_tone,
    lightness_from_tone,
    tone_from_lightness,
)
from fitdiff.training.recipe import chart_tones
from fitdiff.training.tone_photos import read_labels, tone_samples

INPUTS, COMPONENTS = 12, 16
LAYOUT = LatentLayout(texture_size=8, identity=4, expression=2, light=2)
CONFIG = DenoiserConfig(
    unet=UNetConfig(
        base_channels=8, multipliers=(1, 2), attention_levels=(1,), head_channels=8, condition_maps=(4,),
        condition_embedding=8, condition_channels=8, condition_grid=(4, 4), vector_channels=16,
    ),
    layout=LAYOUT,
    prior_components=COMPONENTS,
)  # fmt: skip


def drawn_faces(count: int = 600) -> tuple[torch.Tensor, ToneSamples, torch.Tensor]:
    """Latents that hold a tone and another trait, inputs that tell both, and the trait."""
    generator = torch.Generator().manual_seed(0)
    tone, trait = torch.randn(2, count, generator=generator)
    patterns = torch.randn(2, LAYOUT.size, generator=generator)
    latents = torch.stack([tone, trait], 1) @ patterns + 0.05 * torch.randn(count, LAYOUT.size, generator=generator)
    latents = latents - latents.mean(0)
    inputs = 0.3 * torch.randn(count, INPUTS, generator=generator)
    inputs[:, 0] += tone
    inputs[:, 1] += trait
    return latents, ToneSamples(inputs, 0.4 * tone - 1.2, torch.arange(count)), trait


def photographs(people: int = 30, shots: int = 2, shift: float = -1.0) -> ToneSamples:
    """Real faces lie elsewhere: what tells the tone is off by `shift`, and they have a mark that drawn ones lack."""
    generator = torch.Generator().manual_seed(1)
    tone = torch.randn(people, generator=generator).repeat_interleave(shots)
    inputs = 0.3 * torch.randn(people * shots, INPUTS, generator=generator)
    inputs[:, 0] += tone + shift
    inputs[:, 2] += 2.0
    return ToneSamples(inputs, 0.4 * tone - 1.2, torch.arange(people).repeat_interleave(shots))


def calibrated(
    model: FitDiffDenoiser, latents: torch.Tensor, drawn: ToneSamples, photos: ToneSamples, ridge: float = 0.1
) -> ToneCalibration:
    """With the same features for faces as they are and partly covered."""
    return calibrate_tone(model, latents, FacesSeenTwice(drawn, drawn), FacesSeenTwice(photos, photos), ridge, ridge)


def fitted(latents: torch.Tensor, drawn: ToneSamples) -> FitDiffDenoiser:
    model = FitDiffDenoiser(CONFIG).requires_grad_(False)
    model.set_linear_prior(linear_prior_from_data(latents, drawn.inputs, COMPONENTS, complete=LAYOUT.vector))
    return model


def test_photographs_set_the_tone_right_and_leave_the_rest() -> None:
    latents, drawn, trait = drawn_faces()
    photos = photographs()
    model = fitted(latents, drawn)
    prior, basis = model.conditioner.prior, model.denoiser.linear.basis
    before = prior.mean(photos.inputs) @ basis
    found = calibrated(model, latents, drawn, photos)
    assert found.people == 30
    assert found.before > 8 and found.left_out < 0.5 * found.before  # L*
    assert found.drawn < 1.5 * found.drawn_before

    def told(target: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Regression of what drawn latents hold, read from the latents x."""
        return x @ torch.linalg.lstsq(latents, (target - target.mean())[:, None]).solution[:, 0] + target.mean()

    after = prior.mean(photos.inputs) @ basis
    errors = [(told(drawn.tone, x) - photos.tone).abs().mean() for x in (before, after)]
    assert errors[1] < 0.4 * errors[0]
    tone, believed = prior.told_tone(photos.inputs, photos.inputs)
    assert (tone - photos.tone).abs().mean() < 0.15 and float(believed.min()) > 0.8
    assert float(prior.told_tone(drawn.inputs, drawn.inputs)[1].mean()) < 0.05
    assert torch.allclose(told(trait, before), told(trait, after), atol=0.15)
    shape = slice(LAYOUT.texture, None)
    assert torch.allclose(before[:, shape], after[:, shape], atol=1e-4)


def test_photographs_have_a_line_of_their_own() -> None:
    """What tells the tone of a photograph is another input, and the other way round: no one line says both."""
    latents, drawn, _ = drawn_faces()
    photos = photographs(people=60, shift=0.0)
    inputs = photos.inputs.clone()
    inputs[:, 3], inputs[:, 0] = photos.inputs[:, 0], -photos.inputs[:, 0]
    photos = ToneSamples(inputs, photos.tone, photos.person)
    model = fitted(latents, drawn)
    found = calibrated(model, latents, drawn, photos)
    assert found.left_out < 5 < found.before  # L*; the spread of the tones is 15
    assert found.drawn < 1.3 * found.drawn_before
    prior = model.conditioner.prior
    assert float(prior.photographed(photos.inputs).min()) > 0.8
    assert float(prior.photographed(drawn.inputs).max()) < 0.2


def test_what_is_between_the_kinds_is_told_by_both() -> None:
    prior = PriorRegression(2, 3, grid=0)
    prior.tone_direction.copy_(torch.tensor([1.0, -2.0]))
    prior.tone_weights[0], prior.tone_level, prior.photo_weights[1] = 1.0, torch.tensor(0.5), 4.0
    mean = prior.mean(torch.tensor([[1.0, -9.0, 0.0], [1.0, 0.0, 0.0], [1.0, 9.0, 0.0]]))
    assert torch.allclose(mean, torch.tensor([[0.0, 0.0], [0.75, -1.5], [1.5, -3.0]]), atol=1e-5)
    prior.forget_photographs()
    assert prior.mean(torch.ones(1, 3)).eq(0).all() and not prior.told_tone(torch.ones(1, 3), torch.ones(1, 3))[1].any()


def test_the_tone_itself_is_told_by_faces_that_are_partly_covered() -> None:
    """What hides a part of the face is in the features of the whole ones alone."""
    latents, drawn, _ = drawn_faces()
    covered = photographs(people=60)
    glasses = torch.zeros_like(covered.inputs)
    glasses[1::2, 0] = 1.5  # every second photo: a tone of .6 more
    plain = ToneSamples(covered.inputs + glasses, covered.tone, covered.person)
    model = fitted(latents, drawn)
    found = calibrate_tone(
        model, latents, FacesSeenTwice(drawn, drawn), FacesSeenTwice(plain, covered), ridge=0.1, told_ridge=0.1
    )
    prior = model.conditioner.prior
    tone, believed = prior.told_tone(plain.inputs, covered.inputs)
    assert (tone - covered.tone).abs().mean() < 0.15 and float(believed.min()) > 0.8
    assert (prior.told_tone(plain.inputs, plain.inputs)[0] - covered.tone)[1::2].mean() > 0.3
    same = calibrated(fitted(latents, drawn), latents, drawn, covered)
    assert found.left_out == pytest.approx(same.left_out, abs=1e-4)


def test_a_second_calibration_changes_nothing() -> None:
    latents, drawn, _ = drawn_faces()
    model = fitted(latents, drawn)
    calibrated(model, latents, drawn, photographs())
    once = model.conditioner.prior.mean(drawn.inputs)
    again = calibrated(model, latents, drawn, photographs())
    assert torch.allclose(model.conditioner.prior.mean(drawn.inputs), once, atol=1e-3)
    assert again.before < again.left_out + 0.5


def test_nobody_is_judged_by_a_fit_that_saw_them() -> None:
    """Labels that are pure chance can be learnt by heart, but not be told of people who were left out."""
    latents, drawn, _ = drawn_faces()
    photos = photographs(people=12, shots=8)
    labels = tone_from_lightness(
        torch.linspace(30, 70, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(3))]
    )
    inputs = torch.randn(12, INPUTS, generator=torch.Generator().manual_seed(4)).repeat_interleave(8, 0)
    model = fitted(latents, drawn)
    told = ToneSamples(inputs, labels.repeat_interleave(8), photos.person)
    found = calibrated(model, latents, drawn, told, 1e-3)
    assert found.left_out > 10  # L*; the spread of the labels is 12


def test_without_a_face_the_bias_counts_for_nothing() -> None:
    model = FitDiffDenoiser(CONFIG).requires_grad_(False)
    model.conditioner.prior.bias.fill_(3.0)
    features = IdentityFeatures((torch.rand(2, 4, 4, 4),), torch.rand(2, 8))
    mean, _ = model.conditioner.prior(features, torch.tensor([0.0, 1.0]))
    assert mean[0].eq(0).all() and torch.allclose(mean[1], torch.full((COMPONENTS,), 3.0))


def test_checkpoints_from_before_photographs_still_load(tmp_path: Path) -> None:
    model = FitDiffDenoiser(CONFIG)
    taught = ("prior.bias", "prior.photo_level", "prior.tone_weights")
    older = {name: value for name, value in model.state_dict().items() if not name.endswith(taught)}
    assert len(older) == len(model.state_dict()) - len(taught)
    other = FitDiffDenoiser(CONFIG)
    for name in ("bias", "photo_level", "tone_weights"):
        other.conditioner.prior.get_buffer(name).fill_(1.0)
    other.load_state_dict(older)
    prior = other.conditioner.prior
    assert not any(prior.get_buffer(name).any() for name in ("bias", "photo_level", "tone_weights"))


def test_lightness_and_tone_are_inverse() -> None:
    lightness = torch.tensor([20.0, 50.0, 80.0])
    assert torch.allclose(lightness_from_tone(tone_from_lightness(lightness)), lightness, atol=1e-3)
    assert float(tone_from_lightness(torch.tensor(50.0)).exp()) == pytest.approx(0.1842, abs=1e-3)  # CIE 15


def test_tones_of_charts_are_linear_means() -> None:
    maps = np.zeros((2, 9, 8, 8), np.uint8)
    maps[0, :3] = 188  # linear .503
    maps[1, :3, :4] = 255
    tones = chart_tones(maps, np.ones((8, 8), np.float32))
    assert tones.exp().tolist() == pytest.approx([0.503, 0.5], abs=2e-3)


def write_labels(folder: Path, text: str) -> Path:
    path = folder / "tones.tsv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture()
def album(tmp_path: Path) -> Path:
    for name in ("anna", "bert", "cleo", "dora"):
        (tmp_path / name).mkdir()
        for shot in range(2):
            cv2.imwrite(str(tmp_path / name / f"{shot}.png"), np.full((64, 64, 3), 90, np.uint8))
    return tmp_path


def test_labels_name_photos_or_folders(album: Path) -> None:
    text = "# by eye\nanna\t63\nbert/0.png\t41.5  # one photo\n\ncleo\t55\ndora\t60\n"
    people = read_labels(write_labels(album, text), album)
    assert [len(person.photos) for person in people] == [2, 1, 2, 2]
    assert [person.lightness for person in people] == [63, 41.5, 55, 60]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("anna 63", "a tab and an L"),
        ("anna\tfair", "a tab and an L"),
        ("anna\t630", "15 to 85"),
        ("eve\t60", "no photo at"),
    ],
)
def test_a_wrong_label_is_named_with_its_line(album: Path, line: str, message: str) -> None:
    labels = write_labels(album, f"bert\t60\n{line}\n")
    with pytest.raises((UsageError, MissingError), match=message) as error:
        read_labels(labels, album)
    assert "line 2" in str(error.value)


def test_labels_of_too_few_people_are_refused(album: Path) -> None:
    with pytest.raises(UsageError, match="at least 4"):
        read_labels(write_labels(album, "anna\t60\n"), album)
    with pytest.raises(MissingError, match="no such file"):
        read_labels(album / "nothing.tsv", album)


def test_photos_without_a_face_are_left_out_and_named(album: Path) -> None:
    from fitdiff.models.landmarks import load_face_mesh
    from fitdiff.models.recogniser import load_recogniser
    from fitdiff.runtime.face_detector import FaceDetector

    people = read_labels(write_labels(album, "anna\t63\nbert\t40\ncleo\t55\ndora\t60\n"), album)
    with pytest.raises(UsageError, match="usable photos of 0 people") as error:
        tone_samples(people, FaceDetector(), load_face_mesh()[0], load_recogniser()[0], 1)
    assert "anna" in str(error.value)


def test_the_embedded_denoiser_knows_a_photograph(astronaut: Path) -> None:
    """And a drawn face: its own mean head, rendered."""
    from fitdiff.evaluation.identity import picture_before_background
    from fitdiff.evaluation.synthetic_photos import crop_of_picture
    from fitdiff.rendering.camera import camera_front, project
    from fitdiff.rendering.shader import Light
    from fitdiff.runtime.face_crop import CROP_SIZE, crop_face, framing_transform
    from fitdiff.runtime.loading import load_pipeline
    from fitdiff.runtime.photo import load_photo
    from fitdiff.runtime.photo_target import photo_target

    pipeline = load_pipeline()
    model, models = pipeline.morphable, pipeline.models
    vertices = model(torch.zeros(1, 158))
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 1.2, 1000.0, CROP_SIZE)
    framing = framing_transform(project(camera, model.landmarks(vertices))[0, :, :2].numpy())
    camera = camera.cropped(torch.from_numpy(framing).float(), CROP_SIZE, CROP_SIZE)
    head = models.atlas.compose(models.face_maps(torch.zeros(1, 1, 64, 64)))
    light = Light(torch.full((1, 3), 0.4), torch.full((1, 3), 0.7), torch.tensor([[0.0, 0.5, 0.866]]))
    drawn = picture_before_background(models.renderer, vertices, head, camera, light, np.full(3, 0.3))
    points = project(camera, model.landmarks(vertices))[0].numpy()
    crops = [
        crop_face(load_photo(astronaut), pipeline.detector, models.face_mesh),
        crop_of_picture((drawn * 255).astype(np.uint8), points, pipeline.detector, models.face_mesh),
    ]
    prior = pipeline.denoiser.conditioner.prior
    inputs = [pooled_inputs(photo_target(crop, models).identity, prior.grid) for crop in crops]
    photographed, rendered = (float(prior.photographed(x)) for x in inputs)
    assert photographed > 0.95 and rendered < 0.05


def test_the_embedded_denoiser_says_who_told_it() -> None:
    card = load_checkpoint(assets_dir() / "denoiser").card
    listed = [line for line in (assets_dir() / "skin_tones.tsv").read_text().splitlines() if not line.startswith("#")]
    assert f"skin tones told on photographs of {len(listed)} people" in card.source
    assert load_denoiser().conditioner.prior.is_told
    assert json.loads((assets_dir() / "denoiser.json").read_text())["card"]["commercial"]
