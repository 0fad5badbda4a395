"""A pipeline's networks with engines at work in them: the same interfaces and weights, another way to run.

Each is a shallow copy of the network that it stands for, whose forward pass (for the autoencoder: `decode`) is an
engine's. What guidance looks through runs its gradient in an engine too; autograd only stitches. Whoever calls them
does not know. Knows nothing of which backend makes the runners.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from ..models.autoencoder import BranchedAutoencoder, Origin
from ..models.conditioner import Conditioner, Conditioning, conditioning_names
from ..models.denoiser import Denoiser, FitDiffDenoiser
from ..models.landmarks import FaceMesh
from ..models.perceptual import PerceptualNetwork
from ..models.recogniser import IdentityFeatures, Recogniser
from .cache import EngineCache
from .differentiable import differentiable, owned
from .graph import Graph
from .graphs import GraphSources, build_graph, build_pair
from .runner import Runner

Module = TypeVar("Module", bound=nn.Module)
Function = Callable[..., tuple[Tensor, ...]]
MakeRunner = Callable[[Graph], Runner]
RUN_GRAPHS = (
    "denoiser", "conditioner", "texture_decoder", "texture_half_forward", "texture_half_vjp", "texture_face_forward",
    "texture_face_vjp", "recogniser_forward", "recogniser_vjp", "landmarks_forward", "landmarks_vjp",
    "perceptual_forward", "perceptual_vjp",
)  # fmt: skip
"""The graphs that one avatar needs; the texture encoder is for training and evaluation."""


@dataclass(frozen=True)
class CompiledModels:
    """What takes the place of a pipeline's networks, and the runners behind them by graph name."""

    denoiser: FitDiffDenoiser
    autoencoder: BranchedAutoencoder
    recogniser: Recogniser
    face_mesh: FaceMesh
    perceptual: PerceptualNetwork
    runners: Mapping[str, Runner]

    def close(self) -> None:
        """Release the engines; the networks cannot run after that."""
        for runner in self.runners.values():
            runner.close()


def compile_models(
    sources: GraphSources, make_runner: MakeRunner, trace_cache: EngineCache | None = None
) -> CompiledModels:
    """Every network of a pipeline, with the runners that `make_runner` answers for the graphs of `RUN_GRAPHS`.

    trace_cache: see `pair_from_graph`; for backends that keep their engines in it.

    Raises what `make_runner` raises; runners made before that are closed.
    """
    runners: dict[str, Runner] = {}

    def made(graph: Graph) -> Runner:
        runners[graph.name] = make_runner(graph)
        return runners[graph.name]

    def single(name: str) -> Function:
        runner = made(build_graph(name, sources))
        return lambda *inputs: owned(runner, runner(*inputs))

    def pair(name: str) -> Function:
        forward, vjp = build_pair(name, sources, trace_cache)
        outputs = sum(not spec.name.startswith("saved_") for spec in forward.outputs)
        return differentiable(made(forward), made(vjp), outputs)

    try:
        denoiser = _with(sources.denoiser, denoiser=_denoiser(sources.denoiser.denoiser, single("denoiser")))
        denoiser = _with(denoiser, conditioner=_conditioner(sources.denoiser.conditioner, single("conditioner")))
        whole, half, face = single("texture_decoder"), pair("texture_half"), pair("texture_face")
        return CompiledModels(
            denoiser=denoiser,
            autoencoder=_autoencoder(sources, whole, half, face),
            recogniser=_recogniser(sources.recogniser, pair("recogniser")),
            face_mesh=_running(sources.face_mesh, pair("landmarks")),
            perceptual=_perceptual(sources, pair("perceptual")),
            runners=runners,
        )
    except BaseException:
        for runner in runners.values():
            runner.close()
        raise


def _running(module: Module, forward: Callable[..., object]) -> Module:
    """`module` with another forward pass; everything else, weights included, is shared."""
    running = copy.copy(module)
    running.forward = forward
    return running


def _with(module: Module, **parts: nn.Module) -> Module:
    """`module` with other sub-modules in place of those of these names."""
    changed = copy.copy(module)
    changed.__dict__["_modules"] = {**module._modules, **parts}
    return changed


def _denoiser(denoiser: Denoiser, engine: Function) -> Denoiser:
    names = conditioning_names(len(denoiser.unet.norm_sites))

    def predict(z_t: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return engine(z_t, t, *(conditioning[name] for name in names))[0]

    return _running(denoiser, predict)


def _conditioner(conditioner: Conditioner, engine: Function) -> Conditioner:
    def condition(features: IdentityFeatures, present: Tensor) -> Conditioning:
        outputs = engine(*features.maps, features.embedding, present)
        return dict(zip(conditioner.output_names, outputs, strict=True))

    return _running(conditioner, condition)


def _recogniser(recogniser: Recogniser, engine: Function) -> Recogniser:
    def recognise(chips: Tensor) -> IdentityFeatures:
        *maps, embedding = engine(chips)
        return IdentityFeatures(tuple(maps), embedding)

    return _running(recogniser, recognise)


def _perceptual(sources: GraphSources, engine: Function) -> PerceptualNetwork:
    """Features by engine of what guidance compares, and of any other size as before."""
    original, size = sources.perceptual, sources.perceptual_size

    def features(x: Tensor) -> tuple[Tensor, ...]:
        return engine(x) if x.shape[-2:] == (size, size) else original(x)

    return _running(original, features)


def _autoencoder(sources: GraphSources, whole: Function, half: Function, face: Function) -> BranchedAutoencoder:
    """Decodes by engine what guidance and export ask for, and anything else as before."""
    original = sources.autoencoder
    size, cells = original.config.chart_size, original.latent_size
    top, bottom, left, right = sources.face_window
    engines: dict[tuple[int, ...], Function] = {
        (size, cells, cells, 0, 0): whole,
        (size // 2, cells, cells, 0, 0): half,
        (size // 2, bottom - top, right - left, top, left): face,
    }

    def decode(z: Tensor, resolution: int | None = None, origin: Origin = (0, 0)) -> Tensor:
        place = origin if isinstance(origin, tuple) else None
        engine = engines.get((resolution or size, *z.shape[-2:], *place)) if place else None
        return original.decode(z, resolution, origin) if engine is None else engine(z)[0]

    running = copy.copy(original)
    running.decode = decode
    return running
