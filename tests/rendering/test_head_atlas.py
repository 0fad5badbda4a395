"""Face maps inside the whole head's textures."""

import pytest
import torch

from fitdiff.models.morphable import load_morphable
from fitdiff.rendering.camera import camera_front
from fitdiff.rendering.head_atlas import HeadAtlas, load_head_atlas
from fitdiff.rendering.renderer import HeadRenderer
from fitdiff.rendering.shader import Light, linear_from_srgb


@pytest.fixture(scope="module")
def atlas() -> HeadAtlas:
    return load_head_atlas(size=512)[0]


def face_of(color: tuple[float, float, float], size: int = 256) -> torch.Tensor:
    maps = torch.full((1, 9, size, size), 0.5)
    maps[:, :3] = torch.tensor(color).view(1, 3, 1, 1)
    maps[:, 3:6], maps[:, 8] = 0.35, 1.0
    return maps


def test_face_maps_are_kept_exactly_in_the_middle(atlas: HeadAtlas) -> None:
    maps = torch.rand(1, 9, 256, 256, generator=torch.Generator().manual_seed(0))
    head = atlas.compose(maps)
    x, y, _ = (value // 2 for value in atlas.config.face_block)
    middle = slice(y + 100, y + 150), slice(x + 100, x + 150)
    expected = linear_from_srgb(maps[:, :3, 100:150, 100:150])
    assert torch.allclose(head.albedo[:, :, *middle], expected, atol=1e-6)


def test_tone_goes_on_beyond_the_face(atlas: HeadAtlas) -> None:
    dark, light = (atlas.compose(face_of(c)).albedo for c in ((0.35, 0.24, 0.18), (0.85, 0.70, 0.60)))
    x, y, width, height = (value // 2 for value in atlas.config.neck_rect)
    neck = slice(y + height // 3, y + 2 * height // 3), slice(x + width // 3, x + 2 * width // 3)
    expected = linear_from_srgb(torch.tensor([0.35, 0.24, 0.18])) / linear_from_srgb(torch.tensor([0.85, 0.70, 0.60]))
    skin = atlas.skin[0, 0][neck] == 1
    ratio = dark[0, :, *neck][:, skin].mean(1) / light[0, :, *neck][:, skin].mean(1)
    assert torch.allclose(ratio, expected, rtol=0.01)
    x, y, width, height = (value // 2 for value in atlas.config.eye_rect)
    eye = slice(y, y + height), slice(x, x + width)
    assert torch.equal(dark[..., *eye], light[..., *eye])  # eyes are no skin


def test_the_neck_has_the_colour_of_forehead_and_cheeks(atlas: HeadAtlas) -> None:
    """And not that of the chart's border, where faces may be paler."""
    maps = face_of((0.5, 0.36, 0.28))
    bordered = maps.clone()
    bordered[:, :3, :, :40] = bordered[:, :3, :, -40:] = bordered[:, :3, :40] = bordered[:, :3, -60:] = 0.8
    x, y, width, height = (value // 2 for value in atlas.config.neck_rect)
    necks = [atlas.compose(m).albedo[..., y : y + height, x : x + width] for m in (maps, bordered)]
    assert torch.allclose(*necks)
    maps.requires_grad_()
    atlas.compose(maps).albedo[..., y : y + height, x : x + width].sum().backward()
    assert maps.grad is None or not maps.grad.any()  # a neck that a photo shows must not colour the forehead


def test_no_seam_at_the_block(atlas: HeadAtlas) -> None:
    """Across the block's edge the albedo steps no more than the neutral skin itself does."""
    x, y, side = (value // 2 for value in atlas.config.face_block)
    albedo = atlas.compose(face_of((0.6, 0.45, 0.38))).albedo[0].mean(0)
    rows = slice(y + 20, y + side // 2)
    for column in (x, x + side):
        step = (albedo[rows, column] - albedo[rows, column - 1]).abs().mean()
        usual = (albedo[rows, column - 8 : column + 8].diff(dim=1)).abs().mean()
        assert float(step) < 2 * float(usual) + 2e-3


@pytest.mark.parametrize("mottled", [False, True])
def test_no_seam_between_head_and_neck(mottled: bool) -> None:
    """Both sides of the texture seam round the neck have one colour, also when the face is darker on one side."""
    model, _ = load_morphable()
    atlas, _ = load_head_atlas()
    maps = face_of((0.75, 0.58, 0.5), 512)
    if mottled:
        maps[:, :3, :, :256] *= 0.8
    albedo = atlas.compose(maps).albedo
    skin = model.triangle_part == model.config.part_names.index("skin")
    triangles, uv = model.triangles[skin], model.corner_uv[skin]
    x, y, width, height = atlas.config.neck_rect
    low, high = torch.tensor([x, y]) / 1024, torch.tensor([x + width, y + height]) / 1024
    in_neck = ((uv > low) & (uv < high)).all(2).all(1)
    sides = []
    for chosen in (in_neck, ~in_neck):
        grid = uv[chosen].flatten(0, 1)[None, None] * 2 - 1
        colors = torch.nn.functional.grid_sample(albedo, grid, align_corners=False)[0, :, 0].T
        sides.append(dict(zip(triangles[chosen].flatten().tolist(), colors.log(), strict=True)))
    shared = sorted(sides[0].keys() & sides[1].keys())
    assert len(shared) > 20
    difference = torch.stack([sides[0][v] - sides[1][v] for v in shared]).abs()
    assert float(difference.mean()) < 0.035


def test_a_mark_on_the_characters_left_cheek_shows_on_the_images_right(atlas: HeadAtlas) -> None:
    model, _ = load_morphable()
    maps = face_of((0.5, 0.5, 0.5))
    maps[:, :3, 120:150, 170:190] = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)  # right of the chart
    renderer = HeadRenderer(model.triangles, model.corner_uv, model.triangle_part, model.config.part_names)
    camera = camera_front(torch.tensor([0.0, 0.0, 0.05]), 1.2, 900.0, 224)
    light = Light(torch.full((1, 3), 1.0), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    color = renderer.render(model.mean[None], atlas.compose(maps), camera, light).color[0]
    red = color[0] - color[1] > 0.3
    rows, columns = red.nonzero().unbind(1)
    assert len(columns) > 20
    assert columns.float().mean() > 125  # the image's middle is 112
    assert 90 < rows.float().mean() < 190


def test_another_size_is_refused(atlas: HeadAtlas) -> None:
    with pytest.raises(ValueError, match="256, 256"):
        atlas.compose(torch.zeros(1, 9, 512, 512))
