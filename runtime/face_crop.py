"""The face of a photo, cut out for the networks: which face, which way up, its landmarks, the square crop.

All coordinates are pixels with centres at +0.5, x right, y down. The landmark network and the detector are
given to these functions; this file knows nothing of recognisers, of three-dimensional shape or of files.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NoFaceError
from ..rendering.shader import linear_from_srgb, srgb_from_linear
from .face_chip import five_points_from_landmarks
from .face_detector import Detector, FaceBox
from .photo import Photo

LandmarkNetwork = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(B, 3, 192, 192) sRGB in [0, 1] -> points (B, 468, 3) in its pixels, face logit (B,)."""

CROP_SIZE = 224
CROP_SCALE = 1.5  # side of the crop over the longer extent of the landmarks: hair, ears and chin stay inside
LANDMARK_INPUT = 192
LANDMARK_SCALE = 1.5  # side of the landmark network's region over the face's, as in MediaPipe's face graph
LANDMARK_PASSES = 2  # the second starts from the first's own landmarks, so a loose box changes little
MIN_FACE_LOGIT = 0.0  # a probability of one half, MediaPipe's own threshold
SURE_FACE_LOGIT = 12.0  # of 123 portraits none upright was below 10.8, none turned by 90 or 180 degrees above 9.8
SMALL_FACE = 40.0  # px


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """One face, ready for the networks.

    photo: (H, W, 3) uint8 sRGB, upright: `quarter_turns` (np.rot90's k) from the photo that was loaded.
    image: (224, 224, 3) float32 sRGB in [0, 1]. Beyond the photo its edge goes on: see `inside_photo`.
    crop_from_photo: (2, 3) float64, one scale and a translation.
    landmarks: (468, 3) float32 crop px; z at the same scale, smaller is nearer, 0 at the head's middle.
    five_points: (5, 2) float32 crop px, in template order (see `face_chip`).
    box: (4,) float32 x, y, width, height in photo px, as detected.
    face_index, faces: which of the boxes, sorted by area from 0, and all of them.
    photo_sha256, is_monochrome: of the whole photo. notes: sentences for the user, the photo's first.
    """

    photo: np.ndarray
    image: np.ndarray
    crop_from_photo: np.ndarray
    landmarks: np.ndarray
    five_points: np.ndarray
    box: np.ndarray
    face_index: int
    faces: tuple[FaceBox, ...]
    quarter_turns: int
    photo_sha256: str
    is_monochrome: bool
    notes: tuple[str, ...]

    @property
    def inside_photo(self) -> np.ndarray:
        """(224, 224) bool: crop pixels whose centre lies in the photo."""
        scale, offset = self.crop_from_photo[0, 0], self.crop_from_photo[:, 2]
        x, y = ((np.arange(len(self.image)) + 0.5 - offset[:, None]) / scale).reshape(2, -1)
        height, width = self.photo.shape[:2]
        return ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None]

    def image_of(self, size: int) -> np.ndarray:
        """(size, size, 3) float32 sRGB in [0, 1]: the crop's square of the photo at another resolution."""
        scale, offset = self.crop_from_photo[0, 0], self.crop_from_photo[:, 2]
        left, top = (round(v) for v in -offset / scale)
        return _cut(self.photo, left, top, round(len(self.image) / scale), size)


def crop_face(photo: Photo, detector: Detector, landmark_network: LandmarkNetwork, face: int | None = None) -> FaceCrop:
    """Find a face, its landmarks, and cut it out.

    `face` counts from 0, the largest box first; None takes the largest that the landmark network confirms.
    Raises NoFaceError when there is no such face; the message lists the boxes that there are.
    """
    way_up = _upright(photo, detector, landmark_network)
    faces, turns = way_up.faces, way_up.quarter_turns
    pixels = np.ascontiguousarray(np.rot90(photo.pixels, turns))
    notes = list(photo.notes)
    if turns:
        way = {1: "90 degrees to the left", 2: "180 degrees", 3: "90 degrees to the right"}[turns]
        notes.append(f"the photo lay on its side or its head and was turned by {way}")
    for index in _candidates(faces, face):
        landmarks, logit = way_up.landmarks, way_up.logit
        if index != way_up.surest:
            landmarks, logit = find_landmarks(landmark_network, pixels, faces[index])
        if logit >= MIN_FACE_LOGIT:
            break
    else:
        raise NoFaceError(
            "photo",
            f"{_listed(faces)}, in which the landmark network sees no face",
            "a face from the front or half turned, well lit, uncovered",
            "use another photo, or choose another face with --face",
        )
    if min(faces[index].box[2:]) < SMALL_FACE:
        notes.append(f"the face is only {faces[index]}; from 100 px on the likeness is better")
    if len(faces) > 1 and face is None:
        notes.append(f"{_listed(faces)}; face {index} is used, choose with --face")
    crop_from_photo = framing_transform(landmarks)
    points = _apply(crop_from_photo, landmarks)
    return FaceCrop(
        photo=pixels,
        image=_cut_framed(pixels, crop_from_photo, CROP_SIZE),
        crop_from_photo=crop_from_photo,
        landmarks=points,
        five_points=five_points_from_landmarks(points),
        box=faces[index].box,
        face_index=index,
        faces=tuple(faces),
        quarter_turns=turns,
        photo_sha256=photo.sha256,
        is_monochrome=photo.is_monochrome,
        notes=tuple(notes),
    )


def find_landmarks(network: LandmarkNetwork, pixels: np.ndarray, face: FaceBox) -> tuple[np.ndarray, float]:
    """(H, W, 3) uint8 photo and a detected box -> landmarks (468, 3) float32 photo px, face logit."""
    angle = np.radians(face.roll_degrees)
    centre, side = face.box[:2] + face.box[2:] / 2, float(max(face.box[2:]))
    landmarks, logit = np.zeros((0, 3), np.float32), 0.0
    weights = network.parameters() if isinstance(network, nn.Module) else iter(())
    device = next((weight.device for weight in weights), torch.device("cpu"))
    for _ in range(LANDMARK_PASSES):
        region = _turned_square(centre, side * LANDMARK_SCALE, angle, LANDMARK_INPUT)
        patch = torch.from_numpy(_cut_turned(pixels, region)).permute(2, 0, 1)[None].to(device)
        with torch.no_grad():
            points, logits = network(patch)
        landmarks = _apply(_inverse(region), points[0].float().cpu().numpy())
        logit = float(logits[0])
        eyes = five_points_from_landmarks(landmarks)
        angle = np.arctan2(*(eyes[1] - eyes[0])[::-1])
        level = _turned_square(np.zeros(2), 1.0, angle, 1)
        turned = _apply(level, landmarks)[:, :2]
        low, high = turned.min(0), turned.max(0)
        centre = _apply(_inverse(level), ((low + high) / 2)[None])[0]
        side = float((high - low).max())
    return landmarks, logit


def framing_transform(landmarks: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """(468, 2 or 3) landmarks in photo px -> crop_from_photo (2, 3) float64: one scale and a translation.

    The crop is the square around the middle of the landmarks' extent, `CROP_SCALE` times its longer side. Its
    corner falls on a whole photo pixel and its side is a whole number of them, so that pixels divide evenly.
    """
    low, high = landmarks[:, :2].min(0).astype(np.float64), landmarks[:, :2].max(0).astype(np.float64)
    side = max(round(float((high - low).max()) * CROP_SCALE), 1)
    corner = np.round((low + high) / 2 - side / 2)
    scale = size / side
    return np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])


@dataclass(frozen=True, eq=False)
class _WayUp:
    """What a photo shows after quarter turns to the left: its faces, and the landmarks of the surest one."""

    quarter_turns: int
    faces: list[FaceBox]
    surest: int
    landmarks: np.ndarray
    logit: float


def _upright(photo: Photo, detector: Detector, network: LandmarkNetwork) -> _WayUp:
    """The way up in which the landmark network is surest of a face.

    The other three are looked at only when the camera has not said which one is right and the network is not
    sure of the photo as it is.
    """
    best = _look(photo.pixels, 0, detector, network)
    if photo.exif_orientation != 1 or best.logit >= SURE_FACE_LOGIT:
        return best
    for turns in (1, 3, 2):
        other = _look(photo.pixels, turns, detector, network)
        if other.logit >= MIN_FACE_LOGIT and other.logit > best.logit:
            best = other
    return best


def _look(pixels: np.ndarray, turns: int, detector: Detector, network: LandmarkNetwork) -> _WayUp:
    faces = detector.detect(pixels, turns)
    if not faces:
        return _WayUp(turns, faces, -1, np.zeros((0, 3), np.float32), -np.inf)
    surest = max(range(len(faces)), key=lambda index: faces[index].score)
    landmarks, logit = find_landmarks(network, np.rot90(pixels, turns), faces[surest])
    return _WayUp(turns, faces, surest, landmarks, logit)


def _candidates(faces: list[FaceBox], face: int | None) -> range:
    if not faces:
        raise NoFaceError(
            "photo",
            "no face that the detector finds",
            "one face from the front or half turned, at least 40 px wide",
            "use another photo, or crop it so that the head fills about half of it",
        )
    if face is None:
        return range(len(faces))
    if not 0 <= face < len(faces):
        remedy = "choose one of these with --face; 0 is the largest"
        raise NoFaceError("--face", f"{face}", _listed(faces), remedy)
    return range(face, face + 1)


def _listed(faces: list[FaceBox]) -> str:
    count = "one face" if len(faces) == 1 else f"{len(faces)} faces"
    return f"{count} in the photo: " + ", ".join(f"{i}: {face}" for i, face in enumerate(faces))


def _turned_square(centre: np.ndarray, side: float, angle: float, size: int) -> np.ndarray:
    """(2, 3) that maps the square of that side, turned clockwise by `angle`, onto (0, 0)-(size, size)."""
    scale, c, s = size / side, np.cos(angle), np.sin(angle)
    linear = scale * np.array([[c, s], [-s, c]])
    return np.hstack([linear, (np.full(2, size / 2) - linear @ centre)[:, None]])


def _inverse(transform: np.ndarray) -> np.ndarray:
    linear = np.linalg.inv(transform[:, :2])
    return np.hstack([linear, -linear @ transform[:, 2:]])


def _apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Similarity (2, 3) on points (N, 2), or (N, 3) whose depth is scaled alike. float32 out."""
    flat = points[:, :2] @ transform[:, :2].T + transform[:, 2]
    scale = np.sqrt(abs(np.linalg.det(transform[:, :2])))
    return np.hstack([flat, points[:, 2:] * scale]).astype(np.float32)


def _cut_framed(pixels: np.ndarray, crop_from_photo: np.ndarray, size: int) -> np.ndarray:
    """Photo -> (size, size, 3) float32 sRGB in [0, 1], for a transform of `framing_transform`."""
    scale = crop_from_photo[0, 0]
    left, top = (round(float(v)) for v in -crop_from_photo[:, 2] / scale)
    return _cut(pixels, left, top, round(size / scale), size)


def _cut_turned(pixels: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Photo -> (192, 192, 3) float32 sRGB in [0, 1] by `region`, a (2, 3) similarity region_from_photo."""
    size, photo_from_region = LANDMARK_INPUT, _inverse(region)
    corners = _apply(photo_from_region, np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64))
    left, top = (int(v) - 1 for v in np.floor(corners.min(0)))
    side = int(np.ceil(corners.max(0) - corners.min(0)).max()) + 3
    scale = float(np.sqrt(np.linalg.det(region[:, :2])))
    middle = min(side, round(side * scale * 1.5))  # bilinear sampling may then shrink by 1.5, and nothing aliases
    upright = _cut(pixels, left, top, side, middle)
    linear = region[:, :2] * (side / middle)
    offset = region[:, :2] @ [left, top] + region[:, 2]
    offset = offset + linear @ [0.5, 0.5] - 0.5  # OpenCV puts pixel centres at whole numbers
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
    transform = np.hstack([linear, offset[:, None]])
    patch = cv2.warpAffine(upright, transform, (size, size), flags=method, borderMode=cv2.BORDER_REPLICATE)
    return patch.clip(0, 1)


def _cut(pixels: np.ndarray, left: int, top: int, side: int, size: int) -> np.ndarray:
    """A square of the photo, resized -> (size, size, 3) float32 sRGB in [0, 1].

    Shrinking averages areas, in linear light; enlarging is cubic. Beyond the photo its edge goes on.
    """
    height, width = pixels.shape[:2]
    if min(left, top) >= 0 and left + side <= width and top + side <= height:
        square = pixels[top : top + side, left : left + side]
    else:
        rows = np.clip(np.arange(top, top + side), 0, height - 1)
        columns = np.clip(np.arange(left, left + side), 0, width - 1)
        square = pixels[np.ix_(rows, columns)]
    if size >= side:
        sharp = square.astype(np.float32) / 255
        return cv2.resize(sharp, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    levels = linear_from_srgb(torch.arange(256) / 255).numpy()
    table = np.round(levels * 65535).astype(np.uint16)  # 16 bits: a third of the memory of float32 and as good
    averaged = cv2.resize(table[square], (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 65535
    return srgb_from_linear(torch.from_numpy(averaged)).numpy()
