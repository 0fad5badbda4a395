"""The page of `fitdiff view`: who may ask for what, and what a person sees when they click."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fitdiff.errors import UsageError
from fitdiff.exporter.viewer import PageServer, avatar_files, routes_of_avatar

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "exporter" / "view_page" / "vendor"


@pytest.fixture(scope="module")
def server(glb: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    folder = tmp_path_factory.mktemp("page")
    for name in ("avatar.glb", "avatar_LOD1.glb"):
        shutil.copy(glb.path, folder / name)
    (folder / "secret.txt").write_text("secret")
    photo = folder / "photo.jpg"
    Image.new("RGB", (64, 48), (10, 200, 30)).save(photo)
    with PageServer(routes_of_avatar(avatar_files(folder), photo.read_bytes())) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def ask(
    server: PageServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def test_it_listens_on_this_machine_alone(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_it_serves_what_was_named(server: PageServer, glb: SimpleNamespace) -> None:
    for path in ("/model/0.glb", "/model/1.glb"):
        status, body, headers = ask(server, path)
        assert (status, headers["Content-Type"]) == (200, "model/gltf-binary")
        assert body == glb.path.read_bytes()
    listing = json.loads(ask(server, "/avatar.json")[1])
    assert [model["name"] for model in listing["models"]] == ["avatar.glb", "avatar_LOD1.glb"]
    assert ask(server, "/photo.jpg")[1][:2] == b"\xff\xd8"
    status, body, headers = ask(server, "/", "HEAD")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 100
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/model/../secret.txt", "/vendor/../../viewer.py",
        "/vendor/entry.mjs", "//etc/passwd", "/etc/passwd", "/model/2.glb", "/avatar.glb", "/vendor", "/view_page/",
    ],
)  # fmt: skip
def test_it_serves_nothing_else(path: str, server: PageServer) -> None:
    status, body, _ = ask(server, path)
    assert (status, body) == (404, b"")


def test_another_sites_name_is_refused(server: PageServer) -> None:
    assert ask(server, "/avatar.json", host="evil.example")[0] == 403
    assert ask(server, "/avatar.json", host=f"localhost:{server.server_address[1]}")[0] == 200


def test_other_methods_are_refused(server: PageServer) -> None:
    assert ask(server, "/avatar.json", "POST")[0] == 501


def test_a_taken_port_is_an_error(server: PageServer) -> None:
    with pytest.raises(UsageError, match="port: got"):
        PageServer({}, server.server_address[1])


def test_which_files_belong_together(tmp_path: Path, glb: SimpleNamespace) -> None:
    for name in ("head.glb", "head_LOD2.glb", "head.lod1.glb", "headless.glb", "avatar_LOD1.glb"):
        shutil.copy(glb.path, tmp_path / name)
    names = [file.name for file in avatar_files(tmp_path / "head.glb")]
    assert names == ["head.glb", "head.lod1.glb", "head_LOD2.glb"]
    with pytest.raises(UsageError, match=r"no file .*avatar\.glb"):
        avatar_files(tmp_path)
    (tmp_path / "avatar.glb").write_bytes(b"{}")
    with pytest.raises(UsageError, match="binary glTF"):
        avatar_files(tmp_path)


def test_a_person_uses_the_page(server: PageServer, importers: ModuleType, tmp_path: Path) -> None:
    steps = [
        {"wait": "window.fitdiffView"},
        {"shot": "lit"},
        {"run": "document.querySelector('#photo img').complete && document.querySelector('#photo img').naturalWidth"},
        {"slide": ["#azimuth", -120]},
        {"shot": "other_light"},
        {"slide": ["#azimuth", 35]},
        {"click": "label:has(#switch-environment)"},
        {"shot": "no_environment"},
        {"click": "label:has(#switch-environment)"},
        {"slide": ["#shape-eyeBlinkLeft", 1]},
        {"shot": "blink"},
        {"click": "details:has(> summary:text('Blendshapes')) > .choices button:text('Reset')"},
        {"shot": "reset"},
        {"click": "label:has-text('Base colour only')"},
        {"shot": "base"},
        {"click": "label:has-text('Normal only')"},
        {"shot": "normal"},
        {"click": "label:has-text('Roughness only')"},
        {"shot": "roughness"},
        {"click": "label:has-text('Specular only')"},
        {"shot": "specular"},
        {"click": "label:has-text('Lit')"},
        {"click": "label:has(#switch-base)"},
        {"shot": "no_base"},
        {"click": "label:has(#switch-base)"},
        {"click": "label:has(#switch-wireframe)"},
        {"shot": "wire"},
        {"click": "label:has(#switch-wireframe)"},
        {"click": "label:has-text('LOD 1')"},
        {"shot": "lod1"},
        {"run": "fitdiffView.levels.map(({ meshes }) => meshes.every((mesh) => mesh.visible))"},
        {"click": "button:text('left')"},
        {"shot": "left"},
    ]
    answer, shots = importers.drive(server.url, tmp_path, steps, (1000, 640))
    assert answer["problems"] == []
    own = server.url
    assert all(request.startswith((own, f"blob:{own}", "data:")) for request in answer["requests"])
    pictures = {name: shot.astype(int) for name, shot in shots.items()}
    photo, stage, panel = slice(0, 330), slice(340, 665), slice(670, 1000)
    assert answer["values"][0] == 64
    assert np.abs(pictures["lit"][300, 165] - [10, 200, 30]).max() < 8  # the photo, side by side
    assert len(np.unique(pictures["lit"][:, stage].reshape(-1, 3), axis=0)) > 500  # a shaded head, not one colour
    assert pictures["lit"][:, panel].std() > 5

    def changed(name: str, before: str = "lit") -> int:
        difference = np.abs(pictures[name][:, stage] - pictures[before][:, stage]).max(-1)
        assert (pictures[name][:, photo] == pictures["lit"][:, photo]).all()
        return int((difference > 16).sum())

    assert changed("reset") == 0
    for name in ("other_light", "no_environment", "base", "normal", "roughness", "specular", "no_base", "wire", "left"):
        assert changed(name) > 1000, name
    assert 20 < changed("blink") < changed("other_light")
    assert changed("lod1") == 0 and answer["values"][-1] == [False, True]  # the same file, as the other level
    assert len(importers.red_cheek(pictures["base"][:, stage])) > 50
    assert (np.abs(pictures["normal"][:, stage] - [128, 128, 255]).max(-1) < 4).sum() > 1000
    assert (np.abs(pictures["roughness"][:, stage] - round(0.45 * 255)).max(-1) < 4).sum() > 1000
    assert len(importers.red_cheek(pictures["no_base"][:, stage])) < 20


def test_what_is_vendored_is_what_npm_has(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (ROOT / "tests" / "node_modules" / "esbuild").is_dir():
        pytest.skip("esbuild is not installed: run `npm ci --prefix tests`")
    subprocess.run([node, VENDOR / "build.mjs", tmp_path], check=True, timeout=120)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["basis_transcoder.js", "basis_transcoder.wasm", "three.LICENSE", "three.min.js"]
    for name in made:
        assert (tmp_path / name).read_bytes() == (VENDOR / name).read_bytes(), name
    assert sum(path.stat().st_size for path in VENDOR.iterdir()) < 2 * 2**20
