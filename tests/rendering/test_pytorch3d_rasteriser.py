"""The adapter to PyTorch3D: its coordinates by a stand-in that follows PyTorch3D's own conventions, and the real one
where it is installed."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fitdiff.errors import MissingError
from fitdiff.rendering.pytorch3d_rasteriser import PyTorch3DRasteriser, ndc_from_pixels
from fitdiff.rendering.rasteriser import Rasteriser, default_rasteriser

SIZES = [(48, 48), (40, 64), (64, 40), (33, 47)]


def ndc_of_pixel(index: int, side: int, other: int) -> float:
    """Where PyTorch3D puts pixel `index` along one axis, counted from that axis's negative end."""
    extent = 2.0 * max(side / other, 1.0)
    return -extent / 2 + (extent * index + extent / 2) / side


def stand_in(vertices: Sequence[Tensor], triangles: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Every pixel against every triangle, as PyTorch3D defines both; nearest by perspective-correct depth."""
    height, width = size
    index, first = torch.full((len(vertices), height, width), -1), 0
    for image, (points, faces) in enumerate(zip(vertices, triangles, strict=True)):
        corners = points.double()[faces]  # (F, 3, 3)
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (corner.unbind(1) for corner in corners.unbind(1))
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        for row in range(height):
            y = ndc_of_pixel(height - 1 - row, height, width)  # the last row is the lowest
            for column in range(width):
                x = ndc_of_pixel(width - 1 - column, width, height)  # the first column has the largest x
                u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                w = 1 - u - v
                depth = 1 / (u / az + v / bz + w / cz)
                depth[(u < 0) | (v < 0) | (w < 0)] = torch.inf
                if depth.min() < torch.inf:
                    index[image, row, column] = first + int(depth.argmin())
        first += len(faces)
    return index


def scene(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two images of overlapping triangles at several depths, some reaching out of the picture or behind the camera."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 36, 3, generator=generator) * torch.tensor([width * 1.4, height * 1.4, 1.0])
    vertices = vertices - torch.tensor([0.2 * width, 0.2 * height, -0.5])
    vertices[1, ::7, 2] = -0.3  # other triangles are left out of the second image
    triangles = torch.randint(36, (24, 3), generator=generator)
    return vertices, torch.cat([triangles, torch.tensor([[0, 0, 5]])]).int()  # one without area


def marker(height: int, width: int) -> tuple[Tensor, Tensor]:
    """One small triangle to the right of the middle and above it."""
    x, y = 0.75 * width, 0.25 * height
    return torch.tensor([[[x - 3, y, 1.0], [x + 4, y, 1.0], [x, y - 5, 1.0]]]), torch.tensor([[0, 1, 2]]).int()


@pytest.fixture(scope="module")
def native() -> Rasteriser:
    return default_rasteriser()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cull", [False, True])
def test_the_stand_in_sees_what_the_native_rasteriser_sees(
    native: Rasteriser, size: tuple[int, int], cull: bool
) -> None:
    vertices, triangles = scene(*size)
    ours, theirs = (r(vertices, triangles, *size, cull=cull) for r in (native, PyTorch3DRasteriser(stand_in)))
    assert theirs.dtype == torch.int32 and theirs.shape == (2, *size)
    assert len(ours.unique()) > 5 and not torch.equal(ours[0], ours[1])  # or the case shows nothing
    differing = int((ours != theirs).sum())
    print(f"{size}, cull {cull}: {differing} of {ours.numel()} pixels differ")
    assert differing == 0


@pytest.mark.parametrize("size", SIZES)
def test_left_is_left_and_up_is_up(size: tuple[int, int]) -> None:
    seen = PyTorch3DRasteriser(stand_in)(*marker(*size), *size)[0]
    rows, columns = (seen == 0).nonzero().unbind(1)
    assert len(rows) and bool((rows < size[0] // 2).all()) and bool((columns > size[1] // 2).all())


def test_pixel_centres_are_where_pytorch3d_has_them() -> None:
    for height, width in SIZES:
        for row, column in ((0, 0), (height - 1, 2), (5, width - 1)):
            ndc = ndc_from_pixels(torch.tensor([[[column + 0.5, row + 0.5, 2.0]]]), height, width)[0, 0]
            wanted = ndc_of_pixel(width - 1 - column, width, height), ndc_of_pixel(height - 1 - row, height, width)
            assert ndc.tolist() == pytest.approx([*wanted, 2.0], abs=1e-6)


def test_images_without_a_triangle_stay_empty() -> None:
    vertices, triangles = scene(20, 20)
    vertices[0, :, 2] = -1.0
    seen = PyTorch3DRasteriser(stand_in)(vertices, triangles, 20, 20)
    assert bool((seen[0] == -1).all()) and bool((seen[1] >= 0).any())
    assert bool((PyTorch3DRasteriser(stand_in)(vertices[:1], triangles, 20, 20) == -1).all())


def test_the_real_one_sees_what_the_native_rasteriser_sees(native: Rasteriser) -> None:
    pytest.importorskip("pytorch3d", reason="PyTorch3D is not installed: it has no wheels on PyPI for this PyTorch")
    theirs = PyTorch3DRasteriser()
    for size in SIZES:
        for vertices, triangles in (scene(*size), marker(*size)):
            a, b = native(vertices, triangles, *size), theirs(vertices, triangles, *size)
            differing = float((a != b).float().mean())
            print(f"{size}: {differing:.4%} of the pixels differ")
            assert differing < 1e-3


def test_its_absence_says_what_to_do() -> None:
    try:
        import pytorch3d  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(MissingError, match="pytorch3d.*native rasteriser"):
            PyTorch3DRasteriser()
    else:
        pytest.skip("PyTorch3D is installed")
