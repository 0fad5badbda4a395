"""The materials of the head and the textures that they share.

One row of `MATERIALS` is one material and one primitive of the mesh. It knows nothing of geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..runtime.avatar import HeadMaps
from .maps import (
    base_color_texture,
    normal_texture,
    occlusion_roughness_metallic_texture,
    specular_color_texture,
)

# glTF sampler constants
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071

# The dielectric of glTF has F0 = 0.04 * specularColorFactor * specularColorTexture, our map holds F0 / 0.08.
SPECULAR_COLOR_FACTOR = 2.0


@dataclass(frozen=True)
class HeadMaterial:
    """Name of a material, the parts that wear it and whether alpha cuts it out (then it is two-sided)."""

    name: str
    parts: tuple[str, ...]
    cut_out: bool = False


MATERIALS = (
    HeadMaterial("FitDiff_Skin", ("skin",)),
    HeadMaterial("FitDiff_Mouth", ("mouth",)),
    HeadMaterial("FitDiff_Eye", ("eye_left", "eye_right")),
    HeadMaterial("FitDiff_Teeth", ("teeth",)),
    HeadMaterial("FitDiff_Tongue", ("tongue",)),
    HeadMaterial("FitDiff_Lashes", ("lashes",), cut_out=True),
)

SAMPLER = {
    "magFilter": _LINEAR,
    "minFilter": _LINEAR_MIPMAP_LINEAR,
    "wrapS": _CLAMP_TO_EDGE,
    "wrapT": _CLAMP_TO_EDGE,
}

_BASE_COLOR, _NORMAL, _ROUGHNESS, _SPECULAR = range(4)  # indices into the textures below


def texture_images(maps: HeadMaps) -> dict[str, bytes]:
    """PNG files by texture name, in the order that `material_json` refers to."""
    return {
        "FitDiff_BaseColor": base_color_texture(maps),
        "FitDiff_Normal": normal_texture(maps),
        "FitDiff_OcclusionRoughnessMetallic": occlusion_roughness_metallic_texture(maps),
        "FitDiff_SpecularColor": specular_color_texture(maps),
    }


def material_json(material: HeadMaterial) -> dict[str, Any]:
    """The glTF material: metallic-roughness with KHR_materials_specular.

    F0 goes through the specular colour and leaves specularFactor at 1: that factor would also scale the
    reflectance at grazing angles (F90), which the method's shader keeps at 1. The occlusion channel is white,
    so no material reads it.
    """
    shared: dict[str, Any] = {
        "name": material.name,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": _BASE_COLOR},
            "metallicFactor": 0.0,
            "metallicRoughnessTexture": {"index": _ROUGHNESS},
        },
        "normalTexture": {"index": _NORMAL},
        "extensions": {
            "KHR_materials_specular": {
                "specularColorFactor": [SPECULAR_COLOR_FACTOR] * 3,
                "specularColorTexture": {"index": _SPECULAR},
            }
        },
    }
    cut_out = {"alphaMode": "MASK", "alphaCutoff": 0.5, "doubleSided": True} if material.cut_out else {}
    return shared | cut_out
