"""An avatar as binary glTF 2.0: one file, or one for each level of detail where the target wants that.

Puts primitives, materials, textures and nodes together; each comes from its own module. It knows nothing of how
the avatar was made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.avatar import Avatar
from .accessors import BinaryChunk
from .assembly import AssembledHead, AssembledLevel, assembled_head
from .compression import compressed
from .maps import write_atomically
from .material import MATERIALS, SAMPLER, material_json
from .options import ExportOptions
from .primitive_json import primitive_json
from .quantisation import PositionGrid, position_grid
from .scene import LOD_EXTENSION, inverse_bind_matrices, scene_json
from .targets import Names
from .textures.encoding import EXTENSIONS, MIME
from .textures.texture_set import WHOLE, TextureSet, texture_set
from .validate import check_glb
from .vertex_order import reordered

GENERATOR = "FitDiff"
DEFAULT_OPTIONS = ExportOptions()


@dataclass(frozen=True)
class GltfSummary:
    """What a written file holds.

    Attributes:
        path: the file.
        bytes: its size.
        sha256: its hash; the same avatar and options give the same bytes.
        vertices: render vertices of all primitives of its first level.
        triangles: triangles of all primitives of its first level.
        morph_targets: names of the blendshapes.
        materials: names of the materials, one for each primitive.
        texture_bytes: size of the image files in it.
        levels: (render vertices, triangles) of each level of detail in it.
    """

    path: Path
    bytes: int
    sha256: str
    vertices: int
    triangles: int
    morph_targets: tuple[str, ...]
    materials: tuple[str, ...]
    texture_bytes: int
    levels: tuple[tuple[int, int], ...] = ()


def write_glb(avatar: Avatar, path: Path, options: ExportOptions = DEFAULT_OPTIONS) -> GltfSummary:
    """Write the avatar as GLB, whole or not at all; the same avatar and options give the same bytes.

    The mesh is the neutral face with every blendshape at weight 0; the expression of the photo stands as
    weights in `asset.extras.fitdiff.expression_weights`, beside the seed, the models with their licences and the
    options. Where the target takes a file a level, those after the first get its suffix: avatar_LOD1.glb.

    Raises:
        UsageError: the options ask for something that this head does not have.
        MissingError: a package or tool for the compression or texture format is absent.
        InvalidGltfError: the avatar holds something that glTF does not allow (NaN, say); nothing is written.
        OSError: a file cannot be written.
    """
    return write_assembled(assembled_head(avatar, options), path, options)[0]


def write_assembled(head: AssembledHead, path: Path, options: ExportOptions) -> tuple[GltfSummary, ...]:
    """`write_glb` for a head that is already assembled; a summary of each file."""
    lashes = next(material for material in MATERIALS if material.surface == "cut_out")
    textures = texture_set(head.textures, options, head.uv_of(lashes))
    by_file = options.engine.lods == "files"
    groups = [[level] for level in head.levels] if by_file else [list(head.levels)]
    level_name = options.engine.names.level
    files = []
    for number, group in enumerate(groups):
        place = path.with_name(f"{path.stem}{level_name.format(number)}{path.suffix}") if number else path
        files.append((place, group, _glb_of(head, group, textures, options, number)))
    for place, _, data in files:
        write_atomically(place, data)
    return tuple(_summary(place, data, head, group, textures, options) for place, group, data in files)


def _glb_of(
    head: AssembledHead, group: Sequence[AssembledLevel], textures: TextureSet, options: ExportOptions, number: int
) -> bytes:
    engine, chunk = options.engine, BinaryChunk()
    grid = position_grid(head.levels[0].avatar.vertices) if options.compression != "none" else None
    roles = list(textures.images)
    meshes = [_mesh_json(level, head, chunk, textures, grid, options) for level in group]
    stored = np.eye(4) if grid is None else grid.matrix()
    matrices = chunk.add_matrices("inverse bind matrices", inverse_bind_matrices(group[0].skeleton, stored))

    def materials(used: Sequence[str]) -> list[dict[str, Any]]:
        index = {role: used.index(role) if role in used else -1 for role in roles}  # -1: there, but not written
        return [material_json(material, engine.names, textures, index) for material in head.materials]

    used = [roles[place] for place in sorted(_used_textures(materials(roles)))]
    written = materials(used)
    needed = [EXTENSIONS[textures.images[role].format] for role in used if textures.images[role].format in EXTENSIONS]
    needed = sorted(set(needed)) + (["KHR_mesh_quantization"] if grid is not None else [])
    optional = [name for name, there in (
        ("KHR_materials_specular", any("extensions" in material for material in written)),
        (LOD_EXTENSION, engine.lods == LOD_EXTENSION and len(group) > 1),
    ) if there]  # fmt: skip
    document: dict[str, Any] = {
        "asset": {
            "version": "2.0",
            "generator": GENERATOR,
            "extras": {"fitdiff": _provenance(head.source, options, number)},
        },
        "extensionsUsed": [*optional, *needed],
        "extensionsRequired": needed,
        **scene_json(group[0].skeleton, len(group), engine.names, engine.lods, matrices),
        "meshes": meshes,
        "materials": written,
        "samplers": [SAMPLER],
        **_textures_json(textures, used, engine.names, chunk),
        "accessors": chunk.accessors,
    }
    views, binary = chunk.finish()
    document |= {"bufferViews": views, "buffers": [{"byteLength": len(binary)}]}
    document = {key: value for key, value in document.items() if value != [] and not (key == "samplers" and not used)}
    data = _glb(document, binary)
    check_glb(data)
    return _glb(*compressed(document, binary)) if options.compression == "meshopt" else data


def _mesh_json(
    level: AssembledLevel,
    head: AssembledHead,
    chunk: BinaryChunk,
    textures: TextureSet,
    grid: PositionGrid | None,
    options: ExportOptions,
) -> dict[str, Any]:
    names, compress = head.blendshape_names, options.compression == "meshopt"
    primitives = [
        primitive_json(
            reordered(primitive) if compress else primitive,
            head.materials.index(material),
            chunk,
            window={"opaque": WHOLE, "cut_out": textures.window, "film": None}[material.surface],
            bent=material.surface == "opaque",
            grid=grid,
            dense=compress,
        )
        for material, primitive in level.primitives
    ]
    mesh: dict[str, Any] = {"name": options.engine.names.mesh, "primitives": primitives}
    return mesh | ({"weights": [0.0] * len(names), "extras": {"targetNames": list(names)}} if names else {})


def _used_textures(part: Any) -> set[int]:
    """Numbers of the textures that a piece of a material refers to: lashes alone have no use for the skin's."""
    if isinstance(part, list):
        return set().union(*map(_used_textures, part))
    if not isinstance(part, dict):
        return set()
    own = {part["index"]} if "index" in part else set()
    return own.union(*map(_used_textures, part.values()))


def _textures_json(
    textures: TextureSet, roles: Sequence[str], names: Names, chunk: BinaryChunk
) -> dict[str, list[dict[str, Any]]]:
    images, entries = [], []
    for number, role in enumerate(roles):
        image = textures.images[role]
        word = f"Lashes_{names.maps['base_color']}" if role == "lashes" else names.maps[role]
        name = names.texture.format(map=word)
        images.append({"name": name, "mimeType": MIME[image.format], "bufferView": chunk.add_image(name, image.data)})
        extension = EXTENSIONS.get(image.format)
        source = {"source": number} if extension is None else {"extensions": {extension: {"source": number}}}
        entries.append({"name": name, "sampler": 0} | source)
    return {"textures": entries, "images": images}


def _provenance(avatar: Avatar, options: ExportOptions, level: int) -> dict[str, Any]:
    return {
        "models": [dataclasses.asdict(card) for card in avatar.models],
        "seed": avatar.seed,
        "expression_weights": {name: float(weight) for name, weight in avatar.expression_weights.items()},
        "target": options.target,
        "options": options.to_json(),
    } | ({"level": level} if level else {})


def _summary(
    path: Path,
    data: bytes,
    head: AssembledHead,
    group: Sequence[AssembledLevel],
    textures: TextureSet,
    options: ExportOptions,
) -> GltfSummary:
    counts = tuple(
        (sum(len(p.positions) for _, p in level.primitives), sum(len(p.triangles) for _, p in level.primitives))
        for level in group
    )
    return GltfSummary(
        path=path,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        vertices=counts[0][0],
        triangles=counts[0][1],
        morph_targets=head.blendshape_names,
        materials=tuple(material.name(options.engine.names) for material in head.materials),
        texture_bytes=sum(len(image.data) for image in textures.images.values()),
        levels=counts,
    )


def _glb(document: dict[str, Any], binary: bytes) -> bytes:
    """The container of glTF 2.0, section 4.4: header, JSON and binary chunk, in multiples of four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
