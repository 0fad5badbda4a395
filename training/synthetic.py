"""`fitdiff synthesize`: training data without anybody's face.

Random heads of the morphable model, skins of the appearance model, lights, poses and expressions, photographed by
the product's own renderer, then spoilt as photographs are. Every face has its own seed: a data set can be cut short,
continued or made in parallel with the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.numpy import save_file

from ..assets.atlas_layout import ATLAS_SIZE, EYE_EXPONENT, EYE_RECT
from ..assets.makehuman_sampling import sample_expression_weights
from ..models.morphable import MorphableModel, load_morphable
from ..rendering.camera import Camera, camera_front, project, rotation_from_rodrigues
from ..rendering.head_atlas import HeadAtlas, load_head_atlas
from ..rendering.renderer import HeadMapsTensor, HeadRenderer
from ..rendering.shader import Light, latent_from_light, luminance, srgb_from_linear
from ..runtime.face_chip import five_points_from_landmarks
from ..runtime.face_crop import CROP_SIZE, framing_transform
from .reflectance import SkinAppearanceModel, sample_traits
from .skins import load_skins, split_by_source
from .traits import sample_attributes

FORMAT = "fitdiff-synthetic-1"
_IRISES = np.array([[0.42, 0.28, 0.17], [0.22, 0.13, 0.08], [0.45, 0.36, 0.19], [0.36, 0.42, 0.26], [0.38, 0.46, 0.53],
                    [0.47, 0.50, 0.51]])  # sRGB: brown (the atlas's own), dark, hazel, green, blue, grey  # fmt: skip
_IRISES_OF_LIGHT_SKIN, _IRISES_OF_DARK_SKIN = (0.3, 0.2, 0.12, 0.1, 0.18, 0.1), (0.35, 0.62, 0.03, 0, 0, 0)  # shares
_IRIS_ANGLE, _PUPIL_ANGLE = 0.47, 0.15  # radians from the gaze, as the atlas draws its eye


@dataclass(frozen=True)
class SynthesisConfig:
    """count: triplets of maps; photos_per_face: photographs of each; held_out: share of maps kept for validation.

    held_out_source: the photographed person whose skins make the held-out maps and no other; None: see
    `skins.default_held_out_source`. morphable: a model of `fitdiff import-model`; None: the embedded one.
    """

    skins: Path
    count: int = 1000
    photos_per_face: int = 4
    seed: int = 0
    held_out: float = 0.04
    workers: int = 1
    held_out_source: str | None = None
    morphable: Path | None = None

    def first_held_out(self) -> int:
        """Faces from this index on are held out."""
        return self.count - max(1, round(self.held_out * self.count))


@dataclass(frozen=True)
class SyntheticPhoto:
    """One photograph and the truth behind it; shapes as in `faces.safetensors`, without the leading axis."""

    pixels: np.ndarray  # (224, 224, 3) uint8 sRGB
    expression: np.ndarray  # (25,)
    light: np.ndarray  # (9,) log L_a | log L_d | direction
    five_points: np.ndarray  # (5, 2) crop pixels
    landmarks: np.ndarray  # (468, 2) crop pixels
    cover: np.ndarray  # (6,) an ellipse that hides something, as `drawn_cover` takes it


class SyntheticStudio:
    """Everything that one process needs to make faces and photograph them."""

    def __init__(self, skins: Path, held_out_source: str | None = None, morphable: Path | None = None) -> None:
        """`morphable`: the heads'; the maps are always made on the embedded model's chart, which imported ones share.

        Raises UsageError: no skins, or the source that is held out has none, or there is no other.
        """
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        chart: MorphableModel = load_morphable()[0]
        self.model, self.card = load_morphable(morphable)
        self.atlas: HeadAtlas = load_head_atlas(size=512)[0]
        self.skins = load_skins(skins, chart)
        self.held_out_source, training, held_out = split_by_source(self.skins, held_out_source)
        self.appearance = SkinAppearanceModel(training, chart)
        self.held_out_appearance = SkinAppearanceModel(held_out, chart)
        self.renderer = HeadRenderer(
            self.model.triangles, self.model.corner_uv, self.model.triangle_part, self.model.config.part_names
        )

    def identity(self, seed: int, index: int) -> np.ndarray:
        """(158,) coefficients of face `index`; those that the model leaves empty are zero."""
        used = self.model.identity_basis.flatten(1).any(1).numpy()
        return np.random.default_rng([seed, index, 0]).standard_normal(158).astype(np.float32) * used

    def maps(self, seed: int, index: int, held_out: bool = False) -> np.ndarray:
        """(9, 512, 512) uint8 maps of face `index`, from the skins for training or from the held-out source's."""
        rng = np.random.default_rng([seed, index, 1])
        identity = torch.from_numpy(self.identity(seed, index))[None]
        appearance = self.held_out_appearance if held_out else self.appearance
        attributes = self.model.attributes(identity)[0].numpy()
        if not len(attributes):  # an imported model does not tell who a shape is: skins go with any head
            attributes = sample_attributes(rng)
        return appearance.sample(sample_traits(attributes, rng), rng)

    @torch.no_grad()
    def photograph(self, maps: np.ndarray, seed: int, index: int, take: int) -> SyntheticPhoto:
        """Photograph `take` of face `index`."""
        rng = np.random.default_rng([seed, index, 2, take])
        identity = torch.from_numpy(self.identity(seed, index))[None]
        expression = self._expression(rng)
        vertices = self.model(identity, expression)
        light = sample_light(rng)
        face = torch.from_numpy(maps)[None].float() / 255
        head = self.atlas.compose(torch.nn.functional.avg_pool2d(face, 2))
        head = with_irises(head, rng)
        if rng.random() < 0.75:
            head = with_hair(head, self.atlas, rng)
        camera, points = framed_camera(self.model, vertices, rng)
        rendering = self.renderer.render(vertices, head, camera, light)
        encoded = srgb_from_linear(rendering.color[0]).clamp(0, 1).permute(1, 2, 0).numpy()
        alpha = rendering.alpha[0, 0].numpy()[..., None]
        picture = alpha * encoded + (1 - alpha) * background(CROP_SIZE, rng)
        pixels, cover = spoil(picture, rng)
        return SyntheticPhoto(
            pixels, expression[0].numpy(), latent_from_light(light)[0].numpy(), five_points_from_landmarks(points),
            points.astype(np.float32), cover,
        )  # fmt: skip

    def _expression(self, rng: np.random.Generator) -> torch.Tensor:
        """(1, 25): a mixture of blendshapes, or a draw from the basis of a model that has too few of them."""
        names = list(self.model.config.blendshape_names)
        if "mouthSmileLeft" in names:
            weights = torch.from_numpy(sample_expression_weights(names, 1, seed=int(rng.integers(2**31))))
            return weights * float(rng.beta(2, 1.5)) @ self.model.expression_of_blendshapes
        used = self.model.expression_basis.flatten(1).any(1).numpy()
        drawn = rng.standard_normal((1, len(used))).astype(np.float32) * used
        return torch.from_numpy(drawn) * float(rng.beta(2, 1.5))


def sample_light(rng: np.random.Generator) -> Light:
    """Ambient and one directional light, exposed so that a face is neither black nor burnt out."""
    share = rng.beta(2, 2)  # of the directional light
    exposure = np.exp(rng.normal(0.1, 0.22))
    tint = np.exp(rng.normal(0, 0.05, (2, 3)))
    yaw, pitch = rng.normal(0, 0.75), rng.normal(0.45, 0.4)
    direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    direction[2] = abs(direction[2]) * 0.9 + 0.1
    tensors = [
        exposure * (0.95 - 0.7 * share) * tint[0],
        exposure * (0.25 + 0.95 * share) * tint[1],
        direction / np.linalg.norm(direction),
    ]
    return Light(*[torch.from_numpy(t).float()[None] for t in tensors])


def framed_camera(model: MorphableModel, vertices: torch.Tensor, rng: np.random.Generator) -> tuple[Camera, np.ndarray]:
    """A camera at a random place that frames the face as `runtime.face_crop` does, and the landmarks (468, 2) in it."""
    yaw, pitch, roll = np.clip(rng.normal(0, [0.26, 0.13, 0.05]), -0.7, 0.7)
    distance = float(np.exp(rng.uniform(np.log(0.55), np.log(2.5))))
    camera = camera_front(
        torch.tensor([0.0, 0.0, 0.05]), distance, 1000.0, CROP_SIZE, yaw=float(yaw), pitch=float(pitch)
    )
    turn = rotation_from_rodrigues(torch.tensor([[0.0, 0.0, float(roll)]]))
    camera = Camera(
        camera.focal, camera.principal, turn @ camera.rotation, (turn @ camera.translation[..., None])[..., 0],
        CROP_SIZE, CROP_SIZE,
    )  # fmt: skip
    points = project(camera, model.landmarks(vertices))[0, :, :2].numpy()
    frame = framing_transform(points + rng.normal(0, 2, 2))
    framed = camera.cropped(torch.from_numpy(frame).float(), CROP_SIZE, CROP_SIZE)
    return framed, points @ frame[:, :2].T + frame[:, 2]


def with_irises(head: HeadMapsTensor, rng: np.random.Generator) -> HeadMapsTensor:
    """Irises of another colour, for the photograph only: brown, dark, hazel, green, blue or grey, as skins go with."""
    size = head.albedo.shape[-1]
    x, y, side, _ = (value * size // ATLAS_SIZE for value in EYE_RECT)
    grid = torch.arange(side) + 0.5 - side / 2
    radius = torch.hypot(grid[:, None], grid[None]) / (side / 2 - 4 * size / ATLAS_SIZE)
    angle = np.pi * radius.clamp(0, 1) ** (1 / EYE_EXPONENT)
    inside = ((_IRIS_ANGLE - angle) / 0.045 + 0.5).clamp(0, 1) * ((angle - _PUPIL_ANGLE) / 0.02 + 0.5).clamp(0, 1)
    skin = float(luminance(head.albedo).median())
    light = np.clip((skin - 0.2) / 0.2, 0, 1)
    shares = light * np.array(_IRISES_OF_LIGHT_SKIN) + (1 - light) * np.array(_IRISES_OF_DARK_SKIN)
    chosen = _IRISES[rng.choice(len(_IRISES), p=shares)]
    ratio = torch.from_numpy((chosen / _IRISES[0]) ** 2.2 * np.exp(rng.normal(0, 0.12, 3))).float()[:, None, None]
    albedo = head.albedo.clone()
    eye = albedo[:, :, y : y + side, x : x + side]
    albedo[:, :, y : y + side, x : x + side] = (eye * (1 + inside * (ratio - 1))).clamp(0, 1)
    return replace(head, albedo=albedo)


def with_hair(head: HeadMapsTensor, atlas: HeadAtlas, rng: np.random.Generator) -> HeadMapsTensor:
    """Short hair painted on the scalp, for the photograph only: recognisers have never seen a bald world."""
    size = atlas.size
    y, x = np.mgrid[0:size, 0:size] / size
    line = rng.uniform(0.19, 0.25) + 0.25 * np.clip(np.abs(x - 0.5) - rng.uniform(0.08, 0.14), 0, None) ** 1.2 * 4
    ear = (np.abs(np.abs(x - 0.5) - 0.2) < 0.045) & (np.abs(y - 0.4) < 0.08)
    cover = 1 / (1 + np.exp((y - np.minimum(line, 0.44)) * 90)) * ~ear * (y < 0.62)
    strands = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), sigmaX=0.7, sigmaY=4)
    melanin = rng.choice([0.012, 0.03, 0.09, 0.2], p=[0.4, 0.3, 0.15, 0.15])
    tint = np.array([1.0, 0.66, 0.42]) ** (0 if melanin > 0.15 and rng.random() < 0.5 else 1)
    colour = (melanin * tint)[:, None, None] * np.exp(strands * 3)
    mask = torch.from_numpy(cover).float()[None, None]
    hair = torch.from_numpy(colour).float()[None].clamp(0, 1)
    return HeadMapsTensor(torch.lerp(head.albedo, hair, mask), head.specular, head.normal, head.roughness, head.alpha)


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size, 3): a smooth wall or blurred shapes."""
    cells = int(rng.choice([2, 3, 6, 12]))
    coarse = rng.uniform(0, 1) + rng.normal(0, 0.1, 3) + rng.normal(0, rng.uniform(0, 0.25), (cells, cells, 1))
    coarse = np.clip(coarse + rng.normal(0, 0.05, (cells, cells, 3)), 0, 1)
    return cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def drawn_cover(cover: np.ndarray, size: int) -> np.ndarray:
    """(6,) 1 or 0 for none, centre x, y, half axes, degrees; px of a square of side `size` -> (size, size) coverage."""
    drawn = np.zeros((size, size), np.float32)
    if not cover[0]:
        return drawn
    x, y, a, b, angle = (float(value) for value in cover[1:])
    cv2.ellipse(drawn, ((x, y), (2 * a, 2 * b), angle), 1.0, -1)
    return cv2.GaussianBlur(drawn, (0, 0), 1.5)


def spoil(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) sRGB in [0, 1] -> uint8: colour cast, blur, low resolution, noise, occlusion, monochrome, JPEG.

    The second result is what hides something, as `drawn_cover` takes it.
    """
    image = picture.astype(np.float32)
    size, cover = len(image), np.zeros(6)
    if rng.random() < 0.12:  # a hand, a hat, a strand of hair
        corner, extent = rng.uniform(0.05, 0.95, 2) * size, rng.uniform(0.06, 0.22, 2) * size
        cover = np.array([1.0, *corner, *extent, rng.uniform(0, 180)])
        drawn = drawn_cover(cover, size)[..., None]
        image = image * (1 - drawn) + drawn * rng.uniform(0, 1, 3).astype(np.float32)
    image = image * np.exp(rng.normal(0, 0.05, 3)).astype(np.float32) + np.float32(rng.normal(0, 0.02))
    image = np.clip(image, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.1)))
    if rng.random() < 0.12:
        image = np.repeat(image @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, 2)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.4)))
    if rng.random() < 0.3:
        small = int(size * rng.uniform(0.3, 0.8))
        image = cv2.resize(
            cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA),
            (size, size),
            interpolation=cv2.INTER_LINEAR,
        )
    image = image + rng.normal(0, rng.gamma(1.2, 0.008), image.shape).astype(np.float32)
    pixels = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.5:
        _, code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None
        pixels = decoded[..., ::-1]
    return pixels, cover.astype(np.float32)


@cache
def _studio(skins: Path, held_out_source: str | None, morphable: Path | None) -> SyntheticStudio:
    return SyntheticStudio(skins, held_out_source, morphable)


def _make_maps(config: SynthesisConfig, out: str, index: int) -> int:
    studio = _studio(config.skins, config.held_out_source, config.morphable)
    np.load(out, mmap_mode="r+")[index] = studio.maps(config.seed, index, index >= config.first_held_out())
    return index


def _make_photos(config: SynthesisConfig, maps: str, index: int) -> list[SyntheticPhoto]:
    face = np.array(np.load(maps, mmap_mode="r")[index])
    studio = _studio(config.skins, config.held_out_source, config.morphable)
    return [studio.photograph(face, config.seed, index, take) for take in range(config.photos_per_face)]


def synthesize(config: SynthesisConfig, out: Path, progress: Callable[[str, int, int], None]) -> None:
    """Write a training folder: maps.npy, photos.npy, faces.safetensors and, last of all, index.json.

    `progress(stage, done, total)` is called after every face.

    Raises:
        UsageError: the folder of skins holds none, or the source to hold out has none, or there is no other.
    """
    studio = _studio(config.skins, config.held_out_source, config.morphable)
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)  # it says that the folder is complete
    maps_path = str(out / "maps.npy")
    shape = (config.count, 9, 512, 512)
    np.lib.format.open_memmap(maps_path, "w+", np.uint8, shape).flush()
    photos = np.lib.format.open_memmap(
        str(out / "photos.npy"), "w+", np.uint8, (config.count * config.photos_per_face, CROP_SIZE, CROP_SIZE, 3)
    )
    truth: dict[str, list[np.ndarray]] = {
        name: [] for name in ("expression", "light", "five_points", "landmarks", "cover")
    }
    seed, takes = config.seed, config.photos_per_face
    with ProcessPoolExecutor(config.workers, get_context("spawn")) as pool:
        todo = [pool.submit(_make_maps, config, maps_path, i) for i in range(config.count)]
        for done, job in enumerate(todo, 1):
            job.result()
            progress("maps", done, config.count)
        jobs = [pool.submit(_make_photos, config, maps_path, i) for i in range(config.count)]
        for index, job in enumerate(jobs):
            for take, photo in enumerate(job.result()):
                photos[index * takes + take] = photo.pixels
                for name, rows in truth.items():
                    rows.append(getattr(photo, name))
            progress("photos", index + 1, config.count)
    photos.flush()
    arrays: dict[str, np.ndarray] = {name: np.stack(rows).astype(np.float32) for name, rows in truth.items()}
    arrays["map_index"] = np.arange(config.count, dtype=np.int32).repeat(takes)
    arrays["identity"] = np.stack([studio.identity(seed, i) for i in range(config.count)])[arrays["map_index"]]
    save_file(arrays, str(out / "faces.safetensors"))
    held_out = list(range(config.first_held_out(), config.count))
    index = {
        "format": FORMAT, "config": {**asdict(config), "skins": config.skins.name, "morphable": studio.card.name},
        "morphable_sha256": studio.card.sha256, "held_out": held_out,
        "held_out_source": studio.held_out_source, "held_out_skins": [s.name for s in studio.held_out_appearance.skins],
        "skins": {skin.name: skin.source for skin in studio.skins},
    }  # fmt: skip
    (out / "index.json").write_text(json.dumps(index, indent=1))
