"""A foreign model through the whole import: unit, axes, face, texture coordinates, landmarks, bases.

The foreign model is our own head, disguised: a bare face in centimetres, lying on its back, inside out, with its
vertices in another order. So the right answer is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("scipy", reason="scipy is not installed")

from scipy.io import savemat

from fitdiff.assets import foreign_landmarks
from fitdiff.assets.foreign_atlas import foreign_atlas_uv, unfolded
from fitdiff.assets.foreign_lashes import lash_uv
from fitdiff.assets.foreign_neck import cut_at_neck
from fitdiff.assets.foreign_registration import Registration, head_island, register
from fitdiff.assets.import_model import ImportOptions, ImportReport, import_model
from fitdiff.assets.make_morphable import ORIGIN, neck_level
from fitdiff.errors import UsageError
from fitdiff.evaluation.alignment import Similarity
from fitdiff.models.checkpoint import ModelCard
from fitdiff.models.importers.frame import upright_turns
from fitdiff.models.importers.licences import LSFM
from fitdiff.models.importers.source import REGIONS, SourceHead
from fitdiff.models.morphable import MorphableModel, load_morphable
from fitdiff.rendering.head_atlas import load_head_atlas

LYING = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # +Y up -> +Z up, facing -Y
COMPONENTS = 5


@pytest.fixture(scope="module")
def ours() -> MorphableModel:
    return load_morphable()[0]


@dataclass(frozen=True, eq=False)
class Disguise:
    """The file's model; `vertex` (V,) says which of ours each of its vertices is."""

    mean: np.ndarray
    triangles: np.ndarray
    identity: np.ndarray
    vertex: np.ndarray


@pytest.fixture(scope="module")
def disguise(ours: MorphableModel) -> Disguise:
    mean, triangles = ours.mean.numpy(), ours.triangles.numpy()
    middle = mean[triangles].mean(1)
    shown = head_island(ours) & (middle[:, 2] > 0.02) & (middle[:, 1] > -0.09)
    vertex = np.random.default_rng(0).permutation(np.unique(triangles[shown]))
    place = np.empty(len(mean), np.int64)
    place[vertex] = np.arange(len(vertex))
    identity = ours.identity_basis.numpy()[:COMPONENTS, vertex]
    return Disguise(100 * mean[vertex] @ LYING.T + [3, 20, -7], place[triangles[shown]][:, ::-1],
                    100 * identity @ LYING.T, vertex)  # fmt: skip


@pytest.fixture(scope="module")
def imported(
    disguise: Disguise, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MorphableModel, ModelCard, ImportReport, Path]:
    folder = tmp_path_factory.mktemp("import")
    length = np.linalg.norm(disguise.identity.reshape(COMPONENTS, -1), axis=1)
    content = {
        "components": (disguise.identity.reshape(COMPONENTS, -1) / length[:, None]).T, "eigenvalues": length**2,
        "mean": disguise.mean.reshape(-1), "trilist": disguise.triangles,
    }  # fmt: skip
    savemat(str(folder / "studio.mat"), content)
    options = ImportOptions(name="studio", licence="LicenseRef-own", commercial=True, licence_text="ours\n")
    report = import_model(folder / "studio.mat", folder / "studio.safetensors", options)
    return *load_morphable(folder / "studio.safetensors"), report, folder


def test_unit_axes_and_winding_are_found(
    imported: tuple[MorphableModel, ModelCard, ImportReport, Path], disguise: Disguise, ours: MorphableModel
) -> None:
    model, _, report, _ = imported
    assert report.unit == "cm" and report.turned and report.inside_out and report.format == "lsfm"
    away = np.linalg.norm(model.mean.numpy() - ours.mean.numpy()[disguise.vertex], axis=1)
    assert away.max() < 0.006 and away.mean() < 0.003  # metres, our frame
    assert "axes turned" in "\n".join(report.lines()) and report.parts == ("skin",)


def test_the_bases_are_the_same_in_our_frame(
    imported: tuple[MorphableModel, ModelCard, ImportReport, Path], disguise: Disguise, ours: MorphableModel
) -> None:
    model = imported[0]
    expected = ours.identity_basis.numpy()[:COMPONENTS, disguise.vertex]
    assert np.abs(model.identity_basis.numpy()[:COMPONENTS] - expected).max() < 0.05 * np.abs(expected).max()
    assert not model.identity_basis[COMPONENTS:].any() and not model.expression_basis.any()
    assert model.identity_basis.shape[0] == 158 and model.expression_basis.shape[0] == 25
    assert model.blendshapes.shape == (0, len(model.mean), 3) and model.topology().blendshape_names == ()
    assert model.attributes(torch.zeros(2, 158)).shape == (2, 0)


def test_the_texture_coordinates_are_ours_again(
    imported: tuple[MorphableModel, ModelCard, ImportReport, Path], disguise: Disguise, ours: MorphableModel
) -> None:
    """Every corner within a few texels of where our own texture has it: no mirroring, no sliding."""
    model = imported[0]
    triangles = ours.triangles.numpy()
    rows = {tuple(sorted(t)): i for i, t in enumerate(triangles.tolist())}
    found = disguise.vertex[model.triangles.numpy()]
    same = np.array([rows[tuple(sorted(t))] for t in found.tolist()])
    expected = np.zeros((len(found), 3, 2))
    for corner in range(3):
        at = (triangles[same] == found[:, corner, None]).argmax(1)
        expected[:, corner] = ours.corner_uv.numpy()[same, at]
    x, y, size = ours.config.face_block
    place = (expected * 1024 - (x, y)) / size  # on the face chart
    inner = (((place - 0.5) / (0.24, 0.36)) ** 2).sum(2) < 1  # without ears and borders
    off = np.linalg.norm((model.corner_uv.numpy() - expected) * 1024, axis=2)[inner]
    print(f"texture coordinates off by {off.mean():.2f} texels on average, {np.percentile(off, 95):.2f} at 95%")
    assert off.mean() < 2.0 and np.percentile(off, 95) < 6  # a texel is .57 mm


def test_the_landmarks_are_ours_again(
    imported: tuple[MorphableModel, ModelCard, ImportReport, Path], ours: MorphableModel
) -> None:
    model, _, report, _ = imported
    assert report.landmarks == 468 and model.landmark_valid.all()
    points, expected = model.landmarks(model.mean[None])[0], ours.landmarks(ours.mean[None])[0]
    distance = (points - expected).norm(dim=1) * 1000
    print(f"landmarks off by {float(distance.mean()):.2f} mm on average, {float(distance.max()):.2f} at most")
    assert float(distance.median()) < 2.5 and float(distance.mean()) < 3.0  # laid on ours within the same


def test_the_card_says_what_the_user_said(imported: tuple[MorphableModel, ModelCard, ImportReport, Path]) -> None:
    _, card, _, folder = imported
    assert (card.role, card.name, card.licence, card.commercial) == ("morphable", "studio", "LicenseRef-own", True)
    assert "studio.mat" in card.source and str(folder) not in card.source and len(card.sha256) == 64
    assert (folder / "studio.LICENSE").read_text() == "ours\n"


def source_of_ours(model: MorphableModel, drop: float = 0.0) -> SourceHead:
    """Our head as a source, its neck drawn down by so many metres."""
    vertices = model.mean.numpy().copy()
    low = neck_level(vertices * 10 + ORIGIN) < 0.5
    vertices[low, 1] -= drop * (0.5 - neck_level(vertices[low] * 10 + ORIGIN))
    names = model.config.part_names
    region = np.array([REGIONS.index(names[i]) for i in model.triangle_part.tolist()], np.uint8)
    zero = np.zeros((1, *vertices.shape), np.float32)
    return SourceHead("ours", vertices, model.triangles.numpy(), region, zero, zero[:0], LSFM)


def test_our_own_head_registers_onto_itself(ours: MorphableModel) -> None:
    source = source_of_ours(ours)
    skin = source.triangles[head_island(ours)]
    points = ours.landmarks(ours.mean[None])[0].numpy()
    found = register(source.vertices * 1.1 + 0.02, skin, points * 1.1 + 0.02, points, ours)
    used = np.unique(skin)
    assert np.linalg.norm(found.points[used] - source.vertices[used], axis=1).max() < 0.002
    assert found.similarity.scale == pytest.approx(1 / 1.1, rel=1e-3)


def test_lashes_lie_on_our_painted_strips(ours: MorphableModel) -> None:
    names, parts = ours.config.part_names, ours.triangle_part.numpy()
    mean, triangles = ours.mean.numpy(), ours.triangles.numpy()
    lashes = triangles[parts == names.index("lashes")]
    eyes = [mean[np.unique(triangles[parts == names.index(eye)])] for eye in ("eye_left", "eye_right")]
    uv = lash_uv(mean, lashes, eyes, ours)
    own = ours.corner_uv.numpy()[parts == names.index("lashes")]
    assert np.abs(uv.mean(1) - own.mean(1)).max() < 0.08  # each on the strip of its own lid
    for axis in (0, 1):
        assert np.corrcoef(uv.mean(1)[:, axis], own.mean(1)[:, axis])[0, 1] > 0.9


def test_a_longer_neck_is_cut_where_ours_ends(ours: MorphableModel) -> None:
    source = source_of_ours(ours, drop=0.08)
    registration = Registration(source.vertices.astype(np.float64), np.zeros(len(source.vertices)),
                                Similarity(1.0, np.eye(3), np.zeros(3)))  # fmt: skip
    head, moved = cut_at_neck(source, registration)
    assert head.vertices[:, 1].min() > source.vertices[:, 1].min() + 0.01 and len(moved.points) == len(head.vertices)
    assert (neck_level(head.vertices * 10 + ORIGIN) > -1e-3).all()
    uncut, same = cut_at_neck(head, moved)
    assert uncut is head and same is moved


def test_folds_are_smoothed_out() -> None:
    grid = np.stack(np.meshgrid(np.arange(7.0), np.arange(7.0)), -1).reshape(-1, 2) / 10
    corner = np.array([r * 7 + c for r in range(6) for c in range(6)])
    triangles = np.concatenate([np.stack([corner, corner + 7, corner + 1], 1),
                                np.stack([corner + 1, corner + 7, corner + 8], 1)])  # fmt: skip
    folded = grid.copy()
    folded[24] += [0.25, 0.02]
    uv = unfolded(folded[triangles], triangles)
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    assert (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0).all()
    flat = unfolded(grid[triangles], triangles)
    assert flat == pytest.approx(grid[triangles])


def test_other_parts_go_to_their_own_places(ours: MorphableModel) -> None:
    source = source_of_ours(ours)
    uv = foreign_atlas_uv(source, source.vertices, source.vertices.astype(np.float64), ours)
    own = ours.corner_uv.numpy()
    assert uv.min() >= 0 and uv.max() <= 1
    for name in ("eye_left", "eye_right"):
        chosen = source.region == REGIONS.index(name)
        away = np.linalg.norm(uv[chosen] - own[chosen], axis=2)
        assert np.median(away) < 0.008  # its rear pole is on the chart's rim: anywhere there
    for name in ("mouth", "teeth", "tongue"):
        chosen = source.region == REGIONS.index(name)
        low, high = own[chosen].min((0, 1)) - 0.01, own[chosen].max((0, 1)) + 0.01
        assert ((uv[chosen] >= low) & (uv[chosen] <= high)).all(), name
    teeth = uv[source.region == REGIONS.index("teeth")] * 1024
    (left, top), (right, bottom) = np.floor(teeth.min((0, 1))).astype(int), np.ceil(teeth.max((0, 1))).astype(int)
    enamel = load_head_atlas()[0].albedo[0, :, top - 2 : bottom + 2, left - 2 : right + 2]
    assert enamel.min() > 0.3 and enamel.flatten(1).std(1).max() < 0.01  # no tooth of ours is drawn there


def test_what_is_no_head_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_landmarks, "upright_turns", lambda: upright_turns()[:2])
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(300, 3))
    ball = 0.1 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    from scipy.spatial import ConvexHull

    hull = ConvexHull(ball)
    content = {"components": rng.normal(size=(900, 1)), "eigenvalues": np.ones(1), "mean": ball.reshape(-1),
               "trilist": hull.simplices}  # fmt: skip
    savemat(str(tmp_path / "ball.mat"), content)
    with pytest.raises(UsageError, match="no face"):
        import_model(tmp_path / "ball.mat", tmp_path / "ball")
    assert not (tmp_path / "ball.safetensors").exists()
