"""What this installation can do, and what to do about what it cannot.

Works where packages are missing: everything beyond the standard library is looked for before it is imported.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

State = Literal["ok", "note", "missing"]

CORE = {  # distribution -> module
    "torch": "torch", "numpy": "numpy", "safetensors": "safetensors", "opencv-python-headless": "cv2",
    "pillow": "PIL", "click": "click", "rich": "rich", "filelock": "filelock", "platformdirs": "platformdirs",
}  # fmt: skip
EXTRAS = {
    "train": {"tensorboard": "tensorboard"},
    "engines": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `missing` means that an avatar cannot be made without it."""

    group: str
    name: str
    state: State
    detail: str
    remedy: str = ""


def examine() -> tuple[Finding, ...]:
    """Look at everything, the cheap things first."""
    packages = tuple(_packages())
    if any(finding.state == "missing" for finding in packages):
        return packages
    return (*packages, *_backends(), *_models(), *_paper_preset())


def _packages() -> Iterator[Finding]:
    yield Finding("packages", "python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("packages", "fitdiff", "ok", _version("fitdiff") or "used from its source folder")
    for distribution, module in CORE.items():
        found = find_spec(module) is not None
        detail = _version(distribution) or ("version unknown" if found else "not installed")
        remedy = "" if found else f"pip install {distribution}"
        yield Finding("packages", distribution, "ok" if found else "missing", detail, remedy)
    for extra, modules in EXTRAS.items():
        for distribution, module in modules.items():
            if find_spec(module):
                yield Finding("packages", distribution, "ok", _version(distribution) or "version unknown")
            else:
                remedy = f"for {extra}: pip install 'fitdiff[{extra}]'"
                yield Finding("packages", distribution, "note", "not installed", remedy)


def _backends() -> Iterator[Finding]:
    import torch

    try:
        from ..native import raster

        yield Finding("backends", "rasteriser", "ok", f"compiled ({raster.__name__})")
    except ImportError:
        remedy = "slower, same pictures; `pip install .` with a C++ compiler builds the fast one"
        yield Finding("backends", "rasteriser", "note", "PyTorch twin", remedy)
    from ..engines.backends import backend_table

    for row in backend_table():
        version = f" {row.found.version}" if row.found.version else ""
        detail = f"{row.found.reason}{version}"
        yield Finding("backends", f"{row.name} ({row.device_type})", "ok" if row.found.ok else "note", detail)
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} logical cores"
    yield Finding("backends", "threads", "ok", threads)


def _models() -> Iterator[Finding]:
    from ..models.checkpoint import assets_dir
    from .registry import installed_models, mismatch

    source = "FITDIFF_ASSETS" if os.environ.get("FITDIFF_ASSETS") else "embedded"
    yield Finding("models", "folder", "ok", f"{assets_dir()} ({source})")
    models = installed_models()
    for model in models:
        if model.problem is not None:
            yield Finding("models", model.name, "missing", f"got {model.problem.got}", model.problem.remedy)
        elif model.card is not None:
            detail = f"{model.card.name}, {model.bytes / 2**20:.1f} MiB, SHA-256 agrees"
            yield Finding("models", model.name, "ok", detail)
    if problem := mismatch(models):
        yield Finding("models", "together", "missing", str(problem), problem.remedy)


def _paper_preset() -> Iterator[Finding]:
    from .preset_pieces import PYTORCH3D, RASTERISER_COMMAND
    from .presets import EMBEDDED, preset_path, preset_states

    group = "paper preset"
    file = preset_path()
    yield Finding(group, "file", "ok" if file.is_file() else "note", f"{file}{'' if file.is_file() else ', absent'}")
    for state in preset_states():
        if state.path is not None or state.embedded:
            yield Finding(group, state.piece.key, "ok", str(state.path or EMBEDDED))
        else:
            yield Finding(group, state.piece.key, "note", f"not found: {state.piece.what}", state.command)
    if find_spec(PYTORCH3D):
        yield Finding(group, "rasteriser", "ok", f"{PYTORCH3D} {_version(PYTORCH3D)}")
    else:
        yield Finding(group, "rasteriser", "note", f"{PYTORCH3D} not installed", RASTERISER_COMMAND)


def _version(distribution: str) -> str:
    """Installed version, empty where the distribution is unknown."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
