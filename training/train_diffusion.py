"""Training of the denoiser: closed-form prior first, then the UNet on what the prior leaves.

Paper, section 3.3. Latents and features come ready made (`diffusion_data.py`), losses from
`diffusion_losses.py`; this file knows the order of things and writes the checkpoint. With several processes
(`devices.py`) each draws its own part of the batch; the first fits the prior, validates and writes.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..models.checkpoint import ModelCard
from ..models.denoiser import DenoiserConfig, FitDiffDenoiser, save_denoiser
from ..models.linear_prior import linear_prior_from_data, pooled_inputs
from ..models.recogniser import IdentityFeatures
from ..models.schedule import add_noise, predict_z0
from .devices import Workers, start_workers
from .diffusion_data import DiffusionData, statistics_from_data
from .diffusion_losses import (
    DiffusionBatch,
    IdentityLosses,
    Weighting,
    noise_loss,
    noise_weights,
    vertex_loss,
)
from .fine_tuning import begin_denoiser, check_beginning
from .run_loop import run_steps
from .state import Budget, Monitor, MovingAverage, TrainingState, check_finite, learning_rate_factor

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class DiffusionTrainingConfig:
    """Every number of a run."""

    budget: Budget
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    batch: int = 16  # of all processes together
    learning_rate: float = 4e-4
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    average_decay: float = 0.999
    condition_dropout: float = 0.1  # the paper's p_uncond
    layer_dropout: float = 0.1  # of the others: the recogniser's maps taken away, its embedding left
    weighting: Weighting = "balanced"  # "plain" is the paper's
    snr_gamma: float = 5.0
    vector_weight: float = 4.0
    vertex_weight: float = 0.1
    identity_weight: float = 0.1
    perceptual_weight: float = 0.1
    identity_every: int = 10  # steps between two that have identity losses
    identity_samples: int = 1  # of the batch
    prior_folds: int = 4
    prior_photos: int = 20_000  # at most so many, each in all its versions, for the closed-form fit
    bfloat16: bool = True
    device: str | None = None  # cpu or cuda; None takes a GPU where there is one
    num_threads: int | None = None
    seed: int = 0
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 5.0
    validation_photos: int = 64
    validation_steps: tuple[int, ...] = (50, 200, 400, 600, 800, 950)
    quiet: bool = False


@dataclass(frozen=True)
class DiffusionResult:
    """Where the checkpoint is (no suffix), and how held-out noise error compares with the linear prior's."""

    checkpoint: Path
    validation: dict[str, float]
    steps: int
    seconds: float


def train_diffusion(
    config: DiffusionTrainingConfig,
    data: DiffusionData,
    gram: Tensor,
    out_dir: Path,
    resume: bool = False,
    *,
    identity_losses: IdentityLosses | None = None,
    init: Path | None = None,
    card: ModelCard | None = None,
    licence_text: str | None = None,
) -> DiffusionResult:
    """Train, and write `out_dir`/denoiser.safetensors with its manifest. Every process returns the same.

    Args:
        gram: (183, 183) from `vertex_gram` of the morphable model, for L_verts.
        resume: go on from `out_dir`'s state; exact for a budget in steps.
        identity_losses: L_id and L_per of estimated latents, on the run's device; left out when None.
        init: a checkpoint whose UNet and conditioner to begin with; prior and statistics are fitted to `data`.
        card: what the checkpoint says of itself.

    Raises:
        MissingError: no state to resume, no checkpoint to begin with, or no such device.
        UsageError: the data has no held-out photo, the state or the checkpoint is of another kind of run, or the
            batch cannot be shared evenly.
        FitDiffError: a loss that is not finite.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    if not len(data.training) or not len(data.held_out):
        got = f"{len(data.training)} photos to train on and {len(data.held_out)} held out"
        raise UsageError("training data", got, "at least one of each", "synthesise more faces")
    faces = len(np.unique(data.map_index[data.training]))
    if faces < config.prior_folds:
        raise UsageError(
            "training data",
            f"{faces} faces to train on",
            f"at least {config.prior_folds}, to fit the prior on some and measure it on others",
            "synthesise more faces",
        )
    check_beginning(resume, init)
    workers = start_workers(config.device)
    trainer = DiffusionTrainer(config, data, gram, identity_losses, workers)
    if resume:
        trainer.state.load(out_dir / STATE_FILE)
    else:
        trainer.begin(init)
    with Monitor(out_dir / "logs", "diffusion", config.budget, config.quiet, workers.is_first) as monitor:
        trainer.run(monitor, out_dir / STATE_FILE)
        validation = trainer.validate(monitor)
    if workers.is_first:
        card = card or ModelCard("denoiser", "fitdiff-denoiser", "trained by fitdiff", "Apache-2.0", True)
        with trainer.average.applied(trainer.model):
            save_denoiser(out_dir / "denoiser", trainer.model, card, licence_text)
    workers.from_first(None)  # the others leave when the file is there
    return DiffusionResult(out_dir / "denoiser", validation, trainer.state.step, trainer.state.seconds)


@dataclass(frozen=True)
class DiffusionSamples:
    """What a process draws for a step: B samples, tensors on its device.

    photos: (B,) indices into the data; present (B,) 0 where the face is taken away; noise (B, 1, 67, 64).
    """

    photos: np.ndarray
    features: IdentityFeatures
    present: Tensor
    t: Tensor
    noise: Tensor


class DiffusionTrainer:
    """The parts of a run, and one step of it."""

    def __init__(
        self,
        config: DiffusionTrainingConfig,
        data: DiffusionData,
        gram: Tensor,
        identity_losses: IdentityLosses | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.config, self.data, self.identity_losses = config, data, identity_losses
        self.workers = workers = workers or Workers()
        self.batch = workers.part("batch", config.batch)
        self.gram = gram.to(workers.device)
        self.empty = IdentityFeatures(
            tuple(m.to(workers.device) for m in data.empty.maps), data.empty.embedding.to(workers.device)
        )
        self.layout = config.model.layout
        torch.manual_seed(config.seed)
        self.model = FitDiffDenoiser(config.model).to(workers.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.trained_with = data.trained_with
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99))
        self.average = MovingAverage(self.model, config.average_decay)
        parts = {"model": self.model, "optimiser": self.optimiser, "average": self.average}
        signature = {"model": repr(config.model), "batch": config.batch, "data": asdict(data.trained_with)}
        self.state = TrainingState(parts, workers.generator(config.seed), signature, workers=workers)

    def begin(self, init: Path | None = None) -> None:
        """Weights of step 0: random, or those of a checkpoint; the closed-form parts from the data."""
        if init is not None:
            begin_denoiser(self.model, init)
            self.average.restart(self.model)
        if self.workers.is_first:
            self.fit_closed_form()
        self.workers.share_module(self.model)

    def fit_closed_form(self) -> None:
        """Latent statistics, feature moments and the linear prior, from the training photos, on the CPU."""
        config, model = self.config, self.model
        statistics = statistics_from_data(self.data, self.layout)
        model.statistics.load_state_dict(statistics.state_dict())
        order = torch.randperm(len(self.data.training), generator=torch.Generator().manual_seed(config.seed))
        photos = np.sort(self.data.training[order[: config.prior_photos].numpy()])
        model.conditioner.set_channel_moments(self.data.features(photos[:: max(1, len(photos) // 512)]))
        photos, versions = np.repeat(photos, self.data.versions), np.tile(np.arange(self.data.versions), len(photos))
        z_0 = statistics.normalise(self.data.latents(photos, self.layout)).flatten(1)
        chunks = np.array_split(np.arange(len(photos)), max(1, len(photos) // 256))
        features = (self.data.features(photos[chunk], versions[chunk]) for chunk in chunks)
        inputs = torch.cat([pooled_inputs(each, config.model.prior_grid) for each in features])
        fit = linear_prior_from_data(
            z_0,
            inputs,
            config.model.prior_components,
            complete=self.layout.vector,
            groups=torch.from_numpy(self.data.map_index[photos]),
            folds=config.prior_folds,
            seed=config.seed,
        )
        model.set_linear_prior(fit)

    def run(self, monitor: Monitor, state_path: Path) -> None:
        """Steps until the budget is spent, with checkpoints and validation on the way."""
        self.model.train()
        run_steps(
            self.config,
            self.state,
            monitor,
            state_path,
            step=self.step,
            told=lambda values: f"noise {values['loss/noise']:.4f}",
            validated=lambda: f"ratio to the prior {self.validate(monitor)['ratio']:.4f}",
        )

    def step(self, progress: float) -> dict[str, float]:
        """One optimiser step; returns the scalars to log, of this process's samples."""
        config, model = self.config, self.model
        rate = config.learning_rate * learning_rate_factor(self.state.step, config.warmup, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        samples = self.draw()
        z_raw = self.workers.moved(self.data.latents(samples.photos, self.layout))
        z_0 = model.statistics.normalise(z_raw)
        alpha_bar = model.denoiser.alphas_cumprod[samples.t][:, None, None, None]
        z_t = add_noise(z_0, samples.noise, alpha_bar)
        with self.workers.autocast(config.bfloat16):
            predicted = model(z_t, samples.t, samples.features, samples.present)
        estimate = model.statistics.denormalise(predict_z0(z_t, predicted, alpha_bar))  # raw z_0
        trust = alpha_bar.flatten()  # an estimate from nearly pure noise is no face yet
        weights = noise_weights(trust, config.weighting, config.snr_gamma)
        losses = {
            "noise": noise_loss(predicted, samples.noise, weights, self.layout, config.vector_weight),
            "vertices": (trust * vertex_loss(estimate, z_raw, self.gram, self.layout)).mean(),
        }
        if self.identity_losses is not None and self.state.step % config.identity_every == 0:
            losses |= self._identity(self.identity_losses, estimate, samples.photos, z_raw, trust * samples.present)
        factors = {"noise": 1.0, "vertices": config.vertex_weight}
        factors |= {"identity": config.identity_weight, "perceptual": config.perceptual_weight}
        total = torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()
        check_finite("diffusion loss", total, self.state.step)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.workers.average_gradients(model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        check_finite("diffusion gradient norm", norm, self.state.step)
        self.optimiser.step()
        self.average.update(model)
        values = {f"loss/{name}": float(loss.detach()) for name, loss in losses.items()}
        return values | {"train/gradient_norm": float(norm), "train/learning_rate": rate}

    def draw(self) -> DiffusionSamples:
        """This process's samples. Drawn on the CPU: a seed means the same on every device."""
        config, generator, workers, batch = self.config, self.state.generator, self.workers, self.batch
        chosen = torch.randint(len(self.data.training), (batch,), generator=generator).numpy()
        photos = self.data.training[chosen]
        versions = torch.randint(self.data.versions, (batch,), generator=generator).numpy()
        present = workers.moved((torch.rand(batch, generator=generator) >= config.condition_dropout).float())
        layered = torch.rand(batch, generator=generator) >= config.layer_dropout
        features = self.data.features(photos, versions, workers)
        if not bool(layered.all()):
            alone = self.model.conditioner.embedding_only(features)
            features = _chosen(workers.moved(layered), features, alone)
        features = _chosen(present.bool(), features, self.empty)
        t = self._stratified_times(batch)
        noise = torch.randn((batch, *self.layout.shape), generator=generator)
        return DiffusionSamples(photos, features, present, workers.moved(t), workers.moved(noise))

    def _stratified_times(self, count: int) -> Tensor:
        """One t from each of `count` equal parts of the schedule, in random order: uniform, less noisy."""
        generator = self.state.generator
        u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        return (u * self.config.model.schedule.timesteps).long().clamp(max=self.config.model.schedule.timesteps - 1)

    def _identity(
        self, function: IdentityLosses, estimate: Tensor, photos: np.ndarray, z_raw: Tensor, trust: Tensor
    ) -> dict[str, Tensor]:
        count = max(1, self.config.identity_samples // self.workers.count)
        chosen = trust.topk(min(count, len(trust))).indices
        where = photos[chosen.cpu().numpy()]
        features = self.data.features(where, workers=self.workers)
        batch = DiffusionBatch(torch.from_numpy(where), z_raw[chosen], features)
        identity, perceptual = function(estimate[chosen], batch)
        return {
            "identity": (trust[chosen] * identity).mean(),
            "perceptual": (trust[chosen] * perceptual).mean(),
        }

    def validate(self, monitor: Monitor) -> dict[str, float]:
        """`held_out_ratios` by process 0, for all."""
        values = self.held_out_ratios() if self.workers.is_first else {}
        values = self.workers.from_first(values)
        monitor.scalars({f"held_out/{name}": value for name, value in values.items()}, self.state.step)
        return values

    @torch.no_grad()
    def held_out_ratios(self) -> dict[str, float]:
        """Squared error of eps on held-out photos, by the averaged weights, divided by the linear prior's.

        Below 1 the UNet adds something. "ratio" is the mean over the time steps; "texture/400" and
        "vector/400" are single ones; "null/..." the same without a face.
        """
        chosen = np.linspace(0, len(self.data.held_out) - 1, self.config.validation_photos).round().astype(int)
        photos = self.data.held_out[np.unique(chosen)]
        values: dict[str, float] = {}
        with self.average.applied(self.model):
            for given in (1.0, 0.0):
                for t in self.config.validation_steps:
                    texture, vector = self._error_ratios(photos, t, given)
                    prefix = "" if given else "null/"
                    values |= {f"{prefix}texture/{t}": texture, f"{prefix}vector/{t}": vector}
        kept = [value for name, value in values.items() if not name.startswith("null/")]
        values["ratio"] = float(np.mean(kept))
        return values

    def _error_ratios(self, photos: np.ndarray, t: int, given: float) -> tuple[float, float]:
        """(texture, vector): the model's squared error over the linear prior's, on the same noise."""
        model, workers, generator = self.model, self.workers, torch.Generator().manual_seed(t)
        sums = torch.zeros(2, 2)  # model or prior, texture or vector
        for batch in np.array_split(photos, max(1, len(photos) // self.config.batch)):
            versions = batch % self.data.versions
            z_0 = model.statistics.normalise(workers.moved(self.data.latents(batch, self.layout)))
            noise = workers.moved(torch.randn(z_0.shape, generator=generator))
            steps, present = (torch.full((len(batch),), value, device=workers.device) for value in (t, given))
            alpha_bar = model.denoiser.alphas_cumprod[steps][:, None]
            z_t = add_noise(z_0, noise, alpha_bar[:, :, None, None])
            features = _chosen(present.bool(), self.data.features(batch, versions, workers), self.empty)
            conditioning = model.conditioner(features, present)
            predicted = model.denoiser(z_t, steps, conditioning)
            expected = model.denoiser.expected_noise(z_t, alpha_bar, conditioning)
            for row, eps in enumerate((predicted, expected)):
                square = (eps - noise).square().flatten(1).sum(0)
                parts = square[: self.layout.texture].sum(), square[self.layout.texture :].sum()
                sums[row] += torch.stack(parts).cpu()
        texture, vector = (sums[0] / sums[1]).tolist()
        return texture, vector


def _chosen(first: Tensor, a: IdentityFeatures, b: IdentityFeatures) -> IdentityFeatures:
    """a for the samples where `first` (B,) bool is true, b for the others."""
    maps = tuple(torch.where(first[:, None, None, None], x, y) for x, y in zip(a.maps, b.maps, strict=True))
    return IdentityFeatures(maps, torch.where(first[:, None], a.embedding, b.embedding))
