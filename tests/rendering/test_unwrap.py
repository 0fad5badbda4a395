"""Texels are looked up where the renderer draws them, and their normals are those that it shades with."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from fitdiff.assets.atlas_layout import FACE_BLOCK
from fitdiff.evaluation.map_distance import SIDE, reduced_weight
from fitdiff.rendering.camera import camera_front
from fitdiff.rendering.renderer import HeadMapsTensor
from fitdiff.rendering.shader import Light
from fitdiff.rendering.unwrap import chart_in_photo
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.training.skins import face_weight


@torch.no_grad()
def test_texels_are_found_where_the_renderer_draws_them(small_pipeline: FitDiffPipeline) -> None:
    """Draw a pattern on the head, look each texel up in the picture: it is the pattern where it says visible."""
    model, renderer = small_pipeline.morphable, small_pipeline.renderer
    vertices, size = model.mean[None], 1024
    x, y, side = small_pipeline.atlas.config.face_block
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pattern = torch.stack([columns / side, rows / side, 0.5 + 0.5 * torch.sin(columns / 40) * torch.cos(rows / 30)])
    texture = torch.zeros(1, 3, size, size)
    texture[..., y : y + side, x : x + side] = pattern
    light = Light(torch.ones(1, 3), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 1.0, 900.0, 224, yaw=0.5, pitch=0.1)
    picture = renderer.render(vertices, HeadMapsTensor(texture), camera, light).color[0].permute(1, 2, 0).numpy()
    place = chart_in_photo(renderer, vertices, camera, FACE_BLOCK, SIDE)
    wanted = cv2.resize(pattern.permute(1, 2, 0).numpy(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    on_face = place.visible & (reduced_weight(face_weight(model)) > 0.5)
    error = np.abs(place.sampled(picture) - wanted).max(-1)[on_face]
    print(f"median {np.median(error):.4f}, 95th percentile {np.quantile(error, 0.95):.4f}, {on_face.sum()} texels")
    assert on_face.sum() > 5000
    assert np.median(error) < 0.01 and np.quantile(error, 0.95) < 0.05
    half = SIDE // 2  # the camera sees the character's left cheek, which is on the chart's right
    assert place.visible[:, half:].sum() > 1.3 * place.visible[:, :half].sum()
    shifted = place.sampled(np.pad(picture, ((10, 0), (20, 0), (0, 0))), np.array([[1.0, 0, 20], [0, 1, 10]]))
    np.testing.assert_allclose(shifted[on_face], place.sampled(picture)[on_face], atol=1e-4)


@torch.no_grad()
def test_normals_are_those_of_the_picture(small_pipeline: FitDiffPipeline) -> None:
    """The character's left cheek looks to the picture's right: x of its normal is positive."""
    model, renderer = small_pipeline.morphable, small_pipeline.renderer
    vertices, light = model.mean[None], Light(torch.ones(1, 3), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 1.0, 900.0, 224, yaw=0.3, pitch=0.1)
    drawn = renderer.render(vertices, HeadMapsTensor(torch.ones(1, 3, 64, 64)), camera, light).normal[0]
    place = chart_in_photo(renderer, vertices, camera, FACE_BLOCK, SIDE)
    on_face = place.visible & (reduced_weight(face_weight(model)) > 0.5)
    found = place.sampled(drawn.permute(1, 2, 0).numpy())
    cosine = (found * place.normal).sum(-1)[on_face]
    assert np.quantile(cosine, 0.05) > 0.97
    np.testing.assert_allclose(np.linalg.norm(place.normal[on_face], axis=-1), 1, atol=1e-4)
    straight = chart_in_photo(renderer, vertices, camera_front(torch.tensor([0.0, 0.0, 0.05]), 1.0, 900.0, 224),
                              FACE_BLOCK, SIDE)  # fmt: skip
    left = model.landmarks_on_chart()[425] * (SIDE / FACE_BLOCK[2])  # the character's left cheek
    column, row = (int(v) for v in left)
    assert column > SIDE / 2 and straight.normal[row, column, 0] > 0.2
    assert straight.normal[row, SIDE - 1 - column, 0] < -0.2
