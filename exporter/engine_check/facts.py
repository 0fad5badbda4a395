"""What the glTF importers of engines read, as their documentation and sources say; docs/game_engines.md cites them.

A table and nothing else: `engine_profile` compares a file with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_LIGHT_AND_UNLIT = {"KHR_lights_punctual", "KHR_materials_unlit"}
_PACKAGE = "needs the package {}"


@dataclass(frozen=True)
class EngineFacts:
    """One importer.

    Attributes:
        title: the importer and the version that the row is about.
        reads: extensions that it reads without a word.
        partly: extensions that it reads on a condition or in part, with that as a sentence.
        weight_sets: sets of four joints a vertex that it reads.
        normal_y: +1 if a texture file with green up (OpenGL) is what its materials want, -1 for green down.
        sixteen_bit: whether a PNG of 16 bits a channel keeps them.
        keeps_unskinned_morphs: whether a mesh without a skin keeps its morph targets.
        wants_powers_of_two: what other sizes cost; "" if nothing.
        reads_bare_accessors: whether an accessor without any data counts as zeros, as glTF says.
        reads_baseless_sparse: whether a sparse accessor without a buffer view starts from zeros, as glTF says.
    """

    title: str
    reads: frozenset[str]
    partly: Mapping[str, str]
    weight_sets: int = 2
    normal_y: int = 1
    sixteen_bit: bool = False
    keeps_unskinned_morphs: bool = True
    wants_powers_of_two: str = ""
    reads_bare_accessors: bool = True
    reads_baseless_sparse: bool = True


ENGINES: Mapping[str, EngineFacts] = MappingProxyType({
    "unreal": EngineFacts(
        title="Unreal Engine 5.4, Interchange",
        reads=frozenset(_LIGHT_AND_UNLIT | {
            "KHR_materials_clearcoat", "KHR_materials_ior", "KHR_materials_pbrSpecularGlossiness",
            "KHR_materials_sheen", "KHR_materials_specular", "KHR_materials_transmission", "KHR_materials_variants",
        }),
        partly={},
        normal_y=-1,
        sixteen_bit=True,
        keeps_unskinned_morphs=False,
        wants_powers_of_two="no mipmaps and no streaming",
    ),
    "unity-gltfast": EngineFacts(
        title="Unity, glTFast 6",
        reads=frozenset(_LIGHT_AND_UNLIT | {
            "KHR_materials_pbrSpecularGlossiness", "KHR_materials_variants", "KHR_mesh_quantization",
            "KHR_texture_transform", "EXT_mesh_gpu_instancing",
        }),
        partly={
            "KHR_draco_mesh_compression": _PACKAGE.format("com.unity.cloud.draco"),
            "EXT_meshopt_compression": _PACKAGE.format("com.unity.meshopt.decompress"),
            "KHR_texture_basisu": _PACKAGE.format("com.unity.cloud.ktx"),
            "KHR_materials_clearcoat": "not in the built-in render pipeline",
            "KHR_materials_transmission": "approximated by alpha",
        },
        weight_sets=1,
        wants_powers_of_two="no texture compression on some platforms",
    ),
    "unity-unitygltf": EngineFacts(
        title="Unity, UnityGLTF 2",
        reads=frozenset(_LIGHT_AND_UNLIT | {
            "KHR_materials_clearcoat", "KHR_materials_emissive_strength", "KHR_materials_ior",
            "KHR_materials_iridescence", "KHR_materials_transmission", "KHR_materials_variants",
            "KHR_materials_volume", "KHR_texture_transform", "EXT_mesh_gpu_instancing", "MSFT_lod",
        }),
        partly={
            "KHR_materials_specular": "kept as data, but its shader does not show it rightly",
            "KHR_draco_mesh_compression": _PACKAGE.format("com.unity.cloud.draco"),
            "EXT_meshopt_compression": _PACKAGE.format("com.unity.meshopt.decompress"),
            "KHR_texture_basisu": _PACKAGE.format("com.unity.cloud.ktx"),
            "KHR_mesh_quantization": "comes with meshopt",
            "EXT_texture_webp": "only with a WebP package of another maker",
        },
        weight_sets=1,
        wants_powers_of_two="no texture compression on some platforms",
        reads_bare_accessors=False,
        reads_baseless_sparse=False,
    ),
    "godot": EngineFacts(
        title="Godot 4.1",
        reads=frozenset(_LIGHT_AND_UNLIT | {
            "KHR_materials_emissive_strength", "KHR_materials_pbrSpecularGlossiness", "KHR_texture_transform",
            "KHR_texture_basisu", "EXT_texture_webp",
        }),
        partly={},
        wants_powers_of_two="resized for some mobile formats",
    ),
    "blender": EngineFacts(
        title="Blender 4",
        reads=frozenset(_LIGHT_AND_UNLIT | {
            "KHR_draco_mesh_compression", "KHR_materials_anisotropy", "KHR_materials_clearcoat",
            "KHR_materials_emissive_strength", "KHR_materials_ior", "KHR_materials_sheen", "KHR_materials_transmission",
            "KHR_materials_variants", "KHR_materials_volume", "KHR_mesh_quantization", "KHR_texture_transform",
            "EXT_mesh_gpu_instancing", "EXT_texture_webp",
        }),
        partly={"KHR_materials_specular": "converted to Principled BSDF, with losses above F0 = 0.08"},
        sixteen_bit=True,
    ),
    "three": EngineFacts(
        title="three.js r187, GLTFLoader",
        reads=frozenset(_LIGHT_AND_UNLIT | {
            "KHR_materials_anisotropy", "KHR_materials_clearcoat", "KHR_materials_dispersion",
            "KHR_materials_emissive_strength", "KHR_materials_ior", "KHR_materials_iridescence", "KHR_materials_sheen",
            "KHR_materials_specular", "KHR_materials_transmission", "KHR_materials_volume", "KHR_mesh_quantization",
            "KHR_texture_transform", "EXT_mesh_gpu_instancing", "EXT_texture_avif", "EXT_texture_webp",
        }),
        partly={
            "KHR_draco_mesh_compression": "only with a DRACOLoader set",
            "EXT_meshopt_compression": "only with a MeshoptDecoder set",
            "KHR_texture_basisu": "only with a KTX2Loader set",
        },
        weight_sets=1,
    ),
    "assimp": EngineFacts(
        title="Assimp 5.2, and tools made with it",
        reads=frozenset({
            "KHR_lights_punctual", "KHR_materials_pbrSpecularGlossiness", "KHR_materials_unlit",
            "KHR_texture_transform", "KHR_materials_clearcoat", "KHR_materials_transmission", "KHR_materials_sheen",
        }),
        partly={"KHR_draco_mesh_compression": "only where it was built with Draco"},
        sixteen_bit=True,
        reads_bare_accessors=False,
    ),
})  # fmt: skip
