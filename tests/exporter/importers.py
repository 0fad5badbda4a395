"""What the tests of importers share: a real head, the file read back, our picture of it, a browser.

`conftest.py` hands this module out as the fixture `importers`.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fitdiff.exporter.engine_check.glb_file import GlbFile
from fitdiff.models.checkpoint import ModelCard
from fitdiff.models.morphable import load_morphable
from fitdiff.rendering.camera import Camera, camera_front
from fitdiff.rendering.head_atlas import load_head_atlas
from fitdiff.rendering.pictures import picture_of_head
from fitdiff.rendering.renderer import HeadMapsTensor, HeadRenderer
from fitdiff.rendering.shader import Light, linear_from_srgb
from fitdiff.runtime.avatar import Avatar
from fitdiff.runtime.avatar_maps import head_maps_from_tensors, reflectance_maps

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "tests" / "node_modules"
BACKDROP = (255, 0, 255)  # behind a head in every picture that is compared
DISTANCE, FOV = 1.2, 15.0  # metres; degrees from the top to the bottom of a square picture


def average_head() -> Avatar:
    """The embedded mean head with all 52 blendshapes and the neutral atlas: no network, no photo."""
    model, _ = load_morphable()
    atlas, _ = load_head_atlas()
    face = atlas.neutral_face()
    vertices = model.mean.numpy()
    return Avatar(
        vertices=vertices,
        expression_offset=np.zeros_like(vertices),
        expression_weights={"jawOpen": 0.25},
        topology=model.topology(),
        face_maps=reflectance_maps(face),
        head_maps=head_maps_from_tensors(atlas.compose(face)),
        light={"ambient": [0.5] * 3, "directional": [1.0] * 3, "direction": [0.0, 0.0, 1.0]},
        pose=None,
        models=(ModelCard("morphable", "mean", "test", "CC0-1.0", True, "0" * 64),),
        seed=0,
    )


@dataclass(frozen=True, eq=False)
class FilePrimitive:
    """One primitive as it stands in a file; `morphs` (K, N, 3) metres, `uv` (N, 2) v down."""

    mesh: str
    material: dict[str, Any]
    positions: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    morphs: np.ndarray


@dataclass(frozen=True, eq=False)
class FileHead:
    """The first level of detail of a file, with the names of its blendshapes."""

    glb: GlbFile
    shapes: tuple[str, ...]
    primitives: tuple[FilePrimitive, ...]


def read_head(path: Path) -> FileHead:
    glb = GlbFile.from_bytes(path.read_bytes())
    primitives, shapes = [], ()
    for node in glb.items("nodes"):
        if "mesh" not in node or "_LOD" in node.get("name", "").replace("_LOD0", ""):
            continue
        mesh = glb.items("meshes")[node["mesh"]]
        shapes = shapes or tuple(mesh.get("extras", {}).get("targetNames", []))
        for primitive in mesh["primitives"]:
            places = primitive["attributes"]
            positions = glb.array(places["POSITION"])
            morphs = [glb.array(target["POSITION"]) for target in primitive.get("targets", [])]
            primitives.append(
                FilePrimitive(
                    mesh=mesh["name"],
                    material=glb.items("materials")[primitive["material"]],
                    positions=positions,
                    uv=uv_of(glb, places, len(positions)),
                    triangles=glb.array(primitive["indices"]).reshape(-1, 3).astype(np.int64),
                    morphs=np.array(morphs).reshape(-1, *positions.shape),
                )
            )
    return FileHead(glb, shapes, tuple(primitives))


def uv_of(glb: GlbFile, places: dict[str, int], count: int) -> np.ndarray:
    """(N, 2); zeros for a primitive without textures."""
    return glb.array(places["TEXCOORD_0"]) if "TEXCOORD_0" in places else np.zeros((count, 2), np.float32)


def shared_atlas(head: FileHead) -> HeadMapsTensor:
    """The textures of the skin, decoded as glTF says."""
    material = next(p.material for p in head.primitives if "Skin" in p.material["name"])
    specular = material.get("extensions", {}).get("KHR_materials_specular", {})
    base = _texels(head, material["pbrMetallicRoughness"]["baseColorTexture"])
    normal = _texels(head, material["normalTexture"])[:, :3] * 2 - 1
    roughness = _texels(head, material["pbrMetallicRoughness"]["metallicRoughnessTexture"])[:, 1:2]
    f0 = torch.full_like(roughness, 0.04)
    if "specularColorTexture" in specular:
        grey = linear_from_srgb(_texels(head, specular["specularColorTexture"])[:, :1])
        f0 = (grey * 0.04 * specular.get("specularColorFactor", [1.0])[0]).clamp(max=0.08)
    size = base.shape[2:]
    f0, roughness, normal = (torch.nn.functional.interpolate(m, size, mode="bilinear") for m in (f0, roughness, normal))
    return HeadMapsTensor(linear_from_srgb(base[:, :3]), f0, normal, roughness, base[:, 3:])


def our_picture(head: FileHead, camera: Camera, light: Light, flat: bool = False) -> np.ndarray:
    """(H, W, 4) uint8: the file through our own renderer; `flat` shows the base colour alone. Glass is left out."""
    renderer, vertices, maps = _renderable(head)
    if flat:
        maps = HeadMapsTensor(maps.albedo, alpha=maps.alpha)
    return picture_of_head(renderer, vertices, maps, camera, light)


@cache
def _renderable(head: FileHead) -> tuple[HeadRenderer, torch.Tensor, HeadMapsTensor]:
    primitives = [p for p in head.primitives if p.material.get("alphaMode") != "BLEND"]
    corners = np.concatenate([p.positions[p.triangles].reshape(-1, 3) for p in primitives])
    uv = np.concatenate([p.uv[p.triangles] for p in primitives])
    cut = [np.full(len(p.triangles), p.material.get("alphaMode") == "MASK") for p in primitives]
    # Welded, because the renderer makes its own normals.
    whole = np.rint(corners * 1e6).astype(np.int64) + 2**20
    keys = (whole[:, 0] << 42) + (whole[:, 1] << 21) + whole[:, 2]
    _, first, triangles = np.unique(keys, return_index=True, return_inverse=True)
    renderer = HeadRenderer(
        torch.from_numpy(triangles.reshape(-1, 3)),
        torch.from_numpy(uv),
        torch.from_numpy(np.concatenate(cut).astype(np.int64)),
        ("skin", "lashes"),
    )
    return renderer, torch.from_numpy(corners[first])[None], shared_atlas(head)


def middle_of(head: FileHead) -> np.ndarray:
    points = np.concatenate([p.positions for p in head.primitives])
    return (points.min(0) + points.max(0)) / 2


def camera_of(head: FileHead, size: int, yaw_degrees: float = 0.0) -> Camera:
    """The camera that `look` gives a browser too."""
    focal = size / 2 / math.tan(math.radians(FOV) / 2)
    return camera_front(torch.from_numpy(middle_of(head)), DISTANCE, focal, size, yaw=math.radians(yaw_degrees))


def flat_light(ambient: float = 1.0, directional: float = 0.0) -> Light:
    """From the camera's upper left, view frame."""
    direction = torch.tensor([[-0.4, 0.6, 0.8]])
    return Light(torch.full((1, 3), ambient), torch.full((1, 3), directional), direction / direction.norm())


def silhouette(picture: np.ndarray) -> np.ndarray:
    """(H, W) bool: where a screenshot is not the backdrop."""
    return (np.abs(picture[..., :3].astype(int) - BACKDROP).max(-1)) > 24


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / (first | second).sum())


def colour_distance(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(N,) largest difference of a channel, 8-bit levels, inside both silhouettes, away from their edges."""
    inside = (ours[..., 3] == 255) & silhouette(theirs)
    for _ in range(3):
        padded = np.pad(inside, 1)
        inside = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.abs(ours[..., :3].astype(int) - theirs[..., :3].astype(int)).max(-1)[inside]


def red_cheek(picture: np.ndarray) -> np.ndarray:
    """(N, 2) rows and columns of the marked avatar's cheek, however its textures were toned; its mouth is bluer."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return np.argwhere((red > 110) & (red > 2 * green) & (green > blue))


def drive(
    url: str, out: Path, steps: list[dict[str, Any]], size: tuple[int, int] = (384, 384)
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Do the steps on a page in headless Chromium: what it answers, and (H, W, 3) screenshots by name. May skip."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (MODULES / "playwright-core").is_dir():
        pytest.skip("playwright-core is not installed: run `npm ci --prefix tests`")
    plan = {"url": url, "width": size[0], "height": size[1], "steps": steps}
    script = ROOT / "tests" / "exporter" / "drive_page.mjs"
    run = subprocess.run([node, script, out], input=json.dumps(plan), capture_output=True, text=True, timeout=300)
    if run.returncode == 3:
        pytest.skip("Chromium is not installed")
    assert run.returncode == 0, run.stderr
    names = [step["shot"] for step in steps if "shot" in step]
    return json.loads(run.stdout), {n: np.asarray(Image.open(out / f"{n}.png").convert("RGB")) for n in names}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder at an address on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


def _texels(head: FileHead, texture: dict[str, Any]) -> torch.Tensor:
    """(1, 4, H, W) in [0, 1] as they stand in the file."""
    about = head.glb.items("textures")[texture["index"]]
    data = head.glb.image_bytes(about["source"])
    assert data is not None
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
