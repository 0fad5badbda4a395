"""Keys of the engine cache, and a builder that counts, for its tests."""

from __future__ import annotations

from pathlib import Path

from fitdiff.engines.cache_key import EngineKey, OnnxKey

KEY = EngineKey(
    graph="denoiser", onnx_sha256="ab" * 32, precision="fp16", profile="static", backend="tensorrt",
    backend_version="10.1", compute_capability="9.0", gpu_name="H100", cuda_driver="13.0", flags=("refit=True",),
    platform="linux-x86_64",
)  # fmt: skip
ONNX_KEY = OnnxKey(
    graph="denoiser", module_sha256="cd" * 32, description="z (1, 2)", source_sha256="ef" * 32,
    versions=("torch=2.13",),
    profile="static", half=False, keep_float32=("norm",),
)  # fmt: skip
PLAN = b"a plan" * 1000


class Builder:
    """Writes a plan and counts."""

    def __init__(self, data: bytes = PLAN) -> None:
        self.data, self.count = data, 0

    def __call__(self, path: Path) -> None:
        self.count += 1
        path.write_bytes(self.data)
