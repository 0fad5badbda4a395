"""Detail beyond the crop's pixels: where the photo has it, on the right side, and nowhere else."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fitdiff.models.morphable import MorphableModel, load_morphable
from fitdiff.rendering.camera import Camera, camera_from_pose, project
from fitdiff.rendering.head_atlas import HeadAtlas, load_head_atlas
from fitdiff.rendering.renderer import HeadRenderer
from fitdiff.rendering.shader import Light
from fitdiff.runtime.face_crop import CROP_SIZE, FaceCrop
from fitdiff.runtime.fine_detail import DARKEST, LIGHTEST, fine_detail

LEFT_CHEEK = 425  # of the 468 landmarks
TIMES = 3  # photo pixels to one of the crop
LIGHT = Light(torch.full((1, 3), 0.4), torch.full((1, 3), 0.6), torch.tensor([[0.0, 0.0, 1.0]]))


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_morphable()[0]


@pytest.fixture(scope="module")
def atlas() -> HeadAtlas:
    return load_head_atlas()[0]


@pytest.fixture(scope="module")
def camera() -> Camera:
    rvec, tvec = torch.tensor([[math.pi, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.62]])
    return camera_from_pose(rvec, tvec, 2.5 * CROP_SIZE, CROP_SIZE)


def crop_of(photo: np.ndarray) -> FaceCrop:
    side = len(photo)
    image = cv2.resize(photo, (CROP_SIZE,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    transform = np.array([[CROP_SIZE / side, 0, 0], [0, CROP_SIZE / side, 0]])
    points = np.zeros((468, 3), np.float32)
    return FaceCrop(
        photo, image, transform, points, points[:5, :2], np.zeros(4, np.float32), 0, (), 0, "0" * 64, False, ()
    )


def places(model: MorphableModel, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Where the character's left cheek is: pixels of the crop, whole texels of the face chart of 512."""
    pixels = project(camera, model.landmarks(model.mean[None]))[0, LEFT_CHEEK, :2].numpy()
    return pixels, np.round(model.landmarks_on_chart()[LEFT_CHEEK].numpy()).astype(int)


def found(photo: np.ndarray, model: MorphableModel, atlas: HeadAtlas, camera: Camera, shown: Tensor) -> np.ndarray:
    renderer = HeadRenderer(model.triangles, model.corner_uv, model.triangle_part, model.config.part_names)
    change = fine_detail(atlas.neutral_face(), shown, crop_of(photo), atlas, renderer, model.mean[None], camera, LIGHT)
    assert change.shape == (1, 4, 512, 512) and not change[:, 3].any() and torch.equal(change[:, 0], change[:, 2])
    return change[0, 0].numpy()


def mole(place: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """The photo with a dark dot of less than a pixel of the crop."""
    marked = photo.copy()
    x, y = np.round(place * TIMES).astype(int)
    marked[y - 1 : y + 2, x - 1 : x + 2] = 40
    return marked


PLAIN = np.full((CROP_SIZE * TIMES, CROP_SIZE * TIMES, 3), 170, np.uint8)
WHOLE = torch.ones(1, 1, 256, 256)


def test_a_mole_lands_on_its_own_cheek(model: MorphableModel, atlas: HeadAtlas, camera: Camera) -> None:
    pixels, (u, v) = places(model, camera)
    change = found(mole(pixels, PLAIN), model, atlas, camera, WHOLE)
    darkest = np.unravel_index(change.argmin(), change.shape)
    assert abs(darkest[0] - v) < 6 and abs(darkest[1] - u) < 6  # and not its mirror image
    assert -DARKEST <= change.min() < -0.1
    others = change.copy()
    others[v - 12 : v + 13, u - 12 : u + 13] = 0
    assert np.abs(others).max() < 0.01


def test_nothing_where_no_skin_shows_and_nothing_of_glints(
    model: MorphableModel, atlas: HeadAtlas, camera: Camera
) -> None:
    pixels, (u, _) = places(model, camera)
    hidden = WHOLE.clone()
    hidden[..., u // 2 - 20 : u // 2 + 20] = 0.0
    assert np.abs(found(mole(pixels, PLAIN), model, atlas, camera, hidden)).max() < 0.01
    bright = 255 - mole(pixels, PLAIN)  # a light dot on a dark face
    assert 0 < found(bright, model, atlas, camera, WHOLE).max() <= LIGHTEST


def test_a_photo_of_few_pixels_has_nothing_to_add(model: MorphableModel, atlas: HeadAtlas, camera: Camera) -> None:
    pixels, _ = places(model, camera)
    small = cv2.resize(mole(pixels, PLAIN), (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    assert not found(small, model, atlas, camera, WHOLE).any()


def test_broad_shade_stays_light(model: MorphableModel, atlas: HeadAtlas, camera: Camera) -> None:
    ramp = np.linspace(90, 220, len(PLAIN))[None, :, None]
    shaded = np.broadcast_to(ramp, PLAIN.shape).astype(np.uint8)
    assert np.abs(found(shaded, model, atlas, camera, WHOLE)).max() < 0.02
