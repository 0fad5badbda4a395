"""three.js's GLTFLoader in headless Chromium: what it reads, and its picture against our own renderer's."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fitdiff.exporter.viewer import PageServer, routes_of_avatar

SIZE = 256
MATERIALS = """
fitdiffView.levels[0].meshes.map(({ material, morphTargetDictionary, skeleton }) => ({
  material: material.name,
  targets: Object.keys(morphTargetDictionary ?? {}),
  joints: skeleton?.bones.map((bone) => bone.name),
  spaces: ['map', 'normalMap', 'roughnessMap', 'specularColorMap'].map((slot) => material[slot]?.colorSpace),
  alphaTest: material.alphaTest,
  transparent: material.transparent,
}))
"""


@pytest.fixture(scope="module")
def page(head_glb: SimpleNamespace) -> Iterator[str]:
    with PageServer(routes_of_avatar([head_glb.path])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url + "?plain"
        server.shutdown()


def look(importers: ModuleType, head: SimpleNamespace, yaw: float, light: tuple[float, ...]) -> str:
    """JavaScript that gives the page the camera of `importers.camera_of` and one light, in world axes."""
    x, y, z = importers.middle_of(head.file).tolist()
    sin, cos = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
    distance = importers.DISTANCE
    # The light is given in the view frame.
    a, b, c = light
    world = [a * cos + c * sin, b, -a * sin + c * cos]
    return f"""(() => {{
      const {{ camera, controls, lighting, scene, draw }} = fitdiffView;
      scene.background.set('#ff00ff');
      lighting.setEnvironment(false);
      lighting.key.position.set(...{json.dumps(world)});
      lighting.key.intensity = Math.PI;
      camera.fov = {importers.FOV};
      camera.updateProjectionMatrix();
      controls.target.set({x}, {y}, {z});
      camera.position.set({x + distance * sin}, {y}, {z + distance * cos});
      controls.update();
      draw();
    }})()"""


@pytest.fixture(scope="module")
def seen(
    page: str, head_glb: SimpleNamespace, importers: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    direction = tuple(importers.flat_light().direction[0].tolist())
    steps: list[dict[str, Any]] = [{"wait": "window.fitdiffView"}, {"run": MATERIALS}]
    for name, yaw in (("front", 0), ("left", 90)):
        steps += [{"run": look(importers, head_glb, yaw, direction)}, {"shot": f"{name}_lit"}]
    steps += [{"run": "fitdiffView.surfaces.show('base'), fitdiffView.draw()"}]
    for name, yaw in (("front", 0), ("left", 90)):
        steps += [{"run": look(importers, head_glb, yaw, direction)}, {"shot": f"{name}_base"}]
    answer, shots = importers.drive(page, tmp_path_factory.mktemp("three"), steps, (SIZE, SIZE))
    return SimpleNamespace(answer=answer, shots=shots)


def test_it_reads_every_material_and_blendshape(seen: SimpleNamespace, head_glb: SimpleNamespace) -> None:
    assert seen.answer["problems"] == []
    meshes = seen.answer["values"][0]
    assert {m["material"] for m in meshes} == {p.material["name"] for p in head_glb.file.primitives}
    for mesh in meshes:
        assert mesh["targets"] == list(head_glb.avatar.topology.blendshape_names)
        assert mesh["joints"]
        if mesh["transparent"]:
            continue
        for space, expected in zip(mesh["spaces"], ("srgb", "", "", "srgb"), strict=True):
            assert space in (expected, None), mesh["material"]  # None: it has no such texture
        assert mesh["spaces"][0] == "srgb"
        assert mesh["alphaTest"] == (0.5 if mesh["material"] == "FitDiff_Lashes" else 0)


@pytest.mark.parametrize(("view", "yaw"), [("front", 0), ("left", 90)])
def test_the_same_silhouette_and_base_colour(
    view: str, yaw: int, seen: SimpleNamespace, head_glb: SimpleNamespace, importers: ModuleType
) -> None:
    camera = importers.camera_of(head_glb.file, SIZE, yaw)
    ours = importers.our_picture(head_glb.file, camera, importers.flat_light(), flat=True)
    theirs = seen.shots[f"{view}_base"]
    iou = importers.overlap(ours[..., 3] > 127, importers.silhouette(theirs))
    off = importers.colour_distance(ours, theirs)
    print(f"{view}: silhouette IoU {iou:.4f}; colour off by {off.mean():.2f} levels, 95th {np.percentile(off, 95):.1f}")
    assert iou > 0.985
    assert off.mean() < 3 and np.percentile(off, 95) < 8


@pytest.mark.parametrize(("view", "yaw"), [("front", 0), ("left", 90)])
def test_the_same_shading(
    view: str, yaw: int, seen: SimpleNamespace, head_glb: SimpleNamespace, importers: ModuleType
) -> None:
    camera = importers.camera_of(head_glb.file, SIZE, yaw)
    ours = importers.our_picture(head_glb.file, camera, importers.flat_light(ambient=0.0, directional=1.0))
    # Mipmaps there, two samples a pixel here: fine normals are averaged otherwise.
    off = importers.colour_distance(ours, seen.shots[f"{view}_lit"])
    print(f"{view}, one light: off by {off.mean():.2f} levels of 255, 95th percentile {np.percentile(off, 95):.1f}")
    assert off.mean() < 5 and np.percentile(off, 95) < 16


def test_the_pictures_are_of_a_head(seen: SimpleNamespace, importers: ModuleType, tmp_path: Path) -> None:
    for name, picture in seen.shots.items():
        share = importers.silhouette(picture).mean()
        assert 0.1 < share < 0.7, name
        assert picture.std() > 10, name
