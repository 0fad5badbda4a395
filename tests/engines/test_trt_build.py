"""TensorRT: ONNX files are parsed and built, and errors name what is wrong.

Builds are TensorRT-RTX's, which needs no GPU for them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fitdiff.engines.trt.builder import PlanOptions, build_plan
from fitdiff.engines.trt.loader import EngineError, Flavour
from fitdiff.errors import UsageError

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'fitdiff[engines]'")


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("max_batch", [1, 4], ids=["static", "dynamic"])
def test_a_network_is_built(
    tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour, half: bool, max_batch: int
) -> None:
    path = write_network(tmp_path / "small.onnx", half=half, batch="1" if max_batch == 1 else "batch")
    plan = tmp_path / "small.plan"
    report = build_plan(path, plan, PlanOptions(max_batch=max_batch), rtx)
    print(f"{report.bytes} bytes, {report.layers} layers, {report.seconds:.2f} s")
    assert plan.stat().st_size == report.bytes > path.stat().st_size
    assert report.layers >= 6
    assert not report.warnings


def test_progress_rises_to_one(tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour) -> None:
    told: list[tuple[str, float]] = []
    path = write_network(tmp_path / "small.onnx")
    build_plan(path, tmp_path / "small.plan", PlanOptions(), rtx, lambda text, share: told.append((text, share)))
    shares = [share for _, share in told]
    assert len(set(shares)) > 10
    assert shares == sorted(shares)
    assert 0 <= shares[0] and shares[-1] == 1
    assert all(text for text, _ in told)


def test_an_exception_in_progress_stops_the_build(
    tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour
) -> None:
    def stop(text: str, share: float) -> None:
        raise KeyboardInterrupt

    path = write_network(tmp_path / "small.onnx")
    with pytest.raises(KeyboardInterrupt):
        build_plan(path, tmp_path / "small.plan", PlanOptions(), rtx, stop)
    assert not (tmp_path / "small.plan").exists()


def test_a_broken_file_is_named(tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(write_network(tmp_path / "small.onnx").read_bytes()[:700])
    with pytest.raises(EngineError, match="broken.onnx.*Failed to parse"):
        build_plan(path, tmp_path / "broken.plan", PlanOptions(), rtx)


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path: Path, rtx: Flavour) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        determinants (float[2,3,3] matrices) => (float[2] values) { values = Det(matrices) }""")
    model.graph.node[0].name = "the_determinant"
    onnx.save(model, tmp_path / "det.onnx")
    with pytest.raises(EngineError, match=r"det\.onnx.*the_determinant \(Det\)"):
        build_plan(tmp_path / "det.onnx", tmp_path / "det.plan", PlanOptions(), rtx)


def test_a_static_network_takes_no_larger_batch(
    tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour
) -> None:
    with pytest.raises(UsageError, match="max_batch of small.onnx"):
        build_plan(write_network(tmp_path / "small.onnx"), tmp_path / "x.plan", PlanOptions(max_batch=4), rtx)


def test_compute_capabilities(tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour) -> None:
    path = write_network(tmp_path / "small.onnx")
    build_plan(path, tmp_path / "two.plan", PlanOptions(compute_capabilities=("8.6", "12.0")), rtx)
    build_plan(path, tmp_path / "one.plan", PlanOptions(compute_capabilities=("8.6",)), rtx)
    assert (tmp_path / "two.plan").read_bytes() != (tmp_path / "one.plan").read_bytes()
    with pytest.raises(UsageError, match="9.9"):
        build_plan(path, tmp_path / "x.plan", PlanOptions(compute_capabilities=("8.6", "9.9")), rtx)
    with pytest.raises(EngineError, match="Turing.*leave out compute capability 7.5"):
        build_plan(path, tmp_path / "x.plan", PlanOptions(compute_capabilities=("7.5",)), rtx)


def test_a_timing_cache_does_not_make_rtx_need_a_gpu(
    tmp_path: Path, write_network: Callable[..., Path], rtx: Flavour
) -> None:
    options = PlanOptions(timing_cache=tmp_path / "timing")
    build_plan(write_network(tmp_path / "small.onnx"), tmp_path / "small.plan", options, rtx)
    assert not (tmp_path / "timing").exists()
