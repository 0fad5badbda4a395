"""TensorRT: ONNX files are parsed and built, errors name what is wrong, memory is bound, weights can be exchanged.

Builds are TensorRT-RTX's, which needs no GPU for them; what runs an engine is tested where there is one.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fitdiff.engines.graph import Graph, TensorSpec
from fitdiff.engines.options import EngineOptions
from fitdiff.engines.trt import loader
from fitdiff.engines.trt.binding import Binding
from fitdiff.engines.trt.builder import PlanOptions, build_plan
from fitdiff.engines.trt.jit_file import kernels_from_file, write_kernels
from fitdiff.engines.trt.loader import EngineError, Flavour, availability, load_engine, load_flavour
from fitdiff.engines.trt.refit import architecture_sha256, refittable_weights
from fitdiff.errors import MissingError, UsageError

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'fitdiff[engines]'")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: engines cannot run here")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present: this is what happens without one")


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    try:
        return load_flavour("tensorrt-rtx")
    except MissingError as error:
        pytest.skip(f"TensorRT-RTX cannot be imported: {error.got}")


def write_network(path: Path, *, half: bool = False, batch: str = "1", seed: int = 0, tail: str = "Sigmoid") -> Path:
    """A convolution, group norm, an activation, a resize and a matrix product, in ONNX opset 21."""
    kind, dtype = ("float16", np.float16) if half else ("float", np.float32)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 21]>
        small ({kind}[{batch},3,16,16] image) => ({kind}[{batch},8,32,32] maps, {kind}[{batch},5] vector) {{
            a = Conv<pads = [1,1,1,1]>(image, conv_weight, conv_bias)
            b = GroupNormalization<num_groups = 2>(a, norm_weight, norm_bias)
            c = {tail}(b)
            maps = Resize<mode = "nearest">(c, , scales)
            d = ReduceMean<keepdims = 0>(c, axes)
            vector = Gemm(d, matrix, offset)
        }}""")
    random = np.random.default_rng(seed)
    shapes = {
        "conv_weight": (8, 3, 3, 3), "conv_bias": (8,), "norm_weight": (8,), "norm_bias": (8,),
        "matrix": (8, 5), "offset": (5,),
    }  # fmt: skip
    weights = {name: random.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    weights |= {"scales": np.array([1, 1, 2, 2], np.float32), "axes": np.array([2, 3])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("max_batch", [1, 4], ids=["static", "dynamic"])
def test_a_network_is_built(tmp_path: Path, rtx: Flavour, half: bool, max_batch: int) -> None:
    path = write_network(tmp_path / "small.onnx", half=half, batch="1" if max_batch == 1 else "batch")
    plan = tmp_path / "small.plan"
    report = build_plan(path, plan, PlanOptions(max_batch=max_batch), rtx)
    print(f"{report.bytes} bytes, {report.layers} layers, {report.seconds:.2f} s")
    assert plan.stat().st_size == report.bytes > path.stat().st_size
    assert report.layers >= 6
    assert not report.warnings


def test_progress_rises_to_one(tmp_path: Path, rtx: Flavour) -> None:
    told: list[tuple[str, float]] = []
    path = write_network(tmp_path / "small.onnx")
    build_plan(path, tmp_path / "small.plan", PlanOptions(), rtx, lambda text, share: told.append((text, share)))
    shares = [share for _, share in told]
    assert len(set(shares)) > 10
    assert shares == sorted(shares)
    assert 0 <= shares[0] and shares[-1] == 1
    assert all(text for text, _ in told)


def test_an_exception_in_progress_stops_the_build(tmp_path: Path, rtx: Flavour) -> None:
    def stop(text: str, share: float) -> None:
        raise KeyboardInterrupt

    path = write_network(tmp_path / "small.onnx")
    with pytest.raises(KeyboardInterrupt):
        build_plan(path, tmp_path / "small.plan", PlanOptions(), rtx, stop)
    assert not (tmp_path / "small.plan").exists()


def test_a_broken_file_is_named(tmp_path: Path, rtx: Flavour) -> None:
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


def test_a_static_network_takes_no_larger_batch(tmp_path: Path, rtx: Flavour) -> None:
    with pytest.raises(UsageError, match="max_batch of small.onnx"):
        build_plan(write_network(tmp_path / "small.onnx"), tmp_path / "x.plan", PlanOptions(max_batch=4), rtx)


def test_compute_capabilities(tmp_path: Path, rtx: Flavour) -> None:
    path = write_network(tmp_path / "small.onnx")
    build_plan(path, tmp_path / "two.plan", PlanOptions(compute_capabilities=("8.6", "12.0")), rtx)
    build_plan(path, tmp_path / "one.plan", PlanOptions(compute_capabilities=("8.6",)), rtx)
    assert (tmp_path / "two.plan").read_bytes() != (tmp_path / "one.plan").read_bytes()
    with pytest.raises(UsageError, match="9.9"):
        build_plan(path, tmp_path / "x.plan", PlanOptions(compute_capabilities=("8.6", "9.9")), rtx)
    with pytest.raises(EngineError, match="Turing.*leave out compute capability 7.5"):
        build_plan(path, tmp_path / "x.plan", PlanOptions(compute_capabilities=("7.5",)), rtx)


def test_a_timing_cache_does_not_make_rtx_need_a_gpu(tmp_path: Path, rtx: Flavour) -> None:
    options = PlanOptions(timing_cache=tmp_path / "timing")
    build_plan(write_network(tmp_path / "small.onnx"), tmp_path / "small.plan", options, rtx)
    assert not (tmp_path / "timing").exists()


@no_gpu
def test_without_a_gpu_a_plan_does_not_load_and_says_why(tmp_path: Path, rtx: Flavour) -> None:
    plan = tmp_path / "small.plan"
    build_plan(write_network(tmp_path / "small.onnx"), plan, PlanOptions(), rtx)
    with pytest.raises(EngineError, match=r"plan small\.plan: got no GPU.*CUDA driver.*expected.*RTX 4090"):
        load_engine(plan, rtx, built_for="RTX 4090, compute capability 8.9")


def test_a_foreign_plan_does_not_load(tmp_path: Path, rtx: Flavour) -> None:
    plan = tmp_path / "foreign.plan"
    plan.write_bytes(b"not a plan" * 1000)
    with pytest.raises(EngineError, match="malformed engine"):
        load_engine(plan, rtx)


@no_gpu
def test_a_refittable_plan_is_built_or_its_need_of_a_gpu_named(tmp_path: Path, rtx: Flavour) -> None:
    plan = tmp_path / "small.plan"
    try:
        build_plan(write_network(tmp_path / "small.onnx"), plan, PlanOptions(refit=True), rtx)
    except EngineError as error:
        assert "only where there is a GPU" in error.remedy
        assert not plan.exists()
    else:
        assert plan.stat().st_size > 0


def test_all_float_weights_can_be_exchanged(tmp_path: Path, rtx: Flavour) -> None:
    names = set(refittable_weights(write_network(tmp_path / "small.onnx"), rtx))
    assert names >= {"conv_weight", "conv_bias", "norm_weight", "norm_bias", "matrix", "offset"}


def test_the_architecture_is_all_but_the_weights(tmp_path: Path) -> None:
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


def test_messages_are_kept_and_not_printed(tmp_path: Path, rtx: Flavour, capfd: pytest.CaptureFixture[str]) -> None:
    with rtx.log.messages() as said:
        parser = rtx.trt.OnnxParser(rtx.trt.Builder(rtx.log.logger).create_network(0), rtx.log.logger)
        parser.parse_from_file(str(tmp_path / "absent.onnx"))
    assert any("absent.onnx" in line for line in said)
    assert capfd.readouterr() == ("", "")


def test_availability_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    load_flavour.cache_clear()
    monkeypatch.setitem(loader.MODULES, "tensorrt-rtx", ("tensorrt_rtx_absent",))
    found = availability("tensorrt-rtx")
    load_flavour.cache_clear()
    assert not found.ok
    assert "No module named 'tensorrt_rtx_absent'" in found.reason and "pip install tensorrt-rtx" in found.reason


def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt_of_old")
    old.__dict__["__version__"] = "8.6.1"
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_of_old", old)
    monkeypatch.setitem(loader.MODULES, "tensorrt", ("tensorrt_of_old",))
    load_flavour.cache_clear()
    with pytest.raises(MissingError, match="8.6.1.*10 or later"):
        load_flavour("tensorrt")
    load_flavour.cache_clear()


def test_an_unknown_flavour_is_refused() -> None:
    with pytest.raises(UsageError, match="tensorrt, tensorrt-rtx"):
        load_flavour("tensorflow")


def test_finished_kernels_survive_and_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.jit"
    assert kernels_from_file(path) == b""
    write_kernels(path, b"kernels")
    assert kernels_from_file(path) == b"kernels"
    assert [file.name for file in tmp_path.iterdir()] == ["x.jit"]
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"S", content[:10], b""):
        path.write_bytes(damaged)
        assert kernels_from_file(path) == b""
    write_kernels(tmp_path / "absent" / "x.jit", b"kernels")  # costs time at the next start, no error


class FakeContext:
    """An execution context that doubles what stands at its input's address, on the CPU."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.settings = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["image"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        self.settings += name == "image"
        return True

    def run(self) -> None:
        count = int(np.prod(self.shapes["image"]))
        given, answer = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in ("image", "doubled"))
        for index in range(count):
            answer[index] = 2 * given[index]


FAKE_TRT = SimpleNamespace(
    DataType=SimpleNamespace(**{name: name for name in "FLOAT HALF BF16 INT64 INT32 INT8 UINT8 BOOL".split()})
)
FAKE_ENGINE = SimpleNamespace(
    num_io_tensors=2, get_tensor_name=("image", "doubled").__getitem__, get_tensor_dtype=lambda name: "FLOAT"
)
IMAGE = TensorSpec("image", (None, 4, 16))
UNREAD = TensorSpec("unread", (None, 2))
DOUBLED = TensorSpec("doubled", (None, 4, 16))


def bind(context: FakeContext, batch: int = 1, image: TensorSpec = IMAGE) -> Binding:
    return Binding(
        (UNREAD, image), (DOUBLED,), FAKE_ENGINE, context, FAKE_TRT,
        batch=batch, device=torch.device("cpu"), thing="engine of doubled",
    )  # fmt: skip


def aligned(value: float, floats: int = 64) -> Tensor:
    """(1, 4, 16) at an address that is a multiple of 256."""
    memory = torch.full((floats + 64,), value)
    return memory[(-memory.data_ptr() % 256) // 4 :][:64].view(1, 4, 16)


def test_inputs_that_stay_are_read_in_place_and_others_copied() -> None:
    context, unread = FakeContext(), torch.zeros(1, 2)
    binding = bind(context)
    first = aligned(1.0)
    assert binding.take((unread, first))
    assert context.addresses["image"] == first.data_ptr()
    first.fill_(3.0)  # new content at the old address
    assert not binding.take((unread, first))
    context.run()
    assert torch.equal(binding.results()[0], torch.full((1, 4, 16), 6.0))

    second = aligned(5.0)
    assert binding.take((unread, second))  # to a copy, for good
    assert context.addresses["image"] not in (first.data_ptr(), second.data_ptr())
    for value in (7.0, 8.0):
        assert not binding.take((unread, aligned(value)))
        context.run()
        assert torch.equal(binding.results()[0], torch.full((1, 4, 16), 2 * value))
    assert context.settings == 2


def test_strided_and_unaligned_inputs_are_copied() -> None:
    memory = aligned(0.0)
    memory.copy_(torch.arange(64.0).view(1, 4, 16))
    strided = memory.view(1, 16, 4).transpose(1, 2)
    for given in (strided, memory.flatten()[1:].new_ones(1, 4, 17)[..., 1:], aligned(2.0).double().float()):
        context = FakeContext()
        binding = bind(context)
        binding.take((torch.zeros(1, 2), given))
        context.run()
        assert torch.equal(binding.results()[0], 2 * given)
    context = FakeContext()
    binding = bind(context)
    binding.take((torch.zeros(1, 2), memory))
    binding.take((torch.zeros(1, 2), strided))  # the same address, another order
    context.run()
    assert torch.equal(binding.results()[0], 2 * strided)


def test_outputs_are_reused_and_types_converted() -> None:
    context = FakeContext()
    binding = bind(context, image=TensorSpec("image", (None, 4, 16), torch.float64))
    binding.take((torch.zeros(1, 2), torch.full((1, 4, 16), 4.0, dtype=torch.float64)))
    context.run()
    once, again = binding.results()[0], binding.results()[0]
    assert once.data_ptr() == again.data_ptr()
    assert torch.equal(once, torch.full((1, 4, 16), 8.0))


def test_a_batch_beyond_the_profile_is_an_error() -> None:
    with pytest.raises(EngineError, match="engine of doubled.*shape"):
        bind(FakeContext(), batch=5)


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1, 4, 1), 2.0), requires_grad=False)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.factor * image,)


def doubled() -> Graph:
    return Graph("doubled", "Twice the image.", Doubled().eval(), (IMAGE,), (DOUBLED,))


@no_gpu
def test_a_plan_is_built_once_for_its_weights_and_precision(tmp_path: Path, rtx: Flavour) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'fitdiff[engines]'")
    from fitdiff.engines.trt.plans import plan_file

    graph, options, told = doubled(), EngineOptions(cache_dir=tmp_path), []
    first = plan_file(graph, options, rtx, progress=lambda text, share: told.append(text))
    assert told and first.path.is_file() and first.onnx_path.is_file()
    assert "any GPU from 8.0 on" in first.built_for and rtx.version in first.built_for
    told.clear()
    assert plan_file(graph, options, rtx, progress=lambda text, share: told.append(text)) == first
    assert not told
    other = doubled()
    other.module.get_parameter("factor").fill_(3.0)
    assert plan_file(other, options, rtx).path != first.path
    half = plan_file(graph, EngineOptions("fp16", cache_dir=tmp_path), rtx)
    assert half.path != first.path
    with pytest.raises(UsageError, match="bf16 for TensorRT"):
        plan_file(graph, EngineOptions("bf16", cache_dir=tmp_path), rtx)


@needs_gpu
@pytest.mark.parametrize("max_batch", [1, 4], ids=["static", "dynamic"])
def test_an_engine_runs(tmp_path: Path, rtx: Flavour, max_batch: int) -> None:
    from fitdiff.engines.trt.runner import make_runner

    graph = doubled()
    options = EngineOptions(max_batch=max_batch, cache_dir=tmp_path, device=torch.device("cuda"))
    with make_runner(graph, options, rtx.name) as runner:
        for batch in (1, max_batch, 1):
            for seed in range(3):  # launched, captured, replayed
                image = graph.example(batch, seed)[0].cuda()
                assert torch.equal(runner(image)[0], 2 * image)


@needs_gpu
def test_an_engine_takes_other_weights(tmp_path: Path, rtx: Flavour) -> None:
    from fitdiff.engines.trt.runner import make_runner

    options = EngineOptions(cache_dir=tmp_path, device=torch.device("cuda"))
    other = doubled()
    other.module.get_parameter("factor").fill_(3.0)
    image = other.example()[0].cuda()
    for graph, factor in ((doubled(), 2), (other, 3)):
        with make_runner(graph, options, rtx.name, refit=True) as runner:
            assert torch.equal(runner(image)[0], factor * image)
    assert len(list(tmp_path.glob("*.plan"))) == 1
