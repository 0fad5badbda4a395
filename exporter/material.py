"""The materials of the head, as glTF has them.

One row of `MATERIALS` is one material and one primitive of the mesh. It knows nothing of geometry and pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .targets import Names
from .textures.texture_set import TextureSet

# glTF sampler constants
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071

# The dielectric of glTF has F0 = 0.04 * specularColorFactor * specularColorTexture, our map holds F0 / 0.08.
SPECULAR_COLOR_FACTOR = 2.0
ALPHA_CUTOFF = 0.5
# A black film that hardly covers, so that what shows of it is its highlight: no engine needs transmission for that.
CORNEA_COLOR, CORNEA_ROUGHNESS = (0.0, 0.0, 0.0, 0.12), 0.05


@dataclass(frozen=True)
class HeadMaterial:
    """A material's part in its name, the parts of the head that wear it, and the kind of its surface.

    "film" is clear with a highlight; "cut_out" is cut out by alpha, then it is two-sided and has its own image.
    """

    part: str
    parts: tuple[str, ...]
    surface: Literal["opaque", "film", "cut_out"] = "opaque"

    def name(self, names: Names) -> str:
        """The material's name in an engine's project."""
        return names.material.format(part=self.part, lower=self.part.lower())


MATERIALS = (
    HeadMaterial("Skin", ("skin",)),
    HeadMaterial("Mouth", ("mouth",)),
    HeadMaterial("Eye", ("eye_left", "eye_right")),
    HeadMaterial("Cornea", ("cornea_left", "cornea_right"), "film"),
    HeadMaterial("Teeth", ("teeth",)),
    HeadMaterial("Tongue", ("tongue",)),
    HeadMaterial("Lashes", ("lashes",), "cut_out"),
)

SAMPLER = {
    "magFilter": _LINEAR,
    "minFilter": _LINEAR_MIPMAP_LINEAR,
    "wrapS": _CLAMP_TO_EDGE,
    "wrapT": _CLAMP_TO_EDGE,
}


def material_json(
    material: HeadMaterial, names: Names, textures: TextureSet, index: Mapping[str, int]
) -> dict[str, Any]:
    """The glTF material: metallic-roughness, with KHR_materials_specular where there is a specular texture.

    F0 goes through the specular colour and leaves specularFactor at 1: that factor would also scale the
    reflectance at grazing angles (F90), which the method's shader keeps at 1. The occlusion channel is white,
    so no material reads it.

    Args:
        index: texture number of each role in `textures`.
    """
    name = material.name(names)
    if material.surface == "film":
        color, roughness = list(CORNEA_COLOR), CORNEA_ROUGHNESS
        factors = {"baseColorFactor": color, "metallicFactor": 0.0, "roughnessFactor": roughness}
        return {"name": name, "pbrMetallicRoughness": factors, "alphaMode": "BLEND"}
    if material.surface == "cut_out" and "lashes" in index:
        lashes: dict[str, Any] = {
            "name": name,
            "pbrMetallicRoughness": {
                "baseColorTexture": {"index": index["lashes"]},
                "metallicFactor": 0.0,
                "roughnessFactor": round(textures.lash_roughness, 3),
            },
            "alphaMode": "MASK",
            "alphaCutoff": ALPHA_CUTOFF,
            "doubleSided": True,
        }
        if "specular" in index:
            factor = [round(textures.lash_specular * SPECULAR_COLOR_FACTOR, 3)] * 3
            lashes["extensions"] = {"KHR_materials_specular": {"specularColorFactor": factor}}
        return lashes
    opaque: dict[str, Any] = {
        "name": name,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": index["base_color"]},
            "metallicFactor": 0.0,
            "metallicRoughnessTexture": {"index": index["packed"]},
        },
        "normalTexture": {"index": index["normal"]},
    }
    if "specular" in index:
        opaque["extensions"] = {
            "KHR_materials_specular": {
                "specularColorFactor": [SPECULAR_COLOR_FACTOR] * 3,
                "specularColorTexture": {"index": index["specular"]},
            }
        }
    return opaque
