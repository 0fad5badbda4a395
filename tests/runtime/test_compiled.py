"""The same guided loop on compiled engines: the same face, whichever backend runs the networks and their gradients."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from fitdiff.engines.backends import backend_named
from fitdiff.engines.compiled_models import RUN_GRAPHS, compile_models
from fitdiff.engines.graph import Graph
from fitdiff.engines.graphs import GRAPH_NAMES
from fitdiff.engines.options import EngineOptions
from fitdiff.engines.runner import Runner
from fitdiff.errors import MissingError, UsageError
from fitdiff.runtime.avatar_result import AvatarOptions, AvatarResult
from fitdiff.runtime.batched_runner import in_batches
from fitdiff.runtime.compiled import compiled_pipeline
from fitdiff.runtime.detail import DetailConfig
from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.graph_sources import graph_sources
from fitdiff.runtime.guidance import GUIDANCE_PRESETS, GuidanceConfig, PhotoGuidance
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline

OPTIONS = AvatarOptions(steps=4, seed=3, cfg=1.5)


@pytest.fixture(scope="module")
def plain(small_assets: Path) -> FitDiffPipeline:
    """The small pipeline in float32, as the engines are."""
    pipeline = load_pipeline(small_assets)
    return replace(pipeline, models=replace(pipeline.models, bfloat16=False))


@pytest.fixture(scope="module")
def crop(plain: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), plain.detector, plain.models.face_mesh)


@pytest.fixture(scope="module", autouse=True)
def little_detail() -> Iterator[None]:
    """Two of Adam's steps show that the pairs serve them; twenty make much of rounding."""
    config = replace(GuidanceConfig(), detail=DetailConfig(steps=2))
    with patch.dict(GUIDANCE_PRESETS, {"full": config}):
        yield


@pytest.fixture(scope="module")
def expected(plain: FitDiffPipeline, crop: FaceCrop, little_detail: None) -> AvatarResult:
    return plain.avatar(crop, OPTIONS)


def gradient_error(found: FitDiffPipeline, plain: FitDiffPipeline, crop: FaceCrop) -> float:
    """Length of the difference of guidance's gradients at one latent, over the gradient's."""
    z = 0.5 * torch.randn(1, *plain.layout.shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for pipeline in (found, plain):
        target = photo_target(crop, pipeline.models)
        guide = PhotoGuidance(pipeline.models, pipeline.denoiser.statistics, target, GuidanceConfig())
        gradients.append(guide.gradient(z)[0])
    return float((gradients[0] - gradients[1]).norm() / gradients[1].norm())


def assert_same(found: AvatarResult, expected: AvatarResult) -> None:
    """A whole run: where a gradient is next to nothing Adam asks for its sign alone, so single texels may differ."""
    maps = [result.avatar.face_maps.diffuse_albedo for result in (found, expected)]
    difference = np.abs(maps[0] - maps[1])
    moved = float((found.vertices - expected.vertices).abs().max())
    similarity = [result.report.similarity["guiding"] for result in (found, expected)]
    print(f"albedo {difference.max():.2e}, mean {difference.mean():.2e}; vertices {moved:.2e} m; {similarity}")
    assert difference.mean() < 8e-3 and moved < 5e-4
    assert similarity[0] == pytest.approx(similarity[1], abs=2e-2)  # few steps of untrained networks


def test_engines_of_pytorch_make_the_same_face(plain: FitDiffPipeline, crop: FaceCrop, expected: AvatarResult) -> None:
    made: list[str] = []

    def make_runner(graph: Graph) -> Runner:
        made.append(graph.name)
        return in_batches(backend_named("eager").make_runner(graph, EngineOptions()), graph, 1)

    compiled = compile_models(graph_sources(plain.denoiser, plain.models), make_runner)
    assert sorted(made) == sorted(RUN_GRAPHS) and set(RUN_GRAPHS) <= set(GRAPH_NAMES)
    networks = {name: getattr(compiled, name) for name in ("autoencoder", "recogniser", "face_mesh", "perceptual")}
    pipeline = replace(plain, denoiser=compiled.denoiser, models=replace(plain.models, **networks), engines=compiled)
    error = gradient_error(pipeline, plain, crop)
    print(f"relative error of the gradient {error:.2e}")
    assert error < 1e-3
    assert_same(pipeline.avatar(crop, OPTIONS), expected)
    assert plain.models.recogniser.forward.__func__ is type(plain.models.recogniser).forward  # type: ignore[attr-defined]
    again = plain.avatar(crop, OPTIONS)  # the networks that the engines were made from are as they were
    assert np.array_equal(again.avatar.face_maps.diffuse_albedo, expected.avatar.face_maps.diffuse_albedo)
    pipeline.close()
    with pytest.raises(UsageError):
        pipeline.avatar(crop, OPTIONS)


def test_onnx_runtime_makes_the_same_face(
    small_assets: Path, plain: FitDiffPipeline, crop: FaceCrop, expected: AvatarResult, tmp_path: Path
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    told: list[str] = []
    pipeline = load_pipeline(
        small_assets, backend="onnxruntime", cache_dir=tmp_path, on_engine=lambda name, done, count: told.append(name)
    )
    assert pipeline.backend == "onnxruntime" and sorted(told) == sorted(RUN_GRAPHS)
    found = pipeline.avatar(crop, OPTIONS)
    assert gradient_error(pipeline, plain, crop) < 1e-3
    assert_same(found, expected)
    assert found.report.options["backend"] == "onnxruntime"
    assert len(list(tmp_path.glob("*.onnx*"))) >= len(RUN_GRAPHS)


def test_a_backend_that_is_not_there_says_so(plain: FitDiffPipeline) -> None:
    with pytest.raises(UsageError, match="fastest"):
        compiled_pipeline(plain, "warp-drive")
    if not torch.cuda.is_available():
        with pytest.raises((MissingError, UsageError), match="cuda|CUDA"):
            compiled_pipeline(plain, "onnxruntime-cuda", device=torch.device("cuda"))
