"""A plan from an ONNX file.

Networks are strongly typed: the precision is that of the file. Nothing here needs a GPU for TensorRT-RTX, except plans
whose weights can be replaced (`PlanOptions.refit`). Knows nothing of graphs, caches or where plans are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import UsageError
from .loader import EngineError, Flavour, gpu_text

Progress = Callable[[str, float], None]
"""What is being done and the share of the whole in [0, 1], which never falls."""


@dataclass(frozen=True)
class PlanOptions:
    """What a plan is built for.

    max_batch: of networks with a dynamic axis 0; the profile reaches from 1 to it and is tuned for it.
    refit: its weights can be replaced by those of another checkpoint (`refit.py`), at some cost in speed.
    tf32: let float32 networks multiply in TF32 (10 bits of mantissa): faster, within 1e-3 at best.
    workspace: bytes of scratch memory that a kernel may ask for; None is all that the GPU has.
    compute_capabilities: such as ("8.6", "12.0"), for TensorRT-RTX. Empty is the GPU of this machine, or, without one
        that RTX lists by name, whatever RTX makes by default: 8.0 and later.
    timing_cache: file that data-centre builds read and extend. TensorRT-RTX times nothing, and a cache there would
        only make the build need a GPU.
    """

    max_batch: int = 1
    refit: bool = False
    tf32: bool = False
    workspace: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: Path | None = None


@dataclass(frozen=True)
class PlanReport:
    """A build in numbers. layers: of the parsed network, before TensorRT fuses them."""

    seconds: float
    bytes: int
    layers: int
    warnings: tuple[str, ...]


def build_plan(
    onnx_path: Path, plan_path: Path, options: PlanOptions, flavour: Flavour, progress: Progress | None = None
) -> PlanReport:
    """Parse an ONNX file, build it and write the plan.

    Raises EngineError that names the file and the node that TensorRT does not take, or says why the build failed;
    UsageError where the file's batch and `max_batch` do not go together. An exception in `progress` stops the build.
    """
    start = time.perf_counter()
    trt = flavour.trt
    with flavour.log.messages() as said:
        builder = trt.Builder(flavour.log.logger)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, flavour.log.logger)
        parsed = parser.parse_from_file(str(onnx_path))  # by path, so that weights in files beside it are found
    if not parsed:
        raise _parser_error(onnx_path, parser, said)
    config = builder.create_builder_config()
    _configure(config, options, flavour)
    _add_profile(builder, config, network, options.max_batch, onnx_path)
    cache = _attach_timing_cache(config, options.timing_cache, flavour)
    monitor = _monitor(trt, progress) if progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    with flavour.log.messages() as said:
        plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.error is not None:
        raise monitor.error
    if plan is None:
        raise _build_error(onnx_path, options, flavour, said)
    if cache is not None and options.timing_cache is not None:
        options.timing_cache.write_bytes(memoryview(cache.serialize()))
    plan_path.write_bytes(memoryview(plan))
    return PlanReport(time.perf_counter() - start, plan.nbytes, network.num_layers, tuple(said))


def _strongly_typed(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # 11 knows no other kind
    return 0 if flag is None else 1 << int(flag)


def _configure(config: Any, options: PlanOptions, flavour: Flavour) -> None:
    trt = flavour.trt
    if options.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if not flavour.is_rtx:
        return
    targets = _targets(options, trt)
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(target, index)


def _targets(options: PlanOptions, trt: Any) -> list[Any]:
    known = trt.ComputeCapability.__members__
    if options.compute_capabilities:
        wanted = {text: f"SM{text.replace('.', '')}" for text in options.compute_capabilities}
        unknown = [text for text, member in wanted.items() if member not in known]
        if unknown:
            named = ", ".join(sorted(name for name in known if name.startswith("SM")))
            raise UsageError("compute capability", ", ".join(unknown), f"of {named}", "leave it out for 8.0 and later")
        return [known[member] for member in wanted.values()]
    if options.refit or not torch.cuda.is_available():
        return []
    major, minor = torch.cuda.get_device_capability()
    here = known.get(f"SM{major}{minor}")
    return [here] if here is not None else []


def _add_profile(builder: Any, config: Any, network: Any, max_batch: int, onnx_path: Path) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic and max_batch > 1:
        raise UsageError(
            f"max_batch of {onnx_path.name}", str(max_batch), "1: its batch is static", "export it with a dynamic batch"
        )
    for tensor in dynamic:
        if -1 in tuple(tensor.shape)[1:]:
            shape = tuple(tensor.shape)
            raise UsageError(f"input {tensor.name}", f"shape {shape}", "a dynamic axis 0 alone", "export it again")
    if dynamic:
        profile = builder.create_optimization_profile()
        for tensor in dynamic:
            rest = tuple(tensor.shape)[1:]
            profile.set_shape(tensor.name, (1, *rest), (max_batch, *rest), (max_batch, *rest))
        config.add_optimization_profile(profile)


def _attach_timing_cache(config: Any, path: Path | None, flavour: Flavour) -> Any:
    if path is None or flavour.is_rtx:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    config.set_timing_cache(cache, False)
    return cache


def _parser_error(onnx_path: Path, parser: Any, said: list[str]) -> EngineError:
    found: list[str] = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        found.append(where + " ".join(error.desc().split()))
    got = "; ".join(dict.fromkeys(found or said)) or "no reason given"
    remedy = "export the graph without that operator, or keep this graph on another backend"
    return EngineError(str(onnx_path), got, "operators that TensorRT's ONNX parser takes", remedy)


def _build_error(onnx_path: Path, options: PlanOptions, flavour: Flavour, said: list[str]) -> EngineError:
    remedy = "keep this graph on another backend"
    if flavour.is_rtx and options.refit and not torch.cuda.is_available():
        remedy = "build without refit: TensorRT-RTX makes refittable plans only where there is a GPU"
    elif "7.5" in options.compute_capabilities:
        remedy = "leave out compute capability 7.5, which takes no float32 products, or export in half precision"
    elif not flavour.is_rtx and not torch.cuda.is_available():
        remedy = "build on a machine with a GPU: the data-centre TensorRT times its kernels"
    got = "; ".join(said[:3]) or "no reason given"
    expected = f"a plan by {flavour.name} {flavour.version} on {gpu_text()}"
    return EngineError(str(onnx_path), got, expected, remedy)


def _monitor(trt: Any, progress: Progress) -> Any:
    # The base class exists only once the module does.
    class Monitor(trt.IProgressMonitor):
        """Nested phases, each of known length, as one share of the whole."""

        def __init__(self) -> None:
            super().__init__()
            self.error: BaseException | None = None
            self.phases: dict[str, list[int]] = {}  # from outermost to innermost: steps done, steps
            self.share = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = [0, max(1, num_steps)]
            self._tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name][0] = step + 1
            self._tell(phase_name)
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            outermost = next(iter(self.phases), None) == phase_name
            self.phases.pop(phase_name, None)
            if outermost:
                self.share = 1.0
            self._tell(phase_name)

        def _tell(self, phase: str) -> None:
            share, width = 0.0, 1.0
            for done, steps in self.phases.values():
                share += width * min(done, steps) / steps
                width /= steps
            self.share = max(self.share, min(share, 1.0))
            try:
                progress(phase, self.share)
            except BaseException as error:  # it would unwind through C++: keep it, and stop the build
                self.error = self.error or error

    return Monitor()
