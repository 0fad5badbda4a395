"""Trains the branched VQGAN on a folder of reflectance charts, within a budget of steps or minutes.

Aligned random crops, L1 and squared error at 512 and 256, a perceptual and an adversarial loss if asked for;
the averaged weights are what is saved and judged. With several processes (`devices.py`) each cuts its own part
of the batch; what a loss or the codebook asks of the whole batch is gathered. Knows nothing of how the charts were
made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from ..models.autoencoder import (
    ALBEDO_CHANNELS,
    LATENT_STRIDE,
    AutoencoderConfig,
    BranchedAutoencoder,
    json_from_config,
)
from ..models.checkpoint import ModelCard, save_checkpoint
from ..models.discriminator import BranchedDiscriminator, DiscriminatorConfig
from .chart_crops import ChartFolder, CropBatch
from .devices import Workers, start_workers
from .fine_tuning import begin_autoencoder, check_beginning
from .losses import (
    MapWeights,
    adaptive_weight,
    chroma_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    moment_loss,
    reconstruction_loss,
)
from .state import (
    Budget,
    Monitor,
    MovingAverage,
    Stopwatch,
    TrainingState,
    check_finite,
    learning_rate_factor,
)

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) sRGB in [0, 1] twice to (B,) distances, differentiable in the first."""

STATE_FILE = "autoencoder.state.pt"


@dataclass(frozen=True)
class AutoencoderTrainingConfig:
    """Options of a run. Those that are fractions are of the budget, be it steps or minutes."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    weights: MapWeights = field(default_factory=MapWeights)
    budget: Budget = field(default_factory=lambda: Budget(minutes=45.0))
    crop: int = 128  # pixels
    batch: int = 8  # of all processes together
    mirror: bool = True
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 50  # steps
    clip: float = 1.0  # gradient norm
    average_decay: float = 0.998
    coarse_weight: float = 0.5  # of the error at 256 beside that at 512
    square_weight: float = 2.0  # of the squared error beside the absolute
    chroma_weight: float = 4.0  # of the low-frequency chroma's error
    latent_noise: float = 0.05  # so that the decoder forgives a denoiser's error
    moment_weight: float = 0.01
    quantise_after: float = 0.1  # fraction; continuous latents before
    perceptual_weight: float = 0.0
    perceptual_crops: int = 4  # of the batch, to save time
    adversarial_weight: float = 0.0
    adversarial_after: float = 0.6  # fraction
    bfloat16: bool = True
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
        self.config, self.charts, self.perceptual = config, charts, perceptual
        self.workers = workers = workers or Workers()
        self.batch = workers.part("batch", config.batch)
        self.importance = None
        if importance is not None:
            self.importance = torch.from_numpy(importance)[None].float().to(workers.device)
        torch.manual_seed(config.seed)
        self.model = BranchedAutoencoder(config.model).to(workers.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = BranchedDiscriminator(config.discriminator).to(workers.device)
        self.optimiser = _adamw(self.model, config.learning_rate, config.weight_decay)
        self.judge_optimiser = torch.optim.Adam(self.discriminator.parameters(), 2e-4, betas=(0.5, 0.9))
        self.average = MovingAverage(self.model, config.average_decay)
        parts = {
            "model": self.model,
            "discriminator": self.discriminator,
            "optimiser": self.optimiser,
            "judge_optimiser": self.judge_optimiser,
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
        self.workers.share_module(self.model)
        self.workers.share_module(self.discriminator)

    def run(self, monitor: Monitor, state_path: Path) -> None:
        """Steps until the budget is spent, with checkpoints and validation on the way.

        Process 0 has the clock, so that all agree on learning rate, pauses and end.
        """
        config, state, workers = self.config, self.state, self.workers
        watch = Stopwatch(state.seconds)
        saved = validated = state.seconds
        self.model.train()
        while (progress := config.budget.progress(state.step, state.seconds)) < 1.0:
            values = self.step(progress)
            state.step += 1
            state.seconds = workers.agreed(watch.seconds())
            monitor.advance(state.step, state.seconds, f"loss {values['loss/total']:.4f}")
            if state.step % 20 == 0:
                monitor.scalars(workers.mean_scalars(values), state.step)
            if state.seconds - validated > 60 * config.validate_minutes:
                psnr = self.validate(monitor)
                monitor.note(f"step {state.step}, {state.seconds:.0f} s: " + _listed(psnr))
                validated = state.seconds = workers.agreed(watch.seconds())
            if state.seconds - saved > 60 * config.checkpoint_minutes:
                state.save(state_path)
                saved = state.seconds
        state.save(state_path)

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
        with self._autocast():
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
        return self._backward(batch, coarse, fine, latent_loss, spread, rate, adversarial)

    def _backward(
        self,
        batch: CropBatch,
        coarse: Tensor,
        fine: Tensor,
        latent_loss: Tensor,
        spread: Tensor,
        rate: float,
        adversarial: bool,
    ) -> dict[str, float]:
        # Losses are differentiated at the output first: there their gradients are weighed against each other,
        # and the decoder runs backward once for all of them.
        config, step = self.config, self.state.step
        fine_leaf, coarse_leaf = (x.detach().requires_grad_() for x in (fine, coarse))
        importance, coarse_importance = self._importance(batch)
        exact = reconstruction_loss(fine_leaf, batch.maps, config.weights, importance, config.square_weight)
        half = reconstruction_loss(
            coarse_leaf, F.avg_pool2d(batch.maps, 2), config.weights, coarse_importance, config.square_weight
        )
        chroma = chroma_loss(fine_leaf, batch.maps, importance)
        loss = exact + config.coarse_weight * half + config.chroma_weight * chroma
        values = {"loss/fine": exact, "loss/coarse": half, "loss/chroma": chroma}
        values |= {"loss/latent": latent_loss, "latent/std": spread}
        if self.perceptual is not None and config.perceptual_weight > 0:
            distance = self._perceptual_distance(fine_leaf, batch.maps)
            loss = loss + config.perceptual_weight * distance
            values["loss/perceptual"] = distance
        check_finite("autoencoder loss", loss + latent_loss, step)
        fine_gradient, coarse_gradient = torch.autograd.grad(loss, (fine_leaf, coarse_leaf))
        if adversarial:
            fine_gradient = fine_gradient + self._adversarial(fine, fine_leaf, fine_gradient, values)
        self.optimiser.zero_grad(set_to_none=True)
        # The latent loss is of the whole batch already: times the processes, so that their mean leaves it whole.
        whole = torch.full_like(latent_loss, self.workers.count)
        torch.autograd.backward([fine, coarse, latent_loss], [fine_gradient, coarse_gradient, whole])
        self.workers.average_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        check_finite("autoencoder gradient norm", norm, step)
        self.optimiser.step()
        self.average.update(self.model)
        self.workers.share(self.model.quantiser.buffers())
        if adversarial:
            values["loss/discriminator"] = self._judge(batch.maps, fine.detach())
        values |= {"loss/total": loss + latent_loss, "train/gradient_norm": norm}
        return {name: float(value.detach()) for name, value in values.items()} | {"train/learning_rate": rate}

    def _adversarial(
        self, fine: Tensor, leaf: Tensor, reconstruction_gradient: Tensor, values: dict[str, Tensor]
    ) -> Tensor:
        """Gradient at the fine output of the adversarial loss, each branch weighted for itself."""
        with self._autocast():
            losses = [hinge_generator_loss(logits) for logits in self.discriminator(leaf)]
        (gradient,) = torch.autograd.grad(losses[0] + losses[1], leaf)
        albedo, normal = self.model.decoder.albedo, self.model.decoder.normal
        selections = (slice(None, ALBEDO_CHANNELS), slice(ALBEDO_CHANNELS, None))
        weighted = torch.zeros_like(gradient)
        for name, branch, channels in zip(("albedo", "normal"), (albedo, normal), selections, strict=True):
            layer = branch.head512.weight
            weight = adaptive_weight(
                fine[:, channels],
                layer,
                reconstruction_gradient[:, channels],
                gradient[:, channels],
                self.workers.mean,
            )
            weighted[:, channels] = self.config.adversarial_weight * weight * gradient[:, channels]
            values[f"adversarial/weight_{name}"] = weight
        values["loss/adversarial"] = losses[0] + losses[1]
        return weighted

    def _judge(self, real: Tensor, fake: Tensor) -> Tensor:
        with self._autocast():
            pairs = zip(self.discriminator(real), self.discriminator(fake), strict=True)
            loss = torch.stack([hinge_discriminator_loss(a.float(), b.float()) for a, b in pairs]).sum()
        check_finite("discriminator loss", loss, self.state.step)
        self.judge_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.workers.average_gradients(self.discriminator.parameters())
        self.judge_optimiser.step()
        return loss

    def _perceptual_distance(self, maps: Tensor, target: Tensor) -> Tensor:
        """Mean distance of diffuse albedo and normals over the first crops, `perceptual_crops` of the whole batch."""
        assert self.perceptual is not None
        n = max(1, self.config.perceptual_crops // self.workers.count)
        images, targets = (torch.cat((x[:n, :3], x[:n, ALBEDO_CHANNELS:])).clamp(0, 1) for x in (maps, target))
        with self._autocast():
            return self.perceptual(images, targets).float().mean()

    def _importance(self, batch: CropBatch) -> tuple[Tensor | None, Tensor | None]:
        if self.importance is None:
            return None, None
        side = self.config.crop
        corners = (batch.origin * 8).tolist()
        crops = torch.stack([self.importance[:, y : y + side, x : x + side] for y, x in corners])
        return crops, F.avg_pool2d(crops, 2)

    def _autocast(self) -> torch.autocast:
        return self.workers.autocast(self.config.bfloat16)

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
        with self.average.applied(self.model), self._autocast():
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
