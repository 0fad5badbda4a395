"""`fitdiff import-model`: a morphable model from the user's own copy, in the form that FitDiff takes.

Heavy imports stand inside the command, as in `cli`.
"""

from __future__ import annotations

from pathlib import Path

import click

from .cli_options import EXIT_CODES, debug_option, progress_bar, threads_option

FORMATS = ("lsfm", "bfm2009", "bfm2019", "flame", "ict", "gnm")
UNITS = ("um", "mm", "cm", "dm", "m", "eyes")
STAGES = 6


@click.command("import-model", epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "format_name", type=click.Choice(FORMATS), help="[default: as the file looks]")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="FILE.safetensors; FILE.json and FILE.LICENSE appear beside it.",
)  # fmt: skip
@click.option(
    "--unit", type=click.Choice(UNITS),
    help="Of the file's lengths; eyes: so that the eyes are as far apart as people's. [default: by the head's size]",
)  # fmt: skip
@click.option("--name", help="Of the model, in reports. [default: the format's]")
@click.option("--licence", metavar="ID", help="SPDX identifier, where yours is not the publisher's usual one.")
@click.option(
    "--licence-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Its text, kept with the model.",
)
@click.option("--commercial/--non-commercial", default=None, help="Whether your licence allows commercial use.")
@threads_option
@debug_option
def import_model(
    file: Path, format_name: str | None, out: Path, unit: str | None, name: str | None, licence: str | None,
    licence_file: Path | None, commercial: bool | None, threads: int | None,
) -> None:  # fmt: skip
    """Convert another morphable model: LSFM, the Basel Face Model, FLAME, ICT-FaceKit or GNM.

    docs/morphable_models.md says where each comes from and under which licence, and how a model of yours is trained.

    \b
    Examples:
      fitdiff import-model FaceXModel --out ict.safetensors
      fitdiff import-model generic_model.pkl --format flame --out flame.safetensors
    """
    from .assets.import_model import ImportOptions
    from .assets.import_model import import_model as convert

    if threads:
        import torch

        torch.set_num_threads(threads)
    text = licence_file.read_text(encoding="utf-8") if licence_file else None
    options = ImportOptions(format_name, unit, name, licence, commercial, text)
    with progress_bar("import", STAGES) as step:
        report = convert(file, out, options, step)
    for line in report.lines():
        click.echo(line)
    click.echo(f"{out.with_name(out.name.removesuffix('.safetensors'))}.safetensors: {report.card.sha256[:16]}")
