"""The table of targets, and options that a target's importer does not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

from fitdiff.cli_export import COMPRESSIONS, FORMATS, PARTS, SIZES, TARGETS, convert
from fitdiff.errors import UsageError
from fitdiff.exporter import options as library
from fitdiff.exporter import targets
from fitdiff.exporter.export import write_export
from fitdiff.exporter.options import ExportOptions
from fitdiff.exporter.validate import document_and_binary_from_glb
from fitdiff.runtime.avatar import Avatar

SMALL = 512


def test_every_row_can_be_written_and_has_its_own_names() -> None:
    assert tuple(targets.TARGETS) == TARGETS
    for name, target in targets.TARGETS.items():
        assert ExportOptions(target=name).engine is target
        assert "none" in target.compressions and {"jpeg", "png"} <= set(target.formats)
        assert 1 <= target.joints <= 4
        assert len({target.names.maps[role] for role in ("base_color", "normal", "packed", "specular")}) == 4
        assert target.names.file_of(0) != target.names.file_of(1)
    assert targets.TARGETS["unreal"].loose_normal == -1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("field", ["compression", "texture_format"])
def test_what_an_importer_does_not_read_is_refused(target: str, field: str) -> None:
    row = targets.TARGETS[target]
    readable = row.compressions if field == "compression" else row.formats
    for value in COMPRESSIONS if field == "compression" else FORMATS:
        if value in readable:
            ExportOptions(target=target, **{field: value})  # type: ignore[arg-type]
        else:
            with pytest.raises(UsageError, match=f"importer of {target} does not read") as caught:
                ExportOptions(target=target, **{field: value})  # type: ignore[arg-type]
            assert "gltf" in str(caught.value)  # a target that does


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": "cryengine"}, "unreal"),
        ({"lod": 5}, "1, 2, 3, 4"),
        ({"texture_size": 1000}, "1024"),
        ({"normal_bits": 12}, "8, 16"),
        ({"parts": ("hair",)}, "lashes"),
        ({"parts": ()}, "none that is left"),
        ({"parts": ("teeth",), "mouth": False}, "none that is left"),
        ({"blendshapes": "all"}, "arkit52"),
        ({"compression": "draco"}, "meshopt"),
        ({"texture_format": "webp", "normal_bits": 16}, "8 bits a channel"),
    ],
)
def test_wrong_values_are_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ExportOptions(**fields)  # type: ignore[arg-type]


def test_command_line_offers_what_the_library_has() -> None:
    choices = {o.name: o.type.choices for o in convert.params if isinstance(o.type, click.Choice)}
    assert tuple(choices["texture_size"]) == SIZES == tuple(map(str, library.TEXTURE_SIZES))
    assert tuple(PARTS.split(",")) == library.PARTS
    defaults = {option.name: option.default for option in convert.params}
    expected = ExportOptions()
    assert int(str(defaults["texture_size"])) == expected.texture_size
    assert int(str(defaults["normal_bits"])) == expected.normal_bits
    for name in ("target", "lod", "blendshapes", "compression", "texture_format"):
        assert defaults[name] == getattr(expected, name), name


def test_parts_and_shapes_are_chosen_by_name() -> None:
    available = ("skin", "mouth", "eye_left", "eye_right", "teeth", "tongue", "lashes", "cornea_left")
    chosen = ExportOptions(parts=("eyes", "skin"))
    assert chosen.topology_parts(available) == ("skin", "mouth", "eye_left", "eye_right", "cornea_left")
    assert ExportOptions(mouth=False).topology_parts(available) == (
        "skin", "eye_left", "eye_right", "lashes", "cornea_left",
    )  # fmt: skip
    assert ExportOptions(blendshapes=("b", "a")).chosen_blendshapes(("a", "b", "c")) == ("a", "b")
    with pytest.raises(UsageError, match="jawopen"):
        ExportOptions(blendshapes=("jawopen",)).chosen_blendshapes(("jawOpen",))


@pytest.mark.parametrize(
    ("target", "files", "material", "texture"),
    [
        ("gltf", {"avatar.glb"}, "FitDiff_Skin", "FitDiff_Normal"),
        (
            "unreal",
            {"SK_FitDiffHead.glb", *(f"textures/T_FitDiff_{m}.png" for m in ("D", "N", "ORM", "S"))},
            "MI_FitDiff_Skin",
            "T_FitDiff_N",
        ),
        (
            "unity",
            {"FitDiffHead.glb", *(f"textures/FitDiffHead_{m}.png" for m in ("BaseMap", "Normal", "MaskMap"))},
            "FitDiffHead_Skin",
            "FitDiffHead_Normal",
        ),
        ("godot", {"fitdiff_head.glb"}, "fitdiff_skin", "fitdiff_normal"),
    ],
)
def test_files_and_names_of_each_target(
    avatar: Avatar, target: str, files: set[str], material: str, texture: str, tmp_path: Path
) -> None:
    summary = write_export(avatar, tmp_path, ExportOptions(target=target, texture_size=SMALL))
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == files
    assert {str(path.relative_to(tmp_path)) for path in summary.files} == files
    document, _ = document_and_binary_from_glb(summary.files[0].read_bytes())
    assert document["materials"][0]["name"] == material
    assert texture in {image["name"] for image in document["images"]}
    kept = "KHR_materials_specular" in document.get("extensionsUsed", [])
    assert kept == (targets.TARGETS[target].specular == "extension")
    assert document["asset"]["extras"]["fitdiff"]["target"] == target
    assert document["asset"]["extras"]["fitdiff"]["options"]["texture_size"] == SMALL


def test_loose_textures_in_the_engines_packing(avatar: Avatar, tmp_path: Path) -> None:
    """Unreal's green points down, Unity's mask holds smoothness; both say the same as the glTF textures."""
    import cv2

    from fitdiff.exporter.assembly import assembled_head
    from fitdiff.exporter.textures.specular_bake import baked_roughness

    plain = assembled_head(avatar, ExportOptions(texture_size=SMALL)).textures

    def read(target: str, name: str) -> np.ndarray:
        folder = tmp_path / target
        if not folder.is_dir():
            folder.mkdir()
            write_export(avatar, folder, ExportOptions(target=target, texture_size=SMALL))
        pixels = cv2.imread(str(folder / "textures" / name), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]

    normal = read("unreal", "T_FitDiff_N.png")
    np.testing.assert_array_equal(normal[..., [0, 2]], plain.normal[..., [0, 2]])
    np.testing.assert_array_equal(normal[..., 1], 255 - plain.normal[..., 1])
    assert (normal[..., 1] != plain.normal[..., 1]).mean() > 0.9
    np.testing.assert_array_equal(read("unreal", "T_FitDiff_ORM.png")[..., 1], plain.roughness)
    np.testing.assert_array_equal(read("unreal", "T_FitDiff_S.png"), plain.specular)
    np.testing.assert_array_equal(read("unity", "FitDiffHead_Normal.png"), plain.normal)
    mask = read("unity", "FitDiffHead_MaskMap.png")
    np.testing.assert_array_equal(mask[..., 3], 255 - baked_roughness(plain.roughness, plain.specular))
    assert not mask[..., 0].any() and (mask[..., 1] == 255).all()


@pytest.mark.parametrize(("target", "name"), [("unreal", "T_FitDiff_Folds.png"), ("unity", "FitDiffHead_FoldsMap.png")])
def test_folds_in_the_atlas_of_the_engines(target: str, name: str, avatar: Avatar, tmp_path: Path) -> None:
    """A fold on the character's left, which is on the right of the chart, is there in the texture and nowhere else."""
    import cv2

    side = len(avatar.face_maps.diffuse_albedo)
    folds = np.ones((side, side), np.float32)
    folds[side // 2 : side * 5 // 8, side * 5 // 8 : side * 3 // 4] = 0.5
    write_export(replace(avatar, folds=folds), tmp_path, ExportOptions(target=target, texture_size=SMALL))
    pixels = cv2.imread(str(tmp_path / "textures" / name), cv2.IMREAD_UNCHANGED)
    assert pixels is not None and pixels.shape == (SMALL, SMALL)
    x, y, block = (value * SMALL / 1024 for value in avatar.topology.face_block)
    rows, columns = np.nonzero(pixels < 100)
    assert abs(rows.mean() + 0.5 - (y + block * 9 / 16)) < 1 and abs(columns.mean() + 0.5 - (x + block * 11 / 16)) < 1
    assert pixels.min() == 64 and pixels[:, : int(x + block / 2)].min() == 128 == np.median(pixels)
    (tmp_path / "none").mkdir()
    write_export(avatar, tmp_path / "none", ExportOptions(target=target, texture_size=SMALL))
    assert not (tmp_path / "none" / "textures" / name).exists()


def test_same_options_same_bytes(avatar: Avatar, tmp_path: Path) -> None:
    options = ExportOptions(target="unreal", texture_size=SMALL, ply=True, obj=True)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_export(avatar, tmp_path / name, options)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
