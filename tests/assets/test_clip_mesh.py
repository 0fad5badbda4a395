"""Cutting a mesh along a plane."""

import numpy as np

from fitdiff.assets.clip_mesh import clip_mesh


def test_cut_square_keeps_area_uv_and_linear_motion() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    cut = clip_mesh(triangles, vertices[triangles][..., :2].astype(np.float64), vertices[:, 0] - 0.25)
    new = cut.apply(vertices)
    corners = new[cut.triangles]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.isclose(cross[:, 2].sum() / 2, 0.75)  # all still face +Z, and three quarters are left
    assert np.isclose(new[:, 0].min(), 0.25)
    assert np.allclose(cut.corner_uv, new[cut.triangles][..., :2])
    motion = vertices * [2, 3, 5]
    assert np.allclose(cut.apply(motion.astype(np.float32)), new * [2, 3, 5])
    assert len(np.unique(new, axis=0)) == len(new)  # shared edges give one vertex
