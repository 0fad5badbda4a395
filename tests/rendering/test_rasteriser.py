"""The two rasterisers behind one interface, and the fallback between them."""

import pytest
import torch

from fitdiff.rendering import rasteriser
from fitdiff.rendering.camera import camera_front, project
from fitdiff.rendering.rasteriser import NativeRasteriser, TorchRasteriser, default_rasteriser


def test_native_and_twin_agree_through_the_interface(sheet) -> None:
    pytest.importorskip("fitdiff.native.raster", reason="the extension _raster is not built: `pip install .`")
    pixels = project(camera_front(torch.zeros(3), 0.4, 100.0, 64), sheet.vertices).requires_grad_()
    native = NativeRasteriser()(pixels, sheet.triangles, 64, 64, cull=True)
    assert native.dtype == torch.int32 and native.shape == (1, 64, 64) and (native >= 0).any()
    assert torch.equal(native, TorchRasteriser()(pixels, sheet.triangles, 64, 64, cull=True))


def test_default_falls_back_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_built() -> None:
        raise ImportError("no _raster")

    monkeypatch.setattr(rasteriser, "NativeRasteriser", not_built)
    with pytest.warns(RuntimeWarning, match="pip install"):
        assert isinstance(default_rasteriser(), TorchRasteriser)
