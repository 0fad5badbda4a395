"""Guidance against a photo that the renderer itself made: every term, its gradient, and where it leads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitdiff.models.autoencoder import AutoencoderConfig, BranchedAutoencoder
from fitdiff.models.landmarks import load_face_mesh
from fitdiff.models.latent import LatentLayout, LatentParts, LatentStatistics
from fitdiff.models.morphable import load_morphable
from fitdiff.models.occlusion import load_occlusion
from fitdiff.models.perceptual import load_perceptual
from fitdiff.models.recogniser import load_recogniser
from fitdiff.rendering.camera import camera_from_pose, project
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.rendering.renderer import HeadRenderer
from fitdiff.rendering.shader import light_from_latent, srgb_from_linear
from fitdiff.runtime.ddim import GuidanceStep
from fitdiff.runtime.face_chip import five_points_from_landmarks
from fitdiff.runtime.face_crop import FaceCrop
from fitdiff.runtime.guidance import FOCAL, TERMS, GuidanceConfig, PhotoGuidance
from fitdiff.runtime.guidance_models import GuidanceModels
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pose import Pose

LAYOUT = LatentLayout()
MIDDLE = GuidanceStep(index=5, count=10, t=500, alpha_bar=0.3, alpha_bar_prev=0.4)


@pytest.fixture(scope="module")
def models() -> GuidanceModels:
    torch.manual_seed(0)
    autoencoder = BranchedAutoencoder(AutoencoderConfig(512, (16, 16, 8, 8), (1, 1, 1), (8, 8, 8, 8), 1))
    atlas = load_head_atlas(size=512)[0]
    neutral = atlas.neutral_face()
    autoencoder.chart_mean.copy_(torch.nn.functional.interpolate(neutral, 512, mode="bilinear")[0])
    morphable = load_morphable()[0]
    renderer = HeadRenderer(
        morphable.triangles, morphable.corner_uv, morphable.triangle_part, morphable.config.part_names
    )
    return GuidanceModels(
        autoencoder.eval().requires_grad_(False), morphable, atlas, renderer, load_recogniser()[0],
        load_face_mesh()[0], load_perceptual()[0], load_occlusion()[0],
    )  # fmt: skip


@pytest.fixture(scope="module")
def statistics() -> LatentStatistics:
    """As a trained checkpoint has them, for a light of ambient .4 and directional .6 from above."""
    found = LatentStatistics()
    mean = torch.zeros(LAYOUT.size)
    mean[-9:] = torch.tensor([*np.log([0.4] * 3 + [0.6] * 3), 0.2, 0.5, 0.84])
    found.set_from_moments(
        mean, torch.ones(LAYOUT.size).index_fill_(0, torch.arange(LAYOUT.size - 9, LAYOUT.size), 0.3)
    )
    return found


def true_latent() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape, scale=1.0: scale * torch.randn(*shape, generator=generator)  # noqa: E731
    return LAYOUT.join(
        LatentParts(draw(1, 1, 64, 64), draw(1, 158, scale=0.7), draw(1, 25, scale=0.4), draw(1, 9, scale=0.5))
    )


@pytest.fixture(scope="module")
def crop(models: GuidanceModels, statistics: LatentStatistics) -> FaceCrop:
    """The rendering of `true_latent`, as a photo."""
    pose = Pose(np.array([3.05, 0.1, 0.05]), np.array([0.0, 0.02, 0.62]), 0.0)
    with torch.no_grad():
        parts = LAYOUT.split(statistics.denormalise(true_latent()))
        vertices = models.morphable(parts.identity, parts.expression)
        camera = camera_from_pose(
            torch.tensor(pose.rvec).float()[None], torch.tensor(pose.tvec).float()[None], FOCAL, 224
        )
        brown = torch.tensor([[0.147, 0.063, 0.024]])  # what guidance takes irises of a few pixels for
        head = models.atlas.compose(models.autoencoder.decode(parts.texture, 256), brown)
        rendering = models.renderer.render(vertices, head, camera, light_from_latent(parts.light))
        image = torch.lerp(torch.tensor(0.4), srgb_from_linear(rendering.color).clamp(0, 1), rendering.alpha)
        points = project(camera, models.morphable.landmarks(vertices))[0]
    pixels = image[0].permute(1, 2, 0).numpy()
    landmarks = points.numpy().astype(np.float32)
    return FaceCrop(
        photo=(pixels * 255).astype(np.uint8), image=pixels, crop_from_photo=np.eye(2, 3), landmarks=landmarks,
        five_points=five_points_from_landmarks(landmarks), box=np.array([50, 50, 120, 120], np.float32), face_index=0,
        faces=(), quarter_turns=0, photo_sha256="0" * 64, is_monochrome=False, notes=(),
    )  # fmt: skip


def guidance(
    models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop, config: GuidanceConfig | None = None
) -> PhotoGuidance:
    return PhotoGuidance(models, statistics, photo_target(crop, models), config or GuidanceConfig())


def parts_of(statistics: LatentStatistics, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Identity and expression of a normalised latent."""
    parts = LAYOUT.split(statistics.denormalise(z))
    return parts.identity, parts.expression


def test_the_truth_costs_next_to_nothing(models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop) -> None:
    guide = guidance(models, statistics, crop)
    _, at_truth = guide.gradient(true_latent())
    _, elsewhere = guide.gradient(torch.zeros_like(true_latent()))
    for term in TERMS:
        assert at_truth[term] < 0.12 * elsewhere[term] + 1e-6, (term, at_truth[term], elsewhere[term])


def test_a_weight_may_take_the_place_of_the_configuration_s(
    models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop
) -> None:
    guide = guidance(models, statistics, crop)
    parts = LAYOUT.split(statistics.denormalise(torch.zeros_like(true_latent())))
    with torch.no_grad():
        estimate = guide.estimate(models.face_maps(parts.texture), parts)
        plain, terms = guide.objective(estimate)
        dearer, again = guide.objective(estimate, identity_perceptual=guide.config.identity_perceptual + 3)
    assert float(dearer - plain) == pytest.approx(3 * float(terms["identity_perceptual"]), rel=1e-3)
    assert float(again["total"]) == pytest.approx(float(dearer), rel=1e-5)
    assert float(terms["identity_perceptual"]) > 0.01


def test_gradient_agrees_with_finite_differences(
    models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop
) -> None:
    """With the pose held, along random directions of each part; silhouettes have no gradient, hence the tolerance."""
    guide = guidance(models, statistics, crop, GuidanceConfig(identity=0, identity_perceptual=0, perceptual=0))
    z = 0.6 * true_latent()
    guide.gradient(z)
    camera = guide.camera_of(models.morphable(*parts_of(statistics, z)))

    def value(at: torch.Tensor) -> float:
        with torch.no_grad():
            parts = LAYOUT.split(statistics.denormalise(at))
            terms = guide.losses(guide.estimate(models.face_maps(parts.texture), parts))
        return sum(float(getattr(guide.config, name) * term.double()) for name, term in terms.items())

    guide.camera_of = lambda _: camera  # type: ignore[method-assign]
    gradient, _ = guide.gradient(z)
    generator = torch.Generator().manual_seed(1)
    for rows in (slice(0, 64), slice(64, 67)):
        direction = torch.zeros_like(z)
        direction[:, :, rows] = torch.randn(z[:, :, rows].shape, generator=generator)
        direction = direction + 3 * gradient / gradient.norm() * (direction != 0) * direction.norm() / 3
        step = 0.02 / float(direction.norm()) * 5
        slope = (value(z + step * direction) - value(z - step * direction)) / (2 * step)
        expected = float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=0.15), rows


def test_steps_lead_to_the_person(models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop) -> None:
    guide = guidance(models, statistics, crop, GuidanceConfig(start=0.0))
    z = torch.zeros_like(true_latent())
    count = 40  # between gradients steps overshoot until they shrink
    for index in range(count):
        z = z + guide(z, replace(MIDDLE, index=index, count=count))
    first, last = guide.histories[0][0], guide.histories[0][-1]
    assert last["total"] < 0.6 * first["total"]
    assert last["identity"] < 0.6 * first["identity"] and last["landmarks"] < 0.5 * first["landmarks"]
    assert set(TERMS) < set(first)
    assert [row["step"] for row in guide.histories[0]] == list(range(0, count, guide.config.interval))


def test_the_same_call_gives_the_same_answer(
    models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop
) -> None:
    first, again = (guidance(models, statistics, crop)(torch.zeros(1, 1, 67, 64), MIDDLE) for _ in range(2))
    assert torch.equal(first, again)


def test_parts_have_their_own_step_and_early_steps_are_unguided(
    models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop
) -> None:
    config = GuidanceConfig(texture_step=0.0, start=0.3)
    guide = guidance(models, statistics, crop, config)
    assert not guide(torch.zeros(1, 1, 67, 64), replace(MIDDLE, index=2)).any()
    delta = LAYOUT.split(guide(torch.zeros(1, 1, 67, 64), MIDDLE))
    assert not delta.texture.any() and delta.identity.any() and delta.expression.any() and delta.light.any()


def test_the_shape_goes_towards_the_expected_person(
    models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop
) -> None:
    """The identity that is expected, not its expression."""
    config = GuidanceConfig(identity_step=0.0, expression_step=0.0)
    target, z = photo_target(crop, models), torch.zeros(1, 1, 67, 64)
    whole = torch.randn(1, 1, 67, 64, generator=torch.Generator().manual_seed(3))
    shape, identity = slice(64 * 64, 64 * 64 + 183), slice(64 * 64, 64 * 64 + 158)
    person, rest = torch.zeros_like(z), whole.clone()
    person.flatten(1)[:, identity] = whole.flatten(1)[:, identity]
    rest.flatten(1)[:, identity] = 0
    alone, pulled, unmoved = (
        PhotoGuidance(models, statistics, target, config, expected=expected)(z, MIDDLE).flatten(1)[:, shape]
        for expected in (None, person, rest)
    )
    assert float(torch.cosine_similarity((pulled - alone)[:, :158], whole.flatten(1)[:, identity])) > 0.9
    assert torch.equal(unmoved, alone)


def test_what_is_not_skin_does_not_pull(models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop) -> None:
    guide = guidance(models, statistics, crop)
    target = guide.target
    spoilt = target.image.clone()
    spoilt[(target.skin == 0).expand_as(spoilt)] = 0.0
    z = torch.zeros(1, 1, 67, 64)
    _, plain = guide.gradient(z)
    guide.target = replace(target, image=spoilt)
    _, changed = guide.gradient(z)
    assert changed["photometric"] == pytest.approx(plain["photometric"], rel=1e-5)


def test_every_other_view_asks_for_the_face_behind_what_hides_it(
    models: GuidanceModels, statistics: LatentStatistics, crop: FaceCrop
) -> None:
    guide = guidance(models, statistics, crop)
    worn = torch.zeros_like(guide.target.worn)
    worn[..., 90:120, 70:150] = 1.0  # a bar over the eyes
    guide.target = replace(guide.target, worn=worn)
    with torch.no_grad():
        parts = LAYOUT.split(statistics.denormalise(torch.zeros(1, 1, 67, 64)))
        estimate = guide.estimate(models.face_maps(parts.texture), parts)
        painted = replace(estimate, image=torch.lerp(estimate.image, torch.zeros(1), worn))
        differ = []
        for _ in range(4):
            guide.views.advance(1)
            plain, changed = (float(guide.losses(seen)["identity"]) for seen in (estimate, painted))
            differ.append(abs(changed - plain) > 1e-4)
    assert differ == [False, True, True, False]
