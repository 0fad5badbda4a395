"""The graphs that engines are built from, by name, and what goes in and out of each.

A network that guidance looks through is also a pair: `X_forward` answers what X does and, after that, tensors
`saved_00`, `saved_01` ...; `X_vjp` takes those, then `<output>_cotangent` of every output, and answers
`<input>_gradient`. The pair together costs what autograd does: nothing is computed twice.

Knows the models; knows nothing of ONNX, of backends, or of what is done with the results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..models.autoencoder import LATENT_STRIDE, MAP_CHANNELS, BranchedAutoencoder
from ..models.conditioner import Conditioner, conditioning_names
from ..models.denoiser import Denoiser, FitDiffDenoiser
from ..models.landmark_indices import LANDMARK_COUNT
from ..models.landmarks import FaceMesh
from ..models.perceptual import PerceptualNetwork
from ..models.recogniser import IdentityFeatures, Recogniser
from .cache import EngineCache
from .graph import Graph, TensorSpec
from .pairs import pair_from_graph

COARSE_STRIDE = LATENT_STRIDE // 2  # texels a latent cell at half the chart's resolution
GUIDED = ("recogniser", "landmarks", "perceptual", "texture_half", "texture_face")

IMAGE = "sRGB-encoded in [0, 1]"
MAPS = "in [0, 1]: diffuse albedo (sRGB), specular albedo (F0 / 0.08), tangent-space normal ((n + 1) / 2)"
LATENT = "texture latent, denormalised; about unit variance"


@dataclass(frozen=True)
class GraphSources:
    """The models, frozen and in evaluation mode, and the part of the chart that guidance decodes.

    face_window: top, bottom, left and right in latent cells, with whatever margin the caller will cut off.
    perceptual_size: pixels of the square picture whose features guidance compares.
    """

    denoiser: FitDiffDenoiser
    autoencoder: BranchedAutoencoder
    recogniser: Recogniser
    face_mesh: FaceMesh
    perceptual: PerceptualNetwork
    face_window: tuple[int, int, int, int]
    perceptual_size: int


def build_graph(name: str, sources: GraphSources, cache: EngineCache | None = None) -> Graph:
    """The graph `name`, one of `GRAPH_NAMES`. A pair's two graphs come cheaper from `build_pair`.

    Raises:
        UsageError: no such graph.
    """
    if name in _PLAIN:
        return _PLAIN[name](sources)
    network, _, role = name.rpartition("_")
    if network not in GUIDED or role not in ("forward", "vjp"):
        raise UsageError("graph", repr(name), f"one of {', '.join(GRAPH_NAMES)}", "check the spelling")
    return build_pair(network, sources, cache)[role == "vjp"]


def build_pair(network: str, sources: GraphSources, cache: EngineCache | None = None) -> tuple[Graph, Graph]:
    """`<network>_forward` and `<network>_vjp`, for a network of `GUIDED`; see `pair_from_graph`."""
    return pair_from_graph(_PLAIN[network](sources), cache)


class _Recogniser(nn.Module):
    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__()
        self.network = recogniser

    def forward(self, chips: Tensor) -> tuple[Tensor, ...]:
        features: IdentityFeatures = self.network(chips)
        return *features.maps, features.embedding


class _Conditioner(nn.Module):
    def __init__(self, conditioner: Conditioner) -> None:
        super().__init__()
        self.network = conditioner

    def forward(
        self, map_0: Tensor, map_1: Tensor, map_2: Tensor, embedding: Tensor, present: Tensor
    ) -> tuple[Tensor, ...]:
        conditioning = self.network(IdentityFeatures((map_0, map_1, map_2), embedding), present)
        return tuple(conditioning[name] for name in self.network.output_names)


class _Denoiser(nn.Module):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.network = denoiser
        self.names = conditioning_names(len(denoiser.unet.norm_sites))

    def forward(self, z_t: Tensor, t: Tensor, *conditioning: Tensor) -> tuple[Tensor]:
        return (self.network(z_t, t, dict(zip(self.names, conditioning, strict=True))),)


class _TextureEncoder(nn.Module):
    def __init__(self, autoencoder: BranchedAutoencoder) -> None:
        super().__init__()
        self.network = autoencoder

    def forward(self, maps: Tensor) -> tuple[Tensor]:
        return (self.network.encode(maps),)


class _TextureDecoder(nn.Module):
    def __init__(self, autoencoder: BranchedAutoencoder, resolution: int, origin: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.network, self.resolution, self.origin = autoencoder, resolution, origin

    def forward(self, latent: Tensor) -> tuple[Tensor]:
        return (self.network.decode(latent, self.resolution, self.origin),)


class _Landmarks(nn.Module):
    def __init__(self, face_mesh: FaceMesh) -> None:
        super().__init__()
        self.network = face_mesh

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(image)


class _Perceptual(nn.Module):
    def __init__(self, perceptual: PerceptualNetwork) -> None:
        super().__init__()
        self.network = perceptual

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.network(image)


def _recogniser(sources: GraphSources) -> Graph:
    size = sources.recogniser.chip_size
    return Graph(
        "recogniser",
        "What the face recogniser sees in an aligned face.",
        _Recogniser(sources.recogniser),
        (_image("chips", size),),
        _feature_specs(sources.recogniser),
        half_in_pair=_FLOAT32_PAIR,
    )


def _conditioner(sources: GraphSources) -> Graph:
    present = TensorSpec("present", (None,), meaning="1 for a face, 0 for the unconditional model", low=0.0)
    return Graph(
        "conditioner",
        "Everything about a photo that the denoiser needs, from the recogniser's features; once a photo.",
        _Conditioner(sources.denoiser.conditioner),
        (*_feature_specs(sources.recogniser), present),
        _conditioning_specs(sources.denoiser),
        half=("network.trunk", "network.identity", "network.heads.*"),
    )


def _denoiser(sources: GraphSources) -> Graph:
    latent = sources.denoiser.config.layout.shape
    last = sources.denoiser.config.schedule.timesteps - 1
    return Graph(
        "denoiser",
        "The noise in z_t; every step.",
        _Denoiser(sources.denoiser.denoiser),
        (
            TensorSpec("z_t", (None, *latent), meaning="normalised latent with noise", low=-2.0, high=2.0),
            TensorSpec("t", (None,), torch.int64, f"diffusion step, 0 to {last}", 0, last),
            *_conditioning_specs(sources.denoiser),
        ),
        (TensorSpec("noise", (None, *latent), meaning="expected noise, about unit variance"),),
        half=("network.unet",),
    )


def _texture_encoder(sources: GraphSources) -> Graph:
    size, cells = sources.autoencoder.config.chart_size, sources.autoencoder.latent_size
    return Graph(
        "texture_encoder",
        "The latent of reflectance maps.",
        _TextureEncoder(sources.autoencoder),
        (TensorSpec("maps", (None, MAP_CHANNELS, size, size), meaning=MAPS, low=0.0),),
        (TensorSpec("latent", (None, 1, cells, cells), meaning=LATENT),),
        half=("network.encoder",),
        float32=_UNSAFE_IN_HALF,
    )


def _texture_decoder(sources: GraphSources) -> Graph:
    size = sources.autoencoder.config.chart_size
    return _decoder_graph("texture_decoder", "Reflectance maps at full resolution.", sources, size)


def _texture_half(sources: GraphSources) -> Graph:
    size = sources.autoencoder.config.chart_size // 2
    return _decoder_graph("texture_half", "Reflectance maps at half resolution.", sources, size)


def _texture_face(sources: GraphSources) -> Graph:
    top, bottom, left, right = sources.face_window
    summary = f"Reflectance maps at half resolution of rows {top} to {bottom}, columns {left} to {right} of the latent."
    return _decoder_graph(
        "texture_face", summary, sources, sources.autoencoder.config.chart_size // 2, sources.face_window
    )


def _decoder_graph(
    name: str, summary: str, sources: GraphSources, resolution: int, window: tuple[int, int, int, int] | None = None
) -> Graph:
    cells = sources.autoencoder.latent_size
    top, bottom, left, right = window or (0, cells, 0, cells)
    height, width, stride = bottom - top, right - left, resolution // cells
    return Graph(
        name,
        summary,
        _TextureDecoder(sources.autoencoder, resolution, (top, left)),
        (TensorSpec("latent", (None, 1, height, width), meaning=LATENT, low=-2.0, high=2.0),),
        (TensorSpec("maps", (None, MAP_CHANNELS, height * stride, width * stride), meaning=MAPS, low=0.0),),
        half=("network.decoder",),
        float32=_UNSAFE_IN_HALF,
    )


def _landmarks(sources: GraphSources) -> Graph:
    return Graph(
        "landmarks",
        "The points of the face mesh in a crop of a face.",
        _Landmarks(sources.face_mesh),
        (_image("image", sources.face_mesh.config.input_size),),
        (
            TensorSpec("points", (None, LANDMARK_COUNT, 3), meaning="x, y, z in pixels of the crop"),
            TensorSpec("face_logit", (None,), meaning="above 0 where a face is more likely than not"),
        ),
        half_in_pair=_FLOAT32_PAIR,
    )


def _perceptual(sources: GraphSources) -> Graph:
    outputs = (
        TensorSpec(f"stage_{index}", (None, *shape), meaning="features, shallow first")
        for index, shape in enumerate(sources.perceptual.feature_shapes(sources.perceptual_size))
    )
    return Graph(
        "perceptual",
        "Features in which pictures are compared.",
        _Perceptual(sources.perceptual),
        (_image("image", sources.perceptual_size),),
        tuple(outputs),
        half_in_pair=_FLOAT32_PAIR,
    )


def _image(name: str, size: int) -> TensorSpec:
    return TensorSpec(name, (None, 3, size, size), meaning=IMAGE, low=0.0)


def _feature_specs(recogniser: Recogniser) -> tuple[TensorSpec, ...]:
    """As outputs of the recogniser, and as inputs of the conditioner."""
    maps = (
        TensorSpec(f"map_{index}", (None, *shape), meaning="the recogniser's map, shallow first", low=0.0)
        for index, shape in enumerate(recogniser.feature_shapes)
    )
    embedding = TensorSpec("embedding", (None, recogniser.embedding_size), meaning="not normalised", low=-0.2, high=0.2)
    return *maps, embedding


def _conditioning_specs(model: FitDiffDenoiser) -> tuple[TensorSpec, ...]:
    """As outputs of the conditioner, and as inputs of the denoiser."""
    sites, components = model.denoiser.unet.norm_sites, model.config.prior_components
    shapes = (
        (components,),
        (components + 1,),
        (model.config.unet.condition_channels,),
        *((2 * site.channels, site.height, site.width) for site in sites),
    )
    meanings = (
        "the linear prior's mean along its basis",
        "the linear prior's variances along its basis, and of the rest; above 0",
        "the embedding, projected",
        *("gamma | beta of a SPADE norm" for _ in sites),
    )
    return tuple(
        TensorSpec(name, (None, *shape), meaning=meaning, low=0.05 if name == "prior_variances" else -1.0)
        for name, shape, meaning in zip(conditioning_names(len(sites)), shapes, meanings, strict=True)
    )


_UNSAFE_IN_HALF = ("*.norm",)  # PixelNorm squares its input
# A ReLU or pooling whose input falls on the other side in half changes the gradient by all of it; docs/engines.md.
_FLOAT32_PAIR: tuple[str, ...] = ()
_PLAIN: dict[str, Callable[[GraphSources], Graph]] = {
    "recogniser": _recogniser,
    "conditioner": _conditioner,
    "denoiser": _denoiser,
    "texture_encoder": _texture_encoder,
    "texture_decoder": _texture_decoder,
    "texture_half": _texture_half,
    "texture_face": _texture_face,
    "landmarks": _landmarks,
    "perceptual": _perceptual,
}
GRAPH_NAMES = (*_PLAIN, *(f"{name}_{role}" for name in GUIDED for role in ("forward", "vjp")))
