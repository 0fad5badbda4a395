"""The Unreal script, run against a stand-in for Unreal's Python module: it cannot run here, its calls can."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

SCRIPT = Path(__file__).parents[2] / "exporter" / "unreal" / "import_avatars.py"


class Asset:
    """Remembers the editor properties that are set on it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.properties: dict[str, Any] = {}

    def get_name(self) -> str:
        return self.name

    def get_path_name(self) -> str:
        return f"/Game/{self.name}"

    def set_editor_property(self, name: str, value: object) -> None:
        self.properties[name] = value

    def get_editor_property(self, name: str) -> Any:
        return self.properties.setdefault(name, Asset(name))


class Texture2D(Asset):
    pass


class SkeletalMesh(Asset):
    def get_all_morph_target_names(self) -> list[str]:
        return ["jawOpen"]


class Task(Asset):
    pass


class Stack(Asset):
    def __init__(self) -> None:
        super().__init__()
        self.pipelines: list[Any] = []

    def add_pipeline(self, pipeline: object) -> None:
        self.pipelines.append(pipeline)


@pytest.fixture
def unreal(monkeypatch: pytest.MonkeyPatch) -> Iterator[MagicMock]:
    """A module `unreal` whose import gives a mesh, four textures and a material for a GLB, a texture for a PNG."""
    fake = MagicMock()
    fake.Texture2D, fake.SkeletalMesh, fake.AssetImportTask, fake.InterchangePipelineStackOverride = (
        Texture2D, SkeletalMesh, Task, Stack,
    )  # fmt: skip
    fake.InterchangeGenericAssetsPipeline = Asset
    fake.tasks, fake.assets = [], {}

    def run(tasks: list[Task]) -> None:
        for task in tasks:
            path = Path(task.properties["filename"])
            fake.tasks.append(task)
            names = [path.stem]
            made: list[Asset] = [Texture2D(path.stem)]
            if path.suffix == ".glb":
                maps = ("BaseColor", "Normal", "OcclusionRoughnessMetallic", "SpecularColor")
                made = [
                    SkeletalMesh(path.stem),
                    *(Texture2D(f"T_FitDiff_{m}" if m != "Normal" else "FitDiff_Normal") for m in maps),
                ]
                names = [asset.name for asset in made]
            fake.assets.update(zip(names, made, strict=True))
            task.properties["imported_object_paths"] = names

    fake.AssetToolsHelpers.get_asset_tools().import_asset_tasks = run
    fake.load_asset = lambda name: fake.assets[name]
    fake.ScopedSlowTask.return_value.__enter__.return_value.should_cancel.return_value = False
    fake.get_editor_subsystem.return_value.import_lod.return_value = 1
    monkeypatch.setitem(sys.modules, "unreal", fake)
    yield fake


@pytest.fixture
def script(unreal: MagicMock) -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_avatars", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_python_that_unreal_5_4_reads() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 11))


def test_a_folder_of_heads(script: ModuleType, unreal: MagicMock, tmp_path: Path) -> None:
    for name in ("anna/SK_FitDiffHead.glb", "anna/SK_FitDiffHead_LOD1.glb", "anna/T_FitDiff_N.png", "b-b/avatar.glb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    meshes = script.import_folder(str(tmp_path))
    assert meshes == ["/Game/SK_FitDiffHead", "/Game/avatar"]
    places = [task.properties["destination_path"] for task in unreal.tasks]
    assert places == ["/Game/FitDiff/anna", "/Game/FitDiff/anna/Textures", "/Game/FitDiff/b_b"]
    assert all(task.properties["automated"] and task.properties["replace_existing"] for task in unreal.tasks)
    pipeline = unreal.tasks[0].properties["options"].pipelines[0].properties
    assert pipeline["mesh_pipeline"].properties["import_morph_targets"] is True
    assert pipeline["mesh_pipeline"].properties["import_skeletal_meshes"] is True
    assert pipeline["common_meshes_properties"].properties == {"recompute_normals": False, "recompute_tangents": False}
    unreal.get_editor_subsystem().import_lod.assert_called_once()
    assert unreal.get_editor_subsystem().import_lod.call_args.args[1] == 1


@pytest.mark.parametrize(
    ("name", "srgb", "compression"),
    [
        ("FitDiff_BaseColor", True, "TC_DEFAULT"),
        ("T_FitDiff_D", True, "TC_DEFAULT"),
        ("FitDiff_Normal", False, "TC_NORMALMAP"),
        ("T_FitDiff_N", False, "TC_NORMALMAP"),
        ("FitDiff_OcclusionRoughnessMetallic", False, "TC_MASKS"),
        ("T_FitDiff_ORM", False, "TC_MASKS"),
        ("FitDiff_SpecularColor", True, "TC_DEFAULT"),
        ("T_FitDiff_S", False, "TC_MASKS"),
        ("T_FitDiff_Folds", False, "TC_MASKS"),
    ],
)
def test_texture_settings(name: str, srgb: bool, compression: str, script: ModuleType, unreal: MagicMock) -> None:
    texture = Texture2D(name)
    assert script.set_texture(texture)
    assert texture.properties["srgb"] is srgb
    assert texture.properties["compression_settings"] is getattr(unreal.TextureCompressionSettings, compression)
    # Green points down already in the loose file; inside a GLB, Interchange knows that it points up.
    assert texture.properties.get("flip_green_channel") == (False if name == "T_FitDiff_N" else None)


def test_another_texture_is_left_alone(script: ModuleType) -> None:
    texture = Texture2D("Brick")
    assert not script.set_texture(texture) and texture.properties == {}


def test_an_empty_folder_is_an_error(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="got no GLB file"):
        script.import_folder(str(tmp_path))
