"""From an avatar to everything that a file format takes: finished, cut down as asked, in levels, with primitives.

The steps come from their own modules; this has their order. It knows nothing of file formats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.avatar import Avatar
from .anatomy.head import finished_head
from .anatomy.skeleton import Skeleton, head_skeleton
from .lod import avatar_at, levels_of, skeleton_at
from .material import MATERIALS, HeadMaterial
from .mesh import Primitive, primitives_from_avatar
from .options import ExportOptions
from .selection import with_chosen_parts, with_chosen_shapes
from .textures.head_textures import HeadTextures, head_textures
from .validate import InvalidGltfError


@dataclass(frozen=True, eq=False)
class AssembledLevel:
    """One level of detail: the head cut down to it, its skeleton, and a primitive for each material it wears."""

    avatar: Avatar
    skeleton: Skeleton
    primitives: tuple[tuple[HeadMaterial, Primitive], ...]


@dataclass(frozen=True, eq=False)
class AssembledHead:
    """What a writer needs.

    Attributes:
        source: the avatar as it came, for provenance.
        levels: finest first; all have the same joints, materials and blendshapes.
        textures: pixels that all levels share.
    """

    source: Avatar
    levels: tuple[AssembledLevel, ...]
    textures: HeadTextures

    @property
    def blendshape_names(self) -> tuple[str, ...]:
        return self.levels[0].avatar.topology.blendshape_names

    @property
    def materials(self) -> tuple[HeadMaterial, ...]:
        """Those that the first level wears."""
        return tuple(material for material, _ in self.levels[0].primitives)

    def uv_of(self, material: HeadMaterial) -> npt.NDArray[np.float32]:
        """(N, 2) texture coordinates of everything that wears the material, in any level."""
        found = [p.uv for level in self.levels for worn, p in level.primitives if worn is material]
        return np.concatenate(found) if found else np.zeros((0, 2), np.float32)


def assembled_head(avatar: Avatar, options: ExportOptions) -> AssembledHead:
    """Finish the head, make its levels and primitives.

    Raises:
        UsageError: the options ask for blendshapes, parts or levels that this head does not have.
        InvalidGltfError: the avatar's geometry holds NaN or infinity.
    """
    for name, array in (("vertices", avatar.vertices), ("blendshapes", avatar.topology.blendshapes)):
        if not np.isfinite(array).all():
            remedy = "nothing was written; report it with the avatar's report.json"
            raise InvalidGltfError(f"avatar, {name}", "NaN or infinity", "finite numbers", remedy)
    finished = finished_head(avatar)
    skeleton = head_skeleton(finished)
    levels = []
    for level in levels_of(finished, options.lod):
        head = with_chosen_parts(with_chosen_shapes(avatar_at(finished, level), options), options)
        joints = skeleton_at(skeleton, level)
        found = primitives_from_avatar(head, joints, [material.parts for material in MATERIALS])
        worn = tuple((m, primitive) for m, primitive in zip(MATERIALS, found, strict=True) if primitive is not None)
        levels.append(AssembledLevel(head, joints, worn))
    textures = head_textures(finished, options.texture_size, options.normal_bits)
    return AssembledHead(avatar, tuple(levels), textures)
