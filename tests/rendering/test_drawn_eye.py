"""The eye as photos show it."""

import torch

from fitdiff.rendering.drawn_eye import drawn_eye
from fitdiff.rendering.head_atlas import load_head_atlas

BLUE = torch.tensor([0.05, 0.12, 0.30])


def test_pupil_iris_and_white_lie_round_the_middle() -> None:
    eye, iris = drawn_eye(256, 1024)
    colour = (eye + iris * BLUE.view(1, 3, 1, 1))[0]
    pupil, ring, white = colour[:, 128, 128], colour[:, 128, 128 + 30], colour[:, 128, 128 + 52]
    assert pupil.max() < 0.02
    assert ring[2] > 1.5 * ring[1] > 1.5 * ring[0] > 0
    assert white.min() > 0.2 and white.max() < 0.4  # dimmer than a sclera: it lies between lids
    for flipped in (eye.flip(2), eye.flip(3), eye.transpose(2, 3)):
        assert torch.allclose(flipped, eye, atol=1e-5)


def test_half_the_atlas_shows_the_same_eye() -> None:
    large = torch.nn.functional.avg_pool2d(drawn_eye(256, 1024)[1], 2)
    small = drawn_eye(128, 512)[1]
    assert (large - small).abs().mean() < 0.03 and abs(float(large.mean() - small.mean())) < 2e-3


def test_an_atlas_wears_everybodys_own_irises() -> None:
    atlas = load_head_atlas(size=512)[0]
    face = atlas.neutral_face().expand(2, -1, -1, -1)
    irises = torch.stack([BLUE, BLUE.flip(0)])
    head, plain = atlas.compose(face, irises), atlas.compose(face)
    x, y, width, height = (value // 2 for value in atlas.config.eye_rect)
    eyes = head.albedo[..., y : y + height, x : x + width]
    ring = eyes[..., height // 2, width // 2 + 15]
    assert ring[0, 2] > 2 * ring[0, 0] and torch.allclose(ring[0], ring[1].flip(0), atol=0.02)
    outside = torch.ones(512, 512, dtype=torch.bool)
    outside[y : y + height, x : x + width] = False
    assert torch.equal(head.albedo[..., outside], plain.albedo[..., outside])
    assert torch.equal(head.roughness, plain.roughness)
