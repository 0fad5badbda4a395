"""LPIPS: the formula of the paper on random weights of the real files' names and shapes, masks, gradients, refusals."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fitdiff.errors import MissingError
from fitdiff.models.lpips import LPIPS, load_lpips
from fitdiff.models.perceptual import perceptual_distance


def random_files(networks: ModuleType, folder: Path, shrink: int = 8) -> tuple[Path, Path]:
    paths = folder / "vgg16-397923af.pth", folder / "vgg.pth"
    networks.write_lpips(*paths, shrink)
    return paths


def formula(networks: ModuleType, vgg: dict[str, Tensor], linear: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Equation 1: sum over layers of the mean over pixels of w . (unit(a) - unit(b))^2, in float64."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(1, 3, 1, 1)
    x, y = ((2 * image.double() - 1 - shift) / scale for image in (a, b))
    total = torch.zeros(len(a), dtype=torch.float64)
    for index in networks.VGG_CONVOLUTIONS:
        if index in (5, 10, 17, 24):
            x, y = (nn.functional.max_pool2d(v, 2, 2) for v in (x, y))
        weight, bias = (vgg[f"features.{index}.{name}"].double() for name in ("weight", "bias"))
        x, y = (nn.functional.conv2d(v, weight, bias, padding=1).relu() for v in (x, y))
        if index in networks.VGG_LAST_OF_STAGE:
            w = linear[f"lin{networks.VGG_LAST_OF_STAGE.index(index)}.model.1.weight"].double()
            unit = [v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y)]
            total = total + (w * (unit[0] - unit[1]).square()).sum(1).mean((1, 2))
    return total


@pytest.fixture(scope="module")
def files(paper_networks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return random_files(paper_networks, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def network(files: tuple[Path, Path]) -> LPIPS:
    return load_lpips(*files)[0]


def pictures(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_is_the_formula(paper_networks: ModuleType, network: LPIPS, files: tuple[Path, Path]) -> None:
    vgg, linear = (torch.load(path, weights_only=True) for path in files)
    a, b = pictures(0), pictures(1)
    expected = formula(paper_networks, vgg, linear, a, b)
    error = (perceptual_distance(network, a, b) - expected).abs().max() / expected.max()
    print(f"LPIPS against its formula: {error:.1e} of {expected.tolist()}")
    assert error < 1e-5
    assert (
        float((expected - formula(paper_networks, vgg, linear, a.flip(1), b)).abs().max()) > 1e-3
    )  # BGR is something else


def test_the_real_files_shapes(paper_networks: ModuleType, tmp_path: Path) -> None:
    full, card = load_lpips(*random_files(paper_networks, tmp_path, shrink=1))
    assert full.feature_shapes(64) == tuple(tuple(f.shape[1:]) for f in full(pictures()))
    assert full.feature_shapes(64)[-1] == (512, 4, 4)
    assert (card.role, card.commercial) == ("perceptual", True) and "BSD" in card.licence
    assert not full.training and not any(p.requires_grad for p in full.parameters())


def test_equal_pictures_are_no_distance_and_masks_confine(network: LPIPS) -> None:
    a, b = pictures(0), pictures(1)
    assert not bool(perceptual_distance(network, a, a).any())
    left, nothing = torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 64)
    left[..., :16] = 1
    assert not bool(perceptual_distance(network, a, b, nothing).any())
    both = torch.cat([a[..., :32], b[..., 32:]], 3)
    confined, whole = perceptual_distance(network, a, both, left), perceptual_distance(network, a, both)
    assert bool((confined < 0.5 * whole).all())
    everywhere = perceptual_distance(network, a, b, torch.ones(2, 1, 64, 64))
    assert torch.allclose(everywhere, perceptual_distance(network, a, b), rtol=1e-4)


def test_gradients_are_the_differences_and_finite_at_equality(files: tuple[Path, Path]) -> None:
    network = load_lpips(*files)[0].double()
    x, y = pictures(0)[:1, :, :32, :32].double().requires_grad_(), pictures(1)[:1, :, :32, :32].double()
    (gradient,) = torch.autograd.grad(perceptual_distance(network, x, y).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (float(perceptual_distance(network, x + s * direction, y)) for s in (1e-7, -1e-7))
    slope = (ahead - behind) / 2e-7
    assert float((gradient * direction).sum()) == pytest.approx(slope, abs=1e-4 * float(gradient.norm()))
    (same,) = torch.autograd.grad(perceptual_distance(network, x, x.detach()).sum(), x)
    assert bool(same.isfinite().all())


def test_other_files_are_refused(tmp_path: Path, files: tuple[Path, Path]) -> None:
    vgg, linear = files
    with pytest.raises(MissingError, match="no such file"):
        load_lpips(tmp_path / "absent.pth", linear)
    with pytest.raises(MissingError, match="lin0"):
        load_lpips(vgg, vgg)
    broken = torch.load(linear, weights_only=True)
    broken["lin2.model.1.weight"][0, 0] = -1
    torch.save(broken, tmp_path / "negative.pth")
    with pytest.raises(MissingError, match="below 0 in lin2"):
        load_lpips(vgg, tmp_path / "negative.pth")
