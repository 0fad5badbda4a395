"""Likeness: its arithmetic on hand-made vectors, the run with small models, its row file, and the real thing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fitdiff.cli import main
from fitdiff.errors import UsageError
from fitdiff.evaluation import identity
from fitdiff.evaluation.direct_fitting import DirectFittingConfig, fit_directly
from fitdiff.evaluation.identity import VARIANTS, evaluate_identity
from fitdiff.evaluation.identity_table import COLUMNS, IMPOSTORS, OTHER_PHOTO, Verdict, identity_table
from fitdiff.evaluation.rows import RowFile
from fitdiff.evaluation.similarity import calibrated, cosine, impostor_mean, rank1
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline

UNGUIDED = "all layers"


def test_cosine_and_calibration() -> None:
    assert cosine(np.array([3.0, 4.0]), np.array([8.0, 6.0])) == pytest.approx(0.96)
    assert [calibrated(c, 0.8) for c in (1.0, 0.8, 0.9, 0.6)] == pytest.approx([1, 0, 0.5, -1])
    assert calibrated(None, 0.8) is None and calibrated(0.8, None) is None


def test_impostors_are_pairs_of_different_people_alone() -> None:
    a, b = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0]])  # the two of `a` are one person's
    c = np.array([[1.0, 1.0]])
    diagonal = 0.5**0.5
    assert impostor_mean([a, b]) == pytest.approx((1 + 0) / 2)
    assert impostor_mean([a, b, c]) == pytest.approx((1 + 0 + 3 * diagonal) / 5)
    assert impostor_mean([a]) is None


def test_rank1() -> None:
    gallery = np.array([[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    probes = np.array([[2.0, 1.0], [2.0, 1.0], [0.1, 3.0]])
    assert rank1(probes, gallery, [0, 1, 1]) == pytest.approx(2 / 3)
    assert rank1(probes, gallery[:1], [0, 0, 0]) is None
    assert rank1(np.empty((0,)), gallery, []) is None


def test_the_table_on_hand_made_vectors() -> None:
    """Three people, one of them with one photo; avatars of two of them, one of which looks like the other."""
    x, y, z = np.eye(3)
    photos = {
        "a": {"guiding": np.array([x, (x + y) / 2**0.5])},
        "b": {"guiding": np.array([y, y])},
        "c": {"guiding": np.array([z])},
    }
    avatars = {"a": Verdict({"guiding": y}, 0.1, 2.0), "c": Verdict({"guiding": z}, 0.3, 4.0)}
    found = identity_table(photos, {"v": avatars})
    m = 2 * 0.5**0.5 / 8  # of the pairs a-b (4), a-c (2), b-c (2) the two of a's other photo with b's are not zero
    row = dict(zip(COLUMNS, found.rows["v"], strict=True))
    assert row["guiding plain cosine"] == pytest.approx(0.5)  # 0 and 1
    assert row["guiding calibrated"] == pytest.approx((0.5 - m) / (1 - m))
    assert row["rank-1 guiding"] == 0  # a's avatar is b's; c has no other photo
    assert row["other photo guiding"] == pytest.approx((0.5**0.5 - m) / (1 - m))
    assert (row["landmark error"], row["seconds"]) == pytest.approx((0.2, 3.0))
    assert row["second calibrated"] is row["second plain cosine"] is row["rank-1 second"] is None
    other = dict(zip(COLUMNS, found.rows[OTHER_PHOTO], strict=True))
    assert other["guiding plain cosine"] == pytest.approx((0.5**0.5 + 1) / 2)
    assert other["rank-1 guiding"] == 1
    strangers = dict(zip(COLUMNS, found.rows[IMPOSTORS], strict=True))
    assert strangers["guiding plain cosine"] == pytest.approx(m)
    assert found.figures == {"people": 3, "with_other_photo": 2}


@pytest.fixture
def people(astronaut: Path, tmp_path: Path) -> Path:
    """Three folders: two photos, one photo, and a wall."""
    photo = Image.open(astronaut)
    for name, picture in {
        "ann/1.png": photo,
        "ann/2.png": photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "bea/1.png": photo.point(lambda value: value * 0.7),
        "wall/1.png": Image.new("RGB", (128, 128), "gray"),
    }.items():
        (tmp_path / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "people" / name)
    return tmp_path / "people"


class Counted:
    """The small pipeline with its calls counted."""

    def __init__(self, pipeline: FitDiffPipeline, patch: pytest.MonkeyPatch) -> None:
        self.pipeline, self.seen = pipeline, []
        make = FitDiffPipeline.avatar

        def avatar(of: FitDiffPipeline, crop: FaceCrop, options: AvatarOptions) -> Any:
            self.seen.append(options)
            return make(of, crop, options)

        patch.setattr(FitDiffPipeline, "avatar", avatar)

    def calls(self) -> int:
        """Since the last time."""
        count = len(self.seen)
        self.seen.clear()
        return count


@pytest.fixture
def counted(small_pipeline: FitDiffPipeline, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(small_pipeline, monkeypatch)


def test_a_photo_without_a_face_is_a_note(counted: Counted, people: Path) -> None:
    said: list[str] = []
    found = evaluate_identity(counted.pipeline, people, only=[UNGUIDED], steps=1, say=said.append)
    assert counted.calls() == 2
    assert len(found.notes) == 1 and found.notes[0].startswith("wall/1.png: photo: got no face")
    assert found.notes[0] in said
    assert list(found.rows) == [UNGUIDED, OTHER_PHOTO, IMPOSTORS]
    assert found.figures["people"] == 2 and found.figures["with_other_photo"] == 1
    row = dict(zip(found.columns, found.rows[UNGUIDED], strict=True))
    assert row["landmark error"] is not None and row["landmark error"] > 0 and row["second calibrated"] is None
    strangers = dict(zip(found.columns, found.rows[IMPOSTORS], strict=True))["guiding plain cosine"]
    assert strangers is not None and strangers > 0.9  # it is the same woman


def test_a_second_photo_without_a_face_is_a_note_too(counted: Counted, people: Path) -> None:
    (people / "bea" / "2.png").write_bytes((people / "wall" / "1.png").read_bytes())
    found = evaluate_identity(counted.pipeline, people, only=[UNGUIDED], steps=1)
    assert [note.split(":")[0] for note in found.notes] == ["bea/2.png", "wall/1.png"]
    assert found.figures["people"] == 2 and found.figures["with_other_photo"] == 1


def test_nobody_with_a_face_is_an_error(small_pipeline: FitDiffPipeline, people: Path) -> None:
    with pytest.raises(UsageError, match="nobody with a face"):
        evaluate_identity(small_pipeline, people, shard=(2, 3))


def test_an_unknown_variant_and_an_impossible_shard_are_errors(small_pipeline: FitDiffPipeline, people: Path) -> None:
    with pytest.raises(UsageError, match="got magic"):
        evaluate_identity(small_pipeline, people, only=["magic"])
    with pytest.raises(UsageError, match="2/2"):
        evaluate_identity(small_pipeline, people, shard=(2, 2))


def test_finished_rows_are_not_measured_again(counted: Counted, people: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"

    def run(**options: Any) -> Any:
        return evaluate_identity(counted.pipeline, people, **{"only": [UNGUIDED], "steps": 1, "rows": rows} | options)

    run(shard=(0, 3))
    assert counted.calls() == 1
    first = run()
    assert counted.calls() == 1  # bea's alone
    again = run()
    assert counted.calls() == 0
    assert again.rows[UNGUIDED] == first.rows[UNGUIDED]
    line = json.loads(rows.read_text().splitlines()[0])
    cards = {card.role: card.sha256 for card in counted.pipeline.cards}
    assert line["key"]["models"] == cards and {"denoiser", "autoencoder"} <= set(cards)
    run(seed=1)
    assert counted.calls() == 2
    run(only=[UNGUIDED, "last layer only"], seed=1)
    assert counted.calls() == 2
    changed = tuple(replace(card, sha256="0" * 64) if card.role == "denoiser" else card
                    for card in counted.pipeline.cards)  # fmt: skip
    counted.pipeline = replace(counted.pipeline, cards=changed)
    run(seed=1)
    assert counted.calls() == 2


class FakeRecogniser:
    """Mean colour as an identity."""

    name = "arcface"

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256

    def __call__(self, image: np.ndarray, five_points: np.ndarray) -> np.ndarray:
        vector = image.mean((0, 1))
        return vector / np.linalg.norm(vector)


def test_another_second_recogniser_has_to_look_itself(counted: Counted, people: Path, tmp_path: Path) -> None:
    def run(second: Any) -> Any:
        rows = tmp_path / "rows.jsonl"
        return evaluate_identity(counted.pipeline, people, second=second, only=[UNGUIDED], steps=1, rows=rows)

    calls = []
    for second in (None, FakeRecogniser("a"), FakeRecogniser("a"), FakeRecogniser("b"), None):
        found = run(second)
        calls.append(counted.calls())
        row = dict(zip(found.columns, found.rows[UNGUIDED], strict=True))
        assert (row["second calibrated"] is None) == (second is None)
    assert calls == [2, 2, 0, 2, 0]


def test_half_a_line_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"person": "a", "variant": "v", "key": {"n": [1]}, "x": 1}\n{"person": "b", "var')
    rows = RowFile(path)
    assert rows.find("a", "v", {"n": (1,)}) is not None and rows.find("a", "v", {"n": (2,)}) is None
    assert rows.find("b", "v", {}) is None
    rows.add({"person": "b", "variant": "v", "key": {}})
    assert RowFile(path).find("b", "v", {}) is not None and RowFile(path).find("a", "v", {"n": [1]}) is not None


def test_a_monochrome_photo_is_compared_in_one_tone(
    small_pipeline: FitDiffPipeline, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rendering of bea's grey photo is judged in grey, that of ann's in colour; on the sheet both have colours."""
    grey = Image.open(people / "bea" / "1.png").convert("L").convert("RGB")
    grey.save(people / "bea" / "1.png")
    judged: list[np.ndarray] = []
    vectors = identity._Study.vectors

    def spied(study: Any, image: np.ndarray, five_points: np.ndarray) -> dict[str, np.ndarray]:
        judged.append(image)
        return vectors(study, image, five_points)

    monkeypatch.setattr(identity._Study, "vectors", spied)
    evaluate_identity(small_pipeline, people, only=[UNGUIDED], steps=1)
    ann, bea = judged[-2:]
    assert np.ptp(ann, axis=2).max() > 0.1 and np.ptp(bea, axis=2).max() == 0
    picture = np.random.default_rng(0).random((8, 8, 3), np.float32)
    assert identity.in_one_tone(picture) == pytest.approx(
        np.repeat((picture @ [0.2126, 0.7152, 0.0722])[..., None], 3, 2), abs=1e-5
    )


def test_the_sheet_has_a_row_a_person(counted: Counted, people: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.jpg"
    evaluate_identity(counted.pipeline, people, only=[UNGUIDED, "last layer only"], steps=1, sheet=sheet)
    width, height = Image.open(sheet).size
    assert width == 3 * 260 and height == pytest.approx(2 * 2 * 240, rel=0.15)


def test_the_commands_last_line_is_json(small_models: Path, people: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "identity", "--photos", people, "--limit", 1, "--steps", 1, "--only", UNGUIDED,
                 "--json", tmp_path / "found.json"]  # fmt: skip
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found == json.loads((tmp_path / "found.json").read_text())
    assert set(found["rows"]) == {UNGUIDED, OTHER_PHOTO, IMPOSTORS} and found["people"] == 1
    assert UNGUIDED in result.stderr  # the table


@pytest.mark.parametrize("shard", ["1", "2/2", "a/b", "-1/2"])
def test_the_command_refuses_a_wrong_shard(people: Path, shard: str) -> None:
    result = CliRunner().invoke(main, ["evaluate", "identity", "--photos", str(people), f"--shard={shard}"])
    assert result.exit_code == 2 and "0 <= i < n" in result.stderr


@pytest.mark.parametrize("command", ["identity", "cleanliness", "reflectance", "geometry"])
def test_every_command_has_an_example_and_the_shared_options(command: str) -> None:
    result = CliRunner().invoke(main, ["evaluate", command, "--help"])
    assert result.exit_code == 0
    for word in (f"fitdiff evaluate {command} --", "--seed", "--threads", "--rows", "--json", "--debug", "Exit codes"):
        assert word in result.stdout, word


def test_direct_fitting_lowers_its_loss(small_pipeline: FitDiffPipeline, astronaut: Path) -> None:
    models, statistics = small_pipeline.models, small_pipeline.denoiser.statistics
    crop = crop_face(load_photo(astronaut), small_pipeline.detector, models.face_mesh)
    target = photo_target(crop, models)
    fit, start = (fit_directly(models, statistics, target, DirectFittingConfig(steps=n)) for n in (8, 1))
    assert len(fit.losses) == 8
    assert fit.losses[0] == pytest.approx(start.losses[0], rel=1e-4)
    assert fit.losses[-1] < 0.8 * fit.losses[0]
    assert fit.landmark_error < 0.05
    assert fit.maps.shape == (1, 9, 256, 256) and 0 <= fit.maps.min() and fit.maps.max() <= 1
    assert torch.equal(fit.maps[:, 3:], start.maps[:, 3:])  # the diffuse albedo alone is free
    assert not torch.allclose(fit.maps[:, :3], start.maps[:, :3])


def test_the_default_models_end_to_end(default_models: Path, people: Path, tmp_path: Path) -> None:
    """Guidance brings the landmarks nearer, and direct fitting the likeness, in a few steps."""
    found = evaluate_identity(
        load_pipeline(default_models), people, limit=1, steps=4,
        only=[UNGUIDED, "guidance", "free texture, 150 Adam steps"], rows=tmp_path / "rows.jsonl",
    )  # fmt: skip
    assert dict(zip(found.columns, found.rows[UNGUIDED], strict=True))["guiding calibrated"] is None  # no impostors
    rows = {name: {column: value for column, value in zip(found.columns, values, strict=True) if value is not None}
            for name, values in found.rows.items()}  # fmt: skip
    without, guided, direct = (rows[name] for name in VARIANTS if name in rows)
    print(f"plain cosine {[r['guiding plain cosine'] for r in (without, guided, direct)]}")
    assert guided["landmark error"] < 0.8 * without["landmark error"]
    assert direct["guiding plain cosine"] > without["guiding plain cosine"]
    assert guided["guiding plain cosine"] > 0.8
