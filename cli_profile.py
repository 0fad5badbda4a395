"""The command `fitdiff profile`: parses, measures, prints and writes. Heavy imports stand inside, as in `cli`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from .cli_options import (
    EXIT_CODES,
    debug_option,
    engine_options,
    face_option,
    guidance_option,
    progress_bar,
    seed_option,
    steps_option,
    threads_option,
)

if TYPE_CHECKING:
    from .engines.options import Precision
    from .runtime.profile import Measurement

_NEW_FILE = click.Path(path_type=Path, dir_okay=False)
_STDOUT = Path("-")


class _Sizes(click.ParamType):
    """Whole numbers from 1, with commas."""

    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of whole numbers from 1, such as 1,4,16.", param, ctx)
        return tuple(dict.fromkeys(map(int, parts)))


@click.command(epilog=EXIT_CODES)
@click.argument("photo", type=click.Path(path_type=Path))
@engine_options
@click.option("--compare", metavar="BACKEND", help="Run this one in turn with the other, and print the ratios.")
@steps_option
@guidance_option
@click.option("--batch", default="1", show_default=True, type=_Sizes(), help="Avatars a run; several sizes, commas.")
@click.option("--warmup", default=1, show_default=True, type=click.IntRange(0), help="Runs before those that count.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1), help="Runs that count, of each size.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write the figures there; -: to stdout, and the tables to stderr.",
)  # fmt: skip
@click.option("--trace", "trace_file", type=_NEW_FILE, help="Write a trace for https://ui.perfetto.dev.")
@click.option("--html", "html_file", type=_NEW_FILE, help="Write a page with timeline and tables.")
@seed_option
@face_option
@threads_option
@debug_option
def profile(
    photo: Path, backend: str, device: str, precision: Precision, compare: str | None, steps: int, guidance: str,
    batch: tuple[int, ...], warmup: int, runs: int, json_file: Path | None, trace_file: Path | None,
    html_file: Path | None, seed: int, face: int | None, threads: int | None,
) -> None:  # fmt: skip
    """Where the time of an avatar goes: every stage and every engine, with percentiles, memory and warnings.

    \b
    Examples:
      fitdiff profile examples/astronaut.jpg --steps 10 --html profile.html
      fitdiff profile examples/astronaut.jpg --batch 1,4 --trace trace.json --json -
    """
    from .runtime.avatar_result import AvatarOptions
    from .runtime.profile import ProfileSettings, profile_photo
    from .runtime.profile_report import html_from_measurement
    from .runtime.profile_table import json_from_measurement
    from .runtime.profile_trace import chrome_trace

    settings = ProfileSettings(AvatarOptions(steps, guidance, seed=seed), batch, warmup, runs)
    backends = [backend, compare] if compare else [backend]
    with progress_bar("profile", len(backends) * (1 + len(batch) * (warmup + runs))) as step:
        found = profile_photo(
            photo, settings, backends, threads=threads, face=face, say=step, device=device, precision=precision
        )
    _print(found, to_stderr=json_file == _STDOUT)
    if trace_file:
        trace_file.write_text(json.dumps(chrome_trace(found)) + "\n", encoding="utf-8")
    if html_file:
        html_file.write_text(html_from_measurement(found), encoding="utf-8")
    if json_file == _STDOUT:
        click.echo(json_from_measurement(found))
    elif json_file:
        json_file.write_text(json_from_measurement(found) + "\n", encoding="utf-8")


def _print(found: Measurement, to_stderr: bool) -> None:
    from .runtime.profile_table import batches_of, comparison_lines, header_lines, tables, warning_lines

    console = Console(stderr=to_stderr)
    if not console.is_terminal:
        console = Console(stderr=to_stderr, width=200)
    for line in header_lines(found):
        click.echo(line, err=to_stderr)
    for one, batch in batches_of(found):
        for table in tables(one, batch):
            console.print(table)
    for comparison in found.comparisons:
        for line in comparison_lines(comparison):
            click.echo(line, err=to_stderr)
    for line in warning_lines(found):
        click.echo(f"fitdiff: warning: {line}", err=True)
