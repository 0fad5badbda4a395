"""The options that say which models are loaded and what runs them; what `fitdiff models` says of the paper preset."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .cli_options import engine_options, threads_option

_LOADING = ("preset", "commercial", "backend", "device", "precision", "threads")  # as `load_pipeline` names them

_preset_option = click.option(
    "--preset",
    default="default",
    show_default=True,
    metavar="default|paper|FILE.toml",
    help="Which models: the embedded ones, or the paper's own from copies of yours; see docs/paper_preset.md.",
)
_commercial_option = click.option("--commercial", is_flag=True, help="Refuse models that may not be used commercially.")


def preset_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`preset`, for commands that train."""
    return _preset_option(command)


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Everything about the pipeline, handed on as one dictionary `loading` of arguments for `load_pipeline`."""

    @functools.wraps(command)
    def collected(*args: Any, **kwargs: Any) -> Any:
        loading = {name: kwargs.pop(name) for name in _LOADING}
        return command(*args, loading=loading, **kwargs)

    return _preset_option(_commercial_option(engine_options(threads_option(collected))))


def preset_summary() -> list[str]:
    """What `fitdiff models` prints below its table: each piece of the paper preset, and where it is."""
    from .runtime.presets import preset_path, preset_states

    states = preset_states()
    lines = [f"paper preset ({preset_path()}): {_count(states)} of {len(states)} pieces are here"]
    for state in states:
        where = _shown(state.path) if state.path else "the embedded one" if state.embedded else "not found"
        lines.append(f"  {state.piece.key:20}{state.piece.what:36}{state.piece.licence}: {where}")
    return lines


def _count(states: tuple[Any, ...]) -> int:
    return sum(state.path is not None or state.embedded for state in states)


def _shown(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
