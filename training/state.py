"""What both trainers share around a step: budget, moving average, exact resuming, telling of progress.

With several processes the first one writes and tells, all of them read. Knows nothing of losses, data, or of which
network is trained.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from ..errors import FitDiffError, MissingError, UsageError
from .devices import Workers

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class Stateful(Protocol):
    """Modules, optimisers and the moving average below."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or minutes of wall-clock time, or whichever ends first."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise UsageError("budget", "neither steps nor minutes", "at least one", "give --steps or --minutes")

    def progress(self, step: int, seconds: float) -> float:
        """Fraction spent, in [0, 1]."""
        by_steps = step / max(self.steps, 1) if self.steps is not None else 0.0
        by_time = seconds / (60.0 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))


def learning_rate_factor(step: int, warmup: int, progress: float, floor: float = 0.02) -> float:
    """Linear warm-up over `warmup` steps, then a half cosine down to `floor` as `progress` goes to 1."""
    ramp = min(1.0, (step + 1) / max(warmup, 1))
    return ramp * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))


class MovingAverage:
    """Exponential moving average of a module's parameters; its buffers are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = {name: p.detach().clone() for name, p in module.named_parameters()}

    def restart(self, module: nn.Module) -> None:
        """Forget, and begin with the module's present weights."""
        self.updates = 0
        for name, parameter in module.named_parameters():
            self.shadow[name].copy_(parameter.detach())

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """One step; early ones average over fewer, so that the initial weights are soon forgotten."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in module.named_parameters():
            self.shadow[name].lerp_(parameter.detach(), 1.0 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within the context the module has the averaged weights and is in evaluation mode."""
        training = module.training
        kept = {name: p.detach().clone() for name, p in module.named_parameters()}
        _assign(module, self.shadow)
        module.eval()
        try:
            yield
        finally:
            _assign(module, kept)
            module.train(training)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.updates = state_dict["updates"]
        for name, tensor in self.shadow.items():
            tensor.copy_(state_dict["shadow"][name])


@torch.no_grad()
def _assign(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, parameter in module.named_parameters():
        parameter.copy_(values[name])


@dataclass
class TrainingState:
    """What a run needs to go on as if it had not stopped: parts, step, time spent, random generators.

    The parts are the same in every process, the generators are not: the file holds those of all.
    """

    parts: dict[str, Stateful]
    generator: torch.Generator
    signature: dict[str, Any] = field(default_factory=dict)  # what must be equal for a resume to make sense
    step: int = 0
    seconds: float = 0.0
    workers: Workers = field(default_factory=Workers)

    def save(self, path: Path) -> None:
        """Write atomically, in process 0: a run killed while writing leaves the previous file."""
        generators = self.workers.listed(self.generator.get_state())
        if not self.workers.is_first:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": generators[0],
            "other_generators": generators[1:],
            "global_generator": torch.get_rng_state(),
            "signature": self.signature,
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        torch.save(document, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Restore in place. A process that the run did not have before begins with a generator of its own.

        Raises:
            MissingError: no such file.
            UsageError: the file belongs to a run with another configuration.
        """
        if not path.exists():
            raise MissingError("training state", f"{path}, which is absent", "a file", "run without --resume")
        document = torch.load(path, map_location="cpu", weights_only=True)
        if document["signature"] != self.signature:
            changed = {k for k in self.signature if document["signature"].get(k) != self.signature[k]}
            raise UsageError(
                "training state",
                f"another {', '.join(sorted(changed))} in {path}",
                "the configuration of this run",
                "resume with the options the run began with, or begin anew in another folder",
            )
        for name, part in self.parts.items():
            part.load_state_dict(document["parts"][name])
        generators = [document["generator"], *document.get("other_generators", [])]
        if self.workers.rank < len(generators):
            self.generator.set_state(generators[self.workers.rank])
        else:  # not the samples that it would have seen at the beginning
            self.generator.manual_seed(self.generator.initial_seed() + document["step"])
        torch.set_rng_state(document["global_generator"])
        self.step = document["step"]
        self.seconds = document["seconds"]


def check_finite(name: str, value: Tensor, step: int) -> None:
    """Raise FitDiffError when a loss or a gradient norm is not a number or infinite."""
    if not bool(torch.isfinite(value).all()):
        raise FitDiffError(
            name,
            f"{value.detach().float().mean().item()} at step {step}",
            "a finite number",
            "lower the learning rate, or resume from the last checkpoint",
        )


class Monitor:
    """Scalars and images to TensorBoard, a progress bar to the terminal; nothing at all unless `active`."""

    def __init__(self, folder: Path, title: str, budget: Budget, quiet: bool = False, active: bool = True) -> None:
        self.budget = budget
        self.writer: SummaryWriter | None = None
        self.bar = Progress(
            TextColumn(f"[bold]{title}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[text]}"),
            TimeElapsedColumn(),
            disable=quiet or not active,
        )
        self.task: TaskID = self.bar.add_task(title, total=1.0, text="")
        if not active:
            return
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingError(
                "tensorboard", "no such package", "it, to log training", "pip install 'fitdiff[train]'"
            ) from error
        self.writer = SummaryWriter(str(folder))

    def __enter__(self) -> Monitor:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.writer is not None:
            self.writer.close()

    def advance(self, step: int, seconds: float, text: str) -> None:
        """Move the bar; cheap enough for every step."""
        self.bar.update(self.task, completed=self.budget.progress(step, seconds), text=f"step {step}  {text}")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write each value under its name."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def image(self, name: str, image: Tensor, step: int) -> None:
        """Write an image (3, H, W) in [0, 1]."""
        if self.writer is not None:
            self.writer.add_image(name, image.clamp(0, 1).cpu(), step)

    def note(self, text: str) -> None:
        """A line above the bar."""
        if not self.bar.disable:
            self.bar.console.print(text, highlight=False)


class Stopwatch:
    """Seconds of training, continued over a resume."""

    def __init__(self, spent: float) -> None:
        self.start = time.monotonic() - spent

    def seconds(self) -> float:
        """Seconds since the first start, pauses between runs left out."""
        return time.monotonic() - self.start
