"""A session of ONNX Runtime from an ONNX file. Knows nothing of graphs, caches or who made the file."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MissingError, UsageError
from ..availability import Availability
from ..options import EngineOptions

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CUDA_PROVIDER = "CUDAExecutionProvider"
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
INSTALL = {"cpu": "pip install 'fitdiff[engines]'", "cuda": "pip install 'fitdiff[engines]' onnxruntime-gpu"}


def availability(device_type: str = "cpu") -> Availability:
    """Whether ONNX Runtime is installed and has a provider for "cpu" or "cuda"."""
    if find_spec("onnxruntime") is None:
        return Availability(False, f"the package onnxruntime is not installed ({INSTALL[device_type]})")
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        return Availability(
            False, f"onnx and onnxscript, which export, are not installed ({INSTALL['cpu']})", _version()
        )
    if device_type == "cpu":
        return Availability(True, "runs on the CPU", _version())
    if not torch.cuda.is_available():
        return Availability(False, "no CUDA device is present", _version())
    import onnxruntime

    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return Availability(False, f"this onnxruntime has no CUDA provider ({INSTALL['cuda']})", _version())
    return Availability(True, "runs on CUDA", _version())


def session_from_onnx(path: Path, options: EngineOptions, stream: torch.cuda.Stream | None = None) -> InferenceSession:
    """Load an ONNX file on `options.device`.

    stream: where a CUDA session enqueues its kernels; not the default stream, which ONNX Runtime takes for none.

    With denormals taken as zero, ONNX Runtime sets that on the calling thread too, for good: PyTorch's arithmetic
    on this thread then flushes them as well (magnitudes under 1e-38).

    Raises MissingError where the package or its CUDA provider is missing, UsageError where it cannot do the precision.
    """
    found = refuse_unable(options)
    import onnxruntime

    if options.device.type == "cpu":
        return onnxruntime.InferenceSession(str(path), session_options(options), providers=["CPUExecutionProvider"])
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # the CUDA libraries that PyTorch brought
    cuda: dict[str, Any] = {
        "device_id": options.device.index or 0,
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE" if not options.dynamic_batch else "HEURISTIC",
    }
    if stream is not None:
        cuda["user_compute_stream"] = str(stream.cuda_stream)
    providers = [(CUDA_PROVIDER, cuda), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), session_options(options), providers=providers)
    if CUDA_PROVIDER not in session.get_providers():  # it falls back to the CPU with no more than a log line
        raise MissingError(
            "ONNX Runtime's CUDA provider", "libraries that cannot be loaded", "CUDA and cuDNN of its version",
            f"compare onnxruntime-gpu {found.version} with PyTorch's CUDA {torch.version.cuda}",
        )  # fmt: skip
    return session


def refuse_unable(options: EngineOptions) -> Availability:
    """Raise what `session_from_onnx` raises for options that no file can change, or answer what was found."""
    found = availability(options.device.type)
    if not found.ok:
        raise MissingError("ONNX Runtime", found.reason, "a working package", INSTALL[options.device.type])
    if options.precision == "bf16":
        raise UsageError("precision", "bf16 for ONNX Runtime", "fp32 or fp16", "use eager or compile for bf16")
    return found


def session_options(options: EngineOptions) -> Any:
    """`onnxruntime.SessionOptions`: all optimisations, threads that leave the cores to PyTorch between two calls."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.intra_op_num_threads = options.cpu_threads
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = not options.dynamic_batch  # a plan of the memory is worth it for one shape only
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.set_denormal_as_zero", "1")
    return settings


def _version() -> str:
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
