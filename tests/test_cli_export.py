"""`fitdiff convert` and the options of an export: files, messages, exit codes, without a model."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from fitdiff.cli import avatar, main, sample
from fitdiff.cli_export import convert
from fitdiff.exporter.validate import document_and_binary_from_glb
from fitdiff.runtime.avatar_file import save_avatar


def fitdiff(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def marked() -> ModuleType:
    """The marked avatar of the exporter's tests."""
    path = Path(__file__).parent / "exporter" / "conftest.py"
    spec = importlib.util.spec_from_file_location("fitdiff_test_marked", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_avatar(marked().avatar.__wrapped__(), folder / "avatar.fitdiff")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_convert_takes_a_file_or_a_folder(saved: Path, tmp_path: Path) -> None:
    for name, source in (("a", saved), ("b", saved / "avatar.fitdiff")):
        result = fitdiff("convert", source, "--out", tmp_path / name, "--texture-size", 512)
        assert result.exit_code == 0, result.output
        assert files(tmp_path / name) == {"avatar.glb"}
        assert result.stdout.startswith(str(tmp_path / name / "avatar.glb") + ": ")
        assert "3 blendshapes" in result.stdout
    assert (tmp_path / "a/avatar.glb").read_bytes() == (tmp_path / "b/avatar.glb").read_bytes()


def test_convert_for_unreal_with_everything_beside(saved: Path, tmp_path: Path) -> None:
    options = ("--target", "unreal", "--texture-size", 512, "--ply", "--obj", "--normal-bits", 16)
    result = fitdiff("convert", saved, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == {
        "SK_FitDiffHead.glb", "SK_FitDiffHead.ply", "SK_FitDiffHead.obj", "SK_FitDiffHead.mtl",
        "SK_FitDiffHead_base_color.jpg", "SK_FitDiffHead_lashes.png",
        *(f"textures/T_FitDiff_{name}.png" for name in ("D", "N", "ORM", "S")),
    }  # fmt: skip


def test_parts_shapes_and_mouth(saved: Path, tmp_path: Path) -> None:
    options = ("--texture-size", 512, "--parts", "skin, teeth,eyes", "--no-mouth", "--blendshapes", "jawOpen")
    result = fitdiff("convert", saved, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    document, _ = document_and_binary_from_glb((tmp_path / "out" / "avatar.glb").read_bytes())
    assert [material["name"] for material in document["materials"]] == [
        "FitDiff_Skin", "FitDiff_Eye", "FitDiff_Cornea"
    ]  # fmt: skip
    assert document["meshes"][0]["extras"]["targetNames"] == ["jawOpen"]
    used = document["asset"]["extras"]["fitdiff"]["options"]
    assert used["parts"] == ["skin", "teeth", "eyes"] and used["blendshapes"] == ["jawOpen"] and not used["mouth"]


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ("--target", "unreal", "--compression", "meshopt"), "importer of unreal does not read"),
        (2, ("--target", "unity", "--texture-format", "webp"), "importer of unity does not read"),
        (2, ("--target", "cryengine"), "--target"),
        (2, ("--lod", "5"), "--lod"),
        (2, ("--lod", "2"), "another topology"),
        (2, ("--parts", "hair"), "hair"),
        (2, ("--parts", ""), "none that is left"),
        (2, ("--blendshapes", "jawopen"), "jawopen"),
        (2, ("--texture-size", "1000"), "--texture-size"),
    ],
)
def test_errors_leave_nothing_behind(
    saved: Path, tmp_path: Path, code: int, arguments: tuple[str, ...], words: str
) -> None:
    result = fitdiff("convert", saved, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_no_avatar_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    for source, words in ((tmp_path / "photo.jpg", "no safetensors file"), (tmp_path, "no such file")):
        result = fitdiff("convert", source, "--out", tmp_path / "out")
        assert result.exit_code == 1 and words in result.stderr and "avatar.fitdiff" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_three_commands_share_their_options() -> None:
    own = {option.name for option in convert.params} - {"avatar", "out"}
    for command in (avatar, sample):
        assert own <= {option.name for option in command.params}
    by_name = {option.name: option.default for option in convert.params}
    for command in (avatar, sample):
        assert all(o.default == by_name[o.name] for o in command.params if o.name in own)
    help_text = fitdiff("convert", "--help").output
    assert "fitdiff convert out --target unreal" in help_text and "Exit codes" in help_text


def test_convert_loads_no_pytorch(saved: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from fitdiff.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "convert", saved, "--out", tmp_path / "out", "--texture-size", "512"]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert files(tmp_path / "out") == {"avatar.glb"}
