"""The renderer: directions by asymmetric markers, gradients by finite differences, batches, lashes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fitdiff.rendering.camera import Camera, camera_front
from fitdiff.rendering.rasteriser import TorchRasteriser
from fitdiff.rendering.renderer import HeadMapsTensor, HeadRenderer, Rendering
from fitdiff.rendering.shader import Light, light_from_latent

from .conftest import PARTS, Mesh

T = 32


def renderer_of(mesh: Mesh, **options: bool) -> HeadRenderer:
    return HeadRenderer(mesh.triangles, mesh.corner_uv, mesh.part, PARTS, rasteriser=TorchRasteriser(), **options)


def grey_maps(level: float = 0.5) -> HeadMapsTensor:
    return HeadMapsTensor(torch.full((1, 3, T, T), level))


def light_from(*direction: float, ambient: float = 0.0) -> Light:
    unit = torch.nn.functional.normalize(torch.tensor([direction], dtype=torch.float32), dim=1)
    return Light(torch.full((1, 3), ambient), torch.ones(1, 3), unit)


def front(size: int = 48) -> Camera:
    return camera_front(torch.zeros(3), 0.5, size * 2.0, size)


def halves(image: Tensor) -> tuple[float, float, float, float]:
    """Mean of the left, right, top and bottom half of (H, W)."""
    height, width = image.shape
    left, right = image[:, : width // 2].mean(), image[:, width // 2 :].mean()
    return float(left), float(right), float(image[: height // 2].mean()), float(image[height // 2 :].mean())


def test_texture_is_upright_and_unmirrored(plane: Mesh) -> None:
    """Red on +X, the character's left, is at image right; green at the top of the texture is at image top."""
    albedo = torch.full((1, 3, T, T), 0.1)
    albedo[:, 0, :, T // 2 :] = 1.0
    albedo[:, 1, : T // 2] = 1.0
    image = renderer_of(plane).render(plane.vertices, HeadMapsTensor(albedo), front(), light_from(0, 0, 1))
    left, right, _, _ = halves(image.color[0, 0])
    _, _, top, bottom = halves(image.color[0, 1])
    assert right > 2 * left and top > 2 * bottom


@pytest.mark.parametrize("yaw", [0.4, -0.4])
def test_left_profile_is_seen_from_positive_yaw(sheet: Mesh, yaw: float) -> None:
    """The camera at +X sees more of the +X side, here red."""
    albedo = torch.zeros(1, 3, T, T)
    albedo[:, 0, :, T // 2 :] = 1.0
    albedo[:, 2, :, : T // 2] = 1.0
    camera = camera_front(torch.zeros(3), 0.5, 96.0, 48, yaw=yaw)
    light = replace(light_from(0, 0, 1), ambient=torch.ones(1, 3), directional=torch.zeros(1, 3))
    color = renderer_of(sheet).render(sheet.vertices, HeadMapsTensor(albedo), camera, light).color
    assert bool(color[:, 0].sum() > color[:, 2].sum()) == (yaw > 0)


@pytest.mark.parametrize(
    ("direction", "bright"), [((1, 0, 0.5), 1), ((-1, 0, 0.5), 0), ((0, 1, 0.5), 2), ((0, -1, 0.5), 3)]
)
def test_light_shines_from_where_it_points(sheet: Mesh, direction: tuple[float, ...], bright: int) -> None:
    """A bulge lit from the right (+x) is bright on its right, from above (+y) on its top."""
    image = renderer_of(sheet).render(sheet.vertices, grey_maps(), front(), light_from(*direction))
    sides = halves(image.color[0, 0])
    assert max(range(4), key=lambda side: sides[side]) == bright


def test_light_turns_with_the_camera(sheet: Mesh) -> None:
    """Direction is in the view frame: a head-on light lights a turned plane less."""
    straight, turned = (
        renderer_of(sheet).render(
            sheet.vertices * torch.tensor([1.0, 1.0, 0.0]),
            grey_maps(),
            camera_front(torch.zeros(3), 0.5, 96.0, 48, yaw=yaw),
            light_from(0, 0, 1),
        )
        for yaw in (0.0, 1.0)
    )
    assert float(straight.color.max()) == pytest.approx(0.5, abs=1e-4)
    assert float(turned.color.max()) == pytest.approx(0.5 * torch.tensor(1.0).cos().item(), abs=1e-4)


def bump_normals(green: float) -> Tensor:
    """Normal map of a hemispherical bump in the middle of the chart; green = +1 is the right convention."""
    span = (torch.arange(T) + 0.5) / T * 2 - 1
    down, right = torch.meshgrid(span, span, indexing="ij")
    inside = (right**2 + down**2) < 0.5
    x, y = torch.where(inside, right, 0.0), torch.where(inside, -down, 0.0)
    return torch.stack([x, green * y, (1 - x**2 - y**2).clamp_min(0).sqrt()])[None]


def test_bump_is_lit_on_the_side_of_the_light(plane: Mesh) -> None:
    maps = replace(grey_maps(), normal=bump_normals(1.0))
    renderer = renderer_of(plane)
    _, _, top, bottom = halves(renderer.render(plane.vertices, maps, front(), light_from(0, 1, 1)).color[0, 0])
    assert top > 1.2 * bottom
    left, right, _, _ = halves(renderer.render(plane.vertices, maps, front(), light_from(1, 0, 1)).color[0, 0])
    assert right > 1.2 * left
    flipped = replace(maps, normal=bump_normals(-1.0))
    _, _, top, bottom = halves(renderer.render(plane.vertices, flipped, front(), light_from(0, 1, 1)).color[0, 0])
    assert bottom > 1.2 * top


def test_shading_normal_is_in_the_view_frame(plane: Mesh) -> None:
    turned = camera_front(torch.zeros(3), 0.5, 96.0, 48, yaw=0.5)
    image = renderer_of(plane).render(plane.vertices, grey_maps(), turned, light_from(0, 0, 1))
    seen = image.normal[0][:, image.alpha[0, 0] > 0]
    expected = torch.tensor([-0.5, 0.0, 0.5]).sin() + torch.tensor([0.0, 0.0, torch.tensor(0.5).cos() - 0.4794255])
    torch.testing.assert_close(seen.mean(1), expected, atol=1e-5, rtol=0)


def full_maps(generator: torch.Generator) -> HeadMapsTensor:
    def noise(channels: int, low: float, high: float) -> Tensor:
        coarse = torch.rand(1, channels, 5, 5, generator=generator, dtype=torch.float64) * (high - low) + low
        return torch.nn.functional.interpolate(coarse, size=(T, T), mode="bicubic").clamp(low, high)

    normal = torch.cat([noise(2, -0.4, 0.4), noise(1, 0.9, 1.0)], 1)
    return HeadMapsTensor(noise(3, 0.1, 0.9), noise(1, 0.02, 0.06), normal, noise(1, 0.4, 0.7))


def finite_difference(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor, eps: float) -> float:
    with torch.no_grad():
        return float(function(at + eps * direction) - function(at - eps * direction)) / (2 * eps)


def interior(image: Rendering, margin: int) -> Tensor:
    """(1, 1, H, W) 1 well inside the silhouette."""
    empty = 1 - image.alpha
    return 1 - torch.nn.functional.max_pool2d(empty, 2 * margin + 1, stride=1, padding=margin)


@pytest.mark.parametrize("what", ["vertices", "albedo", "specular", "normal", "roughness", "light", "camera"])
def test_gradient_agrees_with_finite_differences(sheet: Mesh, what: str) -> None:
    """Directional derivative of a weighted sum over interior pixels, float64, relative tolerance 1e-4."""
    generator = torch.Generator().manual_seed(4)
    renderer = renderer_of(sheet).double()
    maps = full_maps(generator)
    camera = camera_front(torch.zeros(3, dtype=torch.float64), 0.4, 120.0, 64, yaw=0.2)
    latent = torch.tensor([[-1.5, -1.4, -1.3, 0.1, 0.2, 0.0, 0.4, 0.3, 1.0]], dtype=torch.float64)
    vertices = sheet.vertices.double()
    inputs: dict[str, Tensor] = {"vertices": vertices, "light": latent, "camera": camera.translation}
    for name in ("albedo", "specular", "normal", "roughness"):
        inputs[name] = getattr(maps, name)
    weight = torch.rand(1, 3, 64, 64, generator=generator, dtype=torch.float64)
    weight = weight * interior(renderer.render(vertices, maps, camera, light_from_latent(latent)), 5)
    assert weight.count_nonzero() > 1000

    def objective(value: Tensor) -> Tensor:
        given = {**inputs, what: value}
        own_maps = HeadMapsTensor(given["albedo"], given["specular"], given["normal"], given["roughness"])
        own_camera = replace(camera, translation=given["camera"])
        light = light_from_latent(given["light"])
        return (renderer.render(given["vertices"], own_maps, own_camera, light).color * weight).sum()

    at = inputs[what].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(at), at)
    direction = torch.randn(at.shape, generator=generator, dtype=torch.float64)
    eps = 1e-7 if what in ("vertices", "camera") else 1e-5  # metres: so small that no pixel changes its triangle
    analytic = float((gradient * direction).sum())
    numeric = finite_difference(objective, at.detach(), direction, eps)
    print(f"{what}: analytic {analytic:.6g}, numeric {numeric:.6g}, difference {abs(analytic - numeric):.2e}")
    assert numeric == pytest.approx(analytic, rel=1e-4)


def test_batch_equals_single(sheet: Mesh) -> None:
    generator = torch.Generator().manual_seed(5)
    renderer = renderer_of(sheet).double()
    vertices = sheet.vertices.double() + 0.002 * torch.randn(
        3, *sheet.vertices.shape[1:], generator=generator, dtype=torch.float64
    )
    singles = [full_maps(generator) for _ in range(3)]
    names = ("albedo", "specular", "normal", "roughness")
    maps = HeadMapsTensor(**{name: torch.cat([getattr(one, name) for one in singles]) for name in names})
    center = torch.tensor([[0.0, 0.0, 0.0], [0.02, 0.0, 0.0], [0.0, 0.03, 0.0]], dtype=torch.float64)
    camera = camera_front(center, 0.45, 80.0, (40, 48), yaw=0.3)
    light = light_from_latent(torch.randn(3, 9, generator=generator, dtype=torch.float64))
    together = renderer.render(vertices, maps, camera, light)
    for i in range(3):
        own_camera = camera_front(center[i], 0.45, 80.0, (40, 48), yaw=0.3)
        own_light = Light(light.ambient[i : i + 1], light.directional[i : i + 1], light.direction[i : i + 1])
        one = renderer.render(vertices[i : i + 1], singles[i], own_camera, own_light)
        assert torch.equal(one.triangle[0], together.triangle[i])
        torch.testing.assert_close(one.color[0], together.color[i], atol=1e-9, rtol=0)
        torch.testing.assert_close(one.normal[0], together.normal[i], atol=1e-9, rtol=0)
    shared = renderer.render(vertices, singles[0], camera, light)
    assert shared.color.shape == (3, 3, 40, 48)
    with pytest.raises(ValueError, match="batch: got sizes"):
        renderer.render(vertices[:2], maps, camera, light)


def test_gradients_of_a_batch_are_those_of_each_image(sheet: Mesh) -> None:
    """Of vertices, maps and light: nothing of one image's loss reaches another image's inputs."""
    generator = torch.Generator().manual_seed(6)
    renderer = renderer_of(sheet).double()
    singles = [full_maps(generator) for _ in range(3)]
    names = ("albedo", "specular", "normal", "roughness")
    inputs = {name: torch.cat([getattr(one, name) for one in singles]) for name in names}
    inputs["vertices"] = sheet.vertices.double().repeat(3, 1, 1)
    inputs["vertices"] += 0.002 * torch.randn(inputs["vertices"].shape, generator=generator, dtype=torch.float64)
    inputs["light"] = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    center = torch.tensor([[0.0, 0.0, 0.0], [0.02, 0.0, 0.0], [0.0, 0.03, 0.0]], dtype=torch.float64)
    weight = torch.rand(3, 3, 40, 48, generator=generator, dtype=torch.float64)

    def gradients(rows: slice) -> dict[str, Tensor]:
        given = {name: value[rows].clone().requires_grad_() for name, value in inputs.items()}
        maps = HeadMapsTensor(**{name: given[name] for name in names})
        camera = camera_front(center[rows], 0.45, 80.0, (40, 48), yaw=0.3)
        color = renderer.render(given["vertices"], maps, camera, light_from_latent(given["light"])).color
        found = torch.autograd.grad((color * weight[rows]).sum(), list(given.values()))
        return dict(zip(given, found, strict=True))

    together = gradients(slice(0, 3))
    for row in range(3):
        for name, alone in gradients(slice(row, row + 1)).items():
            assert alone.any()
            torch.testing.assert_close(together[name][row], alone[0], atol=1e-9, rtol=1e-9, msg=name)


def with_lash(plane: Mesh) -> Mesh:
    """The plane with one larger lash quad 1 cm before it, showing its back, and one behind it."""
    start = plane.vertices.shape[1]
    quad = torch.tensor([[-0.05, 0.05, 0.01], [0.05, 0.05, 0.01], [-0.05, -0.05, 0.01], [0.05, -0.05, 0.01]])
    vertices = torch.cat([plane.vertices[0], quad, quad * torch.tensor([1.0, 1.0, -1.0])])[None]
    triangles = torch.tensor([[0, 1, 2], [1, 3, 2]]) + start
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    corner_uv = uv[triangles - start]
    return Mesh(
        vertices,
        torch.cat([plane.triangles, triangles, triangles + 4]),
        torch.cat([plane.corner_uv, corner_uv, corner_uv]),
        torch.cat([plane.part, torch.ones(4, dtype=torch.long)]),
    )


def test_lashes_are_drawn_on_demand_where_alpha_passes(plane: Mesh) -> None:
    mesh = with_lash(plane)
    alpha = torch.zeros(1, 1, T, T)
    alpha[..., : T // 2] = 1.0  # the image-left half of the lash
    maps = replace(grey_maps(), alpha=alpha)
    renderer = renderer_of(mesh)
    without = renderer.render(mesh.vertices, maps, front(), light_from(0, 0, 1))
    assert set(without.part.unique().tolist()) == {-1, 0}
    image = renderer.render(mesh.vertices, maps, front(), light_from(0, 0, 1), lashes=True)
    lash = image.part[0] == 1
    left, right, _, _ = halves(lash.float())
    assert left > 0.05 and right == 0
    assert torch.equal(image.alpha, without.alpha)
    assert image.triangle[0][lash].max() < len(plane.triangles) + 2  # the quad behind the plane stays hidden
    lit = image.color[0, 0][lash]
    torch.testing.assert_close(lit, torch.full_like(lit, 0.5))  # its back is lit as a front


def test_back_faces_are_culled_on_demand(plane: Mesh) -> None:
    behind = camera_front(torch.zeros(3), 0.5, 96.0, 48, yaw=torch.pi)
    culled = renderer_of(plane).render(plane.vertices, grey_maps(), behind, light_from(0, 0, 1))
    assert not culled.alpha.any() and not culled.color.any()
    shown = renderer_of(plane, cull=False).render(plane.vertices, grey_maps(), behind, light_from(0, 0, 1))
    assert float(shown.color.max()) == pytest.approx(0.5, abs=1e-4)


def test_reduced_maps_average(sheet: Mesh) -> None:
    maps = HeadMapsTensor(torch.rand(1, 3, T, T), alpha=torch.rand(1, 1, T, T))
    half = maps.reduced(2)
    assert half.albedo.shape == (1, 3, T // 2, T // 2) and half.normal is None
    torch.testing.assert_close(half.albedo[0, 0, 0, 0], maps.albedo[0, 0, :2, :2].mean())


def test_maps_errors() -> None:
    albedo = torch.zeros(1, 3, T, T)
    with pytest.raises(ValueError, match="one of specular and roughness"):
        HeadMapsTensor(albedo, specular=torch.zeros(1, 1, T, T))
    with pytest.raises(ValueError, match=r"head map normal: got \(3, 32, 32\)"):
        HeadMapsTensor(albedo, normal=torch.zeros(3, T, T))
