"""An avatar refuses arrays that do not fit together, and needs no PyTorch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from fitdiff.models.topology import HeadTopology
from fitdiff.runtime.avatar import Avatar, HeadMaps, ReflectanceMaps


@pytest.fixture
def avatar() -> Avatar:
    square = np.zeros((4, 4), np.float32)
    colour = np.zeros((4, 4, 3), np.float32)
    topology = HeadTopology(
        triangles=np.array([[0, 1, 2]], np.int32),
        corner_uv=np.zeros((1, 3, 2), np.float32),
        triangle_part=np.zeros(1, np.uint8),
        blendshapes=np.zeros((1, 3, 3), np.float32),
        blendshape_names=("jawOpen",),
        face_block=(0, 0, 2),
    )
    return Avatar(
        vertices=np.zeros((3, 3), np.float32),
        expression_offset=np.zeros((3, 3), np.float32),
        expression_weights={"jawOpen": 0.5},
        topology=topology,
        face_maps=ReflectanceMaps(colour, colour, colour),
        head_maps=HeadMaps(np.zeros((4, 4, 4), np.float32), square, colour, square),
        light={},
        pose=None,
        models=(),
        seed=0,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": np.zeros((4, 3), np.float32)}, "vertices"),
        ({"vertices": np.zeros((3, 3))}, "vertices: got float64"),
        ({"expression_offset": np.zeros((2, 3), np.float32)}, "expression_offset"),
        ({"expression_weights": {"jawShut": 1.0}}, "jawShut"),
    ],
)
def test_misfits_are_named(avatar: Avatar, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(avatar, **change)


def test_maps_must_have_one_size(avatar: Avatar) -> None:
    with pytest.raises(ValueError, match="roughness"):
        dataclasses.replace(avatar.head_maps, roughness=np.zeros((8, 8), np.float32))
    with pytest.raises(ValueError, match="normal"):
        dataclasses.replace(avatar.face_maps, normal=np.zeros((4, 4), np.float32))


def test_exporter_needs_no_pytorch() -> None:
    code = "import sys; import fitdiff.exporter.gltf; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
