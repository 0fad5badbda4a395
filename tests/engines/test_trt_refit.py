"""Other weights for a TensorRT engine: which networks are the same but for them, and what a refit says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fitdiff.engines.trt.builder import PlanOptions, build_plan
from fitdiff.engines.trt.loader import EngineError, Flavour
from fitdiff.engines.trt.refit import architecture_sha256, refit_engine, refittable_weights

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'fitdiff[engines]'")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present: this is what happens without one")


@no_gpu
def test_a_refittable_plan_is_built_or_its_need_of_a_gpu_named(
    tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour
) -> None:
    plan = tmp_path / "small.plan"
    try:
        build_plan(write_network(tmp_path / "small.onnx"), plan, PlanOptions(refit=True), rtx)
    except EngineError as error:
        assert "only where there is a GPU" in error.remedy
        assert not plan.exists()
    else:
        assert plan.stat().st_size > 0


def test_all_float_weights_can_be_exchanged(tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour) -> None:
    names = set(refittable_weights(write_network(tmp_path / "small.onnx"), rtx))
    assert names >= {"conv_weight", "conv_bias", "norm_weight", "norm_bias", "matrix", "offset"}


def test_the_architecture_is_all_but_the_weights(tmp_path: Path, write_network: Callable[..., Path]) -> None:
    first = architecture_sha256(write_network(tmp_path / "first.onnx", seed=0))
    assert architecture_sha256(write_network(tmp_path / "second.onnx", seed=1)) == first
    others = [
        architecture_sha256(write_network(tmp_path / "half.onnx", half=True)),
        architecture_sha256(write_network(tmp_path / "batch.onnx", batch="batch")),
        architecture_sha256(write_network(tmp_path / "tanh.onnx", tail="Tanh")),
    ]
    for name, value in (("axes", np.array([3, 2])), ("scales", np.array([1, 1, 1, 4], np.float32))):
        model = onnx.load(tmp_path / "first.onnx")
        changed = next(each for each in model.graph.initializer if each.name == name)
        changed.CopyFrom(onnx.numpy_helper.from_array(value, name))
        onnx.save(model, tmp_path / "changed.onnx")
        others.append(architecture_sha256(tmp_path / "changed.onnx"))
    model = onnx.load(tmp_path / "first.onnx")
    model.graph.node[0].attribute[0].ints[0] = 0
    onnx.save(model, tmp_path / "pads.onnx")
    others.append(architecture_sha256(tmp_path / "pads.onnx"))
    assert len({first, *others}) == 1 + len(others)


class FakeTensorRt:
    """A refitter, and what it was asked. fits: whether the file's weights go into the engine."""

    def __init__(self, fits: bool) -> None:
        self.fits, self.asked, self.num_errors = fits, [], 0 if fits else 1
        self.Refitter = self.OnnxParserRefitter = lambda *_: self

    def refit_from_file(self, path: str) -> bool:
        self.asked.append(path)
        return self.fits

    def refit_cuda_engine(self) -> bool:
        self.asked.append("engine")
        return True

    def get_missing_weights(self) -> list[str]:
        return ["conv_weight"]

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "weights of\nanother shape")

    @contextmanager
    def messages(self) -> Iterator[list[str]]:
        yield []


def fake_flavour(trt: FakeTensorRt) -> Any:
    return SimpleNamespace(name="tensorrt-rtx", trt=trt, log=SimpleNamespace(logger=None, messages=trt.messages))


def test_an_engine_is_refitted_from_the_file() -> None:
    trt = FakeTensorRt(fits=True)
    refit_engine(SimpleNamespace(refittable=True, name="small"), Path("other.onnx"), fake_flavour(trt))
    assert trt.asked == ["other.onnx", "engine"]


def test_weights_that_do_not_fit_are_named() -> None:
    trt = FakeTensorRt(fits=False)
    with pytest.raises(EngineError, match=r"weights of another shape; no weights for conv_weight.*another"):
        refit_engine(SimpleNamespace(refittable=True, name="small"), Path("other.onnx"), fake_flavour(trt))
    assert trt.asked == ["other.onnx"]


def test_fixed_weights_stay() -> None:
    trt = FakeTensorRt(fits=True)
    with pytest.raises(EngineError, match="engine small: got one with fixed weights"):
        refit_engine(SimpleNamespace(refittable=False, name="small"), Path("other.onnx"), fake_flavour(trt))
    assert not trt.asked
