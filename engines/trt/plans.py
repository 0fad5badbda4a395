"""The plan of a graph, from the engine cache or built into it. Needs no GPU where its flavour builds without one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import UsageError
from ..cache import EngineCache
from ..cache_key import EngineKey, engine_key, gpu_facts
from ..graph import Graph
from ..onnx_files import onnx_file
from ..options import EngineOptions
from .builder import PlanOptions, Progress, build_plan
from .loader import Flavour
from .refit import architecture_sha256


@dataclass(frozen=True)
class PlanFile:
    """A verified plan, the file it was built from or is to be refitted with, and what it was built for, in words."""

    path: Path
    onnx_path: Path
    built_for: str


def plan_file(
    graph: Graph, options: EngineOptions, flavour: Flavour, *, refit: bool = False, progress: Progress | None = None
) -> PlanFile:
    """Export and build what the cache does not have.

    refit: the plan is refittable and kept by its architecture alone, so that one serves every checkpoint; its weights
    are those it was built with until it is refitted with `onnx_path`.

    Raises UsageError for bfloat16, EngineError where TensorRT refuses the network or the build.
    """
    if options.precision == "bf16":
        raise UsageError("precision", "bf16 for TensorRT", "fp32 or fp16", "use eager or compile for bf16")
    cache = EngineCache(options.cache_dir)

    def say(text: str) -> None:
        if progress:
            progress(text, 0.0)

    half = options.precision == "fp16"
    onnx_path = onnx_file(cache, graph, dynamic_batch=options.dynamic_batch, half=half, progress=say)
    plan_options = PlanOptions(max_batch=options.max_batch, refit=refit)
    key = _key(graph, onnx_path, options, plan_options, flavour)

    def build(path: Path) -> None:
        build_plan(onnx_path, path, plan_options, flavour, progress)

    path = cache.get_or_build(key, build, say)
    return PlanFile(path, onnx_path, _built_for(key))


def _key(
    graph: Graph, onnx_path: Path, options: EngineOptions, plan_options: PlanOptions, flavour: Flavour
) -> EngineKey:
    key = engine_key(
        onnx_path, graph.name, precision=options.precision, max_batch=options.max_batch, backend=flavour.name,
        backend_version=flavour.version, gpu=gpu_facts(options.device),
        flags={"refit": plan_options.refit, "tf32": plan_options.tf32},
    )  # fmt: skip
    return replace(key, onnx_sha256=architecture_sha256(onnx_path)) if plan_options.refit else key


def _built_for(key: EngineKey) -> str:
    gpu = f"{key.gpu_name}, compute capability {key.compute_capability}" if key.gpu_name else "any GPU from 8.0 on"
    return f"{gpu}, {key.backend} {key.backend_version}"
