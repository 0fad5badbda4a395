"""Irises measured on rendered photos whose eyes are known: hue, sides, and when nothing is to be seen."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fitdiff.exporter.picture_head import picture_head
from fitdiff.models.checkpoint import ModelCard
from fitdiff.models.landmark_indices import LEFT_EYE
from fitdiff.models.morphable import MorphableModel, load_morphable
from fitdiff.rendering.camera import Camera, camera_from_pose, project
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.rendering.pictures import over, picture_of_head
from fitdiff.rendering.renderer import HeadRenderer
from fitdiff.rendering.shader import Light
from fitdiff.runtime.avatar import BROWN_IRIS, Avatar, Iris
from fitdiff.runtime.avatar_maps import head_maps_from_tensors, reflectance_maps
from fitdiff.runtime.face_crop import FaceCrop, framing_transform
from fitdiff.runtime.iris import iris_from_crop, iris_shade, measure_eye
from fitdiff.runtime.iris_circle import cut_eye, find_iris

SIDE, FOCAL = 900, 2250.0  # px of the photo
COLORS = {
    "blue": (0.40, 0.52, 0.64),
    "green": (0.40, 0.47, 0.31),
    "brown": (0.42, 0.27, 0.16),
    "dark": (0.19, 0.12, 0.08),
}
RVEC, TVEC = np.array([np.pi, 0.0, 0.0]), np.array([0.0, 0.0, 0.62])


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_morphable()[0]


@pytest.fixture(scope="module")
def avatar(model: MorphableModel) -> Avatar:
    atlas, _ = load_head_atlas()
    face, vertices = atlas.neutral_face(), model.mean.numpy()
    scale = 224 / round(float(np.ptp(landmarks_in_photo(model), axis=0).max()) * 1.5)
    return Avatar(
        vertices=vertices,
        expression_offset=np.zeros_like(vertices),
        expression_weights={},
        topology=model.topology(),
        face_maps=reflectance_maps(face),
        head_maps=head_maps_from_tensors(atlas.compose(face)),
        light={"ambient": [0.5] * 3, "directional": [0.6] * 3, "direction": [0.0, 0.0, 1.0]},
        pose={"rvec": RVEC.tolist(), "tvec_metres": TVEC.tolist(), "focal_px": FOCAL * scale},
        models=(ModelCard("morphable", "mean", "test", "CC0-1.0", True, "0" * 64),),
        seed=0,
    )


def camera() -> Camera:
    rvec, tvec = (torch.tensor(value, dtype=torch.float32)[None] for value in (RVEC, TVEC))
    return camera_from_pose(rvec, tvec, FOCAL, SIDE)


def landmarks_in_photo(model: MorphableModel) -> np.ndarray:
    """(468, 2) px."""
    return project(camera(), model.landmarks(model.mean[None]))[0, :, :2].numpy()


def photograph(avatar: Avatar, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8 of the avatar with its irises."""
    topology = avatar.topology
    renderer = HeadRenderer(
        torch.from_numpy(topology.triangles),
        torch.from_numpy(topology.corner_uv),
        torch.from_numpy(topology.triangle_part.astype(np.int64)),
        topology.part_names,
    )
    head = picture_head(avatar, renderer)
    color = torch.tensor([tint])
    direction = torch.tensor([[0.4, 0.5, 0.75]])
    light = Light(color * 0.5, color * 0.7, direction / direction.norm())
    return over(picture_of_head(head.renderer, head.neutral, head.maps, camera(), light), 150)


def crop_of(photo: np.ndarray, model: MorphableModel, monochrome: bool = False) -> FaceCrop:
    points = landmarks_in_photo(model)
    transform = framing_transform(points)
    inside = points @ transform[:, :2].T + transform[:, 2]
    return FaceCrop(
        photo=photo,
        image=np.zeros((224, 224, 3), np.float32),
        crop_from_photo=transform,
        landmarks=np.concatenate([inside, np.zeros((468, 1))], axis=1).astype(np.float32),
        five_points=np.zeros((5, 2), np.float32),
        box=np.zeros(4, np.float32),
        face_index=0,
        faces=(),
        quarter_turns=0,
        photo_sha256="",
        is_monochrome=monochrome,
        notes=(),
    )


@pytest.fixture(scope="module")
def photos(avatar: Avatar) -> dict[str, np.ndarray]:
    return {name: photograph(replace(avatar, iris=Iris(color, 0.0106))) for name, color in COLORS.items()}


def hue(color: tuple[float, ...]) -> float:
    return colorsys.rgb_to_hsv(*color)[0] * 360


@pytest.mark.parametrize("name", COLORS)
def test_the_colour_of_a_rendered_eye(
    name: str, photos: dict[str, np.ndarray], avatar: Avatar, model: MorphableModel
) -> None:
    found = iris_from_crop(crop_of(photos[name], model), avatar)
    wanted = COLORS[name]
    print(f"{name}: {np.round(found.color, 3)} for {wanted}, {found.diameter * 1e3:.2f} mm, {found.confidence:.2f}")
    off = abs((hue(found.color) - hue(wanted) + 180) % 360 - 180)
    assert off < (25 if name != "dark" else 40)
    assert np.abs(np.array(found.color) - wanted).max() < 0.12
    assert found.confidence > 0.3
    assert found.diameter == pytest.approx(0.0106, abs=0.0008)


def test_a_warm_light_makes_no_eye_brown(avatar: Avatar, model: MorphableModel) -> None:
    photo = photograph(replace(avatar, iris=Iris(COLORS["blue"], 0.0106)), tint=(1.08, 1.0, 0.88))
    red, _, blue = iris_from_crop(crop_of(photo, model), avatar).color
    assert blue > red * 1.1


def test_left_and_right_are_the_characters(photos: dict[str, np.ndarray], model: MorphableModel) -> None:
    """The right half of the photo shows the character's left eye."""
    mixed = photos["brown"].copy()
    mixed[:, SIDE // 2 :] = photos["blue"][:, SIDE // 2 :]
    crop = crop_of(mixed, model)
    left, right = measure_eye(crop, "left"), measure_eye(crop, "right")
    assert left.color[2] > left.color[0] and right.color[2] < right.color[0]


def test_one_closed_eye_leaves_the_other(photos: dict[str, np.ndarray], avatar: Avatar, model: MorphableModel) -> None:
    """Skin over the character's left eye: the iris is that of the right one."""
    mixed = photos["blue"].copy()
    contour = landmarks_in_photo(model)[list(LEFT_EYE)]
    low, high = (contour.min(0) - 12).astype(int), (contour.max(0) + 12).astype(int)
    mixed[low[1] : high[1], low[0] : high[0]] = (190, 150, 130)
    crop = crop_of(mixed, model)
    assert measure_eye(crop, "left").confidence < 0.1 < measure_eye(crop, "right").confidence
    _, _, blue = iris_from_crop(crop, avatar).color
    assert blue > 0.45


def test_a_picture_believes_small_eyes_too(
    photos: dict[str, np.ndarray], avatar: Avatar, model: MorphableModel
) -> None:
    def shade(photo: np.ndarray, side: int, monochrome: bool = False) -> np.ndarray:
        crop = crop_of(photo, model, monochrome)
        small = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
        shrunk = crop.crop_from_photo.copy()
        shrunk[:, :2] *= SIDE / side
        return iris_shade(replace(crop, photo=small, crop_from_photo=shrunk))

    for side in (SIDE, 260):  # eyes 13 px wide
        blue, brown = shade(photos["blue"], side), shade(photos["brown"], side)
        assert blue[2] > 1.2 * blue[0] and brown[0] > 1.5 * brown[2]
    grey = shade(photos["blue"], SIDE, monochrome=True)
    assert np.ptp(grey) == 0 and grey[0] > 0.05
    nothing = shade(np.full_like(photos["blue"], 128), SIDE)
    assert nothing[0] > nothing[2]  # brown


def test_two_small_eyes_of_one_blue_are_believed(
    photos: dict[str, np.ndarray], avatar: Avatar, model: MorphableModel
) -> None:
    """Eyes 13 px wide: blue ones stay blue, brown ones brown, and one blue beside one brown is not believed."""

    def iris_of(photo: np.ndarray) -> Iris:
        crop, side = crop_of(photo, model), 260
        shrunk = crop.crop_from_photo.copy()
        shrunk[:, :2] *= SIDE / side
        small = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
        return iris_from_crop(replace(crop, photo=small, crop_from_photo=shrunk), avatar)

    blue, brown = iris_of(photos["blue"]).color, iris_of(photos["brown"]).color
    assert blue[2] > blue[0] and brown[0] > 1.3 * brown[2]
    mixed = photos["brown"].copy()
    mixed[:, SIDE // 2 :] = photos["blue"][:, SIDE // 2 :]
    odd = iris_of(mixed).color
    assert odd[0] > odd[2]


def test_dark_skin_has_brown_eyes(photos: dict[str, np.ndarray], avatar: Avatar, model: MorphableModel) -> None:
    """A grey glint of the sky on a dark iris is no blue eye; a fair person with the same eyes has them."""
    crop = crop_of(photos["blue"], model)
    face = avatar.face_maps
    dark = replace(avatar, face_maps=replace(face, diffuse_albedo=face.diffuse_albedo * np.float32(0.55)))
    red, _, blue = iris_from_crop(crop, dark).color
    assert red > 1.5 * blue
    red, _, blue = iris_from_crop(crop, avatar).color
    assert blue > red


def test_brown_where_nothing_is_to_be_seen(
    photos: dict[str, np.ndarray], avatar: Avatar, model: MorphableModel
) -> None:
    crop = crop_of(photos["blue"], model)
    assert iris_from_crop(replace(crop, is_monochrome=True), avatar) == BROWN_IRIS
    assert iris_from_crop(crop, replace(avatar, pose=None)) == BROWN_IRIS
    small = cv2.resize(photos["blue"], (96, 96), interpolation=cv2.INTER_AREA)
    factor = 96 / SIDE
    shrunk = crop.crop_from_photo.copy()
    shrunk[:, :2] /= factor
    assert iris_from_crop(replace(crop, photo=small, crop_from_photo=shrunk), avatar) == BROWN_IRIS
    flat = crop.landmarks.copy()
    for index in range(468):
        flat[index, 1] = crop.landmarks[33, 1] + 0.05 * (flat[index, 1] - crop.landmarks[33, 1])
    assert iris_from_crop(replace(crop, landmarks=flat), avatar) == BROWN_IRIS  # lids closed


def test_the_circle_on_a_drawn_eye() -> None:
    """A turned almond with a disc off its middle, larger than a patch."""
    photo = np.full((400, 400, 3), (205, 160, 140), np.uint8)
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along = np.concatenate([np.linspace(-1, 1, 9), np.linspace(1, -1, 9)[1:-1]])
    lids = np.where(np.arange(16) <= 8, 1, -1) * 0.36 * (1 - along**2)
    contour = 200 + np.stack([along, lids], axis=1) @ turn.T * 120
    white = np.zeros((400, 400), np.uint8)
    cv2.fillPoly(white, [np.round(contour).astype(np.int32)], 1)
    photo[white > 0] = (225, 220, 215)
    centre = 200 + turn @ np.array([20.0, 2.0])
    disc = np.zeros((400, 400), np.uint8)
    cv2.circle(disc, tuple(np.round(centre).astype(int)), 48, 1, -1)
    photo[(disc & white) > 0] = (90, 70, 60)
    cv2.circle(photo, tuple(np.round(centre + [8, -6]).astype(int)), 7, (255, 255, 255), -1)
    patch = cut_eye(photo, contour)
    circle = find_iris(patch)
    assert patch.scale == pytest.approx(96 / 240, rel=0.01)
    assert circle.radius / patch.scale == pytest.approx(48, abs=6)
    assert (circle.x - 80) / patch.scale == pytest.approx(20, abs=6)
    assert circle.contrast > 0.25
