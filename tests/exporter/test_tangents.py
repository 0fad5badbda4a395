"""Normals and tangents against shapes whose frames are known."""

from __future__ import annotations

import numpy as np
import pytest

from fitdiff.exporter.tangents import triangle_handedness, vertex_normals, vertex_tangents

SQUARE = np.array([[-1, 1, 0], [1, 1, 0], [-1, -1, 0], [1, -1, 0]], np.float32)
TRIANGLES = np.array([[0, 2, 3], [0, 3, 1]])
UPRIGHT = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)  # v down: the top edge has v = 0


@pytest.mark.parametrize(
    ("uv", "tangent", "w"),
    [
        (UPRIGHT, [1, 0, 0], 1),
        (UPRIGHT * [-1, 1] + [1, 0], [-1, 0, 0], -1),
        (UPRIGHT[:, ::-1], [0, -1, 0], -1),
    ],
)
def test_tangent_points_along_u_and_bitangent_up_in_the_image(uv: np.ndarray, tangent: list[int], w: int) -> None:
    normals = vertex_normals(SQUARE, TRIANGLES)
    np.testing.assert_allclose(normals, np.tile([0, 0, 1], (4, 1)))
    assert triangle_handedness(uv[TRIANGLES]).tolist() == [w, w]
    tangents = vertex_tangents(SQUARE, normals, uv, np.full(4, w), TRIANGLES)
    np.testing.assert_allclose(tangents, np.tile([*tangent, w], (4, 1)), atol=1e-12)
    bitangent = w * np.cross(normals, tangents[:, :3])[0]
    up_in_image = -np.linalg.lstsq(uv - uv.mean(0), SQUARE, rcond=None)[0][1]  # -dP/dv
    np.testing.assert_allclose(bitangent, up_in_image / np.linalg.norm(up_in_image), atol=1e-6)


def test_chart_without_area_still_gives_an_orthonormal_frame() -> None:
    normals = vertex_normals(SQUARE, TRIANGLES)
    uv = np.zeros((4, 2), np.float32)
    assert triangle_handedness(uv[TRIANGLES]).tolist() == [1, 1]
    tangents = vertex_tangents(SQUARE, normals, uv, np.ones(4), TRIANGLES)
    np.testing.assert_allclose(np.linalg.norm(tangents[:, :3], axis=1), 1)
    np.testing.assert_allclose((tangents[:, :3] * normals).sum(1), 0, atol=1e-12)


def test_triangle_without_area_leaves_its_neighbours_alone() -> None:
    vertices = np.concatenate([SQUARE, SQUARE[3:]])
    with_sliver = np.concatenate([TRIANGLES, [[1, 3, 4]]])
    np.testing.assert_allclose(vertex_normals(vertices, with_sliver), np.tile([0, 0, 1], (5, 1)))


def test_tangents_weigh_corners_by_angle() -> None:
    """Two charts that disagree meet at vertex 0, with 90 and 45 degrees: the wider corner counts twice."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 1, 0]], np.float64)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    normals = vertex_normals(vertices, triangles)
    uv = np.array([[0, 0], [1, 0], [0, -1], [0.5, -1.5]])  # the second triangle is sheared
    tangents = vertex_tangents(vertices, normals, uv, np.ones(4), triangles)
    # The first triangle has +X along u; in the second P2 = -dP/dv and P3 = dP/du / 2 - 3/2 dP/dv.
    second = 2 * (vertices[3] - 1.5 * vertices[2])
    expected = np.pi / 2 * np.array([1, 0, 0]) + np.pi / 4 * second / np.linalg.norm(second)
    np.testing.assert_allclose(tangents[0, :3], expected / np.linalg.norm(expected), atol=1e-9)


def test_large_triangles_weigh_more_in_normals() -> None:
    vertices = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 0]], np.float64)
    triangles = np.array([[0, 1, 2], [0, 3, 1]])  # areas 1/2 facing +X, 3/2 facing +Z
    normal = vertex_normals(vertices, triangles)[0]
    np.testing.assert_allclose(normal, np.array([1, 0, 3]) / np.sqrt(10), atol=1e-12)
