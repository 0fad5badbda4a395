"""The commands `fitdiff evaluate ...`: parse, call one measurement, print. The table goes to stderr, JSON to stdout.

Heavy imports stand inside the commands, as in `cli`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from .cli_options import EXIT_CODES, debug_option, seed_option, threads_option

if TYPE_CHECKING:
    from .evaluation.result import Evaluation
    from .runtime.pipeline import FitDiffPipeline

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_NEW_FILE = click.Path(path_type=Path, dir_okay=False)
_PHOTOS = "Folder with a sub-folder of photos for every person."
_DATA = "A folder that `fitdiff synthesize` made."


class _Shard(click.ParamType):
    """i/n, counted from 0."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        index, _, count = str(value).partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            self.fail(f"{value!r} is not i/n with 0 <= i < n.", param, ctx)
        return int(index), int(count)


@click.group(epilog=EXIT_CODES)
def evaluate() -> None:
    """Measure how good the avatars are, on your photos and on synthetic faces."""


def _measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every measurement."""
    options = (
        click.option("--limit", type=click.IntRange(1), help="At most so many people or faces. [default: all]"),
        click.option("--rows", type=_NEW_FILE, help="File of finished rows: an interrupted run goes on with it."),
        click.option("--json", "json_file", type=_NEW_FILE, help="Write the JSON into this file too."),
        seed_option,
        threads_option,
        debug_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@evaluate.command("identity", epilog=EXIT_CODES)
@click.option("--photos", required=True, type=_FOLDER, help=_PHOTOS)
@_measuring
@click.option("--second-recogniser", type=_FILE, help="ONNX file of a recogniser that did not guide.")
@click.option(
    "--second-alignment", default="arcface", show_default=True, type=click.Choice(["arcface", "facenet"]),
    help="How that one wants its faces.",
)  # fmt: skip
@click.option("--only", multiple=True, metavar="NAME", help="Measure this row of the table; may be given again.")
@click.option("--steps", type=click.IntRange(1, 1000), help="Steps of every variant. [default: each its own]")
@click.option("--shard", default="0/1", show_default=True, type=_Shard(), help="Every n-th person from the i-th on.")
@click.option("--sheet", type=_NEW_FILE, help="JPEG file of all renderings, to look at.")
def evaluate_identity(
    photos: Path, limit: int | None, rows: Path | None, json_file: Path | None, second_recogniser: Path | None,
    second_alignment: str, only: tuple[str, ...], steps: int | None, shard: tuple[int, int], sheet: Path | None,
    seed: int, threads: int | None,
) -> None:  # fmt: skip
    """Is the avatar the person? Each way of making one, judged by two recognisers.

    \b
    Example:
      fitdiff evaluate identity --photos people --limit 10 --rows identity.jsonl --second-recogniser other.onnx
    """
    from .evaluation.identity import evaluate_identity
    from .evaluation.second_recogniser import SecondRecogniser

    pipeline = _pipeline(threads)
    second = SecondRecogniser(second_recogniser, second_alignment) if second_recogniser else None
    found = evaluate_identity(
        pipeline, photos, second=second, limit=limit, seed=seed, steps=steps, only=only, shard=shard, rows=rows,
        sheet=sheet, say=_say,
    )  # fmt: skip
    _print(found, json_file)


@evaluate.command("cleanliness", epilog=EXIT_CODES)
@click.option("--photos", required=True, type=_FOLDER, help=_PHOTOS)
@click.option("--data", type=_FOLDER, help=f"{_DATA} Adds the relighting error.")
@click.option(
    "--occluded", type=click.IntRange(0), metavar="N",
    help="Put things on the photos of the first N people alone. [default: all]",
)  # fmt: skip
@_measuring
def evaluate_cleanliness(
    photos: Path, data: Path | None, occluded: int | None, limit: int | None, rows: Path | None,
    json_file: Path | None, seed: int, threads: int | None,
) -> None:  # fmt: skip
    """Do the maps hold the skin alone? Two photos of one person, and glasses, hair or a hand put on a photo.

    \b
    Example:
      fitdiff evaluate cleanliness --photos people --data data --limit 10
    """
    from .evaluation.cleanliness import evaluate_cleanliness

    pipeline = _pipeline(threads)
    found = evaluate_cleanliness(
        pipeline, photos, data=data, limit=limit, seed=seed, rows=rows, say=_say, occluded=occluded
    )
    _print(found, json_file)


@evaluate.command("reflectance", epilog=EXIT_CODES)
@click.option("--data", required=True, type=_FOLDER, help=_DATA)
@_measuring
def evaluate_reflectance(
    data: Path, limit: int | None, rows: Path | None, json_file: Path | None, seed: int, threads: int | None
) -> None:
    """How near are the maps to the true ones of held-out synthetic faces? PSNR and SSIM.

    \b
    Example:
      fitdiff evaluate reflectance --data data --limit 20
    """
    from .evaluation.reflectance import evaluate_reflectance

    _print(evaluate_reflectance(_pipeline(threads), data, limit=limit, seed=seed, rows=rows, say=_say), json_file)


@evaluate.command("geometry", epilog=EXIT_CODES)
@click.option("--photos", type=_FOLDER, help=_PHOTOS)
@click.option("--data", type=_FOLDER, help=_DATA)
@click.option("--ict", type=_FILE, help="Your own copy of the ICT face model, as NPZ.")
@_measuring
def evaluate_geometry(
    photos: Path | None, data: Path | None, ict: Path | None, limit: int | None, rows: Path | None,
    json_file: Path | None, seed: int, threads: int | None,
) -> None:  # fmt: skip
    """How near is the shape? Measured on whatever is given: photos, synthetic faces, the ICT face model.

    \b
    Example:
      fitdiff evaluate geometry --photos people --data data --limit 20
    """
    from .evaluation.geometry import evaluate_geometry

    pipeline = _pipeline(threads)
    found = evaluate_geometry(
        pipeline, photos=photos, data=data, ict=ict, limit=limit, seed=seed, rows=rows, say=_say
    )  # fmt: skip
    _print(found, json_file)


def _pipeline(threads: int | None) -> FitDiffPipeline:
    from .runtime.loading import load_pipeline

    return load_pipeline(threads=threads)


def _say(text: str) -> None:
    click.echo(f"fitdiff: {text}", err=True)


def _print(found: Evaluation, json_file: Path | None) -> None:
    text = found.json()
    if json_file:
        json_file.write_text(text + "\n", encoding="utf-8")
    console = Console(stderr=True)
    (console if console.is_terminal else Console(stderr=True, width=200)).print(found.table())
    for note in found.notes:
        click.echo(f"fitdiff: note: {note}", err=True)
    click.echo(text)
