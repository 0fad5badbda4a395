"""How near an avatar's reflectance maps come to the truth (the paper's table 1: MSE, PSNR and SSIM of three maps).

One photo of every face is taken or made under a light that the avatar is not told, guided sampling runs as for a
user, and the 512 x 512 face maps are compared as they are stored, in [0, 1]: diffuse albedo sRGB-encoded, specular
albedo as F0 / 0.08, normals as (n + 1) / 2. Beside the avatar stand what the autoencoder makes of the true maps
themselves, which no avatar can pass by much, and the mean of the training charts, which needs no photo.

The table measures within the bare skin of the face, `face_weight > 0.5`; the figures also hold the same over
the whole island of the chart that skin uses. Knows nothing of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import FitDiffError, MissingError
from ..rendering.pictures import over, picture_of_head
from ..runtime.avatar import ReflectanceMaps
from ..runtime.avatar_maps import reflectance_maps
from ..runtime.avatar_result import AvatarOptions
from ..runtime.face_crop import CROP_SIZE, FaceCrop, crop_face
from ..runtime.photo import load_photo
from ..runtime.pipeline import FitDiffPipeline
from ..training.skins import chart_mask, face_weight
from ..training.synthetic import background, framed_camera, sample_light
from .map_folders import map_folders_in
from .measured_once import MeasuredOnce
from .result import Evaluation
from .synthetic_photos import HeldOutFaces, crop_of_picture

MAPS = ("diffuse", "specular", "normals")
METRICS = ("mse", "psnr", "ssim")
SOURCES = ("avatar", "autoencoder", "mean chart")
MSE_FLOOR = 1e-10  # keeps the ratio of equal maps finite, at 100 dB
PAPER = {
    "diffuse": {"mse": 0.009, "psnr": 21.16, "ssim": 0.647},
    "specular": {"mse": 0.004, "psnr": 24.30, "ssim": 0.645},
    "normals": {"mse": 0.001, "psnr": 28.74, "ssim": 0.734},
}  # table 1, "Ours": six people captured with a Light Stage, which are other data than these


@dataclass(frozen=True, eq=False)
class TrueFace:
    """A face to measure: its true maps (9, 512, 512) in [0, 1], and a way to its photo, both made when asked for."""

    name: str
    maps: Callable[[], np.ndarray]
    crop: Callable[[], FaceCrop]


def evaluate_reflectance(
    pipeline: FitDiffPipeline,
    data: Path,
    *,
    limit: int | None,
    seed: int,
    rows: Path | None,
    say: Callable[[str], None],
) -> Evaluation:
    """MSE, PSNR and SSIM of diffuse albedo, specular albedo and normals, means over faces.

    PSNR is the mean of the faces' own ratios in dB, not the ratio of the mean error. SSIM is scikit-image's with its
    defaults on the whole map (7 x 7 windows), averaged over channels and the mask.

    Args:
        data: a folder of `fitdiff synthesize`, whose held-out faces are measured by their first photo; or a folder
            of maps as `map_folders` has them. There a face without photo.jpg is the mean head with these maps,
            photographed under a light drawn from the seed.
        limit: the first so many faces; None for all.
        seed: of the avatars' noise and of the lights.
        rows: a file of finished faces, which is read and added to.
        say: told of every face.

    Raises:
        MissingError: scikit-image is not installed. UsageError: the folder is neither, or has no face.
    """
    _structural_similarity()  # absent, better now than after the first avatar
    faces = list(_true_faces(pipeline, data, seed))[:limit]
    face_mask = face_weight(pipeline.morphable) > 0.5
    masks = {"face": face_mask, "island": chart_mask(pipeline.morphable)}
    kept = MeasuredOnce(rows, pipeline.cards, seed)
    measured, notes = [], []
    for count, face in enumerate(faces, 1):
        try:
            row = kept.figures("reflectance", face.name, lambda face=face: _figures(pipeline, face, masks, seed))
        except FitDiffError as error:
            notes.append(f"{face.name}: {error}")
            continue
        measured.append(row)
        notes += [f"{face.name}: {note}" for note in row["notes"]]
        psnr = ", ".join(f"{name} {row['face']['avatar'][name]['psnr']:.1f} dB" for name in MAPS)
        say(f"{count}/{len(faces)} {face.name}: {psnr}")
    means = {area: _means([row[area] for row in measured]) for area in masks} if measured else {}
    table = means.get("face", {})
    return Evaluation(
        title=f"Reflectance maps within the face, {len(measured)} faces",
        columns=METRICS,
        rows={
            name if source == "avatar" else f"{source}: {name}": tuple(
                table[source][name][metric] if table else None for metric in METRICS
            )
            for source in SOURCES
            for name in MAPS
        },
        figures={
            "faces": len(measured),
            "seed": seed,
            "face_share_of_chart": float(face_mask.mean()),
            "island": means.get("island"),
            "paper": PAPER,
        },
        notes=tuple(notes),
    )


def stored_maps(maps: ReflectanceMaps) -> dict[str, np.ndarray]:
    """The three maps as they are stored: (N, N, 3) in [0, 1] by name."""
    return dict(zip(MAPS, (maps.diffuse_albedo, maps.specular_albedo, maps.normal * 0.5 + 0.5), strict=True))


def map_figures(made: np.ndarray, true: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """mse, psnr (dB, at most 100) and ssim of (N, N, 3) maps in [0, 1] within a mask (N, N) bool."""
    made, true = made.astype(np.float64), true.astype(np.float64)
    mse = float(((made - true) ** 2)[mask].mean())
    similarity = _structural_similarity()(made, true, data_range=1.0, channel_axis=-1, full=True)[1]
    return {"mse": mse, "psnr": float(-10 * np.log10(max(mse, MSE_FLOOR))), "ssim": float(similarity[mask].mean())}


def _true_faces(pipeline: FitDiffPipeline, data: Path, seed: int) -> Iterator[TrueFace]:
    networks = pipeline.detector, pipeline.models.face_mesh
    if (data / "index.json").is_file():
        held_out = HeldOutFaces(data)
        for index in held_out.indices:
            yield TrueFace(
                held_out.name(index),
                lambda index=index: held_out.maps(index),
                lambda index=index: held_out.crop(index, *networks),
            )
        return
    size = pipeline.models.autoencoder.config.chart_size
    for index, folder in enumerate(map_folders_in(data)):
        if folder.photo:
            yield TrueFace(
                folder.name,
                lambda folder=folder: folder.maps(size),
                lambda folder=folder: crop_face(load_photo(str(folder.photo)), *networks),
            )
        else:
            yield TrueFace(
                folder.name,
                lambda folder=folder: folder.maps(size),
                lambda folder=folder, index=index: photographed_maps(pipeline, folder.maps(size), [seed, index]),
            )


@torch.no_grad()
def photographed_maps(pipeline: FitDiffPipeline, maps: np.ndarray, seed: list[int]) -> FaceCrop:
    """The mean head with these maps (9, 512, 512) in [0, 1]: pose, light and background are drawn from the seed."""
    rng = np.random.default_rng(seed)
    light = sample_light(rng)
    vertices = pipeline.morphable.mean[None]
    camera, points = framed_camera(pipeline.morphable, vertices, rng)
    behind = background(CROP_SIZE, rng) * 255
    head = pipeline.atlas.compose(torch.from_numpy(maps)[None])
    pixels = over(picture_of_head(pipeline.renderer, vertices, head, camera, light), behind)
    return crop_of_picture(pixels, points, pipeline.detector, pipeline.models.face_mesh)


def _figures(pipeline: FitDiffPipeline, face: TrueFace, masks: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """{area: {source: {map: {metric: value}}}, "notes": [...]} of one face."""
    crop = face.crop()
    true = torch.from_numpy(face.maps())[None]
    autoencoder = pipeline.models.autoencoder
    made = {"avatar": pipeline.avatar(crop, AvatarOptions(seed=seed)).avatar.face_maps}
    with torch.no_grad():
        made["autoencoder"] = reflectance_maps(autoencoder.decode(autoencoder.encode(true)))
        made["mean chart"] = reflectance_maps(autoencoder.chart_mean[None])
    truth = {name: true[0, 3 * i : 3 * i + 3].permute(1, 2, 0).numpy() for i, name in enumerate(MAPS)}
    figures: dict[str, Any] = {
        area: {
            source: {name: map_figures(values, truth[name], mask) for name, values in stored_maps(maps).items()}
            for source, maps in made.items()
        }
        for area, mask in masks.items()
    }
    return figures | {"notes": list(crop.notes)}


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of {source: {map: {metric: value}}} over faces."""
    return {
        source: {
            name: {metric: float(np.mean([row[source][name][metric] for row in rows])) for metric in METRICS}
            for name in MAPS
        }
        for source in SOURCES
    }


def _structural_similarity() -> Any:
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingError(
            "package scikit-image", "not installed", "it, for SSIM", "pip install 'fitdiff[evaluate]'"
        ) from error
    return structural_similarity
