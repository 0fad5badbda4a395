"""What a measurement was made on: processor, GPU, versions, threads. Nothing that names the machine or its user."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .report import installed_versions

BACKEND_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")


def environment() -> dict[str, str]:
    """Names and values, in the order in which a person reads them; what is absent is left out."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "CPU": _processor(),
        "cores": f"{allowed} of {os.cpu_count()}",
        "threads": f"{torch.get_num_threads()} in an operation, {torch.get_num_interop_threads()} between them",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        found["GPU"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, sm_{properties.major}{properties.minor}"
        )
        found["CUDA"] = str(torch.version.cuda)
        driver = _driver()
        if driver:
            found["driver"] = driver
    found |= installed_versions()
    for package in BACKEND_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    """The NVIDIA driver's version on Linux; empty elsewhere."""
    file = Path("/proc/driver/nvidia/version")
    if not file.is_file():
        return ""
    words = file.read_text(encoding="utf-8", errors="replace").splitlines()[0].split()
    return next((word for word in words if word[0].isdigit() and "." in word), "")
