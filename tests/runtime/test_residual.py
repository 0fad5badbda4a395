"""The residual: where a photo shows skin, what may depart there, and what one side tells of the other."""

from dataclasses import replace

import pytest
import torch

from fitdiff.models.autoencoder import load_autoencoder
from fitdiff.runtime.detail import DetailConfig
from fitdiff.runtime.face_crop import FaceCrop
from fitdiff.runtime.guidance import PhotoGuidance
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.runtime.residual import (
    DARKEST_RIM,
    NEVER_DARK,
    Residual,
    depth_of_faces,
    spread_of_faces,
    spread_of_residual,
    texels_shown,
)

from .conftest import guide_of

NO_RIMS = torch.zeros(1, 1, 256, 256)


def shown_of(guide: PhotoGuidance, z: torch.Tensor) -> torch.Tensor:
    parts = guide.layout.split(guide.statistics.denormalise(z))
    return texels_shown(guide, guide.models.face_maps(parts.texture), parts)[0]


def test_texels_shown_follow_the_mask_and_not_its_mirror(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    guide = guide_of(pipeline, crop)
    z = torch.zeros(1, 1, 67, 64)
    whole = shown_of(guide, z)
    half = guide.target.skin.clone()
    half[..., : int(crop.landmarks[4, 0])] = 0  # the character's right half hidden: left in the picture and the chart
    guide.target = replace(guide.target, skin=half)
    covered = shown_of(guide, z)
    right, left = slice(40, 110), slice(146, 216)
    assert covered[..., 90:200, right].mean() < 0.1 * whole[..., 90:200, right].mean()
    assert covered[..., 90:200, left].mean() > 0.8 * whole[..., 90:200, left].mean()


def test_rims_are_about_the_eyes_and_go_with_them(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """The character's right eye, left in picture and chart, behind a patch: no rims; the other one keeps its own."""
    guide = guide_of(pipeline, crop)
    parts = guide.layout.split(guide.statistics.denormalise(torch.zeros(1, 1, 67, 64)))
    face = guide.models.face_maps(parts.texture)
    eyes = guide.models.morphable.landmarks_on_chart()[[159, 145, 386, 374]].reshape(2, 2, 2).mean(1)
    eyes = (eyes * 256 / guide.models.morphable.config.face_block[2]).long()  # right, left; x, y
    assert eyes[0, 0] < eyes[1, 0]
    near = [(slice(int(y) - 14, int(y) + 14), slice(int(x) - 18, int(x) + 18)) for x, y in eyes]

    def rims() -> torch.Tensor:
        shown, found = texels_shown(guide, face, parts)
        assert (shown + found).max() <= 1 + 1e-6
        return found[0, 0]

    whole = rims()
    assert all(whole[place].max() > 0.7 for place in near)
    elsewhere = whole.clone()
    for place in near:
        elsewhere[place] = 0
    assert elsewhere.max() < 0.05  # not about the mouth
    x, y = crop.landmarks[[33, 133, 159, 145], :2].mean(0)
    patched = guide.target.skin.clone()
    patched[..., int(y) - 20 : int(y) + 20, int(x) - 22 : int(x) + 22] = 0
    guide.target = replace(guide.target, skin=patched)
    covered = rims()
    assert covered[near[0]].max() < 0.1 and covered[near[1]].max() > 0.7


def test_beside_a_fringe_brows_alone_are_shown(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """Hair over the character's right forehead, left in picture and chart. Over that cheek it takes none away."""
    guide = guide_of(pipeline, crop)
    clean, (x, y) = guide.target, crop.landmarks[[105, 334], :2].T.astype(int)
    found = {}
    for name, top in (("nothing", None), ("fringe", int(y[0]) - 60), ("cheek", int(y[0]) + 45)):
        worn = torch.zeros_like(clean.worn)
        if top is not None:
            worn[..., top : top + 45, : int(x.mean())] = 1.0
        skin = clean.skin.maximum(clean.worn) * (1 - worn)
        guide.target = replace(clean, skin=skin, worn=worn * clean.skin.maximum(clean.worn))
        found[name] = shown_of(guide, torch.zeros(1, 1, 67, 64))[0, 0]
    brow = guide.models.morphable.landmarks_on_chart()[105] * 256 / guide.models.morphable.config.face_block[2]
    above = (slice(int(brow[1]) - 8, int(brow[1]) - 2), slice(int(brow[0]) - 12, int(brow[0]) + 12))
    assert found["nothing"][above].mean() > 0.7
    assert found["fringe"][above].mean() < 0.5 * found["nothing"][above].mean()
    mirrored = (above[0], slice(256 - above[1].stop, 256 - above[1].start))
    assert found["fringe"][mirrored].mean() > 0.8 * found["nothing"][mirrored].mean()
    brows = guide.models.morphable.landmarks_on_chart()[[105, 66, 52, 65]] * 256
    x, y = (brows.mean(0) / guide.models.morphable.config.face_block[2]).long()
    on_brow = (slice(int(y) - 1, int(y) + 2), slice(int(x) - 3, int(x) + 4))
    assert found["fringe"][on_brow].mean() > 0.9 * found["nothing"][on_brow].mean()
    assert torch.allclose(found["cheek"][above], found["nothing"][above], atol=0.05)


def test_rims_only_get_darker_and_lips_depart_less(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    depth = torch.full((1, 1, 256, 256), torch.inf)
    rims = NO_RIMS.clone()
    rims[..., 60:80, 60:80] = 1.0
    residual = Residual(NO_RIMS, rims, torch.full((1, 2, 256, 256), 0.05), depth, DetailConfig())
    free = torch.ones(1, 2, 256, 256)
    assert not residual(free)[0].any()
    darker = residual(-free)[0][:, :3]
    assert darker[..., 65:75, 65:75].max() < -0.05 and not darker[..., 90:160, :].any()
    assert darker[..., 65:75, 181:191].max() < -0.05  # lashes are alike on both sides
    darkest = residual(-100 * free)[0][..., 65:75, 65:75]
    assert -DARKEST_RIM <= darkest.min() < -0.9 * DARKEST_RIM  # an iris would be darker
    guide = guide_of(pipeline, crop)
    usual, held = spread_of_faces(guide, 256), spread_of_residual(guide, 256)
    x, y = (guide.models.morphable.landmarks_on_chart()[17] * 256 / guide.models.morphable.config.face_block[2]).int()
    ratio = held / usual
    assert ratio[0, 0, int(y) - 6, int(x)] < 0.5 and float(ratio[0, 0, 60, 128]) == pytest.approx(1)


def test_the_spread_of_the_embedded_model_knows_brows_and_cheeks() -> None:
    spread = load_autoencoder().lightness_spread
    assert spread.shape == (3, 128, 128)
    assert torch.allclose(spread, spread.flip(-1), atol=1e-3)  # fp16
    brow, cheek = spread[:, 40:46, 44:56].amax((1, 2)), spread[:, 64:76, 40:48].mean((1, 2))
    assert (brow > 4 * cheek).all()


def test_hair_on_the_forehead_is_left_out_and_folds_are_not(pipeline: FitDiffPipeline, crop: FaceCrop) -> None:
    """The same dark bar where no face is ever dark, on one side, between brows and mouth, and where beards grow."""
    guide = guide_of(pipeline, crop)
    network = pipeline.models.autoencoder
    plain = network.lightness_depth.clone()
    network.lightness_depth.fill_(0.03)
    network.lightness_depth[:, 96:] = 0.3  # chin
    depth = depth_of_faces(guide, 256)
    network.lightness_depth.zero_()
    unknown = depth_of_faces(guide, 256)
    network.lightness_depth.copy_(plain)
    assert torch.isinf(unknown).all()
    assert torch.isinf(depth[0, 0, 128, 128]) and torch.isfinite(depth[0, 0, 60, [90, 166]]).all()
    residual = Residual(torch.ones(1, 1, 256, 256), NO_RIMS, torch.full((1, 2, 256, 256), 0.05), depth, DetailConfig())
    free = torch.zeros(1, 2, 256, 256)
    bars = {"forehead": (56, 90), "nose": (124, 128), "chin": (210, 128)}
    for row, column in bars.values():
        free[:, 1:, row : row + 8, column - 12 : column + 12] = -4.0
    before = residual(free)[0][0, 0]
    residual.leave_out_hair(free)
    after = residual(free)[0][0, 0]
    share = {
        n: float(after[r + 2 : r + 6, c - 8 : c + 8].mean() / before[r + 2 : r + 6, c - 8 : c + 8].mean())
        for n, (r, c) in bars.items()
    }
    assert share["forehead"] < 0.1 and share["nose"] > 0.9 and share["chin"] > 0.9
    assert residual.shown[0, 0, 60, 166] == 1  # the other side of the forehead
    light = Residual(torch.ones(1, 1, 256, 256), NO_RIMS, torch.full((1, 2, 256, 256), 0.05), depth, DetailConfig())
    light.leave_out_hair(-free)
    assert light.shown.min() > 0.9  # but for the dark rim that a light bar has


def test_one_side_tells_the_other_and_hair_does_not() -> None:
    """A mark on a side that shows is taken over to one that does not; between sides that show it is dear."""
    spread, depth = torch.full((1, 2, 256, 256), 0.05), torch.full((1, 1, 256, 256), torch.inf)
    free = torch.zeros(1, 2, 256, 256)
    free[:, 1:, 120:128, 60:68] = -3.0  # on the chart's left
    mark, mirrored = (..., slice(122, 126), slice(62, 66)), (..., slice(122, 126), slice(190, 194))
    whole = torch.ones(1, 1, 256, 256)
    left, right = whole.clone(), whole.clone()
    left[..., 128:], right[..., :128] = 0.0, 0.0
    config = DetailConfig()
    both = Residual(whole, NO_RIMS, spread, depth, config)
    change, penalty = both(free)
    assert change[mark].mean() < -0.05 and abs(float(change[mirrored].mean())) < 0.1 * abs(float(change[mark].mean()))
    alike = free + free.flip(-1)
    assert float(penalty) > 2 * float(both(alike)[1])  # the same mark twice is cheaper than once
    change = Residual(left, NO_RIMS, spread, depth, config)(free)[0]
    assert float(change[mirrored].mean()) == pytest.approx(float(change[mark].mean()), rel=0.1)
    change = Residual(right, NO_RIMS, spread, depth, config)(free)[0]
    assert change.abs().max() < 0.1 * abs(float(both(free)[0][mark].mean()))  # what is not seen says nothing


def test_the_depth_of_the_embedded_model_knows_foreheads_and_beards() -> None:
    depth = load_autoencoder().lightness_depth
    assert depth.shape == (1, 128, 128)
    assert torch.allclose(depth, depth.flip(-1), atol=1e-3)
    forehead, jaw = depth[0, 24:30, 56:72], depth[0, 93:97, 38:42]
    assert forehead.max() < NEVER_DARK < jaw.min()
