"""Trains the network that takes the light out of unwrapped photos, on drawn faces whose true albedo is known.

Its answers are means of what may be true: squared errors, each band of scale over what faces differ by in it, so that
a freckle counts as a beard does. Knows nothing of how photos are unwrapped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..models.checkpoint import ModelCard
from ..models.delighting import (
    COLUMNS,
    ROWS,
    DelightingConfig,
    DelightingNet,
    about_zero,
    delighting_inputs,
    json_from_config,
)
from ..rendering.blur import blurred
from ..rendering.lightness import BROADEST, EDGES
from .devices import Workers, start_workers
from .fine_tuning import begin_delighting, check_beginning
from .run_loop import run_steps
from .small_network import train_and_save
from .state import Budget, Monitor, MovingAverage, TrainingState, check_finite, learning_rate_factor
from .unwrapped_photos import UnwrappedPhotos

NOT_THE_FACE = 0.05  # weight of texels of the window that are no skin of the face
BANDS = (*EDGES, BROADEST)  # sigma in texels


@dataclass(frozen=True)
class DelightingTrainingConfig:
    """Options of a run."""

    budget: Budget = field(default_factory=lambda: Budget(minutes=30.0))
    model: DelightingConfig = field(default_factory=DelightingConfig)
    batch: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 30  # steps
    average_decay: float = 0.995
    contrast: float = 0.1  # deviation of the exponent of a photo's contrast
    cast: float = 0.05  # deviation of the logarithm of a channel
    monochrome: float = 0.25  # share of photos without colour
    bfloat16: bool = True
    device: str | None = None
    num_threads: int | None = None
    seed: int = 0
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 4.0
    quiet: bool = False


@dataclass(frozen=True)
class DelightingResult:
    """Where the checkpoint is (no suffix), and how far held-out photos are from the truth.

    error, mean_error: weighted RMS of the logarithm of sRGB values, of the network and of the mean chart.
    """

    checkpoint: Path
    error: float
    mean_error: float
    steps: int
    seconds: float


def train_delighting(
    config: DelightingTrainingConfig,
    data: UnwrappedPhotos,
    mean_lightness: Tensor,
    weight: Tensor,
    out: Path,
    resume: bool = False,
    *,
    init: Path | None = None,
    card: ModelCard | None = None,
    licence_text: str | None = None,
) -> DelightingResult:
    """Train, and write `out`/delighting.safetensors with its manifest.

    Args:
        mean_lightness: (1, 1, 256, 256) of the mean chart.
        weight: (1, 1, 256, 256) in [0, 1], the bare skin of the face.

    Raises:
        MissingError: no state to resume, no checkpoint to begin with, or no such device.
        UsageError: a state or a checkpoint of another kind of run.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    check_beginning(resume, init)
    trainer = DelightingTrainer(config, data, mean_lightness, weight, start_workers(config.device))
    begin, architecture = partial(begin_delighting, trainer.model), json_from_config(config.model)
    judged = train_and_save(trainer, "delighting", begin, architecture, out, resume, init, card, licence_text)
    return DelightingResult(out / "delighting", *judged, trainer.state.step, trainer.state.seconds)


class DelightingTrainer:
    """The parts of a run, and one step of it."""

    def __init__(
        self,
        config: DelightingTrainingConfig,
        data: UnwrappedPhotos,
        mean_lightness: Tensor,
        weight: Tensor,
        workers: Workers,
    ) -> None:
        self.config, self.data, self.workers = config, data, workers
        weight, mean = (x[..., ROWS, COLUMNS].to(workers.device) for x in (weight, mean_lightness))
        self.weight = weight + NOT_THE_FACE
        torch.manual_seed(config.seed)
        self.model = DelightingNet(config.model).to(workers.device)
        self.model.weight.copy_(weight)
        self.model.mean.copy_(about_zero(mean, weight))
        truth = workers.moved(torch.from_numpy(np.asarray(data.lightness))).float()
        self.truth = torch.cat([about_zero(face[None], weight) for face in truth])  # (N, 1, H, W)
        known = self.truth[np.unique(data.face[data.training])] - self.model.mean
        variance = [(_bands(face[None]).square() * self.weight).mean((0, 2, 3)) for face in known]
        self.scale = torch.stack(variance).mean(0).sqrt()[:, None, None]  # (4, 1, 1)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, (0.9, 0.99), weight_decay=config.weight_decay
        )
        self.average = MovingAverage(self.model, config.average_decay)
        parts = {"model": self.model, "optimiser": self.optimiser, "average": self.average}
        same = {"model": asdict(config.model), "batch": config.batch}
        self.state = TrainingState(parts, workers.generator(config.seed), same, workers=workers)

    def run(self, monitor: Monitor, state_path: Path) -> None:
        """Steps until the budget is spent, with checkpoints and validation on the way."""
        self.model.train()

        def validated() -> str:
            error, mean_error = self.validate()
            monitor.scalars({"held_out/error": error}, self.state.step)
            return f"held-out error {error:.4f}, of the mean chart {mean_error:.4f}"

        run_steps(
            self.config, self.state, monitor, state_path,
            step=self.step, told=lambda values: f"loss {values['loss']:.4f}", validated=validated,
        )  # fmt: skip

    def step(self, progress: float) -> dict[str, float]:
        """One step; returns its loss."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(self.state.step, config.warmup, progress)
        drawn = torch.randint(len(self.data.training), (config.batch,), generator=self.state.generator)
        photos = self.data.training[drawn.numpy()]
        colours, shown, normal = self._photos(photos)
        colours = self._changed(colours)
        wanted = self.truth[self.data.face[photos]]
        mirrored = torch.rand(config.batch, generator=self.state.generator) < 0.5
        colours, shown, normal, wanted = (
            torch.where(mirrored[:, None, None, None].to(x.device), x.flip(-1), x)
            for x in (colours, shown, normal, wanted)
        )
        sign = torch.where(mirrored, -1.0, 1.0)[:, None, None].to(normal.device)
        normal = torch.cat([(normal[:, 0] * sign)[:, None], normal[:, 1:]], 1)
        with self.workers.autocast(config.bfloat16):
            found = self.model(delighting_inputs(colours, shown, normal))
        loss = (((_bands(found - wanted) / self.scale).square()) * self.weight).mean()
        check_finite("delighting loss", loss, self.state.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update(self.model)
        return {"loss": float(loss.detach())}

    def _photos(self, photos: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Colours (B, 3, H, W), shown (B, 1, H, W), normals (B, 3, H, W)."""
        stored = self.workers.moved(torch.from_numpy(np.stack([self.data.inputs[photo] for photo in photos])))
        colours, shown, normal = (stored.float() / 255).split([3, 1, 3], 1)
        return colours, shown, normal * 2 - 1

    def _changed(self, colours: Tensor) -> Tensor:
        """Another contrast, another cast, or no colour at all."""
        config, generator = self.config, self.state.generator
        drawn = torch.randn(len(colours), 4, generator=generator).to(colours.device)[..., None, None]
        exponent = (config.contrast * drawn[:, :1]).exp()
        colours = (colours.clamp_min(1e-3) ** exponent * (config.cast * drawn[:, 1:]).exp()).clamp(0, 1)
        grey = torch.rand(len(colours), generator=generator) < config.monochrome
        return torch.where(grey[:, None, None, None].to(colours.device), colours.mean(1, keepdim=True), colours)

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """`error` and `mean_error` of `DelightingResult`, by the averaged weights."""
        squared, usual = [], []
        weight = self.model.weight / self.model.weight.sum()
        with self.average.applied(self.model), self.workers.autocast(self.config.bfloat16):
            for photo in self.data.held_out:
                found = self.model(delighting_inputs(*self._photos(np.array([photo]))))
                wanted = self.truth[self.data.face[[photo]]]
                squared.append(float(((found - wanted).square() * weight).sum()))
                usual.append(float(((wanted - self.model.mean).square() * weight).sum()))
        return float(np.sqrt(np.mean(squared))), float(np.sqrt(np.mean(usual)))


def _bands(x: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 4, H, W), from fine to what is broader than all bands; their sum is x."""
    edges = [x, *(blurred(x, sigma) for sigma in BANDS)]
    return torch.cat([*(fine - broad for fine, broad in zip(edges[:-1], edges[1:], strict=True)), edges[-1]], 1)
