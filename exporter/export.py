"""Everything that one export writes, into one folder: GLB files, textures beside them, plain meshes, USD.

It knows the names of files and nothing of what is in them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..runtime.avatar import Avatar
from .assembly import assembled_head
from .gltf import DEFAULT_OPTIONS, GltfSummary, write_assembled
from .maps import write_atomically
from .material import MATERIALS
from .options import ExportOptions
from .plain_mesh import obj_files, ply_bytes
from .textures.texture_set import loose_textures, texture_set
from .usd import usd_bytes

TEXTURE_FOLDER = "textures"


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        files: all paths, the first GLB first.
        gltf: a summary of each GLB file.
    """

    files: tuple[Path, ...]
    gltf: tuple[GltfSummary, ...]


def write_export(avatar: Avatar, folder: Path, options: ExportOptions = DEFAULT_OPTIONS) -> ExportSummary:
    """Write the avatar for the options' target into the folder, which must exist.

    A caller who wants all files or none gives a folder of `runtime.outputs.whole_folder`.

    Raises:
        UsageError: the options ask for something that this head does not have.
        MissingError: a package or tool that the options need is absent.
        InvalidGltfError: the avatar holds something that glTF does not allow.
        OSError: a file cannot be written.
    """
    names = options.engine.names
    head = assembled_head(avatar, options)
    summaries = write_assembled(head, folder / names.file_of(0), options)
    others = {f"{TEXTURE_FOLDER}/{name}": data for name, data in loose_textures(head.textures, options).items()}
    if options.ply:
        others[f"{names.mesh}.ply"] = ply_bytes(head)
    if options.obj:
        lashes = next(material for material in MATERIALS if material.surface == "cut_out")
        readable = dataclasses.replace(options, texture_format="jpeg", compression="none")
        others |= obj_files(head, texture_set(head.textures, readable, head.uv_of(lashes)), names)
    if options.usd:
        others[f"{names.mesh}.usdz"] = usd_bytes(head, options)
    for name, data in others.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return ExportSummary((*_paths(summaries), *(folder / name for name in others)), summaries)


def _paths(summaries: Iterable[GltfSummary]) -> list[Path]:
    return [summary.path for summary in summaries]
