"""The command line: parses, calls the library, prints. Exit codes and messages are made here, nothing else.

Heavy imports stand inside the commands, so that `--help` is quick and `doctor` works where packages are
missing.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import __version__, cli_evaluate
from .errors import FitDiffError, MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .training.train_autoencoder import AutoencoderTrainingConfig
    from .training.train_diffusion import DiffusionTrainingConfig

    _Config = TypeVar("_Config", AutoencoderTrainingConfig, DiffusionTrainingConfig)

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
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads. [default: PyTorch's own choice]"
)
steps_option = click.option(
    "--steps", default=50, show_default=True, type=click.IntRange(1, 1000), help="DDIM steps."
)
seed_option = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the noise."
)
backend_option = click.option(
    "--backend",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "torch"]),
    help="What runs the networks.",
)


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
@steps_option
@click.option(
    "--guidance",
    default="full",
    show_default=True,
    type=click.Choice(["full", "none"]),
    help="none: condition alone.",
)
@click.option(
    "--cfg", default=1.0, show_default=True, type=click.FloatRange(0), help="Classifier-free scale."
)
@seed_option
@click.option(
    "--face", type=click.IntRange(0), help="Which face, 0 being the largest. [default: the largest]"
)
@backend_option
@threads_option
@debug_option
def avatar(
    photo: Path, out: Path, steps: int, guidance: str, cfg: float, seed: int, face: int | None, backend: str,
    threads: int | None,
) -> None:  # fmt: skip
    """Make the avatar of one photographed face.

    \b
    Writes into the folder, all or nothing:
      avatar.glb   whole head, materials, 52 blendshapes
      maps/        diffuse_albedo.png, specular_albedo.png, normal.png
      render.png   the avatar in the photo's camera and light, over the photo
      preview.png  photo, overlay, turntable and maps on one sheet
      report.json  options, models, seconds, memory, guidance terms, similarity

    \b
    Example:
      fitdiff avatar examples/astronaut.jpg --out out --seed 7
    """
    from .exporter.avatar_folder import write_avatar_folder
    from .runtime.face_crop import crop_face
    from .runtime.outputs import whole_folder
    from .runtime.photo import load_photo
    from .runtime.pipeline import AvatarOptions, load_pipeline
    from .runtime.report import StageClock

    clock = StageClock()
    with whole_folder(out) as folder, _bar("avatar", steps + 4) as step:
        with clock.stage("read"):
            loaded = load_photo(photo)
        step("models")
        with clock.stage("load"):
            pipeline = load_pipeline(threads=threads)
        step("face")
        with clock.stage("crop"):
            crop = crop_face(loaded, pipeline.detector, pipeline.models.face_mesh, face)
        step("steps")
        options = AvatarOptions(steps, guidance, cfg, seed)
        result = pipeline.avatar(crop, options, clock, lambda done, total: step(f"step {done} of {total}"))
        step("files")
        used = {"backend": "torch", "face": face, "threads": threads}
        summary, report = write_avatar_folder(result, pipeline.renderer, folder, clock, crop, used)
    for note in report.notes:
        click.echo(f"fitdiff: note: {note}", err=True)
    measured = "".join(f", {name} {value:.3f}" for name, value in report.similarity.items())
    click.echo(
        f"{out / 'avatar.glb'}: {summary.triangles} triangles, {len(summary.morph_targets)} blendshapes, "
        f"{summary.bytes / 2**20:.1f} MiB"
    )
    click.echo(f"{report.seconds:.1f} s, peak {report.stages[-1].peak_mib:.0f} MiB{measured}")


@main.command(epilog=EXIT_CODES)
@click.option(
    "--count", required=True, type=click.IntRange(1), help="How many faces; the n-th has seed SEED + n."
)
@out_option
@steps_option
@seed_option
@backend_option
@threads_option
@debug_option
def sample(count: int, out: Path, steps: int, seed: int, backend: str, threads: int | None) -> None:
    """Make faces of nobody: a folder each with asset, maps and preview, and a contact sheet of all.

    \b
    Example:
      fitdiff sample --count 3 --out faces
    """
    from .exporter.avatar_folder import write_avatar_folder
    from .exporter.maps import png_from_pixels
    from .exporter.preview import contact_sheet, portrait
    from .exporter.sheet import Tile
    from .runtime.outputs import whole_folder
    from .runtime.pipeline import AvatarOptions, load_pipeline
    from .runtime.report import StageClock

    tiles: list[Tile] = []
    with whole_folder(out) as folder, _bar("sample", count * (steps + 1) + 1) as step:
        pipeline = load_pipeline(threads=threads)
        step("steps")
        for number in range(seed, seed + count):
            clock = StageClock()
            text = f"face {number - seed + 1} of {count}"
            result = pipeline.sample(
                AvatarOptions(steps, "none", 1.0, number), clock, lambda *_, text=text: step(text)
            )
            used = {"backend": "torch", "threads": threads}
            write_avatar_folder(result, pipeline.renderer, folder / f"face_{number:04d}", clock, None, used)
            tiles.append(Tile(portrait(result, pipeline.renderer), f"seed {number}"))
            step(text)
        (folder / "contact.png").write_bytes(png_from_pixels(contact_sheet(tiles), "srgb"))
    click.echo(f"{out}: {count} {'face' if count == 1 else 'faces'}, {out / 'contact.png'}")


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
        raise MissingError(
            "installation", f"no usable {', '.join(missing)}", "all of it", "see the arrows above"
        )
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
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)
    absent = [model.name for model in found if model.card is None]
    if absent:
        raise MissingError(
            "models", f"no usable {', '.join(absent)}", "all of the preset", "run fitdiff doctor"
        )


@main.command(epilog=EXIT_CODES)
@click.option(
    "--skins", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of skins in MakeHuman's UV layout.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the training data; its files of the same names are replaced.",
)  # fmt: skip
@click.option("--count", default=1000, show_default=True, type=click.IntRange(2), help="Faces.")
@click.option(
    "--photos", default=4, show_default=True, type=click.IntRange(1), help="Photographs of each face."
)
@seed_option
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option(
    "--held-out-source", metavar="NAME",
    help="Photographed person whose skins make the held-out faces and no others. [default: the one with fewest skins]",
)  # fmt: skip
@click.option(
    "--sheet", type=click.Path(path_type=Path, dir_okay=False),
    help="Write a JPEG of 64 faces in three lights; without --out, only that.",
)  # fmt: skip
@debug_option
def synthesize(
    skins: Path, out: Path | None, count: int, photos: int, seed: int, workers: int, held_out_source: str | None,
    sheet: Path | None,
) -> None:  # fmt: skip
    """Make training data without anybody's face. docs/training.md says where skins are found.

    \b
    Examples:
      fitdiff synthesize --skins skins --out data --count 1000 --photos 4 --workers 4
      fitdiff synthesize --skins skins --sheet faces.jpg
    """
    from .training.synthetic import SynthesisConfig, synthesize

    if out is None and sheet is None:
        raise click.UsageError("Missing option '--out' or '--sheet'.")
    if sheet is not None:
        from .training.contact_sheet import contact_sheet, write_sheet

        write_sheet(sheet, contact_sheet(skins, seed=seed))
        click.echo(f"{sheet}: 64 faces")
    if out is None:
        return
    config = SynthesisConfig(skins, count, photos, seed, workers=workers, held_out_source=held_out_source)
    with _bar("synthesize", 2 * count) as step:
        synthesize(config, out, lambda stage, done, total: step(f"{stage} {done} of {total}"))
    click.echo(f"{out}: {count} faces, {count * photos} photographs")


@main.group(epilog=EXIT_CODES)
def train() -> None:
    """Train the autoencoder, then the diffusion model on its latents; import faces of your own."""


def _training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of both training commands."""
    data = click.Path(path_type=Path, file_okay=False)
    options = (
        click.option("--data", required=True, type=data, help="A folder of `synthesize` or `train import`."),
        out_option,
        click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Budget of wall-clock time."),
        click.option(
            "--steps", type=click.IntRange(1), help="Budget of steps; with both, whichever ends first."
        ),
        click.option("--resume", is_flag=True, help="Go on from the state in --out."),
        click.option("--init", type=click.Path(path_type=Path), help="Checkpoint whose weights to begin with."),
        click.option("--batch", type=click.IntRange(1), help="Samples a step. [default: the library's]"),
        click.option(
            "--learning-rate", type=click.FloatRange(0, min_open=True), help="The highest. [default: the library's]"
        ),
        click.option(
            "--bf16/--no-bf16", "bfloat16", default=True, show_default=True, help="Mixed precision in bfloat16."
        ),
        click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]"),
        seed_option,
        threads_option,
        debug_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _configured(
    config: _Config, seed: int, threads: int | None, batch: int | None, learning_rate: float | None, bfloat16: bool,
    device: str | None,
) -> _Config:  # fmt: skip
    """The library's configuration with what the command line says."""
    from dataclasses import replace

    return replace(
        config, seed=seed, num_threads=threads, batch=batch or config.batch, bfloat16=bfloat16, device=device,
        learning_rate=learning_rate or config.learning_rate,
    )  # fmt: skip


def _say_once(text: str) -> None:
    """Print in the first of the processes that train together."""
    from .training.devices import is_first_process

    if is_first_process():
        click.echo(text)


@train.command("import", epilog=EXIT_CODES)
@click.option(
    "--from", "origin", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with a sub-folder a face: maps, parameters, photographs.",
)  # fmt: skip
@out_option
@click.option(
    "--held-out", default=0.04, show_default=True, type=click.FloatRange(0, 1, max_open=True),
    help="Share of the people kept for validation, at least one.",
)  # fmt: skip
@debug_option
def train_import(origin: Path, out: Path, held_out: float) -> None:
    """Make a data folder of your own faces. docs/training.md says what a sub-folder holds.

    A photo or a face that cannot be used is reported and left out.

    \b
    Example:
      fitdiff train import --from scans --out data
    """
    from .models.landmarks import load_face_mesh
    from .runtime.face_detector import FaceDetector
    from .training.import_triplets import import_triplets

    with _bar("import", sum(path.is_dir() for path in origin.iterdir())) as step:
        result = import_triplets(origin, out, FaceDetector(), load_face_mesh()[0], held_out=held_out, progress=step)
    for sentence in result.left_out:
        click.echo(f"fitdiff: left out {sentence}", err=True)
    click.echo(
        f"{out}: {result.faces} faces, {result.photos} photographs, {result.held_out_faces} faces held out, "
        f"{len(result.left_out)} things left out"
    )


@train.command("autoencoder", epilog=EXIT_CODES)
@_training_options
def train_autoencoder(
    data: Path, out: Path, minutes: float | None, steps: int | None, resume: bool, init: Path | None, **options: Any
) -> None:
    """Train the branched autoencoder on the maps of a data folder.

    \b
    Example:
      fitdiff train autoencoder --data data --out runs/ae --minutes 45
      torchrun --nproc-per-node 8 -m fitdiff.cli train autoencoder --data data --out runs/ae --minutes 45 --batch 64
    """
    _require_training_packages()
    from .training.recipe import default_autoencoder_config, train_default_autoencoder
    from .training.state import Budget

    config = _configured(default_autoencoder_config(Budget(steps, minutes)), **options)
    result = train_default_autoencoder(config, data, out, resume, init)
    psnr = ", ".join(f"{name} {value:.2f} dB" for name, value in result.psnr.items())
    _say_once(
        f"{result.checkpoint}.safetensors: {result.steps} steps, {result.seconds:.0f} s, held out: {psnr}"
    )


@train.command("diffusion", epilog=EXIT_CODES)
@_training_options
@click.option(
    "--autoencoder", required=True, type=click.Path(path_type=Path), help="Checkpoint of `train autoencoder`."
)
def train_diffusion(
    data: Path, out: Path, minutes: float | None, steps: int | None, resume: bool, init: Path | None,
    autoencoder: Path, **options: Any,
) -> None:  # fmt: skip
    """Train conditioner and denoiser on the latents and photographs of a data folder.

    \b
    Example:
      fitdiff train diffusion --data data --autoencoder runs/ae/autoencoder --out runs/diffusion --minutes 60
    """
    _require_training_packages()
    from .training.recipe import train_default_diffusion
    from .training.state import Budget
    from .training.train_diffusion import DiffusionTrainingConfig

    config = _configured(DiffusionTrainingConfig(Budget(steps, minutes)), **options)
    result = train_default_diffusion(config, data, autoencoder, out, resume, init)
    ratio = result.validation["ratio"]
    _say_once(
        f"{result.checkpoint}.safetensors: {result.steps} steps, {result.seconds:.0f} s, "
        f"held-out noise error {ratio:.4f} of the linear prior's"
    )


cli_evaluate.register(main, seed_option, threads_option, debug_option)


def _require_training_packages() -> None:
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise MissingError(
            "package tensorboard", "not installed", "it, for the logs", "pip install 'fitdiff[train]'"
        )


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr, or now and then a line where that is no terminal; yields `step(text)`."""
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

        def step(text: str) -> None:
            nonlocal said
            progress.update(task, advance=1, text=text)
            if progress.disable and time.monotonic() - said > 10:
                said = time.monotonic()
                click.echo(f"fitdiff: {title}: {text}", err=True)

        yield step


if __name__ == "__main__":
    main()
