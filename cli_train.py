"""The commands that make models: `fitdiff synthesize` and `fitdiff train ...`.

Heavy imports stand inside the commands, as in `cli`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .cli_options import EXIT_CODES, debug_option, out_option, progress_bar, seed_option, threads_option
from .cli_presets import preset_option
from .errors import MissingError

if TYPE_CHECKING:
    from .training.train_autoencoder import AutoencoderTrainingConfig
    from .training.train_delighting import DelightingTrainingConfig
    from .training.train_diffusion import DiffusionTrainingConfig
    from .training.train_occlusion import OcclusionTrainingConfig

    _Config = TypeVar(
        "_Config", AutoencoderTrainingConfig, DiffusionTrainingConfig, OcclusionTrainingConfig, DelightingTrainingConfig
    )


_morphable_option = click.option(
    "--morphable", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE.safetensors",
    help="A model of `import-model`. [default: the embedded one]",
)  # fmt: skip


@click.command(epilog=EXIT_CODES)
@click.option(
    "--skins", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of skins in MakeHuman's UV layout.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the training data; its files of the same names are replaced.",
)  # fmt: skip
@click.option("--count", default=1000, show_default=True, type=click.IntRange(2), help="Faces.")
@click.option("--photos", default=4, show_default=True, type=click.IntRange(1), help="Photographs of each face.")
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
@_morphable_option
@debug_option
def synthesize(
    skins: Path, out: Path | None, count: int, photos: int, seed: int, workers: int, held_out_source: str | None,
    sheet: Path | None, morphable: Path | None,
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

        write_sheet(sheet, contact_sheet(skins, seed=seed, morphable=morphable))
        click.echo(f"{sheet}: 64 faces")
    if out is None:
        return
    config = SynthesisConfig(skins, count, photos, seed, workers=workers, held_out_source=held_out_source,
                             morphable=morphable)  # fmt: skip
    with progress_bar("synthesize", 2 * count) as step:
        synthesize(config, out, lambda stage, done, total: step(f"{stage} {done} of {total}"))
    click.echo(f"{out}: {count} faces, {count * photos} photographs")


@click.group(epilog=EXIT_CODES)
def train() -> None:
    """Train the autoencoder, then the diffusion model on its latents; import faces of your own."""


def _training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of all training commands."""
    data = click.Path(path_type=Path, file_okay=False)
    options = (
        click.option("--data", required=True, type=data, help="A folder of `synthesize` or `train import`."),
        out_option,
        click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Budget of wall-clock time."),
        click.option("--steps", type=click.IntRange(1), help="Budget of steps; with both, whichever ends first."),
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

    with progress_bar("import", sum(path.is_dir() for path in origin.iterdir())) as step:
        result = import_triplets(origin, out, FaceDetector(), load_face_mesh()[0], held_out=held_out, progress=step)
    for sentence in result.left_out:
        click.echo(f"fitdiff: left out {sentence}", err=True)
    click.echo(
        f"{out}: {result.faces} faces, {result.photos} photographs, {result.held_out_faces} faces held out, "
        f"{len(result.left_out)} things left out"
    )


@train.command("autoencoder", epilog=EXIT_CODES)
@_training_options
@preset_option
def train_autoencoder(
    data: Path, out: Path, minutes: float | None, steps: int | None, resume: bool, init: Path | None, preset: str,
    **options: Any,
) -> None:  # fmt: skip
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
    result = train_default_autoencoder(config, data, out, resume, init, preset)
    psnr = ", ".join(f"{name} {value:.2f} dB" for name, value in result.psnr.items())
    _say_once(f"{result.checkpoint}.safetensors: {result.steps} steps, {result.seconds:.0f} s, held out: {psnr}")


@train.command("diffusion", epilog=EXIT_CODES)
@_training_options
@click.option(
    "--autoencoder", required=True, type=click.Path(path_type=Path), help="Checkpoint of `train autoencoder`."
)
@click.option(
    "--versions",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Of each photo; those after the first get hair, clothes and things over the face.",
)
@_morphable_option
@preset_option
def train_diffusion(
    data: Path, out: Path, minutes: float | None, steps: int | None, resume: bool, init: Path | None,
    autoencoder: Path, versions: int, morphable: Path | None, preset: str, **options: Any,
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
    result = train_default_diffusion(config, data, autoencoder, out, resume, init, morphable, preset, versions)
    ratio = result.validation["ratio"]
    _say_once(
        f"{result.checkpoint}.safetensors: {result.steps} steps, {result.seconds:.0f} s, "
        f"held-out noise error {ratio:.4f} of the linear prior's"
    )


@train.command("tone", epilog=EXIT_CODES)
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, file_okay=False), help="What the denoiser was trained on."
)
@click.option("--denoiser", required=True, type=click.Path(path_type=Path), help="Checkpoint of `train diffusion`.")
@click.option(
    "--autoencoder", required=True, type=click.Path(path_type=Path), help="Checkpoint of `train autoencoder`."
)
@click.option(
    "--photos", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of photographs.",
)  # fmt: skip
@click.option(
    "--labels", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="Text: on each line a photo or a folder of one person's, a tab, and the L* of their skin.",
)  # fmt: skip
@click.option("--versions", default=4, show_default=True, type=click.IntRange(1), help="As for `train diffusion`.")
@_morphable_option
@preset_option
@out_option
@debug_option
def train_tone(
    data: Path, denoiser: Path, autoencoder: Path, photos: Path, labels: Path, versions: int, morphable: Path | None,
    preset: str, out: Path,
) -> None:  # fmt: skip
    """Teach a denoiser how light people's skins are, by photographs that somebody has labelled.

    It has learnt from drawn faces, and takes real ones for darker or lighter than they are. Changes its closed-form
    prior alone: it takes minutes.

    \b
    Example:
      fitdiff train tone --data data --denoiser runs/diffusion/denoiser --autoencoder runs/ae/autoencoder \\
          --photos photos --labels tones.tsv --out runs/tone
    """
    from .training.recipe import calibrate_default_tone
    from .training.tone_photos import read_labels

    people = read_labels(labels, photos)
    with progress_bar("tone", sum(len(person.photos) for person in people)) as step:
        result = calibrate_default_tone(people, data, denoiser, autoencoder, out, versions, preset, morphable,
                                        progress=step)  # fmt: skip
    for sentence in result.left_out:
        click.echo(f"fitdiff: left out {sentence}", err=True)
    found = result.calibration
    click.echo(
        f"{result.checkpoint}.safetensors: L* of {found.people} people wrong by {found.before:.1f} before, "
        f"by {found.left_out:.1f} now of people left out; drawn faces {found.drawn_before:.1f}, {found.drawn:.1f}"
    )


@train.command("occlusion", epilog=EXIT_CODES)
@_training_options
def train_occlusion(
    data: Path, out: Path, minutes: float | None, steps: int | None, resume: bool, init: Path | None, **options: Any
) -> None:
    """Train the network that finds what hides a face, on the photographs of a data folder.

    \b
    Example:
      fitdiff train occlusion --data data --out runs/occlusion --minutes 20
    """
    _require_training_packages()
    from .training.recipe import train_default_occlusion
    from .training.state import Budget
    from .training.train_occlusion import OcclusionTrainingConfig

    config = _configured(OcclusionTrainingConfig(Budget(steps, minutes)), **options)
    result = train_default_occlusion(config, data, out, resume, init)
    _say_once(
        f"{result.checkpoint}.safetensors: {result.steps} steps, {result.seconds:.0f} s, held out: "
        f"{result.found:.3f} of the hidden pixels found, {result.alarm:.3f} of the bare ones marked"
    )


@train.command("delighting", epilog=EXIT_CODES)
@_training_options
@click.option(
    "--versions", default=2, show_default=True, type=click.IntRange(1),
    help="Of each photo; those after the first get hair and things over the face.",
)  # fmt: skip
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that unwrap photos.")
def train_delighting(
    data: Path, out: Path, minutes: float | None, steps: int | None, resume: bool, init: Path | None, versions: int,
    workers: int, **options: Any,
) -> None:  # fmt: skip
    """Train the network that takes the light out of a photo laid out on the face chart.

    \b
    Example:
      fitdiff train delighting --data data --out runs/delighting --minutes 30
    """
    _require_training_packages()
    from .training.recipe import train_default_delighting
    from .training.state import Budget
    from .training.train_delighting import DelightingTrainingConfig
    from .training.unwrapped_photos import UnwrappingConfig

    config = _configured(DelightingTrainingConfig(Budget(steps, minutes)), **options)
    unwrapping = UnwrappingConfig(versions, workers=workers)

    def told(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            click.echo(f"fitdiff: unwrapped {done} of {total} photographs", err=True)

    result = train_default_delighting(config, data, out, resume, init, unwrapping, told)
    _say_once(
        f"{result.checkpoint}.safetensors: {result.steps} steps, {result.seconds:.0f} s, held out: lightness wrong by "
        f"{result.error:.4f}, that of the mean chart by {result.mean_error:.4f}"
    )


def _require_training_packages() -> None:
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise MissingError("package tensorboard", "not installed", "it, for the logs", "pip install 'fitdiff[train]'")
