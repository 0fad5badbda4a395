"""The skin appearance model on made-up skins: ranges, repeatability, direction of the relief."""

from pathlib import Path

import numpy as np
import pytest

from fitdiff.errors import UsageError
from fitdiff.models.morphable import MorphableModel, load_morphable
from fitdiff.training.reflectance import PersonTraits, SkinAppearanceModel, normals_from_height, sample_traits
from fitdiff.training.skins import load_skins, source_of


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


def test_melanin_darkens_and_brows_are_darker_than_the_forehead(appearance: SkinAppearanceModel) -> None:
    light, dark = (appearance.sample(traits(m), np.random.default_rng(3))[:3] for m in (0.05, 0.95))
    cheek = slice(220, 260), slice(170, 200)
    assert light[:, *cheek].mean() > 1.8 * dark[:, *cheek].mean()
    points = appearance.points
    x, y = points[[63, 105, 66, 52, 53, 65]].mean(0).astype(int)
    brow, forehead = (light[:, v - 3 : v + 4, x - 8 : x + 9].mean() for v in (y, y - 40))
    assert brow < 0.85 * forehead


def test_beards_grow_on_men_only(appearance: SkinAppearanceModel) -> None:
    log = np.zeros((512, 512, 3), np.float32)
    assert appearance._beard_growth(log, traits(0.2, male=0.1), np.random.default_rng(0)).max() == 0
    assert not log.any()
    appearance._beard_growth(log, traits(0.2, male=0.9), np.random.default_rng(0))
    x, y = appearance.points[175].astype(int)
    assert log[y, x].mean() < log[100, 256].mean()


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
