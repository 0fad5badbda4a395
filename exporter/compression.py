"""EXT_meshopt_compression: the buffer views of a finished glTF file, each encoded by meshoptimizer.

The arrays must already be quantised. It knows nothing of heads. `meshoptimizer` is an extra: fitdiff[meshopt].
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..errors import MissingError

EXTENSION = "EXT_meshopt_compression"
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_UINT32 = 5125


def compressed(document: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]:
    """The document and its only buffer with vertex and index views compressed; images and matrices stay.

    Buffer 0 becomes the compressed data; buffer 1, which has no data, is what the views decode to.

    Raises:
        MissingError: meshoptimizer is not installed.
    """
    encoder = _encoder()
    index_sizes = {a.get("bufferView"): 4 if a["componentType"] == _UINT32 else 2 for a in document["accessors"]}
    views, whole, fallback = [], bytearray(), 0
    for number, view in enumerate(document["bufferViews"]):
        data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        packed = _packed(encoder, view, data, index_sizes.get(number, 2))
        whole.extend(b"\0" * (-len(whole) % 4))
        if packed is None:
            views.append(view | {"byteOffset": len(whole)})
            whole.extend(data)
            continue
        stream, properties = packed
        place = {"buffer": 0, "byteOffset": len(whole), "byteLength": len(stream)}
        views.append(view | {"buffer": 1, "byteOffset": fallback, "extensions": {EXTENSION: place | properties}})
        whole.extend(stream)
        fallback += len(data) + -len(data) % 4
    whole.extend(b"\0" * (-len(whole) % 4))
    buffers: list[dict[str, Any]] = [{"byteLength": len(whole)}]
    if fallback:
        buffers.append({"byteLength": fallback, "extensions": {EXTENSION: {"fallback": True}}})
    needed = {
        "extensionsUsed": [*document.get("extensionsUsed", []), EXTENSION],
        "extensionsRequired": [*document.get("extensionsRequired", []), EXTENSION],
    }
    return document | needed | {"bufferViews": views, "buffers": buffers}, bytes(whole)


def meshoptimizer(module: str) -> Any:
    """One of the package's modules; MissingError, with the remedy, where it is not installed."""
    try:
        return getattr(importlib.import_module("meshoptimizer"), module)
    except ImportError as error:
        remedy = "pip install 'fitdiff[meshopt]', or choose another --compression"
        raise MissingError("package meshoptimizer", "it is not installed", "it", remedy) from error


def _encoder() -> Any:
    encoder = meshoptimizer("encoder")
    encoder.encode_vertex_version(0)  # the extension has the first version of both bit streams only
    encoder.encode_index_version(1)
    return encoder


def _packed(encoder: Any, view: dict[str, Any], data: bytes, index_size: int) -> tuple[bytes, dict[str, Any]] | None:
    if view.get("target") == _ARRAY_BUFFER:
        stride = view["byteStride"]
        rows = np.frombuffer(data, np.uint8).reshape(-1, stride)
        stream = encoder.encode_vertex_buffer(rows)
        return stream, {"byteStride": stride, "count": len(rows), "mode": "ATTRIBUTES"}
    if view.get("target") == _ELEMENT_ARRAY_BUFFER:
        indices = np.frombuffer(data, np.uint16 if index_size == 2 else np.uint32)
        stream = encoder.encode_index_buffer(indices.astype(np.uint32))
        return stream, {"byteStride": index_size, "count": len(indices), "mode": "TRIANGLES"}
    return None
