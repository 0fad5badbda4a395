"""Lips meet at rest, on every face; the photo's expression, the rest of the head and open mouths stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from real_heads import SEEDS, part_vertices, posed, real_head

from fitdiff.exporter.anatomy.head_parts import vertices_of
from fitdiff.exporter.anatomy.lips import with_meeting_lips
from fitdiff.rendering.camera import camera_front
from fitdiff.rendering.renderer import HeadMapsTensor, HeadRenderer
from fitdiff.rendering.shader import Light
from fitdiff.runtime.avatar import Avatar


def rim_of(head: Avatar) -> np.ndarray:
    return np.intersect1d(vertices_of(head.topology, "skin"), vertices_of(head.topology, "mouth"))


def pixels_of_the_inside(head: Avatar, vertices: np.ndarray) -> int:
    """How much of teeth, tongue and the mouth's inside one sees from the front, in pixels of .1 mm or so."""
    topology = head.topology
    renderer = HeadRenderer(
        torch.from_numpy(topology.triangles),
        torch.from_numpy(topology.corner_uv),
        torch.from_numpy(topology.triangle_part.astype(np.int64)),
        topology.part_names,
    )
    middle = torch.from_numpy(head.vertices[rim_of(head)].mean(0))
    camera = camera_front(middle, 1.4, 14_000.0, (160, 560))
    light = Light(torch.ones(1, 3), torch.ones(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    maps = HeadMapsTensor(torch.ones(1, 3, 8, 8))
    part = renderer.render(torch.from_numpy(vertices)[None], maps, camera, light).part
    inside = [topology.part_names.index(name) for name in ("teeth", "tongue", "mouth")]
    return int(torch.isin(part, torch.tensor(inside)).sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_lips_meet_and_the_expression_stays(seed: int | None) -> None:
    plain = real_head(seed)
    closed = with_meeting_lips(plain)
    seen = [pixels_of_the_inside(plain, head.vertices) for head in (plain, closed)]
    assert seen[0] > 200 and seen[1] < 0.15 * seen[0]
    shown = [head.vertices + head.expression_offset for head in (plain, closed)]
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-6)
    moved = np.abs(closed.vertices - plain.vertices)
    assert moved[:, [0, 2]].max() == 0 and 0.0004 < moved[:, 1].max() < 0.003
    far = np.linalg.norm(plain.vertices[:, None] - plain.vertices[rim_of(plain)][None], axis=2).min(1) > 0.0101
    assert not moved[far].any() and not moved[part_vertices(plain, "teeth", "eye_left", "lashes")].any()
    assert np.abs(with_meeting_lips(closed).vertices - closed.vertices).max() < 3e-4  # next to nothing is left to do


def test_each_lip_goes_its_own_way() -> None:
    plain = real_head(None)
    change = with_meeting_lips(plain).vertices - plain.vertices
    names = plain.topology.blendshape_names
    with_jaw = np.abs(plain.topology.blendshapes[names.index("jawOpen")][:, 1]) > 0.005
    near = np.linalg.norm(plain.vertices[:, None] - plain.vertices[rim_of(plain)][None], axis=2).min(1) < 0.004
    middle = near & (np.abs(plain.vertices[:, 0]) < 0.008)
    skin = np.isin(np.arange(len(change)), part_vertices(plain, "skin"))
    assert (change[middle & skin & with_jaw, 1] >= 0).all() and change[middle & skin & with_jaw, 1].max() > 2e-4
    assert (change[middle & skin & ~with_jaw, 1] <= 0).all() and change[middle & skin & ~with_jaw, 1].min() < -2e-4


def test_an_open_mouth_stays_open() -> None:
    plain = real_head(1)
    laughing = replace(plain, vertices=posed(plain, "jawOpen").astype(np.float32))
    assert with_meeting_lips(laughing) is laughing
