"""Add the landmark points to `morphable.safetensors`: where on the surface each point of the face mesh lies.

    python -m fitdiff.assets.make_landmark_points [--picture FILE.png]

Renders the mean head from the front, runs the landmark network on the picture and looks up triangle and
barycentrics under every point. Repeated over a few small turns of the head and averaged on the front view's
triangles, because the network is noisy by a pixel. `--picture` writes the points drawn on the head, to be looked at.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.checkpoint import assets_dir, load_checkpoint, save_checkpoint
from ..models.landmarks import load_face_mesh
from ..models.morphable import MorphableModel, load_morphable
from ..rendering.camera import camera_front, project
from ..rendering.head_atlas import load_head_atlas
from ..rendering.renderer import HeadRenderer
from ..rendering.shader import Light, srgb_from_linear

SIZE = 768  # pixels of the picture
DISTANCE = 1.2  # metres
FACE_CENTRE = torch.tensor([0.0, -0.012, 0.06])  # metres: about the middle of the face
FACE_WIDTH = 0.28  # metres across the picture
ROI_SCALE = 1.5  # the landmark network wants a square of 1.5 times the face's points
TURNS = ((0.0, 0.0), (0.12, 0.0), (-0.12, 0.0), (0.0, 0.1), (0.0, -0.1))  # yaw, pitch


def detect(image: Tensor) -> np.ndarray:
    """(3, SIZE, SIZE) sRGB in [0, 1], the face filling the picture -> (468, 2) pixels."""
    network, _ = load_face_mesh()
    picture = image.permute(1, 2, 0).numpy()
    centre, side = np.array([SIZE / 2, SIZE / 2]), float(SIZE)
    points = np.zeros((468, 2))
    for _ in range(4):  # each pass frames the points of the one before
        to_crop = np.array([[192 / side, 0, 96 - centre[0] * 192 / side], [0, 192 / side, 96 - centre[1] * 192 / side]])
        blurred = cv2.GaussianBlur(picture, (0, 0), max(side / 192 / 2, 0.3))
        crop = cv2.warpAffine(blurred, to_crop, (192, 192), borderMode=cv2.BORDER_REPLICATE)
        with torch.no_grad():
            found, logit = network(torch.from_numpy(crop).permute(2, 0, 1)[None])
        points = (found[0, :, :2].numpy() - to_crop[:, 2]) * side / 192
        low, high = points.min(0), points.max(0)
        centre, side = (low + high) / 2, float((high - low).max()) * ROI_SCALE
    print(f"face logit {float(logit[0]):.2f}")
    return points


def surface_points(model: MorphableModel) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor, np.ndarray]:
    """Triangles (468,), barycentrics (468, 3), valid (468,), the front picture and the points found in it."""
    atlas, _ = load_head_atlas()
    renderer = HeadRenderer(model.triangles, model.corner_uv, model.triangle_part, model.config.part_names)
    maps = atlas.compose(atlas.neutral_face())
    light = Light(torch.full((1, 3), 0.45), torch.full((1, 3), 0.6), torch.tensor([[0.25, 0.45, 0.86]]))
    vertices = model.mean[None]
    skin = model.config.part_names.index("skin")
    found = np.full((len(TURNS), 468, 3), np.nan)
    first: tuple[Tensor, np.ndarray] | None = None
    for turn, (yaw, pitch) in enumerate(TURNS):
        camera = camera_front(FACE_CENTRE, DISTANCE, SIZE * DISTANCE / FACE_WIDTH, SIZE, yaw=yaw, pitch=pitch)
        with torch.no_grad():
            rendering = renderer.render(vertices, maps, camera, light)
            screen = project(camera, vertices)[0].numpy()
        picture = srgb_from_linear(rendering.color[0]).clamp(0, 1) + 0.35 * (1 - rendering.alpha[0])
        points = detect(picture)
        first = first or (picture, points)
        triangles = rendering.triangle[0].numpy()
        for i, (x, y) in enumerate(points):
            if not (0 <= x < SIZE and 0 <= y < SIZE):
                continue
            hit = triangles[int(y), int(x)]
            if hit < 0 or model.triangle_part[hit] != skin:
                continue
            corners = model.triangles[hit].numpy()
            weights = np.linalg.solve(np.vstack([screen[corners, :2].T, np.ones(3)]), [x, y, 1])
            weights = weights / screen[corners, 2]  # perspective-correct
            found[turn, i] = (weights / weights.sum()) @ model.mean[corners].numpy()
    mean_points = np.nanmean(found, 0)
    return (*closest_on_skin(model, mean_points), *first)


def closest_on_skin(model: MorphableModel, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangle and barycentrics of the skin point nearest to each of (N, 3) points; NaN rows are not valid."""
    skin = np.flatnonzero(model.triangle_part.numpy() == model.config.part_names.index("skin"))
    corners = model.mean.numpy()[model.triangles.numpy()[skin]]  # (S, 3, 3)
    triangle, weights = np.zeros(len(points), np.int64), np.full((len(points), 3), 1 / 3)
    valid = ~np.isnan(points).any(1)
    centre = corners.mean(1)
    for i in np.flatnonzero(valid):
        near = np.argsort(((centre - points[i]) ** 2).sum(1))[:24]
        a, ab, ac = corners[near, 0], corners[near, 1] - corners[near, 0], corners[near, 2] - corners[near, 0]
        gram = np.stack([np.stack([(ab * ab).sum(1), (ab * ac).sum(1)], 1),
                         np.stack([(ab * ac).sum(1), (ac * ac).sum(1)], 1)], 1)  # fmt: skip
        right = np.stack([(ab * (points[i] - a)).sum(1), (ac * (points[i] - a)).sum(1)], 1)
        vw = np.linalg.solve(gram, right[..., None])[..., 0]
        barycentric = np.concatenate([1 - vw.sum(1, keepdims=True), vw], 1).clip(0, 1)
        barycentric /= barycentric.sum(1, keepdims=True)
        distance = (((barycentric[..., None] * corners[near]).sum(1) - points[i]) ** 2).sum(1)
        best = int(distance.argmin())
        triangle[i], weights[i] = skin[near[best]], barycentric[best]
    return triangle, weights, valid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="draw the points on the mean head")
    picture_path = parser.parse_args().picture
    model, card = load_morphable()
    triangle, weights, valid, picture, points = surface_points(model)
    print(f"{valid.sum()} of 468 points lie on the skin; not: {np.flatnonzero(~valid).tolist()}")

    path = assets_dir() / "morphable.safetensors"
    licence_text = path.with_suffix(".LICENSE").read_text()
    tensors = load_checkpoint(path).tensors | {
        "landmark_triangles": torch.from_numpy(triangle),
        "landmark_barycentrics": torch.from_numpy(weights).float(),
        "landmark_valid": torch.from_numpy(valid),
    }
    fields = {name: getattr(card, name) for name in ("role", "name", "source", "licence", "commercial")}
    save_checkpoint(path, tensors, asdict(model.config), fields, licence_text)
    if picture_path:
        image = (picture.permute(1, 2, 0).numpy()[..., ::-1].clip(0, 1) * 255).astype(np.uint8).copy()
        for i, (x, y) in enumerate(points):
            cv2.circle(image, (round(x), round(y)), 2, (0, 255, 0) if valid[i] else (0, 0, 255), -1)
        cv2.imwrite(str(picture_path), image)


if __name__ == "__main__":
    main()
