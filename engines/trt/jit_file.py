"""Kernels that TensorRT-RTX finished for this GPU, in a file beside the plan: the next start does without compiling.

The file is SHA-256, then what `IRuntimeCache` writes. One that is cut short, changed or of another version is passed
over and written anew.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

DIGEST = 32  # bytes of SHA-256


class JitFile:
    """The runtime cache of one engine, and the file that it lives in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._saved = b""

    def attach(self, config: Any) -> None:
        """Let contexts made from this runtime configuration take kernels from the file, and add theirs."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            blob = kernels_from_file(self._path)
            if blob and self._cache.deserialize(blob):
                self._saved = hashlib.sha256(blob).digest()
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write what was added since the last time."""
        written = self._cache.serialize()
        blob = bytes(memoryview(written)) if written is not None else b""
        if blob and hashlib.sha256(blob).digest() != self._saved:
            self._saved = write_kernels(self._path, blob)


def kernels_from_file(path: Path) -> bytes:
    """What `write_kernels` wrote; empty where there is no such file or it is not whole."""
    if not path.is_file():
        return b""
    content = path.read_bytes()
    digest, blob = content[:DIGEST], content[DIGEST:]
    return blob if hashlib.sha256(blob).digest() == digest else b""


def write_kernels(path: Path, blob: bytes) -> bytes:
    """Write in one step, and answer the SHA-256. A folder that cannot be written costs the next start some seconds."""
    digest = hashlib.sha256(blob).digest()
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(digest + blob)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
    return digest
