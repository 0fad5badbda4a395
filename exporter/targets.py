"""What each engine's importer reads, in one table: the only place where engines differ.

What stands here comes from the engines' documentation and importer sources; `fitdiff validate` reads the same
facts. The file knows nothing of meshes and of how anything is written.

A glTF file is always in metres, right-handed, +Y up, and the face looks to +Z (glTF 2.0, 3.4): no target changes
that, each importer turns it into its own frame, which `frame` states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Compression = Literal["none", "meshopt", "quantize"]
TextureFormat = Literal["png", "jpeg", "webp", "ktx2"]
SpecularRoute = Literal["extension", "baked"]
LodRoute = Literal["MSFT_lod", "nodes", "files"]
Packing = Literal["none", "ORM", "mask"]


@dataclass(frozen=True)
class Names:
    """How an engine's projects name things.

    Attributes:
        mesh: name of mesh and skeleton.
        file: stem of the file; `{level}` is "" for the first and `level` formatted for the others.
        level: suffix of a level of detail.
        material: pattern of a material's name, `{part}` being "Skin" and so on, `{lower}` "skin".
        texture: pattern of a texture's name, `{map}` being one of `maps`.
        maps: the engine's own words for base color, normal, packed channels, specular and the expression's folds.
    """

    mesh: str
    file: str
    level: str
    material: str
    texture: str
    maps: Mapping[str, str]

    def file_of(self, level: int) -> str:
        """Name of the GLB file of a level of detail."""
        return f"{self.file}{self.level.format(level) if level else ''}.glb"


@dataclass(frozen=True)
class Target:
    """One engine. The reasons stand beside the rows of `TARGETS`.

    Attributes:
        title: the engine's importer and its version, for people.
        frame: what the importer makes of metres, +Y up and +Z forward.
        names: the engine's naming.
        specular: "extension" keeps KHR_materials_specular, "baked" folds it into the roughness.
        lods: how levels of detail are handed over.
        loose: how the textures beside the GLB are packed; "none" writes none.
        loose_normal: +1 for green up (OpenGL), -1 for green down (DirectX), of the textures beside the GLB.
        joints: most joints that may move a vertex.
        compressions: what the importer decodes.
        formats: texture formats that it reads.
    """

    title: str
    frame: str
    names: Names
    specular: SpecularRoute
    lods: LodRoute
    loose: Packing
    loose_normal: Literal[1, -1]
    joints: int
    compressions: tuple[Compression, ...]
    formats: tuple[TextureFormat, ...]


def _words(base: str, normal: str, packed: str, specular: str, folds: str) -> Mapping[str, str]:
    return MappingProxyType(
        {"base_color": base, "normal": normal, "packed": packed, "specular": specular, "folds": folds}
    )


TARGETS: Mapping[str, Target] = MappingProxyType({
    "gltf": Target(
        title="any glTF 2.0 viewer: three.js, Babylon.js, model-viewer, Blender",
        frame="as in the file; Blender turns +Y up into +Z up and shows the face from the front, along -Y",
        # The names that FitDiff's own tools and tests look for.
        names=Names("FitDiffHead", "avatar", "_LOD{}", "FitDiff_{part}", "FitDiff_{map}",
                    _words("BaseColor", "Normal", "OcclusionRoughnessMetallic", "SpecularColor", "Folds")),
        # Ratified extension; three.js, Babylon.js and Blender 4 read it, and what does not shows F0 = 0.04.
        specular="extension",
        # The only extension for levels; who does not know it shows the first and never meets the others.
        lods="MSFT_lod",
        # The GLB is self-contained: everything that reads it takes the textures from there.
        loose="none", loose_normal=1,
        # One set of JOINTS_0, WEIGHTS_0 is all that a glTF reader must support (3.7.3.3).
        joints=4,
        # All of the family decode these; Blender reads neither meshopt nor KTX2, which is why none is the default.
        compressions=("none", "meshopt", "quantize"), formats=("jpeg", "png", "webp", "ktx2"),
    ),
    "unreal": Target(
        title="Unreal Engine 5.3 and later, Interchange",
        # The importer multiplies by 100 and swaps Y and Z, so the face looks along Unreal's +Y, as its mannequins do.
        frame="centimetres, +Z up, the face looks to +Y",
        # Epic's asset naming: SK_ skeletal mesh, MI_ material instance, T_ texture with _D, _N, _ORM, _S.
        names=Names("SK_FitDiffHead", "SK_FitDiffHead", "_LOD{}", "MI_FitDiff_{part}", "T_FitDiff_{map}",
                    _words("D", "N", "ORM", "S", "Folds")),
        # On the list of extensions that Interchange reads; it becomes the Specular input, whose 0..1 is F0 / 0.08.
        specular="extension",
        # No MSFT_lod. "Import LOD" on a skeletal mesh takes one file a level.
        lods="files",
        # Unreal's own packing and normals with green down, for materials that a team builds itself.
        loose="ORM", loose_normal=-1,
        # Eight by default in the engine, four on mobile renderers.
        joints=4,
        # KHR_mesh_quantization is known by name but not on the list of what is read; meshopt, KTX2 and WebP neither.
        compressions=("none",), formats=("jpeg", "png"),
    ),
    "unity": Target(
        title="Unity 2021.3 and later, glTFast 6",
        # glTFast mirrors X: left-handed, and the face keeps looking to +Z, a character's forward in Unity.
        frame="metres, +Y up, X mirrored (left-handed), the face looks to +Z",
        names=Names("FitDiffHead", "FitDiffHead", "_LOD{}", "FitDiffHead_{part}", "FitDiffHead_{map}",
                    _words("BaseMap", "Normal", "MaskMap", "SpecularMap", "FoldsMap")),
        # glTFast 6 has no KHR_materials_specular: F0 is 0.04 everywhere.
        specular="baked",
        # The importer that comes with the file makes a LODGroup of nodes named _LOD0, _LOD1 ..., Unity's convention
        # for model files; glTFast has no MSFT_lod.
        lods="nodes",
        # HDRP's mask map: metallic, occlusion, detail mask, smoothness; Unity's normal maps have green up.
        loose="mask", loose_normal=1,
        # glTFast reads one set of four.
        joints=4,
        # meshopt and KTX2 with Unity's packages com.unity.meshopt.decompress and com.unity.cloud.ktx.
        compressions=("none", "meshopt", "quantize"), formats=("jpeg", "png", "ktx2"),
    ),
    "godot": Target(
        title="Godot 4.2 and later",
        # Godot shares glTF's frame; its characters look along +Z when imported (Node3D.look_at has a flag for it).
        frame="as in the file: metres, +Y up, the face looks to +Z",
        names=Names("fitdiff_head", "fitdiff_head", "_lod{}", "fitdiff_{lower}", "fitdiff_{map}",
                    _words("albedo", "normal", "orm", "specular", "folds")),
        # Not among the extensions of GLTFDocument: F0 is 0.04 everywhere.
        specular="baked",
        # No MSFT_lod; the importer makes its own levels, so ours come as files to be chosen by hand.
        lods="files",
        # The importer extracts the textures of the GLB itself, with the right settings.
        loose="none", loose_normal=1,
        # Four in the standard layout of a surface.
        joints=4,
        # A file that needs KHR_mesh_quantization or EXT_meshopt_compression is rejected; WebP and KTX2 are built in.
        compressions=("none",), formats=("jpeg", "png", "webp", "ktx2"),
    ),
})  # fmt: skip
