"""FAN: the package's names and shapes, its files, points that move with the heat, gradients to the pixels."""

import hashlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from fitdiff.errors import MissingError
from fitdiff.models.fan import FAN, FANConfig, centres, load_fan
from fitdiff.models.fan_depth import DepthNetwork, depth_maps
from fitdiff.models.landmark_indices import LANDMARK_68

# Sorted "name shape" lines of face-alignment 1.5.0's `FAN(4)` and `ResNetDepth()`: their count and SHA-256.
PACKAGE_FAN = (1129, "0d87cf689f0e7da53efe30820ee3c0911f4cdddef49dec890fe2243627f25d23")
PACKAGE_DEPTH = (932, "cfdb1e8ce33a81dbc086674c036f208983f92255e55bbad988d583cc709b23db")
SMALL = FANConfig(hourglasses=2, features=16)


def names_and_shapes(network: nn.Module) -> tuple[int, str]:
    state = network.state_dict()
    text = "\n".join(f"{name} {tuple(value.shape)}" for name, value in sorted(state.items()))
    return len(state), hashlib.sha256(text.encode()).hexdigest()


def blob(x: float, y: float, spread: float = 1.5, size: int = 32) -> torch.Tensor:
    """A map with a Gaussian at x, y px."""
    axis = torch.arange(size) + 0.5
    return torch.exp(-0.5 * ((axis[None] - x).square() + (axis[:, None] - y).square()) / spread**2)


def test_weights_have_the_packages_names_and_shapes() -> None:
    assert names_and_shapes(FAN()) == PACKAGE_FAN
    assert names_and_shapes(DepthNetwork()) == PACKAGE_DEPTH


def test_agrees_with_the_installed_package(paper_networks: ModuleType) -> None:
    package = pytest.importorskip("face_alignment.models", reason="face-alignment is not installed")
    theirs = paper_networks.randomised(package.FAN(4))
    ours = FAN().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (ours.heat_maps(x) - theirs(x)[-1]).abs().max() / theirs(x)[-1].abs().max()
    print(f"FAN against face-alignment: {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("form", ["2DFAN4-x.pth.tar", "3DFAN4-x.pth.tar", "2DFAN4-x.zip", "parallel.pth.tar"])
def test_files_of_the_package_are_read(paper_networks: ModuleType, tmp_path: Path, form: str) -> None:
    network = paper_networks.randomised(FAN(SMALL))
    path, state = tmp_path / form, network.state_dict()
    if form.endswith(".zip"):
        torch.jit.save(torch.jit.trace(network, torch.rand(1, 3, 256, 256), check_trace=False), str(path))
    elif form.startswith("parallel"):
        state = {f"module.{name}": value for name, value in state.items()}
        torch.save({"state_dict": state, "best": np.float64(0.5), "epoch": 3}, path)
    else:
        torch.save(state, path)
    loaded, card = load_fan(path)
    x = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(loaded.heat_maps(x), network.heat_maps(x), atol=1e-5)
        points, logit = loaded(x)
    assert points.shape == (2, 68, 3) and logit.shape == (2,) and not bool(points[..., 2].any())
    assert bool(((points[..., :2] > 0) & (points[..., :2] < 256)).all())
    assert bool(loaded.sliding) == (not form.startswith("3D"))  # the jaw of 3D landmarks stays where it is
    assert (card.role, card.commercial) == ("landmarks", False) and len(card.sha256) == 64
    assert loaded.mesh_indices == LANDMARK_68 and not loaded.training


def test_depth_comes_from_its_own_file(paper_networks: ModuleType, tmp_path: Path) -> None:
    fan, depth = tmp_path / "3DFAN4-x.pth.tar", tmp_path / "depth-x.pth.tar"
    torch.save(paper_networks.randomised(FAN(SMALL)).state_dict(), fan)
    network = paper_networks.randomised(DepthNetwork())
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, depth)
    loaded, card = load_fan(fan, depth)
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        points, _ = loaded(x)
        expected = network(torch.cat([x, depth_maps(points[..., :2], 256)], 1))
    assert torch.allclose(points[..., 2], -expected, rtol=1e-4)  # less is nearer
    assert "depth-x.pth.tar" in card.source


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(MissingError, match=r"conv1.weight \(3,\), and .* more that differ; expected conv1.weight \(64"):
        load_fan(tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(MissingError, match="weights that PyTorch saved"):
        load_fan(tmp_path / "cut.pth")
    torch.save({"state_dict": Path("x")}, tmp_path / "code.pth")
    with pytest.raises(MissingError, match="weights that PyTorch saved"):
        load_fan(tmp_path / "code.pth")
    with pytest.raises(MissingError, match="no such file"):
        load_fan(tmp_path / "absent.pth")


def test_centres_follow_the_heat_below_a_pixel() -> None:
    places = [(12.5, 9.5), (12.75, 9.5), (13.0, 20.1), (8.31, 25.9), (16.49, 16.51)]
    for spread in (1.0, 1.75):
        heat = torch.stack([blob(x, y, spread) for x, y in places])[None]
        error = (centres(heat)[0] - torch.tensor(places)).abs().max()
        print(f"spread {spread}: {error:.3f} px of 64")
        assert error < 0.1


def test_far_heat_and_cold_do_not_pull() -> None:
    clean = blob(20.3, 10.7)[None, None]
    spoilt = clean + 0.6 * blob(5.0, 28.0) - 0.05
    assert float((centres(spoilt) - centres(clean)).abs().max()) < 0.15
    assert bool(centres(-torch.ones(1, 1, 8, 8)).isfinite().all())


def test_columns_are_x_and_rows_are_y() -> None:
    heat = torch.zeros(1, 1, 16, 32)
    heat[0, 0, 3, 20] = 1.0
    assert centres(heat)[0, 0].tolist() == pytest.approx([20.5, 3.5], abs=1e-3)


def test_gradients_are_the_differences(paper_networks: ModuleType) -> None:
    config = FANConfig(hourglasses=1, depth=2, features=8, input_size=64)
    network = paper_networks.randomised(FAN(config)).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(1, 3, 64, 64, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(1, 68, 3, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((network(x)[0] * weights).sum(), x)
    assert bool(gradient.any())
    for seed in range(3):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-7
        with torch.no_grad():
            ahead, behind = ((network(x + s * direction)[0] * weights).sum() for s in (step, -step))
        slope = float(ahead - behind) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, abs=1e-4 * float(gradient.norm()))


def test_the_crop_is_the_packages() -> None:
    """200 px of its reference scale over 195, raised by an eighth of the box's height."""
    side, raised = FAN(SMALL).region(180.0, 210.0)
    assert side == pytest.approx(400.0) and raised == pytest.approx(25.2)
