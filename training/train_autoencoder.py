"""Trains the branched VQGAN on a folder of reflectance charts, within a budget of steps or minutes.

Aligned random crops, judged at the output by `autoencoder_objective.py`; the averaged weights are what is saved and
measured. With several processes (`devices.py`) each cuts its own part of the batch; what a loss or the codebook asks of
the whole batch is gathered. Knows nothing of how the charts were made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from ..models.autoencoder import LATENT_STRIDE, AutoencoderConfig, BranchedAutoencoder, json_from_config
from ..models.checkpoint import ModelCard, save_checkpoint
from .autoencoder_objective import AutoencoderObjective, ObjectiveConfig, Perceptual
from .chart_crops import ChartFolder, CropBatch
from .devices import Workers, start_workers
from .fine_tuning import begin_autoencoder, check_beginning
from .losses import moment_loss
from .run_loop import run_steps
from .state import Budget, Monitor, MovingAverage, TrainingState, check_finite, learning_rate_factor

STATE_FILE = "autoencoder.state.pt"


@dataclass(frozen=True)
class AutoencoderTrainingConfig(ObjectiveConfig):
    """Options of a run. Those that are fractions are of the budget, be it steps or minutes."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    budget: Budget = field(default_factory=lambda: Budget(minutes=45.0))
    crop: int = 128  # pixels
    batch: int = 8  # of all processes together
    mirror: bool = True
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 50  # steps
    clip: float = 1.0  # gradient norm
    average_decay: float = 0.998
    latent_noise: float = 0.05  # so that the decoder forgives a denoiser's error
    moment_weight: float = 0.01
    quantise_after: float = 0.1  # fraction; continuous latents before
    adversarial_after: float = 0.6  # fraction
    device: str | None = None  # cpu or cuda; None takes a GPU where there is one
    num_threads: int | None = None
    seed: int = 0
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 3.0
    validation_charts: int = 6
    quiet: bool = False


@dataclass(frozen=True)
class AutoencoderResult:
    """Where the checkpoint is (no suffix), and the PSNR in dB of held-out charts.

    `psnr` has diffuse, specular and normal at full size, and coarse: all nine channels at half size.
    """

    checkpoint: Path
    psnr: dict[str, float]
    steps: int
    seconds: float


def train_autoencoder(
    config: AutoencoderTrainingConfig,
    data_dir: Path,
    out_dir: Path,
    resume: bool = False,
    *,
    perceptual: Perceptual | None = None,
    importance: np.ndarray | None = None,
    init: Path | None = None,
    card: ModelCard | None = None,
    licence_text: str | None = None,
) -> AutoencoderResult:
    """Train, and write `out_dir`/autoencoder.safetensors (float16) with its manifest. Every process returns the same.

    Args:
        resume: go on from `out_dir`'s state; exact for a budget in steps.
        perceptual: needed when `perceptual_weight` is above 0; on the run's device.
        importance: (S, S) weight of each pixel of the chart, about 1 on average.
        init: a checkpoint whose weights, mean chart and spread to begin with, whatever the mean of `data_dir`.
        card: what the checkpoint says of itself.

    Raises:
        MissingError: no data, no state to resume, no checkpoint to begin with, or no such device.
        UsageError: data that cannot be used, options that do not fit it, a state or a checkpoint of another kind of
            run, or a batch that cannot be shared evenly.
        FitDiffError: a loss that is not finite.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    charts = ChartFolder(data_dir)
    if charts.size != config.model.chart_size or config.crop % 8 or not 64 <= config.crop <= charts.size:
        raise UsageError(
            "crop",
            f"{config.crop} of charts of {charts.size} for a model of {config.model.chart_size}",
            "a multiple of 8 from 64 to the chart's size",
            "set crop and chart_size to fit the data",
        )
    if config.perceptual_weight > 0 and perceptual is None:
        raise UsageError("perceptual", "none", "a distance", "give one, or set perceptual_weight to 0")
    check_beginning(resume, init)
    workers = start_workers(config.device)
    trainer = AutoencoderTrainer(config, charts, perceptual, importance, workers)
    state_path = out_dir / STATE_FILE
    if resume:
        trainer.state.load(state_path)
    else:
        trainer.begin(init)
    with Monitor(out_dir / "logs", "autoencoder", config.budget, config.quiet, workers.is_first) as monitor:
        trainer.run(monitor, state_path)
        psnr = trainer.validate(monitor)
    path = out_dir / "autoencoder"
    if workers.is_first:
        card = card or ModelCard("autoencoder", "branched-vqgan", "trained by fitdiff", "Apache-2.0", True)
        with trainer.average.applied(trainer.model):
            tensors = {name: tensor.half() for name, tensor in trainer.model.state_dict().items()}
        save_checkpoint(path, tensors, json_from_config(config.model), card, licence_text)
    workers.from_first(None)  # the others leave when the file is there
    return AutoencoderResult(path, psnr, trainer.state.step, trainer.state.seconds)


class AutoencoderTrainer:
    """The parts of a run, and one step of it."""

    def __init__(
        self,
        config: AutoencoderTrainingConfig,
        charts: ChartFolder,
        perceptual: Perceptual | None = None,
        importance: np.ndarray | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.config, self.charts = config, charts
        self.workers = workers = workers or Workers()
        self.batch = workers.part("batch", config.batch)
        torch.manual_seed(config.seed)
        self.model = BranchedAutoencoder(config.model).to(workers.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = AutoencoderObjective(config, self.model.decoder, workers, perceptual, importance)
        self.optimiser = _adamw(self.model, config.learning_rate, config.weight_decay)
        self.average = MovingAverage(self.model, config.average_decay)
        parts = {
            "model": self.model,
            "discriminator": self.objective.discriminator,
            "optimiser": self.optimiser,
            "judge_optimiser": self.objective.optimiser,
            "average": self.average,
        }
        same: dict[str, Any] = {"model": asdict(config.model), "batch": config.batch, "crop": config.crop}
        self.state = TrainingState(parts, workers.generator(config.seed), same, workers=workers)

    def begin(self, init: Path | None = None) -> None:
        """Weights of step 0: random, with the mean and spread of the charts; or all from a checkpoint."""
        if init is not None:
            begin_autoencoder(self.model, init)
            self.average.restart(self.model)
        else:
            mean, spread = self.charts.statistics(self.config.mirror)
            self.model.chart_mean.copy_(mean)
            self.model.chart_spread.copy_(spread)
        if not self.model.lightness_depth.any():  # nor has a checkpoint of before
            spread, depth = self.charts.lightness_measures(self.config.mirror)
            self.model.lightness_spread.copy_(spread)
            self.model.lightness_depth.copy_(depth)
        self.workers.share_module(self.model)
        self.workers.share_module(self.objective.discriminator)

    def run(self, monitor: Monitor, state_path: Path) -> None:
        """Steps until the budget is spent, with checkpoints and validation on the way."""
        self.model.train()
        run_steps(
            self.config,
            self.state,
            monitor,
            state_path,
            step=self.step,
            told=lambda values: f"loss {values['loss/total']:.4f}",
            validated=lambda: _listed(self.validate(monitor)),
        )

    def draw(self) -> tuple[CropBatch, Tensor]:
        """This process's crops, and noise (B, 1, h, w) for their latents. Drawn on the CPU: a seed means the same on
        every device."""
        config, generator = self.config, self.state.generator
        batch = self.charts.crops(self.batch, config.crop, config.mirror, generator, self.workers)
        cells = config.crop // LATENT_STRIDE
        noise = torch.randn((self.batch, 1, cells, cells), generator=generator) * config.latent_noise
        return batch, self.workers.moved(noise)

    def step(self, progress: float) -> dict[str, float]:
        """One step of the autoencoder and, once due, of the discriminator; returns the scalars to log, of this
        process's crops."""
        config, step, model, workers = self.config, self.state.step, self.model, self.workers
        batch, noise = self.draw()
        rate = config.learning_rate * learning_rate_factor(step, config.warmup, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        quantising = progress >= config.quantise_after
        adversarial = config.adversarial_weight > 0 and progress >= config.adversarial_after
        with workers.autocast(config.bfloat16):
            z = model.encode(batch.maps.contiguous(memory_format=torch.channels_last), batch.origin)
            everyone = workers.gathered(z)
            latent_loss = config.moment_weight * moment_loss(everyone)
            spread = everyone.detach().std()
            if quantising:
                if not model.quantiser.is_initialised:
                    model.quantiser.initialise(everyone)
                everyone, commitment, _ = model.quantise(everyone)
                z = workers.own(everyone)
                latent_loss = latent_loss + commitment
            coarse, fine = model.decode_pyramid(z + noise, batch.origin)
        assert fine is not None
        found = self.objective.gradients(batch, coarse, fine, adversarial)
        total = found.loss + latent_loss
        check_finite("autoencoder loss", total, step)
        self.optimiser.zero_grad(set_to_none=True)
        # The latent loss is of the whole batch already: times the processes, so that their mean leaves it whole.
        whole = torch.full_like(latent_loss, workers.count)
        torch.autograd.backward([fine, coarse, latent_loss], [found.fine, found.coarse, whole])
        workers.average_gradients(model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        check_finite("autoencoder gradient norm", norm, step)
        self.optimiser.step()
        self.average.update(model)
        workers.share(model.quantiser.buffers())
        values = found.values | {"loss/latent": latent_loss, "latent/std": spread}
        if adversarial:
            values["loss/discriminator"] = self.objective.teach_discriminator(batch.maps, fine.detach(), step)
        values |= {"loss/total": total, "train/gradient_norm": norm}
        return {name: float(value.detach()) for name, value in values.items()} | {"train/learning_rate": rate}

    def validate(self, monitor: Monitor) -> dict[str, float]:
        """`held_out_psnr` by process 0, for all."""
        psnr = self.held_out_psnr(monitor) if self.workers.is_first else {}
        psnr = self.workers.from_first(psnr)
        monitor.scalars({f"psnr/{name}": value for name, value in psnr.items()}, self.state.step)
        return psnr

    @torch.no_grad()
    def held_out_psnr(self, monitor: Monitor) -> dict[str, float]:
        """PSNR of whole held-out charts by the averaged weights; TensorBoard gets the first as an image."""
        errors = []
        step = self.state.step
        with self.average.applied(self.model), self.workers.autocast(self.config.bfloat16):
            for index in self.charts.held_out[: self.config.validation_charts]:
                target = self.workers.moved(self.charts.chart(int(index)))[None]
                z = self.model.encode(target.contiguous(memory_format=torch.channels_last))
                if self.model.quantiser.is_initialised:
                    z = self.model.quantise(z)[0]
                coarse, fine = self.model.decode_pyramid(z)
                assert fine is not None
                squared = (fine.clamp(0, 1) - target).square().mean((0, 2, 3)).view(3, 3).mean(1)
                half = (coarse.clamp(0, 1) - F.avg_pool2d(target, 2)).square().mean()
                errors.append(torch.cat((squared, half[None])))
                if len(errors) == 1:
                    monitor.image("held_out/target_and_reconstruction", _sheet(target[0], fine[0]), step)
                    monitor.image("held_out/latent", (z[0].float() / 6 + 0.5).expand(3, -1, -1), step)
        mean = -10.0 * torch.log10(torch.stack(errors) + 1e-10).mean(0)
        names: tuple[str, ...] = ("diffuse", "specular", "normal", "coarse")
        return dict(zip(names, mean.tolist(), strict=True))


def _adamw(model: BranchedAutoencoder, rate: float, decay: float) -> torch.optim.AdamW:
    """Weight decay on convolutions alone: gains, biases and positions are left free."""
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    kernels = [m.weight for m in convolutions]
    chosen = {id(p) for p in kernels}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": kernels, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.99))


def _sheet(target: Tensor, maps: Tensor) -> Tensor:
    """(3, 2S, 3S): diffuse, specular, normal in a row; the original above, the reconstruction below."""
    rows = [torch.cat(tuple(x.float().view(3, 3, *x.shape[1:])), -1) for x in (target, maps)]
    return torch.cat(rows, 1)


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items()) + " dB"
