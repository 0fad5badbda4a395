r"""Opens a GLB file in Blender and writes front.png, left.png, right.png and below.png.

    blender --background --factory-startup --python-exit-code 1 \
        --python benchmarks/blender_view.py -- FILE.glb OUT_DIR \
        [--size 640] [--samples 16] [--engine CYCLES|BLENDER_WORKBENCH] [--morph NAME=WEIGHT ...]

It runs inside Blender and prints what Blender made of the file as one line of JSON. It knows nothing of the
library.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy

# The glTF importer of Blender 3.4 uses two names that numpy has dropped since.
setattr(numpy, "bool", bool)  # noqa: B010  (pyright knows no such attributes)
setattr(numpy, "object", object)  # noqa: B010

import bpy  # noqa: E402  # pyright: ignore[reportMissingImports]  (it is there only inside Blender)
from mathutils import Vector  # noqa: E402  # pyright: ignore[reportMissingImports]

# From the middle of the head to the camera in Blender's axes: glTF (x, y, z) is Blender (x, -z, y).
VIEWS = {"front": (0, -1, 0), "left": (1, 0, 0), "right": (-1, 0, 0), "below": (0, -0.9, -0.8)}


def main() -> None:
    arguments = parse_arguments()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(arguments.model.resolve()))
    # The importer adds a small sphere as the shape that it draws joints with.
    meshes = [item for item in bpy.context.scene.objects if item.type == "MESH" and item.data.materials]
    for morph in arguments.morph:
        name, weight = morph.split("=")
        for mesh in meshes:
            mesh.data.shape_keys.key_blocks[name].value = float(weight)

    corners = numpy.array([mesh.matrix_world @ Vector(corner) for mesh in meshes for corner in mesh.bound_box])
    middle = Vector((corners.min(0) + corners.max(0)) / 2)
    radius = float(numpy.linalg.norm(corners.max(0) - corners.min(0)) / 2)
    camera = prepare_scene(arguments)
    for name, direction in VIEWS.items():
        place_camera(camera, middle, Vector(direction).normalized(), radius)
        bpy.context.scene.render.filepath = str((arguments.out / f"{name}.png").resolve())
        bpy.ops.render.render(write_still=True)
    print(json.dumps({"blender": bpy.app.version_string, "meshes": [describe(mesh) for mesh in meshes]}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="blender --background --python blender_view.py --")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--engine", choices=("CYCLES", "BLENDER_WORKBENCH"), default="CYCLES")
    parser.add_argument("--morph", action="append", default=[], metavar="NAME=WEIGHT")
    own = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    arguments = parser.parse_args(own)
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def prepare_scene(arguments: argparse.Namespace) -> bpy.types.Object:
    """Engine, world and a camera that carries a lamp over its left shoulder."""
    scene = bpy.context.scene
    scene.render.engine = arguments.engine
    scene.cycles.samples = arguments.samples
    scene.cycles.use_denoising = False  # Debian builds Blender without the denoiser
    scene.display.shading.color_type = "TEXTURE"  # for Workbench
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x = scene.render.resolution_y = arguments.size
    scene.world = bpy.data.worlds.new("grey")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.3, 0.3, 0.3, 1)

    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.angle = 0.44
    camera.data.clip_start = 0.01
    lamp = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    lamp.data.energy = 2.5
    lamp.parent = camera
    lamp.rotation_euler = Vector((-0.5, 0.6, 1)).to_track_quat("Z", "Y").to_euler()
    scene.collection.objects.link(camera)
    scene.collection.objects.link(lamp)
    scene.camera = camera
    return camera


def place_camera(camera: bpy.types.Object, middle: Vector, direction: Vector, radius: float) -> None:
    camera.location = middle + direction * (0.85 * radius / numpy.sin(camera.data.angle / 2))
    camera.rotation_euler = direction.to_track_quat("Z", "Y").to_euler()


def describe(mesh: bpy.types.Object) -> dict[str, object]:
    keys = mesh.data.shape_keys
    return {
        "name": mesh.name,
        "vertices": len(mesh.data.vertices),
        "materials": [material.name for material in mesh.data.materials],
        "shape_keys": [key.name for key in keys.key_blocks] if keys else [],
        "armature": [modifier.object.name for modifier in mesh.modifiers if modifier.type == "ARMATURE"],
        "images": [f"{image.name} {image.colorspace_settings.name}" for image in bpy.data.images if image.users],
    }


main()
