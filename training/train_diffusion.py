"""Training of the denoiser: closed-form prior first, then the UNet on what the prior leaves.

Paper, section 3.3. Latents and features come ready made (`diffusion_data.py`), losses from
`diffusion_losses.py`; this file knows the order of things and writes the checkpoint.
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
from .diffusion_data import DiffusionData, statistics_from_data
from .diffusion_losses import (
    DiffusionBatch,
    IdentityLosses,
    Weighting,
    noise_loss,
    noise_weights,
    vertex_loss,
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

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class DiffusionTrainingConfig:
    """Every number of a run."""

    budget: Budget
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    batch: int = 16
    learning_rate: float = 4e-4
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    average_decay: float = 0.999
    condition_dropout: float = 0.1  # the paper's p_uncond
    weighting: Weighting = "balanced"  # "plain" is the paper's
    snr_gamma: float = 5.0
    vector_weight: float = 4.0
    vertex_weight: float = 0.1
    identity_weight: float = 0.1
    perceptual_weight: float = 0.1
    identity_every: int = 10  # steps between two that have identity losses
    identity_samples: int = 1  # of the batch
    prior_folds: int = 4
    prior_photos: int = 20_000  # at most so many for the closed-form fit
    bfloat16: bool = True
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
    card: ModelCard | None = None,
    licence_text: str | None = None,
) -> DiffusionResult:
    """Train, and write `out_dir`/denoiser.safetensors with its manifest.

    Args:
        gram: (183, 183) from `vertex_gram` of the morphable model, for L_verts.
        resume: go on from `out_dir`'s state; exact for a budget in steps.
        identity_losses: L_id and L_per of estimated latents; left out when None.
        card: what the checkpoint says of itself.

    Raises:
        MissingError: no state to resume.
        UsageError: the data has no held-out photo, or the state is of another run.
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
    trainer = DiffusionTrainer(config, data, gram, identity_losses)
    if resume:
        trainer.state.load(out_dir / STATE_FILE)
    else:
        trainer.fit_closed_form()
    with Monitor(out_dir / "logs", "diffusion", config.budget, config.quiet) as monitor:
        trainer.run(monitor, out_dir / STATE_FILE)
        validation = trainer.validate(monitor)
    card = card or ModelCard("denoiser", "fitdiff-denoiser", "trained by fitdiff", "Apache-2.0", True)
    with trainer.average.applied(trainer.model):
        save_denoiser(out_dir / "denoiser", trainer.model, card, licence_text)
    return DiffusionResult(out_dir / "denoiser", validation, trainer.state.step, trainer.state.seconds)


class DiffusionTrainer:
    """The parts of a run, and one step of it."""

    def __init__(
        self,
        config: DiffusionTrainingConfig,
        data: DiffusionData,
        gram: Tensor,
        identity_losses: IdentityLosses | None = None,
    ) -> None:
        self.config, self.data, self.gram, self.identity_losses = config, data, gram, identity_losses
        self.layout = config.model.layout
        torch.manual_seed(config.seed)
        self.model = FitDiffDenoiser(config.model)
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
        self.state = TrainingState(parts, torch.Generator().manual_seed(config.seed), signature)

    def fit_closed_form(self) -> None:
        """Latent statistics, feature moments and the linear prior, from the training photos."""
        config, model = self.config, self.model
        model.statistics.load_state_dict(statistics_from_data(self.data, self.layout).state_dict())
        order = torch.randperm(len(self.data.training), generator=torch.Generator().manual_seed(config.seed))
        photos = np.sort(self.data.training[order[: config.prior_photos].numpy()])
        model.conditioner.set_channel_moments(self.data.features(photos[:: max(1, len(photos) // 512)]))
        z_0 = model.statistics.normalise(self.data.latents(photos, self.layout)).flatten(1)
        chunks = np.array_split(photos, max(1, len(photos) // 256))
        inputs = torch.cat([pooled_inputs(self.data.features(c), config.model.prior_grid) for c in chunks])
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
        config, state = self.config, self.state
        watch = Stopwatch(state.seconds)
        saved = validated = state.seconds
        self.model.train()
        while (progress := config.budget.progress(state.step, state.seconds)) < 1.0:
            values = self.step(progress)
            state.step += 1
            state.seconds = watch.seconds()
            monitor.advance(state.step, state.seconds, f"noise {values['loss/noise']:.4f}")
            if state.step % 20 == 0:
                monitor.scalars(values, state.step)
            if state.seconds - validated > 60 * config.validate_minutes:
                found = self.validate(monitor)
                monitor.note(
                    f"step {state.step}, {state.seconds:.0f} s: ratio to the prior {found['ratio']:.4f}"
                )
                validated = state.seconds = watch.seconds()
            if state.seconds - saved > 60 * config.checkpoint_minutes:
                state.save(state_path)
                saved = state.seconds
        state.save(state_path)

    def step(self, progress: float) -> dict[str, float]:
        """One optimiser step; returns the scalars to log."""
        config, model = self.config, self.model
        rate = config.learning_rate * learning_rate_factor(self.state.step, config.warmup, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        photos, features, present = self._draw()
        z_raw = self.data.latents(photos, self.layout)
        z_0 = model.statistics.normalise(z_raw)
        t = self._stratified_times(len(photos))
        alpha_bar = model.denoiser.alphas_cumprod[t][:, None, None, None]
        noise = torch.randn(z_0.shape, generator=self.state.generator)
        z_t = add_noise(z_0, noise, alpha_bar)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            predicted = model(z_t, t, features, present)
        estimate = model.statistics.denormalise(predict_z0(z_t, predicted, alpha_bar))  # raw z_0
        trust = alpha_bar.flatten()  # an estimate from nearly pure noise is no face yet
        weights = noise_weights(trust, config.weighting, config.snr_gamma)
        losses = {
            "noise": noise_loss(predicted, noise, weights, self.layout, config.vector_weight),
            "vertices": (trust * vertex_loss(estimate, z_raw, self.gram, self.layout)).mean(),
        }
        if self.identity_losses is not None and self.state.step % config.identity_every == 0:
            losses |= self._identity(self.identity_losses, estimate, photos, z_raw, trust * present)
        factors = {"noise": 1.0, "vertices": config.vertex_weight}
        factors |= {"identity": config.identity_weight, "perceptual": config.perceptual_weight}
        total = torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()
        check_finite("diffusion loss", total, self.state.step)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        check_finite("diffusion gradient norm", norm, self.state.step)
        self.optimiser.step()
        self.average.update(model)
        values = {f"loss/{name}": float(loss.detach()) for name, loss in losses.items()}
        return values | {"train/gradient_norm": float(norm), "train/learning_rate": rate}

    def _draw(self) -> tuple[np.ndarray, IdentityFeatures, Tensor]:
        """Photos, their features with some taken away, and what is left of them (B,)."""
        config, generator = self.config, self.state.generator
        chosen = torch.randint(len(self.data.training), (config.batch,), generator=generator).numpy()
        photos = self.data.training[chosen]
        versions = torch.randint(self.data.versions, (config.batch,), generator=generator).numpy()
        present = (torch.rand(config.batch, generator=generator) >= config.condition_dropout).float()
        return photos, _with_absent(self.data.features(photos, versions), self.data.empty, present), present

    def _stratified_times(self, count: int) -> Tensor:
        """One t from each of `count` equal parts of the schedule, in random order: uniform, less noisy."""
        generator = self.state.generator
        u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        return (
            (u * self.config.model.schedule.timesteps)
            .long()
            .clamp(max=self.config.model.schedule.timesteps - 1)
        )

    def _identity(
        self, function: IdentityLosses, estimate: Tensor, photos: np.ndarray, z_raw: Tensor, trust: Tensor
    ) -> dict[str, Tensor]:
        chosen = trust.topk(min(self.config.identity_samples, len(trust))).indices
        where = photos[chosen.numpy()]
        batch = DiffusionBatch(torch.from_numpy(where), z_raw[chosen], self.data.features(where))
        identity, perceptual = function(estimate[chosen], batch)
        return {
            "identity": (trust[chosen] * identity).mean(),
            "perceptual": (trust[chosen] * perceptual).mean(),
        }

    @torch.no_grad()
    def validate(self, monitor: Monitor) -> dict[str, float]:
        """Squared error of eps on held-out photos, by the averaged weights, divided by the linear prior's.

        Below 1 the UNet adds something. "ratio" is the mean over the time steps; "texture/400" and
        "vector/400" are single ones; "null/..." the same without a face.
        """
        chosen = (
            np.linspace(0, len(self.data.held_out) - 1, self.config.validation_photos).round().astype(int)
        )
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
        monitor.scalars({f"held_out/{name}": value for name, value in values.items()}, self.state.step)
        return values

    def _error_ratios(self, photos: np.ndarray, t: int, given: float) -> tuple[float, float]:
        """(texture, vector): the model's squared error over the linear prior's, on the same noise."""
        model, generator = self.model, torch.Generator().manual_seed(t)
        sums = torch.zeros(2, 2)  # model or prior, texture or vector
        for batch in np.array_split(photos, max(1, len(photos) // self.config.batch)):
            z_0 = model.statistics.normalise(self.data.latents(batch, self.layout))
            noise = torch.randn(z_0.shape, generator=generator)
            steps, present = torch.full((len(batch),), t), torch.full((len(batch),), given)
            alpha_bar = model.denoiser.alphas_cumprod[steps][:, None]
            z_t = add_noise(z_0, noise, alpha_bar[:, :, None, None])
            features = _with_absent(self.data.features(batch), self.data.empty, present)
            conditioning = model.conditioner(features, present)
            predicted = model.denoiser(z_t, steps, conditioning)
            expected = model.denoiser.expected_noise(z_t, alpha_bar, conditioning)
            for row, eps in enumerate((predicted, expected)):
                square = (eps - noise).square().flatten(1).sum(0)
                sums[row] += torch.stack(
                    [square[: self.layout.texture].sum(), square[self.layout.texture :].sum()]
                )
        texture, vector = (sums[0] / sums[1]).tolist()
        return texture, vector


def _with_absent(features: IdentityFeatures, empty: IdentityFeatures, present: Tensor) -> IdentityFeatures:
    """Replace the features of samples with present = 0 by those of an empty image."""
    given = present.bool()
    maps = tuple(
        torch.where(given[:, None, None, None], m, e) for m, e in zip(features.maps, empty.maps, strict=True)
    )
    return IdentityFeatures(maps, torch.where(given[:, None], features.embedding, empty.embedding))
