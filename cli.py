"""The command line: parses, calls the library, prints. Exit codes and messages are made here, nothing else.

Heavy imports stand inside the commands, so that `--help` is quick and `doctor` works where packages are
missing.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from . import __version__
from .cli_batch import batch
from .cli_engines import engines
from .cli_evaluate import evaluate
from .cli_export import convert, export_options, tell_export
from .cli_import import import_model
from .cli_options import (
    DEBUG,
    EXIT_CODES,
    Step,
    avatar_options,
    debug_option,
    out_option,
    print_table,
    progress_bar,
    seed_option,
    steps_option,
    told_engine,
)
from .cli_presets import loading_options, preset_summary
from .cli_profile import profile
from .cli_train import synthesize, train
from .cli_validate import validate
from .cli_view import view
from .errors import FitDiffError, MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .exporter.options import ExportOptions
    from .runtime.pipeline import FitDiffPipeline


class _Commands(click.Group):
    """Turns every error into one message on stderr and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings(), _terminated_like_interrupted():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except FitDiffError as error:
                _fail(ctx, str(error), error.exit_code, error)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                _fail(ctx, f"unexpected {reason}; run it again with --debug and report the output", 1, error)


def _fail(ctx: click.Context, message: str, code: int, error: Exception) -> None:
    if ctx.meta.get(DEBUG):
        raise error
    click.echo(f"fitdiff: {message}", err=True)
    ctx.exit(code)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"fitdiff: note: {message}", err=True)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends a run as an exception, so that nothing half-made remains."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(cls=_Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fitdiff")
@debug_option
def main() -> None:
    """One photograph becomes a game-ready head with relightable face reflectance.

    \b
    Example:
      fitdiff avatar examples/astronaut.jpg --out out
    """


@main.command(epilog=EXIT_CODES)
@click.argument("photo", type=click.Path(path_type=Path))
@out_option
@avatar_options
@export_options
@loading_options
@debug_option
def avatar(
    photo: Path, out: Path, steps: int, guidance: str, cfg: float, seed: int, face: int | None,
    loading: dict[str, Any], export: ExportOptions,
) -> None:  # fmt: skip
    """Make the avatar of one photographed face.

    \b
    Writes into the folder, all or nothing:
      avatar.glb      whole head, materials, 52 blendshapes; SK_FitDiffHead.glb and so on with --target
      avatar.fitdiff  the avatar itself, for fitdiff convert
      maps/           diffuse_albedo.png, specular_albedo.png, normal.png, folds.png
      render.png      the avatar in the photo's camera and light, over the photo
      preview.png     photo, overlay, turntable and maps on one sheet
      report.json     options, models, seconds, memory, guidance terms, similarity

    \b
    Example:
      fitdiff avatar examples/astronaut.jpg --out out --seed 7
    """
    from .exporter.avatar_folder import write_avatar_folder
    from .runtime.avatar_result import AvatarOptions
    from .runtime.face_crop import crop_face
    from .runtime.loading import load_pipeline
    from .runtime.outputs import whole_folder
    from .runtime.photo import load_photo
    from .runtime.report import StageClock

    clock = StageClock()
    with whole_folder(out) as folder, progress_bar("avatar", steps + 4) as step:
        with clock.stage("read"):
            loaded = load_photo(photo)
        step("models")
        with clock.stage("load"):
            pipeline = load_pipeline(**loading, on_engine=told_engine(step))
        step("face")
        with clock.stage("crop"):
            crop = crop_face(loaded, pipeline.detector, pipeline.models.face_mesh, face)
        step("steps")
        options = AvatarOptions(steps, guidance, cfg, seed)
        result = pipeline.avatar(crop, options, clock, lambda done, total: step(f"step {done} of {total}"))
        step("files")
        used = {"face": face, "threads": loading["threads"]}
        summary, report = write_avatar_folder(result, pipeline.renderer, folder, clock, crop, used, export)
    for note in report.notes:
        click.echo(f"fitdiff: note: {note}", err=True)
    measured = "".join(f", {name} {value:.3f}" for name, value in report.similarity.items())
    tell_export(out, summary)
    click.echo(f"{report.seconds:.1f} s, peak {report.stages[-1].peak_mib:.0f} MiB{measured}")


@main.command(epilog=EXIT_CODES)
@click.option("--count", required=True, type=click.IntRange(1), help="How many faces; the n-th has seed SEED + n.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the faces.")
@click.option(
    "--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Instead: one JPEG with all faces in three lights."
)
@steps_option
@seed_option
@export_options
@loading_options
@debug_option
def sample(
    count: int, out: Path | None, sheet: Path | None, steps: int, seed: int, loading: dict[str, Any],
    export: ExportOptions,
) -> None:  # fmt: skip
    """Make faces of nobody: a folder each with asset, maps and preview, and a contact sheet of all.

    \b
    Examples:
      fitdiff sample --count 3 --out faces
      fitdiff sample --count 64 --sheet faces.jpg
    """
    if (out is None) == (sheet is None):
        raise click.UsageError("One of '--out' and '--sheet' is needed.")
    from .runtime.avatar_result import AvatarOptions
    from .runtime.loading import load_pipeline

    if sheet is not None:
        with progress_bar("sample", count) as step:
            pipeline = load_pipeline(**loading, on_engine=told_engine(step))
            _sheet_of_samples(pipeline, count, sheet, steps, seed, step)
        click.echo(f"{sheet}: {count} {'face' if count == 1 else 'faces'}")
        return
    assert out is not None
    from .exporter.avatar_folder import write_avatar_folder
    from .exporter.maps import png_from_pixels
    from .exporter.preview import contact_sheet, portrait
    from .exporter.sheet import Tile
    from .runtime.outputs import whole_folder
    from .runtime.report import StageClock

    tiles: list[Tile] = []
    with whole_folder(out) as folder, progress_bar("sample", count * (steps + 1) + 1) as step:
        pipeline = load_pipeline(**loading, on_engine=told_engine(step))
        step("steps")
        for number in range(seed, seed + count):
            clock = StageClock()
            text = f"face {number - seed + 1} of {count}"
            result = pipeline.sample(AvatarOptions(steps, "none", 1.0, number), clock, lambda *_, text=text: step(text))
            used = {"threads": loading["threads"]}
            face = folder / f"face_{number:04d}"
            write_avatar_folder(result, pipeline.renderer, face, clock, None, used, export)
            tiles.append(Tile(portrait(result, pipeline.renderer), f"seed {number}"))
            step(text)
        (folder / "contact.png").write_bytes(png_from_pixels(contact_sheet(tiles), "srgb"))
    click.echo(f"{out}: {count} {'face' if count == 1 else 'faces'}, {out / 'contact.png'}")


def _sheet_of_samples(pipeline: FitDiffPipeline, count: int, sheet: Path, steps: int, seed: int, step: Step) -> None:
    import torch

    from .runtime.avatar_result import AvatarOptions
    from .training.contact_sheet import sheet_of_heads, write_sheet

    def heads() -> Iterator[tuple[Any, Any]]:
        for number in range(seed, seed + count):
            result = pipeline.sample(AvatarOptions(steps, "none", 1.0, number))
            yield torch.from_numpy(result.avatar.vertices)[None], result.head_maps
            step(f"face {number - seed + 1} of {count}")

    write_sheet(sheet, sheet_of_heads(heads(), pipeline.renderer, min(8, count)))


@main.command(epilog=EXIT_CODES)
@debug_option
def doctor() -> None:
    """Say what is installed, which models and backends work, and what to do about what is missing.

    \b
    Example:
      fitdiff doctor
    """
    from .runtime.doctor import examine

    findings = examine()
    for group in dict.fromkeys(finding.group for finding in findings):
        click.echo(group)
        for finding in (f for f in findings if f.group == group):
            remedy = f"\n{'':12}-> {finding.remedy}" if finding.remedy else ""
            click.echo(f"  {finding.state:8}{finding.name:24}{finding.detail}{remedy}")
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if missing:
        raise MissingError("installation", f"no usable {', '.join(missing)}", "all of it", "see the arrows above")
    click.echo("Everything that an avatar needs is here.")


@main.command(epilog=EXIT_CODES)
@debug_option
def models() -> None:
    """List the models with their sources, licences, and whether they may be used commercially.

    \b
    Example:
      fitdiff models
    """
    from .runtime.registry import installed_models

    table = Table("Role", "Name", "Source", "Licence", "Commercial", "MiB", "SHA-256")
    found = installed_models()
    for model in found:
        card = model.card
        if card is None:
            table.add_row(model.name, "missing", str(model.problem and model.problem.got), "", "", "", "")
        else:
            commercial = "yes" if card.commercial else "no"
            size = f"{model.bytes / 2**20:.1f}"
            cells = (card.role, card.name, card.source, card.licence, commercial, size, card.sha256[:12])
            table.add_row(*map(escape, cells))
    print_table(table)
    for line in preset_summary():
        click.echo(line)
    absent = [model.name for model in found if model.card is None]
    if absent:
        raise MissingError("models", f"no usable {', '.join(absent)}", "all of the preset", "run fitdiff doctor")


for command in (batch, convert, view, validate, import_model, synthesize, train, evaluate, engines, profile):
    main.add_command(command)


if __name__ == "__main__":
    main()
