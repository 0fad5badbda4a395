"""Normals and tangents: analytic surfaces, the glTF frame, seams and mirrored charts."""

import torch
from torch import Tensor

from fitdiff.rendering.geometry import bent_normals, tangent_layout, vertex_normals, vertex_tangents


def test_sheet_frame_is_gltf(plane) -> None:
    """A chart that lies on a plane as seen: tangent +X, normal +Z, bitangent +Y, w = +1."""
    vertices = plane.vertices.permute(2, 0, 1)
    layout = tangent_layout(plane.triangles, plane.corner_uv)
    normal = vertex_normals(vertices, plane.triangles)
    tangent = vertex_tangents(vertices, plane.triangles, layout)
    assert (layout.sign == 1).all()
    assert layout.count == plane.vertices.shape[1]
    torch.testing.assert_close(normal, torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand_as(normal))
    torch.testing.assert_close(tangent, torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand_as(tangent))
    texel = torch.tensor([[0.6], [0.0], [0.8]]), torch.tensor([[0.0], [0.6], [0.8]])
    right, up = (bent_normals(normal[:, 0, :1], tangent[:, 0, :1], layout.sign[:1], t) for t in texel)
    torch.testing.assert_close(right, torch.tensor([[0.6], [0.0], [0.8]]))
    torch.testing.assert_close(up, torch.tensor([[0.0], [0.6], [0.8]]))


def test_mirrored_chart_has_negative_sign_and_still_bends_up(plane) -> None:
    mirrored = plane.corner_uv * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    layout = tangent_layout(plane.triangles, mirrored)
    vertices = plane.vertices.permute(2, 0, 1)
    assert (layout.sign == -1).all()
    normal = vertex_normals(vertices, plane.triangles)[:, 0, :1]
    tangent = vertex_tangents(vertices, plane.triangles, layout)[:, 0, :1]
    torch.testing.assert_close(tangent, torch.tensor([[-1.0], [0.0], [0.0]]))
    bent = bent_normals(normal, tangent, layout.sign[:1], torch.tensor([[0.0], [0.6], [0.8]]))
    torch.testing.assert_close(bent, torch.tensor([[0.0], [0.6], [0.8]]))


def test_uv_seam_splits_tangents_but_not_normals(plane) -> None:
    """Half of the triangles turned by 90 degrees in the chart: vertices between hold two tangents."""
    turned = plane.corner_uv.clone()
    half = len(turned) // 2
    turned[half:] = turned[half:].flip(-1) * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])
    layout = tangent_layout(plane.triangles, turned)
    assert layout.count > plane.vertices.shape[1]
    tangent = vertex_tangents(plane.vertices.permute(2, 0, 1), plane.triangles, layout)
    torch.testing.assert_close(tangent.abs().amax(0), torch.ones_like(tangent[0]))  # each along an axis: no blend
    assert {tuple(column) for column in tangent[:, 0].T.round().abs().tolist()} == {(1, 0, 0), (0, 1, 0)}


def sphere(rings: int) -> tuple[Tensor, Tensor]:
    theta, phi = torch.meshgrid(
        torch.linspace(0.2, 2.9, rings), torch.arange(2 * rings) * torch.pi / rings, indexing="ij"
    )
    vertices = torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], -1).reshape(1, -1, 3)
    number = torch.arange(rings * 2 * rings).reshape(rings, -1)
    right = number.roll(-1, 1)
    a, b, c, d = number[:-1], right[:-1], number[1:], right[1:]
    triangles = torch.cat([torch.stack([a, c, b], -1).reshape(-1, 3), torch.stack([b, c, d], -1).reshape(-1, 3)])
    return vertices, triangles


def test_normals_of_a_sphere_point_out() -> None:
    vertices, triangles = sphere(40)
    normals = vertex_normals(vertices.permute(2, 0, 1), triangles).permute(1, 2, 0)
    inner = vertices[..., 1].abs() < 0.9  # the open rims are one-sided
    cosine = (normals * vertices).sum(-1)[inner]
    print(f"largest angle {cosine.clamp(-1, 1).acos().max():.4f} rad")
    assert cosine.min() > 0.999


def test_batch_equals_single(sheet) -> None:
    generator = torch.Generator().manual_seed(0)
    vertices = sheet.vertices + 0.002 * torch.randn(3, *sheet.vertices.shape[1:], generator=generator)
    columns = vertices.permute(2, 0, 1)
    layout = tangent_layout(sheet.triangles, sheet.corner_uv)
    for number in range(3):
        one = columns[:, number : number + 1]
        torch.testing.assert_close(
            vertex_normals(columns, sheet.triangles)[:, number : number + 1],
            vertex_normals(one, sheet.triangles),
        )
        torch.testing.assert_close(
            vertex_tangents(columns, sheet.triangles, layout)[:, number : number + 1],
            vertex_tangents(one, sheet.triangles, layout),
        )
