"""The binary half of a glTF file: arrays go in, accessors and buffer views come out.

Arrays of one kind lie one after another in one named buffer view. It knows glTF 2.0 section 3.6 and nothing
of heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENT_TYPES = {
    np.dtype(np.int8): 5120,
    np.dtype(np.uint8): 5121,
    np.dtype(np.int16): 5122,
    np.dtype(np.uint16): 5123,
    np.dtype(np.uint32): 5125,
    np.dtype(np.float32): 5126,
}
_ELEMENT_TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_LARGEST_U16 = 65534  # 65535 is the primitive restart value


@dataclass
class _View:
    data: bytearray = field(default_factory=bytearray)
    properties: dict[str, int] = field(default_factory=dict)

    def append(self, data: bytes) -> int:
        self.data.extend(b"\0" * (-len(self.data) % 4))
        offset = len(self.data)
        self.data.extend(data)
        return offset


class BinaryChunk:
    """Collects arrays and images; `accessors` grows as they come, `finish` gives the views and bytes."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self._views: dict[str, _View] = {}
        self._zeros: dict[tuple[int, bool, np.dtype], int] = {}

    def add_vertices(self, view: str, array: npt.NDArray, *, bounds: bool = False, normalized: bool = False) -> int:
        """Accessor of a vertex attribute (N, C); `bounds` writes min and max, which positions must have.

        Rows are padded to whole words, as glTF 2.0, 3.6.2.4 wants them.
        """
        row = array.itemsize * array.shape[1]
        padding = -row % 4 // array.itemsize
        padded = np.pad(array, ((0, 0), (0, padding))) if padding else array
        properties = {"byteStride": array.itemsize * padded.shape[1], "target": ARRAY_BUFFER}
        accessor = self._dense(view, padded, properties) | {"type": _ELEMENT_TYPES[array.shape[1:]]}
        if normalized:
            accessor["normalized"] = True
        return self._append(accessor | (_bounds(array) if bounds else {}))

    def add_indices(self, view: str, indices: npt.NDArray[np.uint32]) -> int:
        """Accessor of triangle indices, in 16 bits where they fit."""
        return self._append(
            self._dense(view, _narrow(indices, int(indices.max())).ravel(), {"target": ELEMENT_ARRAY_BUFFER})
        )

    def add_matrices(self, view: str, matrices: npt.NDArray[np.float32]) -> int:
        """Accessor of matrices (N, 4, 4), rows as numpy has them, stored in columns as glTF wants."""
        return self._append(self._dense(view, np.ascontiguousarray(matrices.transpose(0, 2, 1)), {}))

    def add_sparse(
        self,
        view: str,
        count: int,
        index: npt.NDArray[np.uint32],
        values: npt.NDArray,
        *,
        bounds: bool = False,
        normalized: bool = False,
    ) -> int:
        """`count` vectors, zero but for `values` (P, 3) at the increasing `index` (P,); P may be 0."""
        accessor: dict[str, Any] = {"componentType": _COMPONENT_TYPES[values.dtype], "count": count, "type": "VEC3"}
        if normalized:
            accessor["normalized"] = True
        if bounds:
            zero = np.zeros((int(count > len(index)), 3), values.dtype)  # a row that stands for all others
            accessor |= _bounds(np.concatenate([values, zero]))
        # glTF reads what has no buffer view as zeros. UnityGLTF, Godot before 4.1 and Assimp do not, so all targets
        # lean on one run of zeros.
        row = values.dtype.itemsize * 3
        accessor |= self._zeros_view(count, row + -row % 4)
        if not len(index):
            known = (count, bounds, values.dtype)
            if known not in self._zeros:
                self._zeros[known] = self._append(accessor)
            return self._zeros[known]
        keys = self._dense(f"{view} indices", _narrow(index, count - 1), {})
        data = self._dense(f"{view} values", values, {})
        accessor["sparse"] = {
            "count": len(index),
            "indices": {key: keys[key] for key in ("bufferView", "byteOffset", "componentType")},
            "values": {key: data[key] for key in ("bufferView", "byteOffset")},
        }
        return self._append(accessor)

    def _zeros_view(self, count: int, stride: int) -> dict[str, int]:
        """Place of `count` rows of zeros, which all accessors of this stride share."""
        name = f"zeros of {stride} bytes"
        properties = {"byteStride": stride, "target": ARRAY_BUFFER}
        view = self._views.setdefault(name, _View(properties=properties))
        view.data.extend(bytes(max(0, count * stride - len(view.data))))
        return {"bufferView": list(self._views).index(name), "byteOffset": 0}

    def add_image(self, name: str, data: bytes) -> int:
        """Buffer view of an encoded image."""
        self._views[name] = _View(bytearray(data))
        return len(self._views) - 1

    def finish(self) -> tuple[list[dict[str, Any]], bytes]:
        """Buffer views and the bytes of the only buffer."""
        views, whole = [], bytearray()
        for name, view in self._views.items():
            whole.extend(b"\0" * (-len(whole) % 4))
            views.append(
                {"name": name, "buffer": 0, "byteOffset": len(whole), "byteLength": len(view.data)} | view.properties
            )
            whole.extend(view.data)
        return views, bytes(whole) + b"\0" * (-len(whole) % 4)

    def _dense(self, name: str, array: npt.NDArray, properties: dict[str, int]) -> dict[str, Any]:
        view = self._views.setdefault(name, _View(properties=properties))
        return {
            "bufferView": list(self._views).index(name),
            "byteOffset": view.append(array.tobytes()),
            "componentType": _COMPONENT_TYPES[array.dtype],
            "count": len(array),
            "type": _ELEMENT_TYPES[array.shape[1:]],
        }

    def _append(self, accessor: dict[str, Any]) -> int:
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _narrow(indices: npt.NDArray[np.uint32], largest: int) -> npt.NDArray:
    return indices.astype(np.uint16 if largest <= _LARGEST_U16 else np.uint32)


def _bounds(array: npt.NDArray) -> dict[str, list[float]]:
    return {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
