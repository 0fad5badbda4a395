"""Does guidance bring the avatar nearer to the person? Similarity of rendering and photo, with and without it.

    python benchmarks/identity.py PHOTOS [--second recogniser.onnx] [--people 60] [--shard 0/2] [--rows rows.jsonl]

PHOTOS has a folder a person with one or more photos. The first photo (by name) becomes the avatar. Similarities are
cosines: "guiding" by the recogniser that guides (about its own centre); "second" by an independent one that guidance
never saw, an ONNX file that takes 112 x 112 ArcFace-aligned BGR chips scaled to [-1, 1]. With --rows every person is
added to a file and people already in it are skipped, so that a long run can be continued and shards add up.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fitdiff.errors import FitDiffError
from fitdiff.rendering.shader import srgb_from_linear
from fitdiff.runtime.face_chip import chip_transform
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.pipeline import AvatarOptions, AvatarResult, FitDiffPipeline, load_pipeline

ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


class SecondRecogniser:
    """An independent recogniser for measuring only."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, image: np.ndarray, five_points: np.ndarray) -> np.ndarray:
        """(224, 224, 3) sRGB in [0, 1] -> unit vector."""
        transform = chip_transform(five_points, ARCFACE)
        transform[:, 2] += transform[:, :2] @ [0.5, 0.5] - 0.5
        chip = cv2.warpAffine(
            cv2.GaussianBlur(image, (0, 0), 0.6), transform, (112, 112), borderMode=cv2.BORDER_REPLICATE
        )
        batch = (chip[..., ::-1].transpose(2, 0, 1)[None] * 255 - 127) / 128
        vector = self.session.run(None, {self.session.get_inputs()[0].name: batch.astype(np.float32)})[0][0]
        return vector / np.linalg.norm(vector)


def picture(pipeline: FitDiffPipeline, result: AvatarResult, crop: FaceCrop) -> np.ndarray:
    """The avatar in the photo's camera before the photo's mean background: (224, 224, 3) sRGB."""
    assert result.camera is not None
    with torch.no_grad():
        rendering = pipeline.renderer.render(result.vertices, result.head_maps, result.camera, result.light)
    color = srgb_from_linear(rendering.color[0]).clamp(0, 1).permute(1, 2, 0).numpy()
    alpha = rendering.alpha[0, 0].numpy()[..., None]
    return (alpha * color + (1 - alpha) * crop.image.mean((0, 1))).astype(np.float32)


def measure(
    pipeline: FitDiffPipeline, second: SecondRecogniser | None, photos: list[Path], seed: int
) -> dict[str, Any]:
    """One person: similarities without and with guidance."""
    crops = [crop_face(load_photo(p), pipeline.detector, pipeline.models.face_mesh) for p in photos[:2]]
    row: dict[str, Any] = {"person": photos[0].parent.name, "monochrome": crops[0].is_monochrome}
    vectors = [second(c.image, c.five_points) for c in crops] if second else []
    row["second_photos"] = float(vectors[0] @ vectors[1]) if len(vectors) == 2 else None
    row["vectors"] = [v.round(5).tolist() for v in vectors]
    for guidance in ("none", "full"):
        result = pipeline.avatar(crops[0], AvatarOptions(guidance=guidance, seed=seed))
        row[guidance] = {
            "guiding": result.report.similarity["guiding"],
            "landmark_error": result.report.landmark_error,
            "seconds": result.report.seconds,
        }
        if second:
            own = second(picture(pipeline, result, crops[0]), crops[0].five_points)
            row[guidance] |= {"second": float(own @ vectors[0]), "vector": own.round(5).tolist()}
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over people, and rank-1: does the avatar find its person among all second photos?"""
    found: dict[str, Any] = {"people": len(rows)}
    paired = [row for row in rows if len(row["vectors"]) == 2]
    gallery = np.array([row["vectors"][1] for row in paired])
    for guidance in ("none", "full"):
        values = {name: float(np.mean([row[guidance][name] for row in rows]))
                  for name in ("guiding", "landmark_error", "seconds")}  # fmt: skip
        if paired:
            values["second"] = float(np.mean([row[guidance]["second"] for row in paired]))
            scores = np.array([row[guidance]["vector"] for row in paired]) @ gallery.T
            off_diagonal = scores[~np.eye(len(scores), dtype=bool)]
            values |= {"rank1": float((scores.argmax(1) == np.arange(len(scores))).mean()),
                       "other_photo": float(np.diag(scores).mean()),
                       "strangers": float(off_diagonal.mean()) if off_diagonal.size else 0.0}  # fmt: skip
        found[guidance] = values
    if paired:
        found["second_photos_of_one_person"] = float(np.mean([row["second_photos"] for row in paired]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--second", type=Path)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--assets", type=Path)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    part, parts = (int(n) for n in arguments.shard.split("/"))
    pipeline = load_pipeline(arguments.assets)
    second = SecondRecogniser(arguments.second) if arguments.second else None
    kept = arguments.rows.read_text().splitlines() if arguments.rows and arguments.rows.exists() else []
    rows = [json.loads(line) for line in kept]
    done = {row["person"] for row in rows}
    folders = sorted(p for p in arguments.photos.iterdir() if p.is_dir())[: arguments.people]
    for folder in folders[part::parts]:
        if folder.name in done:
            continue
        photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        try:
            row = measure(pipeline, second, photos, arguments.seed)
        except FitDiffError as error:
            console.print(f"{folder.name}: {error}")
            continue
        rows.append(row)
        if arguments.rows:
            with arguments.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
        console.print(f"{folder.name}: guiding {row['none']['guiding']:.3f} -> {row['full']['guiding']:.3f}")
    found = summary(rows)
    table = Table(title=f"{found['people']} people")
    for column in ("", *found["full"]):
        table.add_column(column)
    for guidance in ("none", "full"):
        table.add_row(f"guidance {guidance}", *(f"{v:.3f}" for v in found[guidance].values()))
    console.print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
