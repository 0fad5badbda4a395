"""A pipeline whose networks run in engines of a backend. The guided loop's code is the same for all.

Knows nothing of how a backend builds or runs an engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..engines.backends import choose_backend
from ..engines.build import BUILDABLE
from ..engines.cache import EngineCache
from ..engines.compiled_models import RUN_GRAPHS, compile_models
from ..engines.graph import Graph
from ..engines.options import EngineOptions, Precision
from ..engines.runner import Runner
from .batched_runner import in_batches
from .graph_sources import graph_sources
from .traced_runner import traced

if TYPE_CHECKING:
    from .pipeline import FitDiffPipeline

Progress = Callable[[str, int, int], None]
"""(graph whose engine is made next, how many are made, how many there are)."""


def compiled_pipeline(
    pipeline: FitDiffPipeline,
    backend: str,
    *,
    precision: Precision = "fp32",
    max_batch: int = 1,
    cache_dir: Path | None = None,
    device: torch.device | None = None,
    on_engine: Progress | None = None,
) -> FitDiffPipeline:
    """The same pipeline on the backend of this name, or on the fastest present for "auto".

    `backend` of the result says which was taken, `backend_reason` why. Engines come from the cache or go into it.
    They are made from the networks as they are, on the CPU; then everything moves to `device`, the given pipeline too.

    Args:
        max_batch: of photos that go through one loop; 1 makes engines of static shapes.
        cache_dir: of ONNX files and plans; None is the user's cache folder.
        on_engine: called before each engine.

    Raises:
        UsageError: no such backend, or one that cannot do what is asked.
        MissingError: the backend is not installed, or cannot run here.
    """
    device = device or torch.device("cpu")
    choice = choose_backend(backend, device)
    if choice.backend.name == "eager" and precision == "fp32":
        return replace(pipeline, backend="eager", backend_reason=choice.reason).to(device)
    options = EngineOptions(precision, max_batch, cache_dir, device)
    done = 0

    def make_runner(graph: Graph) -> Runner:
        nonlocal done
        if on_engine:
            on_engine(graph.name, done, len(RUN_GRAPHS))
        done += 1
        return in_batches(traced(choice.backend.make_runner(graph, options)), graph, max_batch)

    cache = EngineCache(cache_dir) if choice.backend.name in BUILDABLE else None
    compiled = compile_models(graph_sources(pipeline.denoiser, pipeline.models), make_runner, cache)
    models = replace(
        pipeline.models,
        autoencoder=compiled.autoencoder,
        recogniser=compiled.recogniser,
        face_mesh=compiled.face_mesh,
        perceptual=compiled.perceptual,
        bfloat16=False,  # the engines' precision is their own
    )
    made = replace(
        pipeline,
        denoiser=compiled.denoiser,
        models=models,
        backend=choice.backend.name,
        backend_reason=choice.reason,
        engines=compiled,
        precision=precision,
    )
    return made.to(options.device)
