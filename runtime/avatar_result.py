"""What comes out of the main job: an avatar, its report, and what pictures of it need. Knows not how it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor

from ..models.checkpoint import ModelCard
from ..models.topology import HeadTopology
from ..rendering.camera import Camera
from ..rendering.renderer import HeadMapsTensor
from ..rendering.shader import Light
from .avatar import Avatar
from .avatar_maps import head_maps_from_tensors, reflectance_maps
from .devices import array_from_tensor
from .expression import blendshape_weights
from .face_crop import FaceCrop
from .guidance import FOCAL, crop_camera
from .iris import iris_from_crop
from .pose import Pose
from .report import RunReport, StageClock


@dataclass(frozen=True)
class AvatarOptions:
    """What a user may choose. `guidance` names a row of GUIDANCE_PRESETS; `cfg` is the classifier-free scale.

    condition: "last" gives the denoiser the recogniser's embedding alone, "all" its intermediate maps too.
    """

    steps: int = 50
    guidance: str = "full"
    cfg: float = 1.0
    seed: int = 0
    condition: Literal["all", "last"] = "all"


@dataclass(frozen=True)
class AvatarResult:
    """An avatar, how it came about, and the camera and light of its photo for pictures.

    head_maps, vertices, light: as the renderer takes them, on the CPU, with the photo's expression and its folds.
    camera: in the crop; None without a photo.
    """

    avatar: Avatar
    report: RunReport
    vertices: Tensor  # (1, V, 3) with the photo's expression
    head_maps: HeadMapsTensor
    light: Light
    camera: Camera | None


@dataclass(frozen=True)
class Fit:
    """How a face compares with its photo; nothing of it without one."""

    pose: Pose | None
    similarity: dict[str, float]
    landmark_error: float | None
    guidance: list[dict[str, float]]

    def scaled(self, factor: float) -> Fit:
        """The same picture of a head of `factor` times the size, farther away by as much."""
        return self if self.pose is None else replace(self, pose=replace(self.pose, tvec=factor * self.pose.tvec))


NO_FIT = Fit(None, {}, None, [])


@dataclass(frozen=True)
class DecodedFace:
    """One z_0 decoded, on the CPU; every tensor with a leading axis of 1."""

    maps: Tensor  # (1, 9, 512, 512) of the face at rest
    head: HeadMapsTensor  # of these maps
    seen: HeadMapsTensor  # with the folds of the photo's expression
    folds: Tensor | None  # (1, 1, 512, 512), see `Avatar.folds`
    neutral: Tensor  # (1, V, 3)
    vertices: Tensor  # (1, V, 3) with the photo's expression
    light: Light


def avatar_result(
    face: DecodedFace,
    options: AvatarOptions,
    crop: FaceCrop | None,
    fit: Fit,
    *,
    topology: HeadTopology,
    models: tuple[ModelCard, ...],
    photos_at_once: int,
    runs_on: dict[str, str],
) -> AvatarResult:
    """Everything of a result but its times, which `timed` adds.

    Args:
        crop: None for a face without a photo.
        photos_at_once, runs_on: what the report says of the run.
    """
    offset, light = face.vertices - face.neutral, face.light
    weights = blendshape_weights(offset[0].numpy(), topology.blendshapes)
    named = {n: round(float(w), 4) for n, w in zip(topology.blendshape_names, weights, strict=True) if w > 0.005}
    light_values = {
        "ambient": light.ambient[0].tolist(),
        "directional": light.directional[0].tolist(),
        "direction": light.direction[0].tolist(),
    }
    pose_values = _pose_values(fit.pose)
    avatar = Avatar(
        vertices=face.neutral[0].numpy(),
        expression_offset=offset[0].numpy(),
        expression_weights=named,
        topology=topology,
        face_maps=reflectance_maps(face.maps),
        head_maps=head_maps_from_tensors(face.head),
        light=light_values,
        pose=pose_values,
        models=models,
        seed=options.seed,
        folds=None if face.folds is None else array_from_tensor(face.folds[0, 0]),
    )
    if crop is not None:
        avatar = replace(avatar, iris=iris_from_crop(crop, avatar))
    report = RunReport(
        options=asdict(options) | {"photo": crop is not None, "photos_at_once": photos_at_once} | runs_on,
        seed=options.seed,
        photo_sha256=crop.photo_sha256 if crop else None,
        face_index=crop.face_index if crop else None,
        face_count=len(crop.faces) if crop else None,
        models=models,
        similarity=fit.similarity,
        landmark_error=fit.landmark_error,
        pose=pose_values,
        light=light_values,
        stages=(),
        seconds=0.0,
        guidance=fit.guidance,
        notes=crop.notes if crop else (),
    )
    camera = crop_camera(fit.pose) if fit.pose else None
    return AvatarResult(avatar, report, face.vertices, face.seen, light, camera)


def timed(result: AvatarResult, clock: StageClock) -> AvatarResult:
    return replace(result, report=replace(result.report, stages=tuple(clock.stages), seconds=clock.total()))


def _pose_values(pose: Pose | None) -> dict[str, Any] | None:
    if pose is None:
        return None
    yaw, pitch, roll = pose.yaw_pitch_roll
    return {
        "yaw_degrees": yaw, "pitch_degrees": pitch, "roll_degrees": roll, "rvec": pose.rvec.tolist(),
        "tvec_metres": pose.tvec.tolist(), "focal_px": FOCAL, "image_px": 224, "reprojection_px": pose.error,
    }  # fmt: skip
