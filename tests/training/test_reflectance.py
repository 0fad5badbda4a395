"""The skin appearance model on made-up skins: ranges, repeatability, direction of the relief."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fitdiff.errors import UsageError
from fitdiff.models.morphable import MorphableModel, load_morphable
from fitdiff.rendering.even_skin import mean_of_plain_skin
from fitdiff.training.chart_painting import Canvas
from fitdiff.training.facial_hair import paint_beard
from fitdiff.training.reflectance import PersonTraits, SkinAppearanceModel, normals_from_height, sample_traits
from fitdiff.training.skin_marks import paint_wide
from fitdiff.training.skins import Skin, load_skins, source_of, split_by_source


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_morphable()[0]


@pytest.fixture(scope="module")
def appearance(skins_folder: Path, model: MorphableModel) -> SkinAppearanceModel:
    return SkinAppearanceModel(load_skins(skins_folder, model), model)


def traits(melanin: float, male: float = 1.0, age: float = 0.2) -> PersonTraits:
    return PersonTraits(melanin, 0.0, male, age, np.array([0.02, 0.015, 0.01]))


def test_maps_are_repeatable_and_in_range(appearance: SkinAppearanceModel) -> None:
    first, again, other = (appearance.sample(traits(0.3), np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.shape == (9, 512, 512) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    normal = first[6:].astype(np.float32) / 127.5 - 1
    assert np.abs(np.linalg.norm(normal, axis=0) - 1).max() < 0.02
    assert np.array_equal(first[3], first[4]) and 20 < first[3].mean() < 160  # specular is grey, F0 near .028


def test_what_surrounds_a_face_has_its_colour(appearance: SkinAppearanceModel) -> None:
    """A skin whose face is yellower and darker than what surrounds it; beside the ear and under the jaw, both sides."""
    skin = appearance.skins[0]
    face = appearance.chart.face[..., None]
    odd = Skin(**{**vars(skin), "low": skin.low + face * np.array([-0.2, -0.3, -0.7], np.float32)})
    maps = SkinAppearanceModel([odd], load_morphable()[0]).sample(traits(0.6, male=0.0), np.random.default_rng(3))
    albedo = torch.from_numpy(maps[None, :3] / 255.0)
    mean = mean_of_plain_skin(albedo)[0]
    for rows, columns in (
        (slice(290, 330), slice(8, 40)),
        (slice(290, 330), slice(472, 504)),
        (slice(460, 490), slice(200, 312)),
    ):
        assert torch.allclose(albedo[0, :, rows, columns].mean((1, 2)), mean, atol=0.05)


def test_melanin_darkens_and_brows_are_darker_than_the_forehead(appearance: SkinAppearanceModel) -> None:
    light, dark = (appearance.sample(traits(m), np.random.default_rng(3))[:3] for m in (0.05, 0.95))
    cheek = slice(220, 260), slice(170, 200)
    assert light[:, *cheek].mean() > 1.8 * dark[:, *cheek].mean()
    points = appearance.points
    x, y = points[[63, 105, 66, 52, 53, 65]].mean(0).astype(int)
    brow, forehead = (light[:, v - 3 : v + 4, x - 8 : x + 9].mean() for v in (y, y - 40))
    assert brow < 0.85 * forehead


def test_beards_grow_on_men_only(appearance: SkinAppearanceModel) -> None:
    def darkest(male: float) -> float:
        change = []
        for seed in range(12):
            planes = np.full((3, 512, 512), np.log(0.4), np.float32)
            canvas = Canvas(planes.transpose(1, 2, 0), *np.zeros((2, 512, 512), np.float32))
            paint_beard(canvas, appearance.chart, traits(0.2, male=male), np.random.default_rng(seed))
            change.append(float(canvas.log.min() - np.log(0.4)))
        return min(change)

    assert -0.15 < darkest(0.1) <= 0  # a faint shade at most
    assert darkest(0.9) < -1


def test_all_skin_tones_are_drawn(model: MorphableModel) -> None:
    rng = np.random.default_rng(1)
    heads = model.attributes(torch.from_numpy(rng.standard_normal((600, 158))).float()).numpy()
    tones = np.stack([np.exp(sample_traits(head, rng).tone()) for head in heads])
    luminance = tones @ [0.2126, 0.7152, 0.0722]
    assert np.quantile(luminance, 0.05) < 0.06 and np.quantile(luminance, 0.95) > 0.40
    classes = np.histogram(luminance, [0, 0.065, 0.12, 0.225, 0.34, 0.45, 1])[0] / len(heads)
    assert classes.min() > 0.06 and classes.max() < 0.34
    assert (tones[:, 0] > tones[:, 1]).all() and (tones[:, 1] > 0.9 * tones[:, 2]).all()  # red > green > blue


def lab_of_linear(linear: np.ndarray) -> np.ndarray:
    """(..., 3) linear RGB -> CIELAB, by OpenCV."""
    return cv2.cvtColor(linear.astype(np.float32).reshape(-1, 1, 3)[..., ::-1], cv2.COLOR_LBGR2Lab).reshape(-1, 3)


def test_undertones_are_those_of_people(model: MorphableModel) -> None:
    """Nobody is brick red, orange or lilac: facial skin has a* of some 3 to 16 and b* of 8 to 24, whoever it is."""
    identity = torch.randn(400, 158, generator=torch.Generator().manual_seed(6))
    rng = np.random.default_rng(6)
    tones = np.stack([sample_traits(a, rng).tone() for a in model.attributes(identity).numpy()])
    _, redness, yellowness = lab_of_linear(np.exp(tones)).T
    assert 3 < redness.min() and redness.max() < 16
    assert 8 < yellowness.min() and yellowness.max() < 24
    assert redness.std() > 1.5 and yellowness.std() > 2  # and yet they differ


def test_stronger_contrast_leaves_the_hue(appearance: SkinAppearanceModel) -> None:
    """A face painted beyond the common has the hue that it had: only what is local gets stronger."""
    log = np.log(np.full((512, 512, 3), (0.30, 0.16, 0.10), np.float32))
    hue = []
    for seed in range(8):
        canvas = Canvas(log.copy(), *np.zeros((2, 512, 512), np.float32))
        paint_wide(canvas, appearance.chart, np.random.default_rng(seed))
        mean = (canvas.log * appearance.chart.face[..., None]).sum((0, 1)) / appearance.chart.face.sum()
        hue.append(mean[0] - mean[2])
    assert abs(np.mean(hue) - (log[0, 0, 0] - log[0, 0, 2])) < 0.03


def test_relief_albedo_and_gloss_share_their_pores(appearance: SkinAppearanceModel) -> None:
    maps = appearance.sample(traits(0.3, male=0.2), np.random.default_rng(5)).astype(np.float32)
    cheek = np.s_[240:300, 170:215]
    albedo, gloss = (m - cv2.GaussianBlur(m, (0, 0), 5) for m in (maps[1], maps[3]))
    assert np.corrcoef(albedo[cheek].ravel(), gloss[cheek].ravel())[0, 1] > 0.3
    assert 0.02 < (maps[6:8, *cheek] / 127.5 - 1).std() < 0.2


def test_a_bump_tilts_normals_away_from_its_top() -> None:
    y, x = np.mgrid[0:64, 0:64] - 31.5
    normal = normals_from_height(np.exp(-(x**2 + y**2) / 50))
    assert normal[20, 32, 1] > 0.03 and normal[44, 32, 1] < -0.03  # above the top it looks up: +Y
    assert normal[32, 44, 0] > 0.03 and normal[32, 20, 0] < -0.03  # right of it to the right: +X


def test_traits_follow_the_head() -> None:
    rng = np.random.default_rng(0)
    african = [sample_traits(np.array([0.5, 0.3, 1, 0, 0]), rng).melanin for _ in range(100)]
    caucasian = [sample_traits(np.array([0.5, 0.3, 0, 0, 1]), rng).melanin for _ in range(100)]
    assert np.mean(african) > np.mean(caucasian) + 0.4
    assert min(african + caucasian) >= 0 and max(african + caucasian) <= 1


def test_an_empty_folder_says_what_is_wanted(tmp_path: Path, model: MorphableModel) -> None:
    with pytest.raises(UsageError, match="MakeHuman"):
        load_skins(tmp_path, model)


def test_sources_are_people_not_files() -> None:
    assert source_of("young_lightskinned_male_diffuse2") == source_of("middleage_lightskinned_male_diffuse")
    assert source_of("old_lightskinned_male_diffuse") != source_of("young_lightskinned_male_diffuse")
    assert source_of("young_darkskinned_male_diffuse") != source_of("young_lightskinned_male_diffuse")
    assert source_of("old_lightskinned_male_diffuse2") == source_of("young_lightskinned_male_diffuse")


def test_the_held_out_source_is_in_no_training_set() -> None:
    def skin(name: str, tone: float) -> Skin:
        return Skin(name, source_of(name), np.full(3, tone), np.zeros((1, 1, 3)), np.zeros((1, 1, 3)))

    skins = [
        skin("young_darkskinned_male_diffuse", -3), skin("middleage_darkskinned_male_diffuse", -3),
        skin("young_lightskinned_female_diffuse2", -1), skin("old_lightskinned_female_diffuse2", -1),
        *(skin(f"young_lightskinned_male_diffuse{n}", -1) for n in range(3)),
    ]  # fmt: skip
    name, training, held_out = split_by_source(skins, None)
    assert name == "lightskinned_female"  # of the two rarest, the one of middling tone
    assert name not in {s.source for s in training} and len(training) == 5
    assert [s.name for s in held_out] == ["young_lightskinned_female_diffuse2"]  # shares no overlay of wrinkles
    with pytest.raises(UsageError, match="darkskinned_male, lightskinned_female, lightskinned_male"):
        split_by_source(skins, "nobody")
    with pytest.raises(UsageError, match="another"):
        split_by_source(skins[:2], None)
