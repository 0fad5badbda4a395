"""The command `fitdiff batch`: parses, makes the avatars, prints. Heavy imports stand inside, as in `cli`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from .cli_export import export_options
from .cli_options import avatar_options, debug_option, print_table, progress_bar, told_engine
from .cli_presets import loading_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .exporter.options import ExportOptions
    from .runtime.batch import Made
    from .runtime.batch_folder import BatchRow
    from .runtime.report import RunReport

_EXIT_CODES = """\b
Exit codes:
  0  every photo has its avatar
  1  some have none; the table and batch.json say which and why
  2  wrong usage, no photo, or an output folder that cannot be written
  5  a model, a backend or a package is missing (see `fitdiff doctor`)
"""


@click.command(epilog=_EXIT_CODES)
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Folder for the results: one folder a photo, named for it, and batch.json.",
)  # fmt: skip
@click.option(
    "--batch", "at_once", default=4, show_default=True, type=click.IntRange(1),
    help="Photos that go through the loop together; it changes speed and memory, never a result.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Leave out photos whose folder is whole, of the same photo and options.")
@avatar_options
@export_options
@loading_options
@debug_option
@click.pass_context
def batch(
    context: click.Context, photos: tuple[Path, ...], out: Path, at_once: int, resume: bool, steps: int, guidance: str,
    cfg: float, seed: int, face: int | None, loading: dict[str, Any], export: ExportOptions,
) -> None:  # fmt: skip
    """Make the avatars of many photos, or of all photos in folders.

    Each photo gets what `fitdiff avatar` would make of it. One that cannot be read, or shows no face, is reported at
    the end and costs the others nothing. A photo's folder is written whole or not at all.

    \b
    Examples:
      fitdiff batch photos --out avatars
      fitdiff batch a.jpg b.jpg --out avatars --batch 16 --device cuda --backend auto --resume
    """
    from .exporter.avatar_folder import write_avatar_folder
    from .runtime.avatar_result import AvatarOptions
    from .runtime.batch import make_avatars
    from .runtime.batch_folder import BatchFolder, folder_names, kept_rows, photos_from_paths, write_batch
    from .runtime.loading import load_pipeline

    found = photos_from_paths(photos)
    names = folder_names(found)
    options = AvatarOptions(steps, guidance, cfg, seed)
    with progress_bar("batch", len(found)) as step:
        step("models", 0)
        pipeline = load_pipeline(**loading, max_batch=at_once, on_engine=told_engine(step))
        deciding = asdict(options) | {"face": face, "export": asdict(export)}
        deciding |= {"models": [card.sha256 for card in pipeline.cards]}
        folder = BatchFolder(out, deciding)
        kept = kept_rows(folder, names) if resume else {}
        step(f"{len(kept)} kept", len(kept))

        def write(made: Made, work: Path) -> RunReport:
            used = {"face": face, "threads": loading["threads"]}
            return write_avatar_folder(made.result, pipeline.renderer, work, made.clock, made.crop, used, export)[1]

        made = make_avatars(
            pipeline, [photo for photo in found if photo not in kept], options, at_once, face,
            lambda done, total: step(f"step {done} of {total}", 0),
        )  # fmt: skip
        rows = list(kept.values())
        for row in write_batch(folder, names, kept, made, write):
            rows.append(row)
            step(f"{row.photo}: {row.state}")
    order = {name: index for index, name in enumerate(names.values())}
    rows.sort(key=lambda row: order[row.folder])
    _print(rows)
    failed = sum(row.state == "failed" for row in rows)
    click.echo(f"{out}: {len(rows) - failed} of {len(rows)} photos have their avatars")
    if failed:
        context.exit(1)


def _print(rows: Sequence[BatchRow]) -> None:
    table = Table("Photo", "Folder", "", "Seconds", "Similarity", "Why")
    for row in rows:
        similarity = ", ".join(f"{value:.3f}" for name, value in row.similarity.items() if name == "guiding")
        seconds = f"{row.seconds:.1f}" if row.state == "made" else ""
        cells = (
            row.photo,
            row.folder if row.state != "failed" else "",
            row.state,
            seconds,
            similarity,
            row.error or "",
        )
        table.add_row(*(escape(cell) for cell in cells), style="red" if row.state == "failed" else None)
    print_table(table)
