"""The loop of a training run: steps until the budget is spent, with validation and checkpoints on the way.

Knows the clock and what is told to whom; nothing of what a step does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .state import Budget, Monitor, Stopwatch, TrainingState


class Pace(Protocol):
    """How long a run goes on, and how often it pauses; a trainer's configuration."""

    @property
    def budget(self) -> Budget: ...

    @property
    def validate_minutes(self) -> float: ...

    @property
    def checkpoint_minutes(self) -> float: ...


def run_steps(
    pace: Pace,
    state: TrainingState,
    monitor: Monitor,
    state_path: Path,
    *,
    step: Callable[[float], dict[str, float]],
    told: Callable[[dict[str, float]], str],
    validated: Callable[[], str],
) -> None:
    """Run until the budget is spent, and save. Process 0 has the clock: all agree on learning rate, pauses and end.

    Args:
        step: does one step, given the share of the budget that is spent; returns the scalars to log.
        told: what the bar says of those scalars.
        validated: validates, and says in a line what was found.
    """
    workers = state.workers
    watch = Stopwatch(state.seconds)
    saved = last_validated = state.seconds
    while (progress := pace.budget.progress(state.step, state.seconds)) < 1.0:
        values = step(progress)
        state.step += 1
        state.seconds = workers.agreed(watch.seconds())
        monitor.advance(state.step, state.seconds, told(values))
        if state.step % 20 == 0:
            monitor.scalars(workers.mean_scalars(values), state.step)
        if state.seconds - last_validated > 60 * pace.validate_minutes:
            found = validated()
            monitor.note(f"step {state.step}, {state.seconds:.0f} s: {found}")
            last_validated = state.seconds = workers.agreed(watch.seconds())
        if state.seconds - saved > 60 * pace.checkpoint_minutes:
            state.save(state_path)
            saved = state.seconds
    state.save(state_path)
