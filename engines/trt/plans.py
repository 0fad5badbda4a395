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
    """A verified plan, the file with its weights, and what it was built for, in words.

    needs_refit: it serves every checkpoint of its architecture, and has the weights that it was built with until it is
        loaded and refitted with `onnx_path`.
    """

    path: Path
    onnx_path: Path
    built_for: str
    needs_refit: bool = False


def plan_file(
    graph: Graph, options: EngineOptions, flavour: Flavour, *, shared: bool = True, progress: Progress | None = None
) -> PlanFile:
    """The plan with exactly this graph's weights, or a refittable one of its architecture, or a new one.

    With `options.refit` it is the refittable one, built where there is none.

    shared: whether a refittable plan that another checkpoint may have built will do.

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
    key = _key(graph, onnx_path, options, flavour, refit=options.refit)
    found = cache.find(key)
    if found is None and shared and not options.refit:
        refittable = _key(graph, onnx_path, options, flavour, refit=True)
        of_architecture = cache.find(refittable)
        if of_architecture is not None:
            return PlanFile(of_architecture, onnx_path, _built_for(refittable), needs_refit=True)

    def build(path: Path) -> None:
        build_plan(onnx_path, path, PlanOptions(max_batch=options.max_batch, refit=options.refit), flavour, progress)

    path = found or cache.get_or_build(key, build, say)
    return PlanFile(path, onnx_path, _built_for(key), needs_refit=options.refit)


def _key(graph: Graph, onnx_path: Path, options: EngineOptions, flavour: Flavour, *, refit: bool) -> EngineKey:
    """Of a plan for these weights, or of a refittable one for all that differ in nothing else."""
    key = engine_key(
        onnx_path, graph.name, precision=options.precision, max_batch=options.max_batch, backend=flavour.name,
        backend_version=flavour.version, gpu=gpu_facts(options.device),
        flags={"refit": refit, "tf32": PlanOptions.tf32},
    )  # fmt: skip
    return replace(key, onnx_sha256=architecture_sha256(onnx_path)) if refit else key


def _built_for(key: EngineKey) -> str:
    gpu = f"{key.gpu_name}, compute capability {key.compute_capability}" if key.gpu_name else "any GPU from 8.0 on"
    return f"{gpu}, {key.backend} {key.backend_version}"
