"""The whole noise predictor eps(z_t, t, V): conditioner and denoiser, with the checkpoint that holds both.

The UNet's output is added to the noise that the closed-form linear denoiser expects, scaled by
sqrt(alpha-bar): in z_0 that is a correction of the order of sqrt(1 - alpha-bar) at every noise level. With
its last layers at zero the whole model is the Gaussian prior's exact denoiser: training starts from there.

Knows nothing of the sampling loop or of training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingError
from .checkpoint import ModelCard, assets_dir, load_checkpoint, save_checkpoint
from .conditioner import Conditioner, Conditioning, modulation_names
from .latent import LatentLayout, LatentStatistics
from .linear_prior import LinearDenoiser, LinearPriorFit
from .recogniser import IdentityFeatures
from .schedule import DiffusionSchedule, predict_z0
from .unet import UNet, UNetConfig

ROLES = ("recogniser", "morphable", "autoencoder")  # of the models that a denoiser is trained with


@dataclass(frozen=True)
class DenoiserConfig:
    """Everything that the shape of a `FitDiffDenoiser` depends on."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    layout: LatentLayout = field(default_factory=LatentLayout)
    schedule: DiffusionSchedule = field(default_factory=DiffusionSchedule)
    prior_components: int = 384
    prior_grid: int = 1  # the recogniser's maps are averaged over grid x grid cells for the linear prior


@dataclass(frozen=True)
class TrainedWith:
    """The models whose outputs the denoiser was trained on: it works with these and no others.

    Hashes decide; names are for people, "" in checkpoints that are older than the field.
    """

    recogniser: str
    recogniser_sha256: str
    morphable_sha256: str
    autoencoder_sha256: str
    morphable: str = ""
    autoencoder: str = ""


class Denoiser(nn.Module):
    """eps from z_t, t and a conditioning: the part that runs at every step."""

    alphas_cumprod: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.layout = config.layout
        self.unet = UNet(config.unet, config.layout)
        self.linear = LinearDenoiser(config.prior_components, config.layout.size)
        self.register_buffer("alphas_cumprod", config.schedule.alphas_cumprod(), persistent=False)

    def forward(self, z_t: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """z_t (B, 1, 67, 64) normalised, t (B,) integer in [0, T) -> eps (B, 1, 67, 64)."""
        alpha_bar = self.alphas_cumprod[t][:, None]  # (B, 1)
        expected = self.expected_noise(z_t, alpha_bar, conditioning)
        alpha_bar = alpha_bar[:, :, None, None]
        inputs = torch.cat([z_t, predict_z0(z_t, expected, alpha_bar)], dim=1)
        dtype = self.unet.position.dtype
        modulations = [conditioning[name].to(dtype) for name in modulation_names(len(self.unet.norm_sites))]
        correction = self.unet(inputs.to(dtype), t, modulations, conditioning["identity"].to(dtype))
        return expected + alpha_bar.sqrt() * correction.float()

    def expected_noise(self, z_t: Tensor, alpha_bar: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """The linear prior's eps (B, 1, 67, 64); alpha_bar (B, 1)."""
        return self._linear(self.linear.forward, z_t, alpha_bar, conditioning)

    def start(self, noise: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """White noise (B, 1, 67, 64) -> the prior's z_t at the first sampling step."""
        return self._linear(self.linear.diffused_sample, noise, self.alphas_cumprod[t][:, None], conditioning)

    def _linear(self, function: Any, z: Tensor, alpha_bar: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        device = z.device.type
        mean, variances = conditioning["prior_mean"], conditioning["prior_variances"]
        if torch.is_autocast_enabled(device):  # the linear prior is exact only in float32
            with torch.autocast(device, enabled=False):
                flat = function(z.flatten(1).float(), alpha_bar, mean.float(), variances.float())
        else:
            flat = function(z.flatten(1), alpha_bar, mean, variances)
        return flat.view_as(z)


class FitDiffDenoiser(nn.Module):
    """Conditioner, denoiser and the latents' statistics: what one checkpoint holds."""

    def __init__(self, config: DenoiserConfig | None = None) -> None:
        super().__init__()
        self.config = config or DenoiserConfig()
        self.denoiser = Denoiser(self.config)
        self.conditioner = Conditioner(
            self.config.unet,
            self.denoiser.unet.norm_sites,
            self.config.prior_components,
            self.config.prior_grid,
        )
        self.statistics = LatentStatistics(self.config.layout)
        self.card: ModelCard | None = None  # filled when loaded from a checkpoint
        self.trained_with: TrainedWith | None = None

    def forward(self, z_t: Tensor, t: Tensor, features: IdentityFeatures, present: Tensor) -> Tensor:
        """Both halves in one call; equal to calling them one after the other."""
        return self.denoiser(z_t, t, self.conditioner(features, present))

    def set_linear_prior(self, fit: LinearPriorFit) -> None:
        """Take over a fitted prior: its basis goes to the denoiser, the rest to the conditioner."""
        self.denoiser.linear.basis.copy_(fit.basis)
        prior = self.conditioner.prior
        for name in ("regression", "input_mean", "input_std", "variance_null", "variance_conditional"):
            getattr(prior, name).copy_(getattr(fit, name))
        prior.forget_photographs()

    def prior_mean(self, conditioning: Conditioning) -> Tensor:
        """The linear prior's own answer for a photo: normalised z (B, 1, 67, 64), no step taken."""
        flat = conditioning["prior_mean"] @ self.denoiser.linear.basis
        return flat.view(-1, *self.config.layout.shape)


def save_denoiser(path: Path, model: FitDiffDenoiser, card: ModelCard, licence_text: str | None = None) -> ModelCard:
    """Write PATH.safetensors (matrices and kernels in float16, vectors in float32) and PATH.json.

    Raises:
        ValueError: the model does not know what it was trained with.
    """
    if model.trained_with is None:
        raise ValueError("denoiser: got trained_with None; expected a TrainedWith; set it before saving")
    tensors = {k: v.half() if v.ndim > 1 else v.float() for k, v in model.state_dict().items()}
    config = {"denoiser": asdict(model.config), "trained_with": asdict(model.trained_with)}
    return save_checkpoint(path, tensors, config, card, licence_text)


def load_denoiser(path: Path | None = None) -> FitDiffDenoiser:
    """The denoiser saved at `path` (no suffix), or the embedded one: frozen, float32, on the CPU.

    Its `card` and `trained_with` are filled. Raises `MissingError` as `load_checkpoint` does.
    """
    checkpoint = load_checkpoint(path or assets_dir() / "denoiser")
    model = FitDiffDenoiser(config_from_json(checkpoint.config["denoiser"]))
    model.load_state_dict({name: tensor.float() for name, tensor in checkpoint.tensors.items()})
    model.card = checkpoint.card
    model.trained_with = TrainedWith(**checkpoint.config["trained_with"])
    return model.eval().requires_grad_(False)


def config_from_json(values: Mapping[str, Any]) -> DenoiserConfig:
    """The dataclass from its JSON form, where tuples are lists."""
    unet: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["unet"].items()}
    rest = {name: value for name, value in values.items() if name not in ("unet", "layout", "schedule")}
    return DenoiserConfig(
        UNetConfig(**unet), LatentLayout(**values["layout"]), DiffusionSchedule(**values["schedule"]), **rest
    )


def trained_with_cards(recogniser: ModelCard, morphable: ModelCard, autoencoder: ModelCard) -> TrainedWith:
    """What a checkpoint says of these models."""
    hashes = recogniser.sha256, morphable.sha256, autoencoder.sha256
    return TrainedWith(recogniser.name, *hashes, morphable.name, autoencoder.name)


def check_trained_with(trained: TrainedWith | None, given: TrainedWith) -> None:
    """Raise `MissingError` unless the models at hand are those that the denoiser was trained with."""
    if trained is None:
        raise MissingError("denoiser", "no record of its training", "a record", "train it again")
    differing = [role for role in ROLES if _hash(trained, role) != _hash(given, role)]
    if differing:
        raise MissingError(
            f"denoiser, trained with another {' and another '.join(differing)}",
            ", ".join(_said(given, role) for role in differing),
            ", ".join(_said(trained, role) for role in differing),
            "give the denoiser the models it was trained with, or train one for these",
        )


def _hash(models: TrainedWith, role: str) -> str:
    return str(getattr(models, f"{role}_sha256"))


def _said(models: TrainedWith, role: str) -> str:
    return " ".join(filter(None, (role, getattr(models, role), f"with SHA-256 {_hash(models, role)}")))
