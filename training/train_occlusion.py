"""Trains the network that sees what hides a face, on synthetic faces with things painted over them.

The perceptual network that it reads is frozen. Every sample is a photograph of a data folder, moved, turned, scaled
and mirrored, with occluders painted by a function that also says which pixels they cover. Knows nothing of how they
are painted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor
from torch.nn import functional as F

from ..models.checkpoint import ModelCard
from ..models.occlusion import OcclusionConfig, OcclusionNet, json_from_config, occlusion_guides
from ..models.perceptual import EfficientNetLite0Features
from .data_folder import FACES, INDEX, PHOTOS, check_data_folder
from .devices import Workers, start_workers
from .fine_tuning import begin_occlusion, check_beginning
from .small_network import train_and_save
from .state import Budget, Monitor, MovingAverage, Stopwatch, TrainingState, check_finite, learning_rate_factor
from .synthetic import drawn_cover

Painter = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""(S, S, 3) sRGB in [0, 1] and (468, 2) px -> the picture with occluders, (S, S) their coverage in [0, 1]."""

HIDES = 2.0  # a pixel of which half is covered shows no skin; so is a wire that is thinner than a pixel found

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # picture, coverage, guides, weight


@dataclass(frozen=True)
class OcclusionTrainingConfig:
    """Options of a run."""

    budget: Budget = field(default_factory=lambda: Budget(minutes=20.0))
    model: OcclusionConfig = field(default_factory=OcclusionConfig)
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 30  # steps
    average_decay: float = 0.99
    scale: float = 0.12  # the largest change of size, as a share
    turn: float = 8.0  # degrees
    shift: float = 0.05  # of the picture's side
    landmark_noise: float = 0.006  # of the picture's side: a network's points on a hidden face are not exact
    around: float = 0.2  # weight of pixels outside the face
    hidden_weight: float = 2.0  # further weight of hidden pixels: a rim of glasses is few of them, and paints a face
    bfloat16: bool = True
    device: str | None = None
    num_threads: int | None = None
    seed: int = 0
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 4.0
    validation_photos: int = 64
    quiet: bool = False


@dataclass(frozen=True)
class OcclusionResult:
    """Where the checkpoint is (no suffix), and how well held-out faces are told from what hides them.

    found: share of the hidden pixels within the face that are marked. alarm: share of the bare ones that are, too.
    """

    checkpoint: Path
    found: float
    alarm: float
    steps: int
    seconds: float


def train_occlusion(
    config: OcclusionTrainingConfig,
    data: Path,
    out: Path,
    painter: Painter,
    features: EfficientNetLite0Features,
    resume: bool = False,
    *,
    init: Path | None = None,
    card: ModelCard | None = None,
    licence_text: str | None = None,
) -> OcclusionResult:
    """Train, and write `out`/occlusion.safetensors with its manifest.

    Raises:
        MissingError: no data, no state to resume, no checkpoint to begin with, or no such device.
        UsageError: data that cannot be used, or a state of another kind of run.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    check_data_folder(data)
    check_beginning(resume, init)
    trainer = OcclusionTrainer(config, data, painter, features, start_workers(config.device))
    begin, architecture = partial(begin_occlusion, trainer.model), json_from_config(config.model)
    judged = train_and_save(trainer, "occlusion", begin, architecture, out, resume, init, card, licence_text)
    return OcclusionResult(out / "occlusion", *judged, trainer.state.step, trainer.state.seconds)


class OcclusionTrainer:
    """The parts of a run, and one step of it."""

    def __init__(
        self,
        config: OcclusionTrainingConfig,
        data: Path,
        painter: Painter,
        features: EfficientNetLite0Features,
        workers: Workers,
    ) -> None:
        self.config, self.painter, self.workers = config, painter, workers
        self.features = features.to(workers.device).requires_grad_(False)
        self.photos = np.load(data / PHOTOS, mmap_mode="r")
        faces = load_file(data / FACES)
        self.landmarks = faces["landmarks"].astype(np.float32)
        self.covers = faces.get("cover")
        held_out = json.loads((data / INDEX).read_text(encoding="utf-8"))["held_out"]
        kept = np.isin(faces["map_index"], held_out)
        self.training, self.held_out = np.flatnonzero(~kept), np.flatnonzero(kept)
        torch.manual_seed(config.seed)
        self.model = OcclusionNet(config.model).to(workers.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, (0.9, 0.99), weight_decay=config.weight_decay
        )
        self.average = MovingAverage(self.model, config.average_decay)
        parts = {"model": self.model, "optimiser": self.optimiser, "average": self.average}
        same = {"model": asdict(config.model), "batch": config.batch}
        self.state = TrainingState(parts, workers.generator(config.seed), same, workers=workers)

    def run(self, monitor: Monitor, state_path: Path) -> None:
        """Steps until the budget is spent, with checkpoints and validation on the way."""
        config, state = self.config, self.state
        watch = Stopwatch(state.seconds)
        saved = validated = state.seconds
        self.model.train()
        while (progress := config.budget.progress(state.step, state.seconds)) < 1.0:
            loss = self.step(progress)
            state.step += 1
            state.seconds = watch.seconds()
            monitor.advance(state.step, state.seconds, f"loss {loss:.4f}")
            monitor.scalars({"loss": loss}, state.step)
            if state.seconds - validated > 60 * config.validate_minutes:
                found, alarm = self.validate()
                monitor.scalars({"held_out/found": found, "held_out/alarm": alarm}, state.step)
                monitor.note(f"step {state.step}, {state.seconds:.0f} s: found {found:.3f}, alarm {alarm:.3f}")
                validated = state.seconds = watch.seconds()
            if state.seconds - saved > 60 * config.checkpoint_minutes:
                state.save(state_path)
                saved = state.seconds
        state.save(state_path)

    def step(self, progress: float) -> float:
        """One step; returns its loss."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(self.state.step, config.warmup, progress)
        numbers = torch.randint(len(self.training), (config.batch,), generator=self.state.generator)
        seeds = torch.randint(2**62, (config.batch,), generator=self.state.generator)
        samples = [
            self.sample(int(self.training[n]), np.random.default_rng(int(s)), moved=True)
            for n, s in zip(numbers, seeds, strict=True)
        ]
        image, coverage, guides, weight = self._stacked(samples)
        with self.workers.autocast(config.bfloat16):
            with torch.no_grad():
                features = self.features(image)
            logits = self.model(image, features, guides).float()
        weight = weight * (1 + config.hidden_weight * coverage)
        loss = (F.binary_cross_entropy_with_logits(logits, coverage, reduction="none") * weight).sum() / weight.sum()
        check_finite("occlusion loss", loss, self.state.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update(self.model)
        return float(loss.detach())

    def sample(self, index: int, rng: np.random.Generator, *, moved: bool) -> Sample:
        """One photograph with its occluders: (S, S, 3), coverage (S, S), guides (5, S, S), weight (S, S)."""
        picture = np.asarray(self.photos[index], np.float32) / 255
        points, size = self.landmarks[index], picture.shape[0]
        own = drawn_cover(self.covers[index], size) if self.covers is not None else np.zeros((size, size), np.float32)
        if moved:
            picture, own, points = self._moved(picture, own, points, rng)
        picture, coverage = self.painter(picture, points, rng)
        coverage = np.maximum(coverage, own)
        noise = rng.normal(0, self.config.landmark_noise * size, 2) + rng.normal(0, 0.3, points.shape)
        guides = occlusion_guides(points + (noise if moved else 0), size)
        weight = np.maximum(cv2.dilate(occlusion_guides(points, size)[0], np.ones((7, 7))), self.config.around)
        if moved and rng.random() < 0.5:  # the guides are contours of both sides, so mirroring keeps their meaning
            picture, coverage, guides, weight = picture[:, ::-1], coverage[:, ::-1], guides[..., ::-1], weight[:, ::-1]
        return picture, coverage, guides, weight

    def _moved(
        self, picture: np.ndarray, cover: np.ndarray, points: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turned and scaled about the middle, and shifted."""
        config, size = self.config, picture.shape[0]
        scale = 1 + rng.uniform(-config.scale, config.scale)
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-config.turn, config.turn), scale)
        matrix[:, 2] += rng.uniform(-config.shift, config.shift, 2) * size
        picture, cover = (
            cv2.warpAffine(x, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            for x in (picture, cover)
        )
        return picture, cover, (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)

    def _stacked(self, samples: list[Sample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image (B, 3, S, S), and at half the size coverage and weight (B, 1, S/2, S/2); guides (B, 5, S, S)."""
        picture, coverage, guides, weight = (np.stack(x).astype(np.float32) for x in zip(*samples, strict=True))
        image = torch.from_numpy(np.ascontiguousarray(picture.transpose(0, 3, 1, 2)))
        seen = np.minimum(HIDES * coverage, 1)
        halves = (F.avg_pool2d(torch.from_numpy(x)[:, None], 2) for x in (seen, weight))
        half_coverage, half_weight = halves
        moved = self.workers.moved
        return moved(image), moved(half_coverage), moved(torch.from_numpy(guides)), moved(half_weight)

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """`found` and `alarm` of `OcclusionResult`, by the averaged weights, on the same pictures each time."""
        found = hidden = alarm = bare = 0.0
        with self.average.applied(self.model), self.workers.autocast(self.config.bfloat16):
            for number in range(min(self.config.validation_photos, len(self.held_out))):
                sample = self.sample(int(self.held_out[number]), np.random.default_rng(number), moved=False)
                image, coverage, guides, weight = self._stacked([sample])
                marked = self.model(image, self.features(image), guides) > 0
                inside = weight > 0.9
                there, free = inside & (coverage > 0.5), inside & (coverage < 0.1)
                found, hidden = found + float((marked & there).sum()), hidden + float(there.sum())
                alarm, bare = alarm + float((marked & free).sum()), bare + float(free.sum())
        return found / max(hidden, 1.0), alarm / max(bare, 1.0)
