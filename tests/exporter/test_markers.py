"""The classic mistakes of an export, each with a mark that a wrong one would move: left and right, up, facing, metres,
sRGB, normal direction, flipped textures, blendshape names. Seen in three.js as a user sees it.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fitdiff.exporter.gltf import write_glb
from fitdiff.exporter.viewer import PageServer, routes_of_avatar
from fitdiff.runtime.avatar import Avatar

SIZE = 256
BUMP = (0.0, 0.62, 0.78)  # direction of a dome on the forehead, from the middle of the head
BUMP_TEXELS = 14  # its radius
EYE_WHITE, MOUTH = (235, 235, 235), (120, 30, 40)
VIEWS = {"front": (0, 0, 1), "left": (1, 0, 0), "right": (-1, 0, 0), "back": (0, 0, -1)}


def with_bump(avatar: Avatar, row: int, column: int) -> Avatar:
    """The same avatar with a dome in its normal map: normals lean away from its middle, green up."""
    maps = avatar.head_maps
    rows, columns = np.indices(maps.specular.shape)
    right, up = (columns - column) / BUMP_TEXELS, -(rows - row) / BUMP_TEXELS
    inside = np.asarray(right**2 + up**2 < 0.9)
    dome = np.stack([right, up, np.sqrt(np.maximum(1 - right**2 - up**2, 0.1))], -1)
    dome /= np.linalg.norm(dome, axis=-1, keepdims=True)
    normal = np.where(inside[..., None], dome, maps.normal).astype(np.float32)
    return dataclasses.replace(avatar, head_maps=dataclasses.replace(maps, normal=normal))


def look(direction: tuple[float, ...]) -> str:
    return f"""(() => {{
      const {{ scene, lighting, camera, lookFrom }} = fitdiffView;
      scene.background.set('#ff00ff');
      lighting.setEnvironment(false);
      camera.fov = 15;
      camera.updateProjectionMatrix();
      lookFrom({json.dumps(direction)});
    }})()"""


def lit_from(direction: tuple[float, ...], normals: bool) -> str:
    return f"""(() => {{
      const {{ lighting, surfaces, draw }} = fitdiffView;
      lighting.key.position.set(...{json.dumps(direction)});
      lighting.key.intensity = 2;
      surfaces.enable('normal', {json.dumps(normals)});
      surfaces.enable('specular', false);
      draw();
    }})()"""


@pytest.fixture(scope="module")
def bumped(avatar: Avatar, marks: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    # The skin's chart of the marked avatar: longitude right and latitude down in the left 60% of the atlas.
    unit = np.array(BUMP) / np.linalg.norm(BUMP)
    u = 0.02 + 0.56 * (np.arctan2(unit[0], unit[2]) / (2 * np.pi) + 0.5)
    v = 0.02 + 0.96 * np.arccos(unit[1]) / np.pi
    path: Path = tmp_path_factory.mktemp("bump") / "avatar.glb"
    made = with_bump(avatar, int(v * marks.side), int(u * marks.side))
    write_glb(made, path)
    return SimpleNamespace(path=path, avatar=made)


@pytest.fixture(scope="module")
def seen(bumped: SimpleNamespace, importers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    steps: list[dict[str, Any]] = [{"wait": "window.fitdiffView"}]
    for name, direction in (("above", (0, 1, -0.3)), ("left", (1, 0, 0.3))):
        for normals in (True, False):
            steps += [{"run": look(VIEWS["front"])}, {"run": lit_from(direction, normals)}]
            steps += [{"shot": f"lit_{name}_{'bump' if normals else 'flat'}"}]
    steps += [{"run": "fitdiffView.surfaces.show('base')"}]
    for view, direction in VIEWS.items():
        steps += [{"run": look(direction)}, {"shot": view}]
    steps += [{"run": look(VIEWS["front"])}]
    for shape in ("eyeBlinkLeft", "jawOpen"):
        steps += [{"run": f"fitdiffView.setShape('{shape}', 1)"}, {"shot": shape}]
        steps += [{"run": f"fitdiffView.setShape('{shape}', 0)"}]
    steps += [
        {"run": "fitdiffView.levels[0].meshes.map((mesh) => Object.keys(mesh.morphTargetDictionary))"},
        {"run": "[fitdiffView.bounds.center.toArray(), fitdiffView.bounds.radius]"},
    ]
    with PageServer(routes_of_avatar([bumped.path])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answer, shots = importers.drive(f"{server.url}?plain", tmp_path_factory.mktemp("marks"), steps, (SIZE, SIZE))
        server.shutdown()
    values = [value for value in answer["values"] if value is not None]
    return SimpleNamespace(
        shots={n: s.astype(int) for n, s in shots.items()}, values=values, problems=answer["problems"]
    )


def where(picture: np.ndarray, colour: tuple[int, ...], tolerance: int = 4) -> np.ndarray:
    """(N, 2) rows and columns of the pixels of this colour."""
    return np.argwhere(np.abs(picture - np.array(colour)).max(-1) <= tolerance)


def test_nothing_is_wrong_with_the_page(seen: SimpleNamespace) -> None:
    assert seen.problems == []


def test_left_and_right_of_the_texture(seen: SimpleNamespace, importers: ModuleType) -> None:
    """The red cheek is the character's left one, so it lies on the right of a picture from the front."""
    front = importers.red_cheek(seen.shots["front"])
    assert len(front) > 50
    assert front[:, 1].min() > SIZE / 2
    assert len(importers.red_cheek(seen.shots["left"])) > 50
    assert len(importers.red_cheek(seen.shots["right"])) == 0


def test_left_and_right_of_the_geometry(seen: SimpleNamespace) -> None:
    changed = np.argwhere(np.abs(seen.shots["eyeBlinkLeft"] - seen.shots["front"]).max(-1) > 20)
    assert len(changed) > 20
    assert changed[:, 1].min() > SIZE / 2


def test_up(seen: SimpleNamespace) -> None:
    white, mouth = where(seen.shots["front"], EYE_WHITE), where(seen.shots["front"], MOUTH)
    assert len(white) and len(mouth)
    assert white[:, 0].max() < mouth[:, 0].min()  # rows grow downwards


def test_facing(seen: SimpleNamespace) -> None:
    assert len(where(seen.shots["front"], MOUTH)) > 20
    assert len(where(seen.shots["back"], MOUTH)) == 0
    # The nose stands out to the left of a picture from the character's left... seen from +X, +Z is on the left.
    head = np.abs(seen.shots["left"] - np.array([255, 0, 255])).max(-1) > 24
    columns = np.argwhere(head)[:, 1]
    widest = np.argwhere(head[: SIZE // 3])[:, 1]  # the skull above the face is round and in the middle
    assert widest.mean() - columns.min() > columns.max() - widest.mean()


def test_metres(seen: SimpleNamespace, bumped: SimpleNamespace) -> None:
    centre, radius = next(v for v in seen.values if isinstance(v[-1], float))
    points = bumped.avatar.vertices[np.unique(bumped.avatar.topology.triangles)]
    np.testing.assert_allclose(centre, (points.min(0) + points.max(0)) / 2, atol=0.01)
    assert radius == pytest.approx(np.linalg.norm(np.ptp(points, axis=0)) / 2, rel=0.05)
    assert 0.05 < radius < 0.3


def test_srgb_in_srgb_out(seen: SimpleNamespace, marks: SimpleNamespace) -> None:
    """Skin comes through byte for byte; decoded twice or never, its 190 would be 132 or 222."""
    assert len(where(seen.shots["front"], marks.skin, 2)) > 1000


def test_the_specular_map_is_linear_where_it_counts(bumped: SimpleNamespace, importers: ModuleType, marks) -> None:
    """F0 of the two patches, through the file's own encoding: .8 and .35 of 0.08."""
    maps = importers.shared_atlas(importers.read_head(bumped.path))
    f0 = maps.specular[0, 0].numpy()
    row, column = (int((value + 0.5) * f0.shape[0] / marks.side) for value in marks.cheek_texel)
    assert f0[row, column] / 0.08 == pytest.approx(marks.cheek_specular, abs=0.02)
    assert np.median(f0) / 0.08 == pytest.approx(marks.skin_specular, abs=0.02)


@pytest.mark.parametrize(("light", "axis", "sign"), [("above", 0, -1), ("left", 1, 1)])
def test_normal_direction(light: str, axis: int, sign: int, seen: SimpleNamespace) -> None:
    """A dome lit from above is bright on its upper side; lit from the character's left, on that side."""
    change = seen.shots[f"lit_{light}_bump"].mean(-1) - seen.shots[f"lit_{light}_flat"].mean(-1)
    change[SIZE // 2 :] = 0  # the other mark in the normals lies on the right cheek
    places = np.argwhere(np.abs(change) > 4)
    assert len(places) > 100
    middle = places.mean(0)
    assert abs(middle[1] - SIZE / 2) < SIZE / 16 and middle[0] < SIZE / 2  # on the forehead
    side = (places[:, axis] - middle[axis]) * sign
    values = change[tuple(places.T)]
    brighter, darker = values[side > 2].mean(), values[side < -2].mean()
    print(f"light from {light}: {brighter:+.1f} levels on the near side, {darker:+.1f} on the far side")
    assert brighter > 4 and darker < -4


def test_textures_are_not_flipped(seen: SimpleNamespace, importers: ModuleType, marks: SimpleNamespace) -> None:
    """The cheek's patch lies where its direction from the middle of the head says, not mirrored in u or v."""
    cheek = importers.red_cheek(seen.shots["front"]).mean(0)
    skin = where(seen.shots["front"], marks.skin, 60)
    low, high = skin.min(0), skin.max(0)
    row, column = (cheek - low) / (high - low)
    assert 0.5 < row < 0.8  # below the middle
    assert 0.6 < column < 0.95


def test_blendshapes_have_their_names_in_our_order(seen: SimpleNamespace, marks: SimpleNamespace) -> None:
    names = next(v for v in seen.values if isinstance(v[0], list) and v[0] and isinstance(v[0][0], str))
    assert all(mesh == list(marks.blendshapes) for mesh in names)
    jaw = np.argwhere(np.abs(seen.shots["jawOpen"] - seen.shots["front"]).max(-1) > 20)
    eyes = where(seen.shots["front"], EYE_WHITE)
    assert len(jaw) > 50 and jaw[:, 0].min() > eyes[:, 0].max()
