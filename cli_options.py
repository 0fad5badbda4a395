"""What the command files share: exit codes, options that several commands take, progress bar, tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

EXIT_CODES = """\b
Exit codes:
  0  done
  1  an error that none of the others names
  2  wrong usage, or an output folder that cannot be written
  3  the photo cannot be read
  4  the face that was asked for is not in the photo
  5  a model, a backend or a package is missing (see `fitdiff doctor`)
"""
DEBUG = "fitdiff.debug"  # key in click's meta


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks of errors."
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the results; it is made, or its files of the same names are replaced.",
)
threads_option = click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: PyTorch's own choice]")
steps_option = click.option("--steps", default=50, show_default=True, type=click.IntRange(1, 1000), help="DDIM steps.")
seed_option = click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the noise.")
guidance_option = click.option(
    "--guidance",
    default="full",
    show_default=True,
    type=click.Choice(["full", "thorough", "fast", "latent", "none"]),
    help="thorough: a gradient at every step; fast: fewer; latent: without the detail residual; none: condition alone.",
)
face_option = click.option(
    "--face", type=click.IntRange(0), help="Which face, 0 being the largest. [default: the largest]"
)
_cfg_option = click.option(
    "--cfg", default=1.0, show_default=True, type=click.FloatRange(0), help="Classifier-free scale."
)
BACKENDS = ("auto", "eager", "compile", "onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
DEFAULT_BACKEND = "eager"
_backend_option = click.option(
    "--backend",
    default=DEFAULT_BACKEND,
    show_default=True,
    type=click.Choice(BACKENDS),
    help="What runs the networks; auto: the fastest that is present for the device.",
)
_device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="cpu|cuda",
    help="Where the networks and the renderer run; cuda:1 is the second GPU.",
)
_precision_option = click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "fp16"]),
    help="Of the networks' arithmetic; the fast one is for GPUs.",
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`backend`, `device` and `precision`, for commands that load the pipeline."""
    return _backend_option(_device_option(_precision_option(command)))


def avatar_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`steps`, `guidance`, `cfg`, `seed` and `face`, for commands that make avatars of photos."""
    return steps_option(guidance_option(_cfg_option(seed_option(face_option(command)))))


class Step(Protocol):
    """Says what happens now, and by how many steps the bar advances."""

    def __call__(self, text: str, advance: int = 1, /) -> None: ...


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Step]:
    """A progress bar on stderr, or now and then a line where that is no terminal; yields `step(text, advance=1)`."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, text="")
        said = time.monotonic()

        def step(text: str, advance: int = 1, /) -> None:
            nonlocal said
            progress.update(task, advance=advance, text=text)
            if progress.disable and time.monotonic() - said > 10:
                said = time.monotonic()
                click.echo(f"fitdiff: {title}: {text}", err=True)

        yield step


def told_engine(step: Step) -> Callable[[str, int, int], None]:
    """What a pipeline calls before each engine: the text of the bar, which stays where it is."""
    return lambda graph, done, count: step(f"engine {done + 1} of {count}: {graph}", 0)


def print_table(table: Table) -> None:
    """A table on stdout, as wide as the terminal; 200 columns where that is none."""
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)
