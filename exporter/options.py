"""What a user can choose about an export, checked against what the target engine reads.

It knows nothing of how anything is written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import UsageError
from .targets import TARGETS, Compression, Target, TextureFormat

TEXTURE_SIZES = (512, 1024, 2048, 4096)
MOST_LEVELS = 4
PARTS = ("skin", "eyes", "teeth", "tongue", "lashes")
_TOPOLOGY_PARTS = {
    "skin": ("skin", "mouth"),  # the mouth's inside is a pocket of the skin
    "eyes": ("eye_left", "eye_right", "cornea_left", "cornea_right"),
}
_INSIDE_THE_MOUTH = ("mouth", "teeth", "tongue")


@dataclass(frozen=True)
class ExportOptions:
    """How an avatar is handed over.

    Attributes:
        target: name of a row of `TARGETS`.
        lod: how many levels of detail, 1 to 4; the first is always there.
        texture_size: pixels of the head's textures, one of `TEXTURE_SIZES`.
        normal_bits: bits a channel of the normal map.
        blendshapes: "arkit52" for all that the head has, "none", or names of some.
        parts: which of `PARTS` are written.
        mouth: whether the mouth's inside, teeth and tongue are written.
        ply, obj, usd: whether the head is also written in these formats.
        compression: of the geometry inside the GLB.
        texture_format: of the colour textures inside the GLB; "jpeg" leaves normals and roughness in PNG files.

    Raises:
        UsageError: a value is none of those, or the target does not read it.
    """

    target: str = "gltf"
    lod: int = 1
    texture_size: int = 2048
    normal_bits: Literal[8, 16] = 8
    blendshapes: str | tuple[str, ...] = "arkit52"
    parts: tuple[str, ...] = PARTS
    mouth: bool = True
    ply: bool = False
    obj: bool = False
    usd: bool = False
    compression: Compression = "none"
    texture_format: TextureFormat = "jpeg"

    def __post_init__(self) -> None:
        _require("target", self.target, tuple(TARGETS))
        _require("lod", self.lod, tuple(range(1, MOST_LEVELS + 1)))
        _require("texture size", self.texture_size, TEXTURE_SIZES)
        _require("normal bits", self.normal_bits, (8, 16))
        for part in self.parts:
            _require("part", part, PARTS)
        if not self.parts or (not self.mouth and not set(self.parts) - set(_INSIDE_THE_MOUTH)):
            raise UsageError("parts", "none that is left", f"some of {', '.join(PARTS)}", "name another part")
        if isinstance(self.blendshapes, str):
            _require("blendshapes", self.blendshapes, ("arkit52", "none"))
        self._require_readable("compression", self.compression, self.engine.compressions)
        self._require_readable("texture format", self.texture_format, self.engine.formats)
        if self.normal_bits == 16 and self.texture_format in ("webp", "ktx2"):
            got = f"{self.texture_format}, which has 8 bits a channel"
            raise UsageError("texture format", got, "png or jpeg with --normal-bits 16", "choose one of the two")

    @property
    def engine(self) -> Target:
        """The target's row of the table."""
        return TARGETS[self.target]

    def topology_parts(self, available: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the topology's `available` parts that are written."""
        wanted = {name for part in self.parts for name in _TOPOLOGY_PARTS.get(part, (part,))}
        if not self.mouth:
            wanted -= set(_INSIDE_THE_MOUTH)
        return tuple(name for name in available if name in wanted)

    def chosen_blendshapes(self, available: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the `available` blendshapes that are written, in their order; UsageError for an unknown name."""
        if self.blendshapes == "none":
            return ()
        if self.blendshapes == "arkit52":
            return available
        unknown = [name for name in self.blendshapes if name not in available]
        if unknown:
            expected = f"names out of {', '.join(available)}"
            raise UsageError("blendshapes", ", ".join(unknown), expected, "spell them as ARKit does")
        return tuple(name for name in available if name in self.blendshapes)

    def to_json(self) -> dict[str, Any]:
        """As the asset's provenance and a run's report have it."""
        return asdict(self) | {"parts": list(self.parts), "blendshapes": _listed(self.blendshapes)}

    def _require_readable(self, what: str, value: str, readable: tuple[str, ...]) -> None:
        if value in readable:
            return
        readers = [name for name, target in TARGETS.items() if value in (*target.compressions, *target.formats)]
        if not readers:
            _require(what, value, readable)
        got = f"{value}, which the importer of {self.target} does not read"
        remedy = f"choose one of those, or a target that reads it: {', '.join(readers)}"
        raise UsageError(what, got, ", ".join(readable), remedy)


def _listed(value: str | tuple[str, ...]) -> str | list[str]:
    return value if isinstance(value, str) else list(value)


def _require(what: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise UsageError(what, str(value), f"one of {', '.join(map(str, allowed))}", "choose one of those")
