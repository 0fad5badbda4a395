"""Cleanliness: its arithmetic on hand-made charts, coverage against the renderer, and runs with painted avatars."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

from fitdiff.assets.atlas_layout import FACE_BLOCK
from fitdiff.errors import UsageError
from fitdiff.evaluation.cleanliness import evaluate_cleanliness, tensor_from_maps
from fitdiff.evaluation.map_distance import (
    SIDE,
    KindOfPair,
    Reduced,
    lab_distance,
    mean_ratio,
    occluder_change,
    pair_distances,
    reduced_albedo,
)
from fitdiff.evaluation.occluders import OCCLUDERS
from fitdiff.evaluation.relighting import FrontView, best_gain, relighting_errors, srgb_error
from fitdiff.evaluation.result import Evaluation
from fitdiff.rendering.shader import linear_from_srgb, srgb_from_linear
from fitdiff.rendering.unwrap import chart_in_photo
from fitdiff.runtime.avatar_result import AvatarOptions, AvatarResult
from fitdiff.runtime.face_crop import FaceCrop
from fitdiff.runtime.pipeline import FitDiffPipeline

EVEN = np.ones((SIDE, SIDE), np.float32)


def chart(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


def test_lab_distance_of_known_colours() -> None:
    """CIE L*a*b* of sRGB red is (53.24, 80.09, 67.20), of white (100, 0, 0)."""
    red, white, grey = chart((255, 0, 0)), chart((255, 255, 255)), chart((119, 119, 119))
    assert lab_distance(red, red, EVEN, False) == 0
    assert lab_distance(red, white, EVEN, False) == pytest.approx(114.55, abs=0.2)
    assert lab_distance(red, white, EVEN, True) == pytest.approx(46.76, abs=0.1)
    assert lab_distance(grey, white, EVEN, False) == pytest.approx(50.0, abs=0.3)


def test_distance_counts_where_the_weight_is() -> None:
    half = EVEN.copy()
    half[:, : SIDE // 2] = 0
    spoilt = chart((100, 100, 100))
    spoilt[:, : SIDE // 2] = 255
    assert lab_distance(spoilt, chart((100, 100, 100)), half, False) == 0
    assert lab_distance(spoilt, chart((100, 100, 100)), EVEN, False) > 10
    assert lab_distance(spoilt, spoilt[:, ::-1], EVEN, False) > 10, "a mirrored chart is another one"


def test_reducing_keeps_colour_and_place() -> None:
    full = np.zeros((512, 512, 3), np.float32)
    full[:, 256:] = [0.8, 0.4, 0.2]
    small = reduced_albedo(full)
    assert small.shape == (SIDE, SIDE, 3) and small.dtype == np.uint8
    assert small[100, 200].tolist() == [204, 102, 51] and small[100, 50].tolist() == [0, 0, 0]


def test_colour_and_lightness_never_meet_in_a_ratio() -> None:
    charts = [
        Reduced("a", chart((100, 100, 100)), False), Reduced("a", chart((110, 100, 90)), False),
        Reduced("b", chart((180, 150, 120)), False), Reduced("b", chart((90, 90, 90)), True),
    ]  # fmt: skip
    kinds = pair_distances(charts, EVEN)
    assert [len(kinds["colour"].within), len(kinds["colour"].between)] == [1, 2]
    assert [len(kinds["lightness"].within), len(kinds["lightness"].between)] == [1, 2]
    assert kinds["lightness"].within[0] == pytest.approx(lab_distance(charts[2].albedo, charts[3].albedo, EVEN, True))


def test_ratios_are_averaged_by_their_pairs() -> None:
    kinds = {"colour": KindOfPair((1.0, 3.0, 2.0), (8.0,)), "lightness": KindOfPair((1.0,), (2.0, 2.0))}
    assert mean_ratio(kinds) == (pytest.approx((3 * 0.25 + 1 * 0.5) / 4), 4)
    alone = {"colour": KindOfPair((1.0, 1.0), (4.0,)), "lightness": KindOfPair((9.0,), ())}
    assert mean_ratio(alone) == (pytest.approx(0.25), 2)
    assert mean_ratio({"colour": KindOfPair((1.0,), ())}) == (None, 0)


def test_change_of_charts() -> None:
    cover = np.zeros((SIDE, SIDE), np.float32)
    cover[50:90, 60:120] = 1
    photo, pasted = np.full((SIDE, SIDE, 3), 0.7, np.float32), np.full((SIDE, SIDE, 3), 0.1, np.float32)
    clean = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    stained = clean - 0.3 * cover[..., None]
    change = occluder_change((clean, stained), (photo, pasted), cover, EVEN)
    assert change is not None and change.texels == 40 * 60
    assert (change.share, change.rest_share) == (pytest.approx(0.5), pytest.approx(0.0))
    lighter = occluder_change((clean, clean + 0.06), (photo, pasted), cover, EVEN)
    assert lighter is not None and lighter.share == pytest.approx(0.1) == pytest.approx(lighter.rest_share)
    assert occluder_change((clean, stained), (photo, pasted), np.zeros_like(cover), EVEN) is None
    assert occluder_change((clean, stained), (photo, photo), cover, EVEN) is None


def test_best_gain_undoes_a_gain() -> None:
    linear = torch.rand(4, 3, 500, generator=torch.Generator().manual_seed(0)) * 0.5
    wanted, weight = srgb_from_linear(linear), torch.rand(500, generator=torch.Generator().manual_seed(1))
    gain = torch.tensor([0.5, 1.0, 2.5])
    found = best_gain(linear / gain[:, None], wanted, weight)
    torch.testing.assert_close(found, gain, rtol=2e-3, atol=0)
    assert srgb_error(linear, wanted, weight) < 1e-6
    assert srgb_error(linear / gain[:, None], wanted, weight) > 0.05


@torch.no_grad()
def test_relighting_errors(small_pipeline: FitDiffPipeline, true_maps: np.ndarray) -> None:
    view = FrontView(small_pipeline.renderer, small_pipeline.models.atlas, small_pipeline.morphable)
    true = torch.from_numpy(true_maps)[None].float() / 255
    vertices = small_pipeline.morphable(torch.zeros(1, 158))
    darker, tilted = true.clone(), true.clone()
    darker[:, :3] = srgb_from_linear(linear_from_srgb(true[:, :3]) * 0.6)
    tilted[:, 6] += 0.2
    errors = relighting_errors(view, vertices, true, {"true": true, "darker": darker, "tilted": tilted})
    assert errors["true"] < 1e-6
    assert errors["darker"] > 0.05 and errors["darker_best_gain"] < 0.3 * errors["darker"]
    assert errors["tilted_best_gain"] > 0.01, "no gain makes up for wrong normals"
    lit = srgb_from_linear(view.lit(vertices, true)).clamp(0, 1)
    middle = lit.shape[-1] // 2
    left, right = lit[1, ..., :middle].sum(), lit[1, ..., middle:].sum()
    assert left > 1.2 * right and lit[2, ..., :middle].sum() < lit[2, ..., middle:].sum() / 1.2


class PaintedPipeline:
    """Everything of a small pipeline but the networks' work: `paint` makes the albedo of a crop."""

    def __init__(self, pipeline: FitDiffPipeline, base: AvatarResult) -> None:
        self._pipeline, self.base = pipeline, base
        self.calls: list[AvatarOptions] = []
        self.paint: Callable[[FaceCrop], np.ndarray] = lambda crop: base.avatar.face_maps.diffuse_albedo

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def avatar(self, crop: FaceCrop, options: AvatarOptions) -> AvatarResult:
        self.calls.append(options)
        maps = replace(self.base.avatar.face_maps, diffuse_albedo=self.paint(crop))
        return replace(self.base, avatar=replace(self.base.avatar, face_maps=maps))


@pytest.fixture
def painted(small_pipeline: FitDiffPipeline, astronaut_crop: FaceCrop) -> PaintedPipeline:
    base = small_pipeline.avatar(astronaut_crop, AvatarOptions(steps=1, guidance="none"))
    return PaintedPipeline(small_pipeline, base)


@pytest.fixture
def photos(tmp_path: Path, astronaut: Path) -> Path:
    """Two people with two photos each: the astronaut, darker from photo to photo."""
    pixels = cv2.imread(str(astronaut))
    assert pixels is not None
    for index, level in enumerate((1.0, 0.94, 0.7, 0.64)):
        place = tmp_path / "photos" / "ab"[index // 2]
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{index}.png"), (pixels * level).astype(np.uint8))
    return tmp_path / "photos"


def run(pipeline: PaintedPipeline, photos: Path, **options: Any) -> Evaluation:
    settings = {"data": None, "limit": None, "seed": 0, "rows": None, "say": lambda line: None} | options
    return evaluate_cleanliness(cast(FitDiffPipeline, pipeline), photos, **settings)


def test_maps_that_ignore_the_photo(painted: PaintedPipeline, photos: Path) -> None:
    result = run(painted, photos, limit=1)
    assert [result.rows[f"(b) {name}"] for name in OCCLUDERS] == [(0.0, 0.05, 1)] * 3
    assert result.rows["(b) mean"] == (0.0, 0.05, 3)
    assert result.rows["(c) relighting"] == (None, 1.2, 0)
    assert result.rows["(a) two photos of one person / two people"] == (None, 0.5, 0)
    assert any("no two people" in note for note in result.notes)
    assert len(painted.calls) == 5 and {call.guidance for call in painted.calls} == {"full"}


def test_maps_that_show_the_photo(painted: PaintedPipeline, photos: Path, astronaut_crop: FaceCrop) -> None:
    """An avatar that wears the photo itself: it shows the occluders whole, and nothing else changes."""
    assert painted.base.camera is not None
    place = chart_in_photo(painted.renderer, painted.base.vertices, painted.base.camera, FACE_BLOCK, SIDE)
    transform = astronaut_crop.crop_from_photo
    photo_from_crop = np.hstack([np.eye(2), -transform[:, 2:]]) / transform[0, 0]

    def worn(crop: FaceCrop) -> np.ndarray:
        texels = place.sampled(crop.photo.astype(np.float32) / 255, photo_from_crop)
        return cv2.resize(texels, (512, 512), interpolation=cv2.INTER_NEAREST)

    painted.paint = worn
    result = run(painted, photos, limit=1)
    for name in OCCLUDERS:
        assert result.rows[f"(b) {name}"][0] == pytest.approx(1.0, abs=0.05)
        assert result.figures["occluders"][name]["texels"] > 100
    rest = result.rows["(b) mean, rest of the face"][0]
    assert rest is not None and rest < 0.05


def test_people_that_differ_more_than_photos(painted: PaintedPipeline, photos: Path, tmp_path: Path) -> None:
    painted.paint = lambda crop: np.full((512, 512, 3), crop.photo.mean() / 255, np.float32)
    rows = tmp_path / "rows.jsonl"
    result = run(painted, photos, rows=rows)
    ratio, goal, pairs = result.rows["(a) two photos of one person / two people"]
    assert ratio is not None and ratio < 0.4 and (goal, pairs) == (0.5, 2)
    colour = result.figures["albedo_lab_distance"]["colour"]
    assert colour["between_pairs"] == 4 and colour["ratio"] == pytest.approx(ratio)
    assert json.loads(result.json())["rows"]["(b) glasses"]["count"] == 2

    made = len(painted.calls)
    assert made == 10, "the avatars of (a) serve (b)"
    again = run(painted, photos, rows=rows)
    assert len(painted.calls) == made and again == result
    rows.write_text(rows.read_text()[:-30])  # killed while it wrote b's hand: that one and its clean avatar again
    assert run(painted, photos, rows=rows) == result and len(painted.calls) == made + 2
    run(painted, photos, rows=rows, seed=1, limit=1)
    assert len(painted.calls) == made + 2 + 5


def test_things_are_pasted_on_the_first_people_alone(painted: PaintedPipeline, photos: Path) -> None:
    painted.paint = lambda crop: np.full((512, 512, 3), crop.photo.mean() / 255, np.float32)
    result = run(painted, photos, occluded=1)
    assert len(painted.calls) == 4 + len(OCCLUDERS)
    assert result.rows["(a) two photos of one person / two people"][2] == 2
    assert result.rows["(b) mean"][2] == len(OCCLUDERS)


def test_a_photo_without_a_face_is_a_note(painted: PaintedPipeline, photos: Path) -> None:
    (photos / "b" / "4.png").write_bytes((photos / "b" / "3.png").read_bytes())
    cv2.imwrite(str(photos / "b" / "2.png"), np.full((64, 64, 3), 90, np.uint8))
    result = run(painted, photos)
    assert result.rows["(b) hand"][2] == 1
    assert len([note for note in result.notes if note.startswith("b, ") and "face" in note]) == 4


def test_synthetic_faces_are_relit(
    painted: PaintedPipeline, photos: Path, held_out_data: Path, true_maps: np.ndarray
) -> None:
    result = run(painted, photos, data=held_out_data, limit=1)
    value, goal, count = result.rows["(c) relighting"]
    assert value is not None and value > 0.2 and (goal, count) == (1.2, 1)
    true = np.ascontiguousarray(true_maps[:3].transpose(1, 2, 0), dtype=np.float32) / 255
    painted.paint = lambda crop: true
    better = run(painted, photos, data=held_out_data, limit=1).rows["(c) relighting"][0]
    assert better is not None and better < value
    with pytest.raises(UsageError):
        run(painted, photos, data=photos)


def test_face_maps_as_the_autoencoder_has_them(painted: PaintedPipeline) -> None:
    maps = painted.base.avatar.face_maps
    tensor = tensor_from_maps(maps)
    assert tensor.shape == (1, 9, 512, 512) and tensor.min() >= 0 and tensor.max() <= 1
    np.testing.assert_allclose(tensor[0, 6:].permute(1, 2, 0).numpy() * 2 - 1, maps.normal, atol=1e-6)
