"""What is lost where an importer ignores KHR_materials_specular, and how much of it the baked textures give back."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np
import pytest
import torch

from fitdiff.exporter.textures.head_textures import head_textures
from fitdiff.exporter.textures.specular_bake import F0_MAX, PLAIN_F0, baked_color, baked_roughness
from fitdiff.rendering.camera import camera_front
from fitdiff.rendering.renderer import HeadMapsTensor, HeadRenderer
from fitdiff.rendering.shader import Light, linear_from_srgb, srgb_from_linear

LIGHTS = ((0.55, 0.5, 0.67), (-0.9, 0.3, 0.3), (0.0, 0.0, 1.0))
PLAIN = round(PLAIN_F0 / F0_MAX * 255)  # 127.5


def test_plain_specular_changes_nothing_much() -> None:
    specular = np.full((4, 64), PLAIN, np.uint8)
    values = np.arange(256, dtype=np.uint8).reshape(4, 64)
    assert np.abs(baked_roughness(values, specular).astype(int) - values).max() <= 1
    color = np.repeat(values[..., None], 4, 2)
    assert np.abs(baked_color(color, specular).astype(int) - color).max() <= 1


def test_less_reflective_is_rougher_and_darker() -> None:
    low, high = np.full((1, 1), 60, np.uint8), np.full((1, 1), 220, np.uint8)
    roughness, color = np.full((1, 1), 120, np.uint8), np.full((1, 1, 4), 120, np.uint8)
    assert baked_roughness(roughness, low)[0, 0] > 120 > baked_roughness(roughness, high)[0, 0]
    dark, bright = baked_color(color, low), baked_color(color, high)
    assert (dark[..., :3] < 120).all() and (bright[..., :3] > 120).all()
    assert dark[0, 0, 3] == 120 == bright[0, 0, 3]


def test_peak_of_the_highlight_is_kept() -> None:
    """GGX at its peak: F0 / (pi roughness^4)."""
    for value in (60, 100, 160, 220):
        f0 = value / 255 * F0_MAX
        baked = baked_roughness(np.full((1, 1), 110, np.uint8), np.full((1, 1), value, np.uint8))[0, 0]
        peak = PLAIN_F0 / (baked / 255) ** 4 / (f0 / (110 / 255) ** 4)
        assert peak == pytest.approx(1, abs=0.03)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1))).float()[None] / 255


def test_rendered_difference(importers: ModuleType) -> None:
    """The whole head in three views and lights, differences in 255 levels."""
    avatar = importers.average_head()
    topology, textures = avatar.topology, head_textures(avatar, 512)
    renderer = HeadRenderer(
        torch.from_numpy(topology.triangles),
        torch.from_numpy(topology.corner_uv),
        torch.from_numpy(topology.triangle_part),
        topology.part_names,
    )
    true = HeadMapsTensor(
        linear_from_srgb(tensor(textures.base_color[..., :3])),
        tensor(textures.specular) * F0_MAX,
        tensor(textures.normal) * 2 - 1,
        tensor(textures.roughness),
    )
    plain = torch.full_like(tensor(textures.specular), PLAIN_F0)
    ignored = dataclasses.replace(true, specular=plain)
    baked = dataclasses.replace(
        ignored,
        albedo=linear_from_srgb(tensor(baked_color(textures.base_color, textures.specular)[..., :3])),
        roughness=tensor(baked_roughness(textures.roughness, textures.specular)),
    )
    vertices = torch.from_numpy(avatar.vertices)[None]
    middle = (vertices[0].amin(0) + vertices[0].amax(0)) / 2

    def pictures(maps: HeadMapsTensor) -> torch.Tensor:
        found = []
        for yaw in (-0.8, 0.0, 0.6):
            camera = camera_front(middle, 1.2, 900.0, (250, 210), yaw=yaw)
            for direction in torch.tensor(LIGHTS).split(1):
                light = Light(torch.full((1, 3), 0.3), torch.ones(1, 3), direction / direction.norm())
                seen = renderer.render(vertices, maps, camera, light)
                color = srgb_from_linear(seen.color).clamp(0, 1) * 255
                found.append(color.permute(0, 2, 3, 1)[seen.alpha[:, 0] > 0])
        return torch.cat(found)

    expected = pictures(true)
    rows = {}
    for name, maps in (("ignored", ignored), ("baked", baked)):
        difference = (pictures(maps) - expected).abs().mean(1)
        rows[name] = (float(difference.mean()), float(difference.quantile(0.99)))
        print(f"{name}: mean {rows[name][0]:.3f}, 99th percentile {rows[name][1]:.2f} of 255")
    assert rows["baked"][0] < 0.6 * rows["ignored"][0]
    assert rows["baked"][1] < 0.6 * rows["ignored"][1]
