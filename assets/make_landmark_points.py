"""Add the landmark points to `morphable.safetensors`: where on the surface each point of the face mesh lies.

    python -m fitdiff.assets.make_landmark_points [--picture FILE.png]

Renders the mean head from the front, runs the landmark network on the picture and looks up triangle and
barycentrics under every point. Repeated over a few small turns of the head and averaged, because the network is
noisy by a pixel. The lips' points come from a head with its jaw open: on a closed mouth those of the upper and of the
lower lip lie on the same line. `--picture` writes the points drawn on both heads, to be looked at.
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
from ..models.landmark_indices import LIPS_INNER, LIPS_OUTER
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
REACH = 14  # pixels from a point to the skin that it means
OPEN_JAW = 0.35  # weight of jawOpen for the lips' points
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


def surface_points(model: MorphableModel, vertices: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points of a head (V, 3) on its skin: triangles (468,), barycentrics (468, 3), valid (468,), and a picture."""
    atlas, _ = load_head_atlas()
    renderer = HeadRenderer(model.triangles, model.corner_uv, model.triangle_part, model.config.part_names)
    maps = atlas.compose(atlas.neutral_face())
    light = Light(torch.full((1, 3), 0.45), torch.full((1, 3), 0.6), torch.tensor([[0.25, 0.45, 0.86]]))
    found = np.full((len(TURNS), 468, 3), np.nan)
    pictures = []
    for turn, (yaw, pitch) in enumerate(TURNS):
        camera = camera_front(FACE_CENTRE, DISTANCE, SIZE * DISTANCE / FACE_WIDTH, SIZE, yaw=yaw, pitch=pitch)
        with torch.no_grad():
            rendering = renderer.render(vertices[None], maps, camera, light)
            screen = project(camera, vertices[None])[0].numpy()
        picture = srgb_from_linear(rendering.color[0]).clamp(0, 1) + 0.35 * (1 - rendering.alpha[0])
        points = detect(picture)
        pictures.append(_drawn(picture, points))
        triangles = rendering.triangle[0].numpy()
        skin_y, skin_x = np.nonzero(rendering.part[0].numpy() == model.config.part_names.index("skin"))
        for i, (x, y) in enumerate(points):
            if not (0 <= x < SIZE and 0 <= y < SIZE):
                continue
            distance = np.hypot(skin_x + 0.5 - x, skin_y + 0.5 - y)
            near = int(distance.argmin())
            if distance[near] > REACH:
                continue
            if distance[near] > 1:  # on teeth, an eye or beside the head: the nearest skin in sight is meant
                x, y = skin_x[near] + 0.5, skin_y[near] + 0.5
            hit = triangles[skin_y[near], skin_x[near]]
            corners = model.triangles[hit].numpy()
            weights = np.linalg.solve(np.vstack([screen[corners, :2].T, np.ones(3)]), [x, y, 1])
            weights = weights / screen[corners, 2]  # perspective-correct
            found[turn, i] = (weights / weights.sum()) @ vertices[corners].numpy()
    counts = (~np.isnan(found[..., :1])).sum(0)
    mean_points = np.where(counts > 0, np.nansum(found, 0) / np.maximum(counts, 1), np.nan)
    return (*closest_on_skin(model, vertices, mean_points), pictures[0])


def _drawn(picture: Tensor, points: np.ndarray) -> np.ndarray:
    image = (picture.permute(1, 2, 0).numpy()[..., ::-1].clip(0, 1) * 255).astype(np.uint8).copy()
    for x, y in points:
        cv2.circle(image, (round(x), round(y)), 2, (0, 255, 0), -1)
    return image


def closest_on_skin(
    model: MorphableModel, vertices: Tensor, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangle and barycentrics of the skin point nearest to each of (N, 3) points; NaN rows are not valid."""
    skin = np.flatnonzero(model.triangle_part.numpy() == model.config.part_names.index("skin"))
    corners = vertices.numpy()[model.triangles.numpy()[skin]]  # (S, 3, 3)
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
    triangle, weights, valid, closed = surface_points(model, model.mean)
    jaw = model.blendshapes[model.config.blendshape_names.index("jawOpen")]
    opened = surface_points(model, model.mean + OPEN_JAW * jaw)
    lips = [*LIPS_OUTER, *LIPS_INNER]
    triangle[lips], weights[lips], valid[lips] = (part[lips] for part in opened[:3])
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
        cv2.imwrite(str(picture_path), np.concatenate([closed, opened[3]], 1))


if __name__ == "__main__":
    main()
