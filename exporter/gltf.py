"""An avatar as one binary glTF 2.0 file.

Puts primitives, materials and textures together; each comes from its own module. It knows nothing of how the
avatar was made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.avatar import Avatar
from .accessors import BinaryChunk
from .maps import write_atomically
from .material import MATERIALS, SAMPLER, material_json, texture_images
from .mesh import Primitive, primitives_from_avatar
from .validate import check_glb

GENERATOR = "FitDiff"


@dataclass(frozen=True)
class GltfSummary:
    """What a written file holds.

    Attributes:
        path: the file.
        bytes: its size.
        sha256: its hash; the same avatar gives the same bytes.
        vertices: render vertices of all primitives.
        triangles: triangles of all primitives.
        morph_targets: names of the blendshapes.
        materials: names of the materials, one for each primitive.
        texture_bytes: size of the PNG files in it.
    """

    path: Path
    bytes: int
    sha256: str
    vertices: int
    triangles: int
    morph_targets: tuple[str, ...]
    materials: tuple[str, ...]
    texture_bytes: int


def write_glb(avatar: Avatar, path: Path) -> GltfSummary:
    """Write the avatar as GLB, whole or not at all; the same avatar gives the same bytes.

    The mesh is the neutral face with every blendshape at weight 0; the expression of the photo stands as
    weights in `asset.extras.fitdiff.expression_weights`, beside the seed and the models with their licences.

    Raises:
        InvalidGltfError: the avatar holds something that glTF does not allow (NaN, say); nothing is written.
        OSError: the file cannot be written.
    """
    used = [
        (material, primitive)
        for material, primitive in zip(
            MATERIALS, primitives_from_avatar(avatar, [material.parts for material in MATERIALS]), strict=True
        )
        if primitive is not None
    ]
    names = avatar.topology.blendshape_names
    images = texture_images(avatar.head_maps)
    chunk = BinaryChunk()
    primitives = [_primitive_json(primitive, index, chunk) for index, (_, primitive) in enumerate(used)]
    document = {
        "asset": {"version": "2.0", "generator": GENERATOR, "extras": {"fitdiff": _provenance(avatar)}},
        "extensionsUsed": ["KHR_materials_specular"],
        "scene": 0,
        # A skinned mesh stands at the root of the scene: only its joints place it (glTF 2.0, 3.7.3.3).
        "scenes": [{"name": "FitDiff", "nodes": [0, 2]}],
        "nodes": [
            {"name": "FitDiffHead", "children": [1]},
            {"name": "head"},
            {"name": "FitDiffHeadMesh", "mesh": 0, "skin": 0},
        ],
        "skins": [
            {
                "name": "FitDiffHead",
                "skeleton": 0,
                "joints": [1],
                "inverseBindMatrices": chunk.add_matrices(
                    "inverse bind matrices", np.eye(4, dtype=np.float32)[None]
                ),
            }
        ],
        "meshes": [_mesh_json(primitives, names)],
        "materials": [material_json(material) for material, _ in used],
        "samplers": [SAMPLER],
        "textures": [{"name": name, "sampler": 0, "source": index} for index, name in enumerate(images)],
        "images": [
            {"name": name, "mimeType": "image/png", "bufferView": chunk.add_image(name, data)}
            for name, data in images.items()
        ],
        "accessors": chunk.accessors,
    }
    views, binary = chunk.finish()
    data = _glb(document | {"bufferViews": views, "buffers": [{"byteLength": len(binary)}]}, binary)
    check_glb(data)
    write_atomically(path, data)
    return GltfSummary(
        path=path,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        vertices=sum(len(primitive.positions) for _, primitive in used),
        triangles=sum(len(primitive.triangles) for _, primitive in used),
        morph_targets=names,
        materials=tuple(material.name for material, _ in used),
        texture_bytes=sum(len(data) for data in images.values()),
    )


def _primitive_json(primitive: Primitive, material: int, chunk: BinaryChunk) -> dict[str, Any]:
    count = len(primitive.positions)
    joints = np.zeros((count, 4), np.uint8)  # all of it hangs on joint 0
    weights = np.tile(np.array([255, 0, 0, 0], np.uint8), (count, 1))
    fixed = {
        "attributes": {
            "POSITION": chunk.add_vertices("positions", primitive.positions, bounds=True),
            "NORMAL": chunk.add_vertices("normals", primitive.normals),
            "TANGENT": chunk.add_vertices("tangents", primitive.tangents),
            "TEXCOORD_0": chunk.add_vertices("texture coordinates", primitive.uv),
            "JOINTS_0": chunk.add_vertices("joints", joints),
            "WEIGHTS_0": chunk.add_vertices("weights", weights, normalized=True),
        },
        "indices": chunk.add_indices("triangles", primitive.triangles),
        "material": material,
    }
    # Both attributes in every target, zeros where a blendshape leaves the primitive alone: readers want
    # equal lists.
    targets = [
        {
            "POSITION": chunk.add_sparse(
                "morph", count, target.position_index, target.position_delta, bounds=True
            ),
            "NORMAL": chunk.add_sparse("morph", count, target.normal_index, target.normal_delta),
        }
        for target in primitive.targets
    ]
    return fixed | ({"targets": targets} if targets else {})


def _mesh_json(primitives: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    mesh: dict[str, Any] = {"name": "FitDiffHead", "primitives": primitives}
    return mesh | ({"weights": [0.0] * len(names), "extras": {"targetNames": list(names)}} if names else {})


def _provenance(avatar: Avatar) -> dict[str, Any]:
    return {
        "models": [dataclasses.asdict(card) for card in avatar.models],
        "seed": avatar.seed,
        "expression_weights": {name: float(weight) for name, weight in avatar.expression_weights.items()},
    }


def _glb(document: dict[str, Any], binary: bytes) -> bytes:
    """The container of glTF 2.0, section 4.4: header, JSON and binary chunk, in multiples of four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
