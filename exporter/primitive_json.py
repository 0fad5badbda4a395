"""One primitive of the mesh as accessors: in floats, or in the small integers of KHR_mesh_quantization.

It knows nothing of materials' contents and of nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .accessors import BinaryChunk
from .mesh import MorphTarget, Primitive
from .quantisation import PositionGrid, byte_weights, signed, unsigned16
from .textures.texture_set import Window

FloatArray = npt.NDArray[np.float32]


def primitive_json(
    primitive: Primitive,
    material: int,
    chunk: BinaryChunk,
    *,
    window: Window | None = None,
    bent: bool = True,
    grid: PositionGrid | None = None,
    dense: bool = False,
) -> dict[str, Any]:
    """Add the primitive's arrays to the chunk.

    Every target has both attributes, zeros where a blendshape leaves the primitive alone: readers want equal lists.

    Args:
        window: the square of the atlas that the material's images show, None for a material without any.
        bent: whether a normal map is laid on it, which takes tangents.
        grid: where positions are quantised, None for floats.
        dense: morph targets with their zeros, for a compressor that does away with them, instead of sparse ones.
    """
    add = chunk.add_vertices
    if grid is None:
        shape = {
            "POSITION": add("positions", primitive.positions, bounds=True),
            "NORMAL": add("normals", primitive.normals),
        }
    else:
        shape = {
            "POSITION": add("positions", grid.positions(primitive.positions), bounds=True, normalized=True),
            "NORMAL": add("normals", signed(primitive.normals, np.int8), normalized=True),
        }
    if bent and grid is None:
        shape["TANGENT"] = add("tangents", primitive.tangents)
    elif bent:
        shape["TANGENT"] = add("tangents", signed(primitive.tangents, np.int8), normalized=True)
    if window is not None:
        corner = np.array([window.u, window.v], np.float32)
        uv = np.clip((primitive.uv - corner) / np.float32(window.size), 0, 1).astype(np.float32)
        name = "texture coordinates"
        shape["TEXCOORD_0"] = add(name, uv) if grid is None else add(name, unsigned16(uv), normalized=True)
    weights = byte_weights(primitive.joint_weight)
    joints = np.where(weights > 0, primitive.joint_index, 0).astype(np.uint8)  # no weight, no joint: 3.7.3.3
    skin = {"JOINTS_0": add("joints", joints), "WEIGHTS_0": add("weights", weights, normalized=True)}
    fixed = {
        "attributes": shape | skin,
        # A view each: padding between two would read as an index to a compressor.
        "indices": chunk.add_indices(f"triangles {len(chunk.accessors)}", primitive.triangles),
        "material": material,
    }
    count = len(primitive.positions)
    targets = [_target_json(target, count, chunk, grid, dense=dense) for target in primitive.targets]
    return fixed | ({"targets": targets} if targets else {})


def _target_json(
    target: MorphTarget, count: int, chunk: BinaryChunk, grid: PositionGrid | None, *, dense: bool
) -> dict[str, int]:
    position, normal = target.position_delta, target.normal_delta
    if grid is None:
        return {
            "POSITION": chunk.add_sparse("morph", count, target.position_index, position, bounds=True),
            "NORMAL": chunk.add_sparse("morph", count, target.normal_index, normal),
        }
    offsets, turns = grid.offsets(position), signed(normal, np.int8)
    if not dense:
        add = chunk.add_sparse
        return {
            "POSITION": add("morph", count, target.position_index, offsets, bounds=True, normalized=True),
            "NORMAL": add("morph", count, target.normal_index, turns, normalized=True),
        }
    return {
        "POSITION": chunk.add_vertices(
            "morph positions", _spread(count, target.position_index, offsets), bounds=True, normalized=True
        ),
        "NORMAL": chunk.add_vertices("morph normals", _spread(count, target.normal_index, turns), normalized=True),
    }


def _spread(count: int, index: npt.NDArray[np.uint32], values: npt.NDArray) -> npt.NDArray:
    whole = np.zeros((count, 3), values.dtype)
    whole[index] = values
    return whole
