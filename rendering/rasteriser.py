"""Which triangle does each pixel see: one interface, the compiled z-buffer or its PyTorch twin behind it.

No gradients here: visibility is constant, and `interpolation` recomputes barycentrics differentiably.
"""

import warnings
from typing import Protocol

import torch
from torch import Tensor

from ..native.raster_torch import rasterise_torch


class Rasteriser(Protocol):
    """Anything that finds the nearest triangle under every pixel centre."""

    def __call__(self, vertices_px: Tensor, triangles: Tensor, height: int, width: int, cull: bool = False) -> Tensor:
        """Rasterise.

        Args:
            vertices_px: (B, V, 3) x px, y px, depth (> 0 in front).
            triangles: (F, 3) indices into V.
            height: rows of the image.
            width: columns of the image.
            cull: drop triangles that show their back (front is counter-clockwise, as in glTF).

        Returns:
            (B, height, width) int32 triangle index on the device of `vertices_px`, -1 where empty.
        """
        ...


class NativeRasteriser:
    """The compiled z-buffer on the CPU; tensors of another device travel there and back."""

    def __init__(self, threads: int | None = None) -> None:
        """Raises ImportError where the extension is not built.

        Args:
            threads: None for one an image, at most `torch.get_num_threads()`: a head takes a millisecond,
                less than threads that share it need to wake up on a busy machine.
        """
        from ..native.raster import rasterise

        self._rasterise = rasterise
        self._threads = threads

    def __call__(self, vertices_px: Tensor, triangles: Tensor, height: int, width: int, cull: bool = False) -> Tensor:
        index = self._rasterise(
            vertices_px.detach().to("cpu", torch.float32).numpy(),
            triangles.detach().to("cpu", torch.int32).numpy(),
            height,
            width,
            cull=cull,
            threads=self._threads or min(len(vertices_px), torch.get_num_threads()),
        )
        return torch.from_numpy(index).to(vertices_px.device)


class TorchRasteriser:
    """The plain PyTorch twin: the same answer, slower, on any device."""

    def __call__(self, vertices_px: Tensor, triangles: Tensor, height: int, width: int, cull: bool = False) -> Tensor:
        return rasterise_torch(vertices_px.detach().float(), triangles, height, width, cull=cull)


def default_rasteriser() -> Rasteriser:
    """The compiled rasteriser, or with a warning its PyTorch twin where the extension is not built."""
    try:
        return NativeRasteriser()
    except ImportError as error:
        warnings.warn(
            f"rasteriser: got no compiled extension ({error}); expected fitdiff.native._raster; "
            "using the slower PyTorch twin, `pip install .` builds the fast one",
            RuntimeWarning,
            stacklevel=2,
        )
        return TorchRasteriser()
