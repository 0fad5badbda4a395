"""What tells one cached file from another: a frozen dataclass of plain values whose hash is the file's name.

A plan fits one network, one precision, one range of batches, one version of one backend, and often one kind of GPU.
Whatever makes a plan another one is a field of its key, so that no plan is ever looked up under the wrong name.
Knows nothing of folders and of how a plan is made.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CacheKey:
    """All that a cached file depends on. Subclasses add fields of text, numbers, or tuples of text."""

    kind: ClassVar[str]  # what the file is, in a word
    suffix: ClassVar[str]  # of the file

    graph: str

    def fields(self) -> dict[str, Any]:
        """The fields as JSON has them: a manifest is compared with this."""
        return json.loads(json.dumps(asdict(self)))

    def digest(self) -> str:
        """64 hexadecimal digits, another for every change of a field: the name of the file."""
        return digest_of_fields(self.kind, self.fields())


@dataclass(frozen=True)
class EngineKey(CacheKey):
    """A compiled plan. What does not matter to a backend is empty text."""

    kind: ClassVar[str] = "engine"
    suffix: ClassVar[str] = ".plan"

    onnx_sha256: str  # graph and weights
    precision: str  # "fp32" or "fp16"
    profile: str  # see `shape_profile`
    backend: str
    backend_version: str
    compute_capability: str  # "9.0"
    gpu_name: str
    cuda_driver: str  # the CUDA version that the driver speaks, "13.0"
    flags: tuple[str, ...]  # of the build, "name=value", sorted
    platform: str  # "linux-x86_64"


@dataclass(frozen=True)
class OnnxKey(CacheKey):
    """An exported ONNX file."""

    kind: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"

    module_sha256: str  # weights and settings of the network
    description: str  # of the graph: its summary, its inputs and outputs, what may be half
    source_sha256: str  # of the code that makes the graph
    versions: tuple[str, ...]  # of the packages that export, "name=version", sorted
    profile: str  # "static" or "dynamic"
    half: bool
    keep_float32: tuple[str, ...]


@dataclass(frozen=True)
class TraceKey(CacheKey):
    """The shapes and types of what a network's pair saves, as JSON."""

    kind: ClassVar[str] = "trace"
    suffix: ClassVar[str] = ".specs"

    module_sha256: str  # weights and settings of the network
    description: str  # as in `OnnxKey`, of the network that the pair is made from
    source_sha256: str  # of the code that traces
    versions: tuple[str, ...]  # of PyTorch and the packages that export, "name=version", sorted


@dataclass(frozen=True)
class GpuFacts:
    """The GPU that a plan is made for; all empty without one."""

    compute_capability: str = ""
    name: str = ""
    cuda_driver: str = ""


def engine_key(
    onnx_path: Path,
    graph: str,
    *,
    precision: str,
    max_batch: int,
    backend: str,
    backend_version: str,
    gpu: GpuFacts | None = None,
    flags: Mapping[str, object] | None = None,
) -> EngineKey:
    """The key of the plan that `backend` makes from an ONNX file here.

    gpu: see `gpu_facts`; leave out of it what a plan does not depend on. flags: of the build, such as refit=True.
    """
    gpu = gpu or GpuFacts()
    return EngineKey(
        graph, sha256_of_file(onnx_path), precision, shape_profile(max_batch), backend, backend_version,
        gpu.compute_capability, gpu.name, gpu.cuda_driver, texts_from_mapping(flags or {}), platform_name(),
    )  # fmt: skip


def digest_of_fields(kind: str, fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([kind, fields], sort_keys=True).encode()).hexdigest()


def shape_profile(max_batch: int) -> str:
    """ "static" for single images, "dynamic-1..16" for batches of at most 16."""
    return "static" if max_batch == 1 else f"dynamic-1..{max_batch}"


def texts_from_mapping(values: Mapping[str, object]) -> tuple[str, ...]:
    """Sorted "name=value", as keys hold settings."""
    return tuple(sorted(f"{name}={value}" for name, value in values.items()))


def platform_name() -> str:
    return f"{platform.system()}-{platform.machine()}".lower()


def gpu_facts(device: torch.device) -> GpuFacts:
    """What a plan may depend on of a CUDA device; nothing for any other."""
    if device.type != "cuda":
        return GpuFacts()
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return GpuFacts(f"{major}.{minor}", torch.cuda.get_device_name(device), cuda_driver_version())


def cuda_driver_version() -> str:
    """The CUDA version that the installed driver speaks, "13.0"; empty without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ""
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return ""
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
