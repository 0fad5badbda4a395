"""The models of the default preset: which files they are, and whether each is there and whole.

Knows nothing of what the networks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MissingError
from ..models.checkpoint import WEIGHTS_SUFFIX, ModelCard, assets_dir, load_weights_file
from ..models.denoiser import TrainedWith, check_trained_with, trained_with_cards

PRESET: dict[str, str] = {
    "morphable": WEIGHTS_SUFFIX,
    "head_atlas": WEIGHTS_SUFFIX,
    "denoiser": WEIGHTS_SUFFIX,
    "autoencoder": WEIGHTS_SUFFIX,
    "recogniser": WEIGHTS_SUFFIX,
    "landmarks": WEIGHTS_SUFFIX,
    "perceptual": WEIGHTS_SUFFIX,
    "occlusion": WEIGHTS_SUFFIX,
    "delighting": WEIGHTS_SUFFIX,
    "detector": ".onnx",
}
"""File name without suffix -> suffix of the weights, in the order in which an avatar names them."""


@dataclass(frozen=True)
class InstalledModel:
    """A file of the preset; `card` is None, and `problem` says why, where it is absent or damaged."""

    name: str
    path: Path
    bytes: int
    card: ModelCard | None
    problem: MissingError | None
    config: dict[str, Any] = field(default_factory=dict)


def installed_models(folder: Path | None = None) -> tuple[InstalledModel, ...]:
    """Every model of the preset, its SHA-256 compared with its manifest."""
    folder = folder or assets_dir()
    return tuple(_installed(folder, name, suffix) for name, suffix in PRESET.items())


def mismatch(models: Sequence[InstalledModel]) -> MissingError | None:
    """What is wrong with models that are each whole, or None: the denoiser was trained with others."""
    by_name = {model.name: model for model in models}
    denoiser = by_name["denoiser"]
    recogniser, morphable, autoencoder = (by_name[name].card for name in ("recogniser", "morphable", "autoencoder"))
    if denoiser.card is None or recogniser is None or morphable is None or autoencoder is None:
        return None
    given = trained_with_cards(recogniser, morphable, autoencoder)
    try:
        check_trained_with(TrainedWith(**denoiser.config["trained_with"]), given)
    except MissingError as problem:
        return problem
    return None


def _installed(folder: Path, name: str, suffix: str) -> InstalledModel:
    path = folder / f"{name}{suffix}"
    try:
        file = load_weights_file(path, suffix)
    except MissingError as problem:
        size = path.stat().st_size if path.is_file() else 0
        return InstalledModel(name, path, size, None, problem)
    return InstalledModel(name, path, len(file.data), file.card, None, file.config)
