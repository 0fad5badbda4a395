"""The guided loop on a GPU: on a pretended one, strict about where tensors are and counting waits, and on a real one.

The pretended GPU needs no hardware: its tensors are tensors of the CPU that say they are elsewhere. What PyTorch
refuses on a GPU they refuse too: work on tensors of two devices, and turning into numpy arrays.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fitdiff.cli_options import BACKENDS as CLI_BACKENDS
from fitdiff.engines.backends import BACKENDS
from fitdiff.errors import MissingError, UsageError
from fitdiff.rendering.rasteriser import TorchRasteriser
from fitdiff.runtime import trace
from fitdiff.runtime.avatar_result import AvatarOptions, AvatarResult
from fitdiff.runtime.ddim import GuidanceStep
from fitdiff.runtime.detail import DetailConfig
from fitdiff.runtime.devices import HostRasteriser, device_from_host, device_from_name, host_from_device
from fitdiff.runtime.face_crop import FaceCrop, crop_face, find_landmarks
from fitdiff.runtime.guidance import GUIDANCE_PRESETS, GuidanceConfig, PhotoGuidance
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline

MODULE_TO = nn.Module.to
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
WAITS: Counter[str] = Counter()
COPIES = (Tensor.to, Tensor.cpu, Tensor.copy_)
NUMBERS = (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__)
COUNTED = (Tensor.nonzero, torch.nonzero, Tensor.new_tensor, torch.tensor, torch.as_tensor, torch.linalg.inv,
           torch.linalg.solve, Tensor.unique, torch.unique, Tensor.masked_select)  # fmt: skip


def flat(value: Any) -> Iterator[Any]:
    """The leaves of nested arguments."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for entry in value:
            yield from flat(entry)
    else:
        yield value


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with `function` applied to every tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        entries = [mapped(entry, function) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value


class OnGpu(Tensor):
    """A tensor that says it is on the GPU, and insists on it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        given = [leaf for leaf in flat((args, kwargs)) if isinstance(leaf, Tensor)]
        elsewhere = [tensor for tensor in given if not isinstance(tensor, OnGpu) and tensor.ndim]
        if elsewhere and func not in COPIES:
            raise RuntimeError(f"{getattr(func, '__name__', func)}: tensors on {GPU} and cpu {elsewhere[0].shape}")
        count_wait(func, args)
        wanted = wanted_device(func, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*without_device(args), **without_device(kwargs))
        plain = func == Tensor.cpu or (wanted is not None and wanted.type == "cpu")
        kind = Tensor if plain else OnGpu
        return mapped(result, lambda tensor: tensor if type(tensor) is kind else tensor.as_subclass(kind))


def count_wait(func: Any, args: Any) -> None:
    """Note what the host would wait for on a real GPU."""
    name = getattr(func, "__name__", str(func))
    if func in NUMBERS or func in COUNTED or func == Tensor.cpu:
        WAITS[name] += 1
    elif func in (Tensor.__getitem__, Tensor.__setitem__):
        indices = [leaf for leaf in flat(args[1]) if isinstance(leaf, Tensor)]
        if any(index.dtype == torch.bool for index in indices):
            WAITS["mask"] += 1


def wanted_device(func: Any, args: Any, kwargs: Any) -> torch.device | None:
    """Where the caller asks for the result; None: where the arguments are."""
    if func == Tensor.to and any(isinstance(leaf, Tensor) for leaf in args[1:]):
        return args[1].device
    named = [leaf for leaf in (*args[1:], kwargs.get("device")) if isinstance(leaf, (torch.device, str))]
    try:
        return torch.device(named[0]) if named else None
    except RuntimeError:  # another kind of text, such as an equation of einsum
        return None


def without_device(arguments: Any) -> Any:
    """The arguments with the GPU replaced by where its numbers really are."""
    swap = lambda leaf: CPU if isinstance(leaf, torch.device) else leaf  # noqa: E731
    if isinstance(arguments, dict):
        return {name: swap(value) for name, value in arguments.items()}
    return tuple(swap(value) for value in arguments)


class PretendedGpu(TorchFunctionMode):
    """Within it, what is made on the GPU or sent there is an `OnGpu`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.pin_memory:
            return args[0]
        if any(isinstance(leaf, OnGpu) for leaf in flat((args, kwargs))):
            if func == Tensor.to and not isinstance(args[0], OnGpu):  # to where another tensor is
                WAITS["to"] += 1
                return args[0].to(args[1].dtype).as_subclass(OnGpu)
            return func(*args, **kwargs)
        wanted = wanted_device(func, args, kwargs)
        if wanted is None or wanted.type != "cuda":
            return func(*args, **kwargs)
        if func == Tensor.to and not kwargs.get("non_blocking"):
            WAITS["to"] += 1
        elif func in COUNTED:
            WAITS[func.__name__] += 1
        result = func(*without_device(args), **without_device(kwargs))
        return mapped(result, lambda tensor: tensor.as_subclass(OnGpu))


def module_to(module: nn.Module, device: torch.device | None = None, **others: Any) -> nn.Module:
    """`nn.Module.to` for a pretended GPU."""
    if device is None:
        return MODULE_TO(module, **others)
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = tensor.detach().as_subclass(OnGpu)  # type: ignore[assignment]
    return module


@contextmanager
def pretended_gpu() -> Iterator[Counter[str]]:
    """Within it there is a GPU; yields how often the host has waited for it, by what for."""
    WAITS.clear()
    with pytest.MonkeyPatch.context() as patch, PretendedGpu():
        patch.setattr(nn.Module, "to", module_to)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        yield WAITS


@pytest.fixture(scope="module")
def config() -> Iterator[GuidanceConfig]:
    """A short detail stage."""
    short = replace(GuidanceConfig(), detail=DetailConfig(steps=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GUIDANCE_PRESETS, "full", short)
        yield short


@pytest.fixture(scope="module")
def crop(small_pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), small_pipeline.detector, small_pipeline.models.face_mesh)


def test_device_names() -> None:
    assert device_from_name("cpu") == device_from_name(CPU) == CPU
    for name in ("mps", "abacus", "cuda:x"):
        with pytest.raises(UsageError):
            device_from_name(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "current_device", lambda: 1)
        assert device_from_name("cuda") == torch.device("cuda", 1)
        assert device_from_name("cuda:0") == torch.device("cuda", 0)
        with pytest.raises(MissingError, match="cuda:2"):
            device_from_name("cuda:2")


def test_a_device_that_is_not_there(small_assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="cuda"):
        load_pipeline(small_assets, device="cuda")


def test_the_command_line_knows_every_backend() -> None:
    assert set(CLI_BACKENDS) == {"auto", *BACKENDS}


def test_the_pretended_gpu_is_strict() -> None:
    with pretended_gpu() as waits:
        there = torch.arange(6.0, device=GPU).view(2, 3)
        assert isinstance(there * 2 + torch.tensor(1.0), OnGpu)  # a number on the CPU may come along
        with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert not waits
        float(there.sum())
        there[there > 2]
        there.nonzero()
        assert sum(waits.values()) == 3
        assert type(there.cpu()) is Tensor
        leaf = torch.zeros(3, device=GPU, requires_grad=True)
        (gradient,) = torch.autograd.grad((leaf * there).sum(), leaf)
        assert isinstance(gradient, OnGpu)


def test_copies_are_seen_and_packed() -> None:
    parts = torch.arange(2.0), torch.ones(3, 3)
    assert device_from_host(CPU, *parts) == parts and host_from_device(parts[0]) is parts[0]
    with pretended_gpu() as waits, trace.recording() as recorder:
        moved = device_from_host(GPU, *parts)
        assert not waits  # pinned and not waited for
        back = [host_from_device(part) for part in moved]
    assert all(torch.equal(a, b) for a, b in zip(back, parts, strict=True))
    assert [(piece.kind, piece.moved) for piece in recorder.spans] == [("copy", 44), ("copy", 8), ("copy", 36)]


def test_rasteriser_copies_triangles_once() -> None:
    vertices = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 7.0, 1.0], [7.0, 1.0, 1.0]]])
    triangles = torch.tensor([[0, 1, 2]])
    expected = TorchRasteriser()(vertices, triangles, 8, 8)
    rasteriser = HostRasteriser(TorchRasteriser())
    assert (expected == 0).any() and torch.equal(rasteriser(vertices, triangles, 8, 8), expected)
    with pretended_gpu() as waits:
        there = vertices.to(GPU), triangles.to(GPU)
        waits.clear()
        first = rasteriser(*there, 8, 8)
        assert waits == {"cpu": 2}
        assert isinstance(rasteriser(*there, 8, 8), OnGpu) and waits == {"cpu": 3}
        assert torch.equal(first.cpu(), expected)


def test_landmarks_are_found_on_the_device(
    small_assets: Path, astronaut: Path, small_pipeline: FitDiffPipeline
) -> None:
    photo = load_photo(astronaut).pixels
    (face, *_) = small_pipeline.detector.detect(photo, 0)
    expected = find_landmarks(small_pipeline.models.face_mesh, photo, face)
    with pretended_gpu():
        network = copy.deepcopy(small_pipeline.models.face_mesh).to(GPU)
        found = find_landmarks(network, photo, face)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.fixture(scope="module")
def on_cpu(small_pipeline: FitDiffPipeline) -> FitDiffPipeline:
    """With float32 throughout, as on a GPU."""
    return replace(small_pipeline, models=replace(small_pipeline.models, bfloat16=False))


def same(a: AvatarResult, b: AvatarResult) -> None:
    for name in ("albedo", "specular", "normal", "roughness", "alpha"):
        torch.testing.assert_close(getattr(a.head_maps, name), getattr(b.head_maps, name), atol=1e-5, rtol=0)
    torch.testing.assert_close(a.vertices, b.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.light.ambient, b.light.ambient, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(a.avatar.face_maps.normal, b.avatar.face_maps.normal, atol=1e-5)
    assert [sorted(row) for row in a.report.guidance] == [sorted(row) for row in b.report.guidance]
    for row, other in zip(a.report.guidance, b.report.guidance, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("preset", ["full", "none"])
def test_the_whole_loop_stays_on_the_device(
    preset: str, small_assets: Path, on_cpu: FitDiffPipeline, crop: FaceCrop, config: GuidanceConfig
) -> None:
    """Nothing is mixed up from the photo to the result, which is on the CPU and what the CPU makes."""
    options = AvatarOptions(steps=2, guidance=preset, cfg=1.5, seed=3)
    with pretended_gpu():
        pipeline = load_pipeline(small_assets, device="cuda")
        assert pipeline.device == GPU
        result = pipeline.avatar(crop, options)
        nobody = pipeline.sample(AvatarOptions(steps=1, guidance="none"))
    tensors = [*vars(result.head_maps).values(), *vars(result.light).values(), result.vertices, nobody.vertices]
    assert all(type(tensor) is Tensor for tensor in tensors)
    assert result.report.options["device"] == "cuda:0" and result.report.options["backend"] == "eager"
    same(result, on_cpu.avatar(crop, options))
    assert result.camera is not None
    drawn = pipeline.renderer.render(result.vertices, result.head_maps, result.camera, result.light)
    assert drawn.alpha.any() and pipeline.renderer is not pipeline.models.renderer


def test_what_a_guided_step_waits_for(small_assets: Path, crop: FaceCrop) -> None:
    """For the vertices, whose visibility is found on the CPU, and for how many pixels they cover."""
    config = GuidanceConfig(interval=1)
    with pretended_gpu() as waits:
        pipeline = load_pipeline(small_assets, device="cuda")
        guide = PhotoGuidance(
            pipeline.models, pipeline.denoiser.statistics, photo_target(crop, pipeline.models), config
        )
        z = torch.zeros(1, *pipeline.layout.shape, device=GPU)
        for index in (5, 6):  # the first one copies the triangles, the second finds the face on the chart
            guide(z, GuidanceStep(index, 10, 500, 0.3, 0.4))
        waits.clear()
        with trace.recording() as recorder:
            z = z + guide(z, GuidanceStep(7, 10, 400, 0.4, 0.5))
        assert waits == {"cpu": 1, "nonzero": 1}
        copies = [piece for piece in recorder.spans if piece.kind == "copy"]
        assert len(copies) == 2  # an index image comes back for the vertices
        assert isinstance(z, OnGpu)
        waits.clear()
        assert [row["step"] for row in guide.histories[0]] == [5, 6, 7] and waits == {"cpu": 1}
        assert len(guide.histories[0]) == 3 and waits == {"cpu": 1}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is present")
def test_a_real_gpu_makes_the_same_person(
    small_assets: Path, on_cpu: FitDiffPipeline, crop: FaceCrop, config: GuidanceConfig
) -> None:
    options = AvatarOptions(steps=3, seed=3)
    pipeline = load_pipeline(small_assets, device="cuda")
    result, expected = pipeline.avatar(crop, options), on_cpu.avatar(crop, options)
    assert result.vertices.device == CPU and result.report.options["device"].startswith("cuda:")
    distance = float((result.vertices - expected.vertices).norm(dim=2).max())
    albedo = float((result.head_maps.albedo - expected.head_maps.albedo).abs().mean())
    print(f"largest distance {distance * 1000:.3f} mm, mean difference of albedo {albedo:.2e}")
    assert distance < 2e-3 and albedo < 5e-3
