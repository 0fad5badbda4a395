"""Imports a folder of FitDiff heads into an Unreal project, inside the editor (5.4 or later).

Every SK_*.glb or avatar.glb below the folder becomes a skeletal mesh with its morph targets, material instances and
textures with the right settings. It needs nothing but Unreal's own Python; README.md has the three steps.
"""

# What `unreal` holds is known only inside the editor.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
import sys
from pathlib import Path

import unreal  # pyright: ignore[reportMissingImports]  (it is there only inside Unreal)

DESTINATION = "/Game/FitDiff"
_LEVEL = re.compile(r"_LOD(\d+)$", re.IGNORECASE)
_GREEN_DOWN = re.compile(r"^T_.*_N$")  # the loose normal maps of `--target unreal`; all others have green up

# End of a texture's name: is it sRGB, compression, group of mipmaps and streaming.
_TEXTURES = {
    ("_BaseColor", "_D"): (True, "TC_DEFAULT", "TEXTUREGROUP_CHARACTER"),
    ("_Normal", "_N"): (False, "TC_NORMALMAP", "TEXTUREGROUP_CHARACTER_NORMAL_MAP"),
    ("_OcclusionRoughnessMetallic", "_ORM"): (False, "TC_MASKS", "TEXTUREGROUP_CHARACTER_SPECULAR"),
    ("_SpecularColor",): (True, "TC_DEFAULT", "TEXTUREGROUP_CHARACTER_SPECULAR"),  # glTF encodes this one as sRGB
    ("_Folds",): (False, "TC_MASKS", "TEXTUREGROUP_CHARACTER"),
    ("_S",): (False, "TC_MASKS", "TEXTUREGROUP_CHARACTER_SPECULAR"),
}


def import_folder(folder: str, destination: str = DESTINATION) -> list[str]:
    """Import every head below a folder, each into a content folder named like the one that it lies in.

    Returns:
        Content paths of the skeletal meshes.
    """
    found = [path for path in sorted(Path(folder).rglob("*.glb")) if not _LEVEL.search(path.stem)]
    if not found:
        raise FileNotFoundError(f"{folder}: got no GLB file; expected some from `fitdiff convert --target unreal`")
    meshes = []
    with unreal.ScopedSlowTask(len(found), "Importing FitDiff heads") as task:
        task.make_dialog(True)
        for path in found:
            if task.should_cancel():
                break
            task.enter_progress_frame(1, path.parent.name)
            meshes.extend(import_head(path, f"{destination}/{_content_name(path.parent.name)}"))
    return meshes


def import_head(path: Path, destination: str) -> list[str]:
    """Import one GLB with the textures and levels of detail beside it; content paths of the skeletal meshes."""
    assets = [unreal.load_asset(name) for name in _import(path, destination, _pipeline())]
    loose = [file for pattern in ("T_*.png", "T_*.jpg") for file in sorted(path.parent.glob(pattern))]
    assets += [unreal.load_asset(name) for file in loose for name in _import(file, f"{destination}/Textures")]
    for asset in assets:
        if isinstance(asset, unreal.Texture2D):
            set_texture(asset)
    meshes = [asset for asset in assets if isinstance(asset, unreal.SkeletalMesh)]
    if not meshes:
        unreal.log_error(f"{path}: it came in without a skeletal mesh, so its morph targets are lost")
    for mesh in meshes:
        _import_levels(mesh, path)
        names = mesh.get_all_morph_target_names()
        unreal.log(f"{path.name}: {mesh.get_path_name()} with {len(names)} morph targets")
        if not names:
            unreal.log_warning(f"{path.name}: no morph targets; was it exported with --blendshapes none?")
    unreal.EditorAssetLibrary.save_directory(destination)
    return [mesh.get_path_name() for mesh in meshes]


def set_texture(texture: unreal.Texture2D) -> bool:
    """Give a FitDiff texture the settings that its name asks for; False for a name that says nothing."""
    name = texture.get_name()
    for endings, (srgb, compression, group) in _TEXTURES.items():
        if not name.endswith(endings):
            continue
        texture.set_editor_property("srgb", srgb)
        texture.set_editor_property("compression_settings", getattr(unreal.TextureCompressionSettings, compression))
        texture.set_editor_property("lod_group", getattr(unreal.TextureGroup, group))
        if compression == "TC_NORMALMAP" and _GREEN_DOWN.match(name):
            texture.set_editor_property("flip_green_channel", False)
        return True
    return False


def _pipeline() -> unreal.InterchangeGenericAssetsPipeline:
    """Skeletal meshes with morph targets, and our own normals and tangents."""
    pipeline = unreal.InterchangeGenericAssetsPipeline()
    mesh = pipeline.get_editor_property("mesh_pipeline")
    mesh.set_editor_property("import_skeletal_meshes", True)
    mesh.set_editor_property("import_morph_targets", True)
    mesh.set_editor_property("combine_skeletal_meshes", True)
    mesh.set_editor_property("create_physics_asset", False)
    shared = pipeline.get_editor_property("common_skeletal_meshes_and_animations_properties")
    shared.set_editor_property("convert_statics_with_morph_targets_to_skeletals", True)
    common = pipeline.get_editor_property("common_meshes_properties")
    common.set_editor_property("recompute_normals", False)
    common.set_editor_property("recompute_tangents", False)
    return pipeline


def _import(path: Path, destination: str, pipeline: unreal.InterchangePipelineBase | None = None) -> list[str]:
    task = unreal.AssetImportTask()
    task.set_editor_property("filename", str(path))
    task.set_editor_property("destination_path", destination)
    task.set_editor_property("automated", True)
    task.set_editor_property("replace_existing", True)
    if pipeline is not None:
        stack = unreal.InterchangePipelineStackOverride()
        stack.add_pipeline(pipeline)
        stack.add_pipeline(unreal.InterchangeGLTFPipeline())  # glTF's own material parents
        task.set_editor_property("options", stack)
    unreal.AssetToolsHelpers.get_asset_tools().import_asset_tasks([task])
    return list(task.get_editor_property("imported_object_paths"))


def _import_levels(mesh: unreal.SkeletalMesh, path: Path) -> None:
    subsystem = unreal.get_editor_subsystem(unreal.SkeletalMeshEditorSubsystem)
    for file in sorted(path.parent.glob(f"{path.stem}_LOD*.glb")):
        level = _LEVEL.search(file.stem)
        if level and subsystem.import_lod(mesh, int(level[1]), str(file)) < 0:
            unreal.log_warning(f"{file.name}: this level of detail could not be imported; add it by hand")


def _content_name(name: str) -> str:
    """A folder's name with nothing but what a content path allows."""
    return re.sub(r"\W", "_", name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: import_avatars.py FOLDER [/Game/FitDiff]")
    import_folder(*sys.argv[1:3])
