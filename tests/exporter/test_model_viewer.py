"""<model-viewer> in headless Chromium shows the head that our own renderer shows."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

SIZE = 256
SKY_IS_NO_HDR = "Gain map metadata not found"  # what it says of the test's sky, a PNG
SLOW = "rAF timed out"  # it waits two frames for so long; a processor that draws in software may be slower
PAGE = """<!doctype html><html><head><link rel="icon" href="data:,">
<script type="module" src="model-viewer.min.js"></script>
<style>html, body {{ margin: 0; background: #ff00ff }} model-viewer {{ width: {size}px; height: {size}px;
  background: #ff00ff; --progress-bar-height: 0; --poster-color: #ff00ff }}</style></head><body>
<model-viewer id="viewer" src="avatar.glb" interaction-prompt="none" shadow-intensity="0" environment-image="white.png"
  tone-mapping="none" exposure="1" min-field-of-view="1deg"
  min-camera-orbit="auto auto 0.01m" max-camera-orbit="auto auto 9m"
  field-of-view="{fov}deg" camera-target="{x}m {y}m {z}m" camera-orbit="0deg 90deg {distance}m"></model-viewer>
</body></html>"""


@pytest.fixture(scope="module")
def seen(head_glb: SimpleNamespace, importers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    script = importers.MODULES / "@google" / "model-viewer" / "dist" / "model-viewer.min.js"
    if not script.is_file():
        pytest.skip("@google/model-viewer is not installed: run `npm ci --prefix tests`")
    folder = tmp_path_factory.mktemp("model_viewer")
    (folder / "model-viewer.min.js").symlink_to(script)
    (folder / "avatar.glb").symlink_to(head_glb.path)
    Image.new("RGB", (64, 32), "white").save(folder / "white.png")
    x, y, z = importers.middle_of(head_glb.file).tolist()
    page = PAGE.format(size=SIZE, fov=importers.FOV, distance=importers.DISTANCE, x=x, y=y, z=z)
    (folder / "index.html").write_text(page, encoding="utf-8")
    steps = [
        {"wait": "document.querySelector('#viewer').loaded && document.querySelector('#viewer').modelIsVisible"},
        {"run": "new Promise((done) => setTimeout(done, 500))"},  # it fades the model in
        {"run": "document.querySelector('#viewer').getDimensions().toString()"},
        {"shot": "front"},
    ]
    with importers.served(folder) as url:
        answer, shots = importers.drive(url, folder, steps, (SIZE, SIZE))
    return SimpleNamespace(answer=answer, picture=shots["front"], url=url)


def test_it_loads_without_a_complaint_and_from_here_alone(seen: SimpleNamespace) -> None:
    known = (SKY_IS_NO_HDR, SLOW)
    assert [line for line in seen.answer["problems"] if not any(text in line for text in known)] == []
    assert all(request.startswith((seen.url, "blob:", "data:")) for request in seen.answer["requests"])


def test_it_measures_metres(seen: SimpleNamespace, head_glb: SimpleNamespace) -> None:
    sides = [float(side.removesuffix("m")) for side in seen.answer["values"][1].split()]
    points = np.concatenate([primitive.positions for primitive in head_glb.file.primitives])
    np.testing.assert_allclose(sides, np.ptp(points, axis=0), atol=2e-3)


def test_the_same_silhouette_and_colours(
    seen: SimpleNamespace, head_glb: SimpleNamespace, importers: ModuleType
) -> None:
    """Under a white sky each shows albedo and a little reflection; theirs grows at grazing angles, ours does not."""
    camera = importers.camera_of(head_glb.file, SIZE)
    ours = importers.our_picture(head_glb.file, camera, importers.flat_light(ambient=1.0))
    iou = importers.overlap(ours[..., 3] > 127, importers.silhouette(seen.picture))
    off = importers.colour_distance(ours, seen.picture)
    print(
        f"silhouette IoU {iou:.4f}; colour off by {off.mean():.2f} of 255, 95th percentile {np.percentile(off, 95):.1f}"
    )
    assert iou > 0.985
    assert off.mean() < 5 and np.percentile(off, 95) < 20
