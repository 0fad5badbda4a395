"""`fitdiff convert`, and the options about the export that it shares with `avatar` and `sample`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_options import EXIT_CODES, debug_option, out_option

if TYPE_CHECKING:
    from .exporter.export import ExportSummary
    from .exporter.options import ExportOptions

# As in exporter.options and exporter.targets, which import more than --help has time for.
TARGETS = ("gltf", "unreal", "unity", "godot")
SIZES = ("512", "1024", "2048", "4096")
COMPRESSIONS = ("none", "meshopt", "quantize")
FORMATS = ("png", "jpeg", "webp", "ktx2")
PARTS = "skin,eyes,teeth,tongue,lashes"

_OPTIONS = (
    click.option(
        "--target", default="gltf", show_default=True, type=click.Choice(TARGETS),
        help="Whose importer the files are for: names, packing, specular, levels.",
    ),
    click.option(
        "--lod", default=1, show_default=True, type=click.IntRange(1, 4), metavar="1..4",
        help="Levels of detail: about 17000, 8000, 4000, 2000 vertices.",
    ),
    click.option(
        "--texture-size", default="2048", show_default=True, type=click.Choice(SIZES), help="Pixels of the textures."
    ),
    click.option(
        "--normal-bits", default="8", show_default=True, type=click.Choice(["8", "16"]), help="Of the normal map."
    ),
    click.option(
        "--blendshapes", default="arkit52", show_default=True, metavar="arkit52|none|LIST",
        help="All, none, or names with commas: jawOpen,eyeBlinkLeft.",
    ),
    click.option(
        "--parts", default=PARTS, show_default=True, metavar="LIST", help="Which parts are written, with commas."
    ),
    click.option("--no-mouth", is_flag=True, help="Leave out teeth, tongue and the mouth's inside."),
    click.option("--ply", is_flag=True, help="Also the plain mesh as PLY."),
    click.option("--obj", is_flag=True, help="Also the plain mesh as OBJ, with MTL and textures."),
    click.option("--usd", is_flag=True, help="Also USD (.usdz); needs fitdiff[usd]."),
    click.option(
        "--compression", default="none", show_default=True, type=click.Choice(COMPRESSIONS),
        help="Of the geometry in the GLB; meshopt needs fitdiff[meshopt].",
    ),
    click.option(
        "--texture-format", default="jpeg", show_default=True, type=click.Choice(FORMATS),
        help="Of the textures in the GLB; jpeg: colours alone, the rest stays PNG.",
    ),
)  # fmt: skip


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of an export, handed to the command as `export`, an `ExportOptions`."""

    @functools.wraps(command)
    def with_options(
        *args: Any, target: str, lod: int, texture_size: str, normal_bits: str, blendshapes: str, parts: str,
        no_mouth: bool, ply: bool, obj: bool, usd: bool, compression: str, texture_format: str, **others: Any,
    ) -> Any:  # fmt: skip
        from .exporter.options import ExportOptions

        fields: dict[str, Any] = {
            "target": target,
            "lod": lod,
            "texture_size": int(texture_size),
            "normal_bits": int(normal_bits),
            "blendshapes": blendshapes if blendshapes in ("arkit52", "none") else _listed(blendshapes),
            "parts": _listed(parts),
            "mouth": not no_mouth,
            "ply": ply,
            "obj": obj,
            "usd": usd,
            "compression": compression,
            "texture_format": texture_format,
        }
        return command(*args, export=ExportOptions(**fields), **others)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options


def tell_export(out: Path, summary: ExportSummary) -> None:
    """A line on stdout for each GLB file: what is in it."""
    for gltf in summary.gltf:
        levels = f", {len(gltf.levels)} levels" if len(gltf.levels) > 1 else ""
        click.echo(
            f"{out / gltf.path.name}: {gltf.vertices} vertices, {gltf.triangles} triangles{levels}, "
            f"{len(gltf.morph_targets)} blendshapes, {gltf.bytes / 1e6:.1f} MB"
        )


@click.command(epilog=EXIT_CODES)
@click.argument("avatar", type=click.Path(path_type=Path))
@out_option
@export_options
@debug_option
def convert(avatar: Path, out: Path, export: ExportOptions) -> None:
    """Write a saved avatar for an engine, without a photo and without diffusion.

    AVATAR is the file avatar.fitdiff of a run, or the folder of the run. All files appear, or none does.

    \b
    Examples:
      fitdiff convert out --target unreal --lod 4 --out for_unreal
      fitdiff convert out --compression meshopt --texture-format webp --out for_the_web
    """
    from .exporter.export import write_export
    from .runtime.avatar_file import load_avatar
    from .runtime.outputs import whole_folder

    loaded = load_avatar(avatar)
    with whole_folder(out) as folder:
        summary = write_export(loaded, folder, export)
    tell_export(out, summary)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
