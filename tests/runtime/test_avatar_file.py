"""The saved avatar: what comes back, how it is refused, what it takes to read it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fitdiff.models.checkpoint import ModelCard
from fitdiff.models.topology import HeadTopology
from fitdiff.runtime.avatar import Avatar, HeadMaps, Iris, ReflectanceMaps
from fitdiff.runtime.avatar_file import FILE_NAME, FORMAT, AvatarFileError, load_avatar, save_avatar

RNG = np.random.default_rng(3)


def random_maps(side: int, channels: int | None) -> np.ndarray:
    return RNG.random((side, side) if channels is None else (side, side, channels), np.float32)


def unit_vectors(side: int) -> np.ndarray:
    vectors = RNG.normal(size=(side, side, 3)) + [0, 0, 2]
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def head() -> Avatar:
    triangles = np.array([[0, 1, 2], [2, 1, 3], [3, 4, 2]], np.int32)
    shapes = np.zeros((3, 5, 3), np.float32)
    shapes[0, 3] = [1e-7, -2.5, np.pi]
    shapes[2, 0, 1] = 1e-20
    return Avatar(
        vertices=RNG.normal(size=(5, 3)).astype(np.float32),
        expression_offset=RNG.normal(size=(5, 3)).astype(np.float32),
        expression_weights={"jawOpen": 0.1, "mouthLeft": -0.05},
        topology=HeadTopology(
            triangles=triangles,
            corner_uv=RNG.random((3, 3, 2), np.float32),
            triangle_part=np.array([0, 1, 1], np.uint8),
            blendshapes=shapes,
            blendshape_names=("jawOpen", "eyeBlinkLeft", "mouthLeft"),
            face_block=(1, 2, 3),
            part_names=("skin", "eye_left"),
        ),
        face_maps=ReflectanceMaps(random_maps(8, 3), np.repeat(random_maps(8, None)[..., None], 3, 2), unit_vectors(8)),
        head_maps=HeadMaps(random_maps(16, 4), random_maps(16, None), unit_vectors(16), random_maps(16, None)),
        light={"ambient": [0.5, 0.4, 0.3], "direction": [0.0, 0.0, 1.0]},
        pose={"yaw_degrees": np.float32(3.5), "rvec": [1.0, 2.0, 3.0]},
        models=(ModelCard("recogniser", "a", "b", "CC0-1.0", True, "0" * 64),),
        seed=11,
        iris=Iris((0.2, 0.4, 0.6), 0.0112),
    )


def test_geometry_is_exact_and_the_rest_comes_back(head: Avatar, tmp_path: Path) -> None:
    back = load_avatar(save_avatar(head, tmp_path / "a.fitdiff"))
    for name in ("vertices", "expression_offset"):
        np.testing.assert_array_equal(getattr(back, name), getattr(head, name))
    for name in ("triangles", "corner_uv", "triangle_part", "blendshapes"):
        ours, theirs = getattr(back.topology, name), getattr(head.topology, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    for name in ("blendshape_names", "face_block", "part_names"):
        assert getattr(back.topology, name) == getattr(head.topology, name)
    assert (back.expression_weights, back.light, back.seed) == (head.expression_weights, head.light, head.seed)
    assert back.iris == head.iris
    assert back.pose == {"yaw_degrees": 3.5, "rvec": [1.0, 2.0, 3.0]}
    assert [dataclasses.asdict(card) for card in back.models] == [dataclasses.asdict(card) for card in head.models]


def test_maps_are_within_half_a_step(head: Avatar, tmp_path: Path) -> None:
    back = load_avatar(save_avatar(head, tmp_path / "a.fitdiff"))
    for owner in ("face_maps", "head_maps"):
        for field in dataclasses.fields(getattr(head, owner)):
            ours, theirs = getattr(getattr(back, owner), field.name), getattr(getattr(head, owner), field.name)
            assert ours.dtype == np.float32
            # Normals are made unit again, which may move a component by as much once more.
            step = 2 * 2 / 65535 if field.name == "normal" else 0.5 / 255
            error = float(np.abs(ours - theirs).max())
            print(f"{owner}.{field.name}: largest error {error:.2e}, allowed {step:.2e}")
            assert 0 < error <= step * 1.001, field.name
            assert np.abs(ours - theirs[:, ::-1]).max() > 0.1  # neither mirrored nor with channels swapped


def test_same_avatar_same_bytes(head: Avatar, tmp_path: Path) -> None:
    first, second = (save_avatar(head, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_runs_folder_will_do(head: Avatar, tmp_path: Path) -> None:
    save_avatar(head, tmp_path / FILE_NAME)
    assert load_avatar(tmp_path).seed == head.seed


def without(name: str, path: Path) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    tensors = safetensors.numpy.load(data)
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    del tensors[name]
    safetensors.numpy.save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "no safetensors file"),
        (lambda path: path.write_bytes(b"glTF" + bytes(100)), "no safetensors file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "no safetensors file"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"fitdiff-avatar/1", b"fitdiff-avatar/9")), FORMAT),
        (lambda path: safetensors.numpy.save_file({"x": np.zeros(3)}, path), FORMAT),
        (lambda path: without("corner_uv", path), "damaged contents"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"\x89PGN", 1)), "damaged contents"),
    ],
)
def test_damage_is_named(head: Avatar, tmp_path: Path, damage: object, words: str) -> None:
    path = save_avatar(head, tmp_path / "a.fitdiff")
    damage(path)  # type: ignore[operator]
    with pytest.raises(AvatarFileError, match=words) as caught:
        load_avatar(path)
    assert str(path) in str(caught.value)


def test_failed_write_leaves_the_old_file(head: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fitdiff"
    path.write_bytes(b"old")

    def full(source: object, target: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        save_avatar(head, path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.fitdiff"] and path.read_bytes() == b"old"


def test_reading_needs_no_pytorch(head: Avatar, tmp_path: Path) -> None:
    path = save_avatar(head, tmp_path / "a.fitdiff")
    code = (
        "import sys; from pathlib import Path; from fitdiff.runtime.avatar_file import load_avatar;"
        "load_avatar(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == 0


def test_folds_come_back_where_there_are_any(head: Avatar, tmp_path: Path) -> None:
    assert load_avatar(save_avatar(head, tmp_path / FILE_NAME)).folds is None
    folds = RNG.uniform(0, 255 / 128, (8, 8)).astype(np.float32)
    folds[0] = 1
    again = load_avatar(save_avatar(dataclasses.replace(head, folds=folds), tmp_path / FILE_NAME)).folds
    assert again is not None and again.dtype == np.float32
    np.testing.assert_allclose(again, folds, atol=0.5 / 128 + 1e-6)
    np.testing.assert_array_equal(again[0], 1)
    with pytest.raises(ValueError, match="folds"):
        dataclasses.replace(head, folds=folds[:4])
