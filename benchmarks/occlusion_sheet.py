"""Do glasses, a fringe and a hand stay out of the maps? A picture: photo, avatar and diffuse albedo, without and with.

python benchmarks/occlusion_sheet.py OUT.jpg [--photo examples/astronaut.jpg] [--seed 0]
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np

from fitdiff.evaluation.identity import picture_before_background
from fitdiff.evaluation.occluders import OCCLUDERS
from fitdiff.exporter.sheet import Tile, sheet_from_rows
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import Photo, load_photo
from fitdiff.runtime.pipeline import FitDiffPipeline

ROOT = Path(__file__).resolve().parents[1]


def row_of(pipeline: FitDiffPipeline, photo: Photo, name: str, seed: int) -> list[Tile]:
    """The photo, its avatar in the same view, and the avatar's diffuse albedo."""
    crop = crop_face(photo, pipeline.detector, pipeline.models.face_mesh)
    result = pipeline.avatar(crop, AvatarOptions(seed=seed))
    assert result.camera is not None
    rendering = picture_before_background(
        pipeline.renderer, result.vertices, result.head_maps, result.camera, result.light, crop.image.mean((0, 1))
    )
    pictures = {name: crop.image, "avatar": rendering, "diffuse albedo": result.avatar.face_maps.diffuse_albedo}
    return [Tile((picture * 255 + 0.5).astype(np.uint8), caption) for caption, picture in pictures.items()]


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--photo", default=ROOT / "examples" / "astronaut.jpg", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
def main(out: Path, photo: Path, seed: int) -> None:
    pipeline = load_pipeline()
    clean = load_photo(photo)
    crop = crop_face(clean, pipeline.detector, pipeline.models.face_mesh)
    rows = [row_of(pipeline, clean, "photo", seed)]
    for name, draw in OCCLUDERS.items():
        painted, _ = draw(crop.image, crop.landmarks, np.random.default_rng(seed))
        pixels = (painted * 255 + 0.5).astype(np.uint8)
        rows.append(row_of(pipeline, Photo(pixels, "", clean.is_monochrome), name, seed))
    paired = [[*rows[i], *rows[i + 1]] for i in range(0, len(rows), 2)]
    cv2.imwrite(str(out), sheet_from_rows(paired)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
