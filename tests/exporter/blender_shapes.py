r"""Imports a GLB file in Blender and plays each blendshape; writes where every vertex went.

    blender --background --factory-startup --python-exit-code 1 --python tests/exporter/blender_shapes.py -- \
        FILE.glb OUT.npz

It runs inside Blender. The arrays, in glTF's axes and metres: "OBJECT/rest" (N, 3), "OBJECT/NAME" (N, 3) at full
weight of that shape, skin deformation included.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy

# The glTF importer of Blender 3.4 uses two names that numpy has dropped since.
setattr(numpy, "bool", bool)  # noqa: B010  (pyright knows no such attributes)
setattr(numpy, "object", object)  # noqa: B010

import bpy  # noqa: E402  # pyright: ignore[reportMissingImports]  (it is there only inside Blender)


def main() -> None:
    model, out = (Path(argument).resolve() for argument in sys.argv[sys.argv.index("--") + 1 :])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(model))
    arrays = {}
    for item in bpy.context.scene.objects:
        if item.type != "MESH" or not item.data.materials:
            continue  # the importer adds a small sphere as the shape that it draws joints with
        arrays[f"{item.name}/rest"] = played(item)
        for key in item.data.shape_keys.key_blocks[1:] if item.data.shape_keys else []:
            key.value = 1
            arrays[f"{item.name}/{key.name}"] = played(item)
            key.value = 0
    numpy.savez(out, **arrays)


def played(item: bpy.types.Object) -> numpy.ndarray:
    """(N, 3) vertices in the scene with all modifiers, as glTF has them: Blender (x, y, z) is glTF (x, z, -y)."""
    graph = bpy.context.evaluated_depsgraph_get()
    graph.update()
    evaluated = item.evaluated_get(graph)
    mesh = evaluated.to_mesh()
    flat = numpy.empty(3 * len(mesh.vertices), numpy.float32)
    mesh.vertices.foreach_get("co", flat)
    evaluated.to_mesh_clear()
    matrix = numpy.array(item.matrix_world)
    points = flat.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    return numpy.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1).astype(numpy.float32)


main()
