"""ONNX files of graphs, exported once and kept in the engine cache. Knows nothing of what runs them.

An export takes seconds to minutes, its key far less than a second: the key hashes the network, the specs, the source
files that a graph is made by, and the versions of what exports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .cache import EngineCache
from .cache_key import OnnxKey
from .export import export_onnx
from .fingerprint import sha256_of_module
from .graph import Graph, description_of_graph
from .installed import exporter_versions, source_sha256


def onnx_file(
    onnx_cache: EngineCache,
    graph: Graph,
    *,
    dynamic_batch: bool,
    half: bool = False,
    keep_float32: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Path:
    """The exported graph, from the cache where it is there. The options are those of `export_onnx`.

    Raises:
        MissingError: a package that exports is not installed.
        UsageError: the cache folder cannot be written.
    """
    key = onnx_key(graph, dynamic_batch=dynamic_batch, half=half, keep_float32=keep_float32)

    def build(path: Path) -> None:
        export_onnx(graph, path, dynamic_batch=dynamic_batch, half=half, keep_float32=keep_float32)

    def say(text: str) -> None:
        if progress:
            progress("exporting" if text == "building" else text)

    return onnx_cache.get_or_build(key, build, say)


def onnx_key(graph: Graph, *, dynamic_batch: bool, half: bool, keep_float32: Sequence[str] = ()) -> OnnxKey:
    """What an exported file depends on; one for both precisions where the graph has nothing in half."""
    return OnnxKey(
        graph=graph.name,
        module_sha256=sha256_of_module((graph.made_from or graph).module),  # nothing is traced for a key
        description=description_of_graph(graph),
        source_sha256=source_sha256(),
        versions=exporter_versions(),
        profile="dynamic" if dynamic_batch else "static",
        half=half and graph.has_half,
        keep_float32=tuple(keep_float32),
    )
