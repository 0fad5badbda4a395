"""Add the landmark points to `morphable.safetensors`: where on the surface each point of the face mesh lies.

    python -m fitdiff.assets.make_landmark_points [--picture FILE.png]

Runs the landmark network on renderings of the mean head, see `surface_landmarks`. The lips' points come from a head
with its jaw open: on a closed mouth those of the upper and of the lower lip lie on the same line. `--picture` writes
the points drawn on both heads, to be looked at.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch

from ..models.checkpoint import assets_dir, load_checkpoint, save_checkpoint
from ..models.landmarks import load_face_mesh
from ..models.morphable import load_morphable
from ..rendering.head_atlas import load_head_atlas
from .surface_landmarks import Surface, surface_points

OPEN_JAW = 0.35  # weight of jawOpen for the lips' points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="draw the points on the mean head")
    picture_path = parser.parse_args().picture
    model, card = load_morphable()
    network = load_face_mesh()[0]
    atlas = load_head_atlas()[0]
    maps = atlas.compose(atlas.neutral_face())
    surface = Surface(model.triangles, model.corner_uv, model.triangle_part, model.config.part_names, maps)
    closed = surface_points(network, surface, model.mean)
    jaw = model.blendshapes[model.config.blendshape_names.index("jawOpen")]
    opened = surface_points(network, surface, model.mean + OPEN_JAW * jaw)
    print(f"face logit {closed.logit:.2f}, with the jaw open {opened.logit:.2f}")
    found = closed.with_lips_of(opened)
    print(f"{found.valid.sum()} of 468 points lie on the skin; not: {np.flatnonzero(~found.valid).tolist()}")

    path = assets_dir() / "morphable.safetensors"
    licence_text = path.with_suffix(".LICENSE").read_text()
    tensors = load_checkpoint(path).tensors | {
        "landmark_triangles": torch.from_numpy(found.triangle),
        "landmark_barycentrics": torch.from_numpy(found.barycentrics).float(),
        "landmark_valid": torch.from_numpy(found.valid),
    }
    fields = {name: getattr(card, name) for name in ("role", "name", "source", "licence", "commercial")}
    save_checkpoint(path, tensors, asdict(model.config), fields, licence_text)
    if picture_path:
        cv2.imwrite(str(picture_path), np.concatenate([closed.picture, opened.picture], 1))


if __name__ == "__main__":
    main()
