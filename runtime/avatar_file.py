"""A saved avatar: one file that every export can be made from, without diffusion, without PyTorch.

It is a safetensors file. Geometry is float32 and exact; blendshapes are kept as the rows that move; maps lie in it as
PNG files, 8 bits a channel, normals 16; everything else is JSON in the header. It knows nothing of engines and of glTF.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from ..errors import FitDiffError
from ..models.topology import HeadTopology
from .avatar import Avatar, HeadMaps, Iris, ReflectanceMaps

FORMAT = "fitdiff-avatar/1"
FILE_NAME = "avatar.fitdiff"  # in the folder of a run
_REMEDY = "name an avatar.fitdiff, or the folder of a run of fitdiff avatar or sample"

# What each map is stored as; decoded, it differs by at most half a step of that.
_MAPS: dict[str, tuple[str, type[np.unsignedinteger]]] = {
    "face.diffuse_albedo": ("unit", np.uint8),
    "face.specular_albedo": ("grey", np.uint8),
    "face.normal": ("normal", np.uint16),
    "head.base_color": ("unit", np.uint8),
    "head.specular": ("unit", np.uint8),
    "head.normal": ("normal", np.uint16),
    "head.roughness": ("unit", np.uint8),
}
_FOLDS = "face.folds"  # not there where an avatar has none
_NO_FOLD = 128 / 255  # what a factor of 1 is stored as


class AvatarFileError(FitDiffError):
    """A saved avatar cannot be read: it is damaged, or no avatar at all."""


@dataclass(frozen=True)
class SavedModel:
    """The fields of a `ModelCard`, whose module imports PyTorch."""

    role: str
    name: str
    source: str
    licence: str
    commercial: bool
    sha256: str = ""


def save_avatar(avatar: Avatar, path: Path) -> Path:
    """Write the avatar to `path`, whole or not at all. The same avatar gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    topology = avatar.topology
    shape, vertex = np.nonzero((topology.blendshapes != 0).any(2))
    tensors: dict[str, npt.NDArray] = {
        "vertices": avatar.vertices,
        "expression_offset": avatar.expression_offset,
        "triangles": topology.triangles,
        "corner_uv": topology.corner_uv,
        "triangle_part": topology.triangle_part,
        "blendshape_rows": np.stack([shape, vertex], 1).astype(np.int32),
        "blendshape_offsets": topology.blendshapes[shape, vertex],
    }
    for name, (kind, dtype) in _MAPS.items():
        owner, field = name.split(".")
        values = getattr(avatar.face_maps if owner == "face" else avatar.head_maps, field)
        tensors[name] = np.frombuffer(_png_from_map(values, kind, dtype), np.uint8)
    if avatar.folds is not None:
        tensors[_FOLDS] = np.frombuffer(_png_from_map(avatar.folds * np.float32(_NO_FOLD), "unit", np.uint8), np.uint8)
    header = {
        "part_names": topology.part_names,
        "blendshape_names": topology.blendshape_names,
        "face_block": topology.face_block,
        "expression_weights": {name: float(weight) for name, weight in avatar.expression_weights.items()},
        "light": avatar.light,
        "pose": avatar.pose,
        "models": [dataclasses.asdict(card) for card in avatar.models],
        "seed": avatar.seed,
        "iris": dataclasses.asdict(avatar.iris),
    }
    ordered = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    metadata = {"avatar": json.dumps(header, default=_plain), "format": FORMAT}
    data = _with_sorted_header(safetensors.numpy.save(ordered, metadata))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_avatar(path: Path) -> Avatar:
    """The avatar in the file `path`, or in the file `avatar.fitdiff` of the folder `path`.

    Raises:
        AvatarFileError: there is none, it is damaged, or it has a format that this version does not know.
    """
    file = path / FILE_NAME if path.is_dir() else path
    thing = f"avatar {file}"
    if not file.is_file():
        raise AvatarFileError(thing, "no such file", "a saved avatar", _REMEDY)
    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            version = metadata.get("format")
            if version != FORMAT:
                got = f"a safetensors file of format {version!r}"
                raise AvatarFileError(thing, got, FORMAT, f"{_REMEDY}, made by this version of fitdiff")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return _avatar(tensors, json.loads(metadata["avatar"]))
    except SafetensorError as error:
        raise AvatarFileError(thing, f"no safetensors file ({error})", FORMAT, _REMEDY) from error
    except (KeyError, ValueError, TypeError, IndexError) as error:
        got = f"damaged contents, {type(error).__name__}: {error}"
        raise AvatarFileError(thing, got, FORMAT, "make the avatar again") from error


def _avatar(tensors: Mapping[str, npt.NDArray], header: dict[str, Any]) -> Avatar:
    count, shapes = len(tensors["vertices"]), len(header["blendshape_names"])
    blendshapes = np.zeros((shapes, count, 3), np.float32)
    rows = tensors["blendshape_rows"]
    if len(rows) and rows.min() < 0:
        raise ValueError("blendshape_rows: a negative index")
    blendshapes[rows[:, 0], rows[:, 1]] = tensors["blendshape_offsets"]
    maps = {name: _map_from_png(tensors[name], name, kind) for name, (kind, _) in _MAPS.items()}
    iris: dict[str, Any] = header["iris"]
    return Avatar(
        vertices=tensors["vertices"],
        expression_offset=tensors["expression_offset"],
        expression_weights=header["expression_weights"],
        topology=HeadTopology(
            triangles=tensors["triangles"],
            corner_uv=tensors["corner_uv"],
            triangle_part=tensors["triangle_part"],
            blendshapes=blendshapes,
            blendshape_names=tuple(header["blendshape_names"]),
            face_block=cast(tuple[int, int, int], tuple(header["face_block"])),
            part_names=tuple(header["part_names"]),
        ),
        face_maps=ReflectanceMaps(*(maps[f"face.{name}"] for name in ("diffuse_albedo", "specular_albedo", "normal"))),
        head_maps=HeadMaps(*(maps[f"head.{name}"] for name in ("base_color", "specular", "normal", "roughness"))),
        light=header["light"],
        pose=header["pose"],
        models=cast(Any, tuple(SavedModel(**card) for card in header["models"])),
        seed=header["seed"],
        iris=Iris(tuple(iris["color"]), iris["diameter"], iris["confidence"]),
        folds=_map_from_png(tensors[_FOLDS], _FOLDS, "unit") * np.float32(1 / _NO_FOLD) if _FOLDS in tensors else None,
    )


def _png_from_map(values: npt.NDArray[np.float32], kind: str, dtype: type[np.unsignedinteger]) -> bytes:
    if kind == "grey":  # three equal channels
        values = values[..., 0]
    unit = values * 0.5 + 0.5 if kind == "normal" else values
    top = np.iinfo(dtype).max
    pixels = np.rint(np.clip(unit.astype(np.float64), 0, 1) * top).astype(dtype)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[-1]) if pixels.ndim == 3 else None
    written, data = cv2.imencode(".png", pixels if order is None else np.ascontiguousarray(pixels[..., order]))
    assert written
    return data.tobytes()


def _map_from_png(data: npt.NDArray[np.uint8], name: str, kind: str) -> npt.NDArray[np.float32]:
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError(f"{name}: no PNG file")
    unit = pixels.astype(np.float32) / np.float32(65535 if pixels.dtype == np.uint16 else 255)
    if kind == "grey":
        return np.repeat(unit[..., None], 3, 2)
    if unit.ndim == 3:
        unit = unit[..., [2, 1, 0, 3][: unit.shape[2]]]
    if kind == "normal":
        unit = unit * 2 - 1
        unit /= np.maximum(np.linalg.norm(unit, axis=-1, keepdims=True), np.float32(1e-6))
    return np.ascontiguousarray(unit)


def _with_sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its metadata in a fixed order: the library writes them in a random one."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _plain(value: Any) -> Any:
    """numpy numbers and arrays in light and pose, as JSON has them."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else dict(value)
