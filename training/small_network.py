"""A whole run of a network that one process trains in minutes: begun, resumed or fresh, trained, judged and saved.

Knows nothing of which network it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ..models.checkpoint import ModelCard, save_checkpoint
from .state import Budget, Monitor, MovingAverage, TrainingState


class _Config(Protocol):
    @property
    def budget(self) -> Budget: ...

    @property
    def quiet(self) -> bool: ...


class SmallTrainer(Protocol):
    """The parts of a run."""

    @property
    def config(self) -> _Config: ...

    @property
    def model(self) -> nn.Module: ...

    @property
    def average(self) -> MovingAverage: ...

    @property
    def state(self) -> TrainingState: ...

    def run(self, monitor: Monitor, state_path: Path) -> None: ...

    def validate(self) -> tuple[float, float]: ...


def train_and_save(
    trainer: SmallTrainer,
    role: str,
    begin: Callable[[Path], None],
    architecture: Mapping[str, Any],
    out: Path,
    resume: bool,
    init: Path | None,
    card: ModelCard | None,
    licence_text: str | None,
) -> tuple[float, float]:
    """Train, write `out`/ROLE.safetensors with its manifest, and return what the trainer's validation says.

    Args:
        begin: takes the weights of the checkpoint `init` into the trainer's model.
        architecture: goes into the manifest.
        card: None for that of a model trained by a user.
    """
    state_path = out / f"{role}.state.pt"
    if resume:
        trainer.state.load(state_path)
    elif init is not None:
        begin(init)
        trainer.average.restart(trainer.model)
    with Monitor(out / "logs", role, trainer.config.budget, trainer.config.quiet) as monitor:
        trainer.run(monitor, state_path)
        judged = trainer.validate()
    card = card or ModelCard(role, f"fitdiff-{role}", "trained by fitdiff", "Apache-2.0", True)
    with trainer.average.applied(trainer.model):
        tensors = {k: v.half() if v.ndim > 1 else v for k, v in trainer.model.state_dict().items()}
    save_checkpoint(out / role, tensors, architecture, card, licence_text)
    return judged
