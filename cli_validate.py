"""The command `fitdiff validate`: parses, compares, prints. Heavy imports stand inside, as in `cli`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from .cli_options import EXIT_CODES, debug_option, print_table

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--engine", "engines", multiple=True, metavar="NAME",
    help="Only this one; may be given again: unreal, unity-gltfast, unity-unitygltf, godot, blender, three, assimp.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of the table.")
@debug_option
@click.pass_context
def validate(context: click.Context, file: Path, engines: tuple[str, ...], as_json: bool) -> None:
    """Say what each engine will ignore or misread in a GLB file. Exit code 1 if there are errors.

    \b
    Examples:
      fitdiff validate out/avatar.glb
      fitdiff validate head.glb --engine unreal --engine godot --json
    """
    from .exporter.engine_check.facts import ENGINES
    from .exporter.engine_check.profile import profile_glb

    profile = profile_glb(file, engines or tuple(ENGINES))
    if as_json:
        click.echo(json.dumps(profile.to_json()))
    else:
        table = Table("", "Engine", "Where", "What")
        for finding in profile.findings:
            engine = ENGINES[finding.engine].title if finding.engine in ENGINES else "every engine"
            style = _STYLES[finding.severity]
            cells = (finding.severity, engine, finding.subject, finding.message)
            table.add_row(*(escape(cell) for cell in cells), style=style)
        if profile.findings:
            print_table(table)
        counts = (f"{profile.count(kind)} {kind}s" for kind in ("error", "warning", "note"))
        click.echo(f"{file}: {', '.join(counts)}")
    if profile.count("error"):
        context.exit(1)
