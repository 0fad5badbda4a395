"""The topology refuses arrays that do not fit together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fitdiff.models.topology import HeadTopology


@pytest.fixture
def topology() -> HeadTopology:
    return HeadTopology(
        triangles=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        corner_uv=np.zeros((2, 3, 2), np.float32),
        triangle_part=np.array([0, 6], np.uint8),
        blendshapes=np.zeros((2, 4, 3), np.float32),
        blendshape_names=("jawOpen", "eyeBlinkLeft"),
        face_block=(256, 184, 512),
    )


def test_counts_and_parts(topology: HeadTopology) -> None:
    assert topology.vertex_count == 4
    assert topology.triangles_of("skin").tolist() == [True, False]
    assert topology.triangles_of("skin", "lashes").tolist() == [True, True]
    with pytest.raises(ValueError):
        topology.triangles_of("hair")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"triangles": np.zeros((2, 3), np.int64)}, "triangles: got int64"),
        ({"triangles": np.array([[0, 1, 2], [0, 2, 4]], np.int32)}, "0..4; expected 0..3"),
        ({"corner_uv": np.zeros((2, 3), np.float32)}, "corner_uv"),
        ({"triangle_part": np.array([0, 7], np.uint8)}, "triangle_part: got 7"),
        ({"blendshapes": np.zeros((1, 4, 3), np.float32)}, "blendshapes"),
        ({"blendshape_names": ("jawOpen", "jawOpen")}, "twice"),
    ],
)
def test_misfits_are_named(topology: HeadTopology, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(topology, **change)
