"""Engines and networks that tell the recorder when they work. Knows nothing of what they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..engines.runner import Runner, WrappingRunner
from .trace import span


def traced(runner: Runner) -> Runner:
    """The same runner, with a span of kind "engine" and the graph's name around every call."""
    return _TracedRunner(runner)


class _TracedRunner(WrappingRunner):
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with span(self.graph_name, "engine"):
            return self._runner(*inputs)


@contextmanager
def traced_modules(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within the block, every forward pass of these modules is a span of kind "engine" with the given name."""
    handles: list[Any] = []
    for name, module in modules.items():
        opened: list[Any] = []

        def before(*_: Any, name: str = name, opened: list[Any] = opened) -> None:
            opened.append(span(name, "engine"))
            opened[-1].__enter__()

        def after(*_: Any, opened: list[Any] = opened) -> None:
            opened.pop().__exit__()

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
