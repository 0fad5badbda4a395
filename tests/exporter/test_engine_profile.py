"""Each thing that an engine would ignore or misread is found, and a sound file gives no error."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fitdiff.cli_validate import validate
from fitdiff.errors import UsageError
from fitdiff.exporter.engine_check.facts import ENGINES
from fitdiff.exporter.engine_check.finding import EVERY, Finding
from fitdiff.exporter.engine_check.glb_file import GlbFile, image_header
from fitdiff.exporter.engine_check.profile import EngineProfile, profile_glb
from fitdiff.exporter.validate import document_and_binary_from_glb

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def changed(head_glb: SimpleNamespace, tmp_path: Path) -> Callable[[Change], EngineProfile]:
    """The profile of the mean head's file with its document changed, and made by somebody else."""

    def profile(change: Change) -> EngineProfile:
        document, binary = document_and_binary_from_glb(head_glb.path.read_bytes())
        document["asset"]["generator"] = "other"
        change(document)
        path = tmp_path / "changed.glb"
        path.write_bytes(packed(document, binary))
        return profile_glb(path)

    return profile


def packed(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def found(profile: EngineProfile, severity: str, engine: str, words: str) -> list[Finding]:
    return [
        f for f in profile.findings if (f.severity, f.engine) == (severity, engine) and words in f.message + f.subject
    ]


def test_our_own_file_has_no_error(head_glb: SimpleNamespace) -> None:
    profile = profile_glb(head_glb.path)
    assert [f for f in profile.findings if f.severity == "error"] == []
    assert profile.facts["morph_targets"] == 52
    assert found(profile, "warning", "unity-gltfast", "KHR_materials_specular")
    assert not found(profile, "warning", "unreal", "KHR_materials_specular")
    assert not found(profile, "warning", "three", "")


def test_only_the_engines_that_are_asked_for(head_glb: SimpleNamespace) -> None:
    profile = profile_glb(head_glb.path, ["three"])
    assert {f.engine for f in profile.findings} <= {"three", EVERY}
    with pytest.raises(UsageError, match="engine: got cryengine"):
        profile_glb(head_glb.path, ["cryengine"])
    with pytest.raises(UsageError, match="file: got"):
        profile_glb(head_glb.path.with_name("absent.glb"))


def test_required_extensions(changed: Callable[[Change], EngineProfile]) -> None:
    def change(document: dict[str, Any]) -> None:
        for key in ("extensionsUsed", "extensionsRequired"):
            document.setdefault(key, []).append("KHR_mesh_quantization")
        document["extensionsUsed"].append("MSFT_lod")

    profile = changed(change)
    assert found(profile, "error", "godot", "KHR_mesh_quantization")
    assert found(profile, "error", "unreal", "KHR_mesh_quantization")
    assert not found(profile, "error", "unity-gltfast", "KHR_mesh_quantization")
    assert found(profile, "note", "three", "MSFT_lod")
    assert not found(profile, "note", "unity-unitygltf", "MSFT_lod")


def test_morphs_without_a_skin(changed: Callable[[Change], EngineProfile]) -> None:
    def change(document: dict[str, Any]) -> None:
        for node in document["nodes"]:
            node.pop("skin", None)

    profile = changed(change)
    assert found(profile, "error", "unreal", "52 morph targets are lost")
    assert not found(profile, "error", "godot", "")


def test_more_than_four_joints(changed: Callable[[Change], EngineProfile]) -> None:
    def change(document: dict[str, Any]) -> None:
        attributes = document["meshes"][0]["primitives"][0]["attributes"]
        attributes["JOINTS_1"], attributes["WEIGHTS_1"] = attributes["JOINTS_0"], attributes["WEIGHTS_0"]

    profile = changed(change)
    assert found(profile, "warning", "unity-gltfast", "8 joints a vertex")
    assert not found(profile, "warning", "unreal", "8 joints a vertex")


def test_nameless_shapes_and_missing_tangents(changed: Callable[[Change], EngineProfile]) -> None:
    def change(document: dict[str, Any]) -> None:
        del document["meshes"][0]["extras"]["targetNames"]
        for primitive in document["meshes"][0]["primitives"]:
            primitive["attributes"].pop("TANGENT", None)  # corneas have none anyway

    profile = changed(change)
    assert found(profile, "warning", EVERY, "0 names in extras.targetNames")
    assert found(profile, "warning", EVERY, "no tangents")
    assert found(profile, "note", EVERY, "left, up and front were not checked")


def test_accessors_without_data(changed: Callable[[Change], EngineProfile]) -> None:
    def change(document: dict[str, Any]) -> None:
        target = document["meshes"][0]["primitives"][0]["targets"][0]["POSITION"]
        document["accessors"][target].pop("bufferView", None)
        document["accessors"].append({"componentType": 5126, "count": 3, "type": "VEC3"})

    profile = changed(change)
    assert found(profile, "error", "assimp", "without data")
    assert found(profile, "error", "unity-unitygltf", "start from no buffer view")
    assert not found(profile, "error", "three", "")


@pytest.mark.parametrize(
    ("transform", "subject"),
    [
        ({"scale": [100, 100, 100]}, "scale"),
        ({"scale": [1000, 1000, 1000]}, "scale"),
        ({"scale": [-1, 1, 1]}, "left and right"),
        ({"rotation": [0, 1, 0, 0]}, "facing"),
        ({"rotation": [0, np.sqrt(0.5), 0, np.sqrt(0.5)]}, "facing"),
        ({"rotation": [0, 0, 1, 0]}, "up"),
    ],
)
def test_a_head_that_is_no_head(
    transform: dict[str, Any], subject: str, changed: Callable[[Change], EngineProfile]
) -> None:
    def change(document: dict[str, Any]) -> None:
        for node in document["nodes"]:
            node.pop("skin", None)
        roots = document["scenes"][0]["nodes"]
        document["nodes"].append({"children": roots} | transform)
        document["scenes"][0]["nodes"] = [len(document["nodes"]) - 1]

    profile = changed(change)
    assert subject in [f.subject for f in profile.findings if (f.severity, f.engine) == ("error", EVERY)]


def test_alpha_textures_and_size(head_glb: SimpleNamespace, tmp_path: Path) -> None:
    document, binary = document_and_binary_from_glb(head_glb.path.read_bytes())
    document["asset"]["generator"] = "other"
    document["materials"][0]["alphaMode"] = "BLEND"
    deep = io.BytesIO()
    Image.fromarray(np.zeros((100, 128), np.uint16)).save(deep, "PNG")
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
    normal = document["textures"][document["materials"][0]["normalTexture"]["index"]]["source"]
    base = document["textures"][document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]]["source"]
    for image, data in ((base, deep.getvalue()), (normal, jpeg.getvalue())):
        document["images"][image] = {
            "name": f"image{image}",
            "bufferView": len(document["bufferViews"]),
            "mimeType": "image/png",
        }
        document["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        binary += data + b"\0" * (-len(data) % 4)
    binary += bytes(13 * 2**20)
    document["buffers"][0]["byteLength"] = len(binary)
    path = tmp_path / "odd.glb"
    path.write_bytes(packed(document, binary))
    profile = profile_glb(path)
    assert found(profile, "note", EVERY, "blended")
    assert found(profile, "warning", "unreal", "128 x 100 is no power of two")
    assert found(profile, "note", "three", "16 bits") and not found(profile, "note", "blender", "16 bits")
    assert found(profile, "note", EVERY, "normal map as JPEG")
    assert found(profile, "note", EVERY, "file size")


def test_green_of_a_loose_normal_map(glb: SimpleNamespace, tmp_path: Path) -> None:
    file = GlbFile.from_bytes(glb.path.read_bytes())
    number = next(i for i, image in enumerate(file.items("images")) if "Normal" in image["name"])
    data = file.image_bytes(number)
    assert data is not None
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).copy()
    path = tmp_path / "avatar.glb"
    path.write_bytes(glb.path.read_bytes())
    Image.fromarray(pixels).save(tmp_path / "T_Head_N.png")
    assert [f.engine for f in profile_glb(path).findings if f.subject == "T_Head_N.png"] == ["unreal"]
    pixels[..., 1] = 255 - pixels[..., 1]
    Image.fromarray(pixels).save(tmp_path / "T_Head_N.png")
    engines = {f.engine for f in profile_glb(path).findings if f.subject == "T_Head_N.png"}
    assert engines == set(ENGINES) - {"unreal", "assimp"}


def test_what_is_no_glb(tmp_path: Path) -> None:
    path = tmp_path / "broken.glb"
    path.write_bytes(b"glTF" + bytes(8))
    (finding,) = profile_glb(path).findings
    assert (finding.engine, finding.severity) == (EVERY, "error")


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})])
def test_image_headers(kind: str, options: dict[str, bool]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(stream, kind, **options)
    header = image_header(stream.getvalue())
    assert (header.format, header.width, header.height, header.bits) == (kind.lower(), 96, 64, 8)


def test_the_command(head_glb: SimpleNamespace, tmp_path: Path) -> None:
    result = CliRunner().invoke(validate, [str(head_glb.path)])
    assert result.exit_code == 0, result.output
    assert "KHR_materials_specular" in result.output and "0 errors" in result.output
    result = CliRunner().invoke(validate, [str(head_glb.path), "--json", "--engine", "three"])
    assert json.loads(result.output)["engines"] == ["three"]
    broken = tmp_path / "broken.glb"
    broken.write_bytes(b"no")
    assert CliRunner().invoke(validate, [str(broken)]).exit_code == 1
