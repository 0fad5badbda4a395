"""Weights to begin with from a checkpoint of the same architecture, instead of random ones.

Knows the checkpoints of the networks that are trained here; nothing of optimisers or data.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UsageError
from ..models import autoencoder, delighting, denoiser, occlusion
from ..models.autoencoder import BranchedAutoencoder
from ..models.checkpoint import Checkpoint, load_checkpoint
from ..models.delighting import DelightingNet
from ..models.denoiser import FitDiffDenoiser
from ..models.occlusion import OcclusionNet


def check_beginning(resume: bool, init: Path | None) -> None:
    """Raise `UsageError` when a run is to go on and to begin anew at once."""
    if resume and init is not None:
        remedy = "go on without init, or begin in another folder"
        raise UsageError("init", f"{init} and resume together", "one of them", remedy)


def begin_autoencoder(model: BranchedAutoencoder, path: Path) -> None:
    """Copy all weights into `model`, with the mean chart and spread that they were trained about.

    Raises:
        MissingError: no checkpoint at `path` (with or without its suffix).
        UsageError: the checkpoint is of another network or of other sizes.
    """
    checkpoint = _checkpoint(path, "autoencoder")
    _check_same(path, asdict(autoencoder.config_from_json(checkpoint.config)), asdict(model.config))
    _copy(model, checkpoint)


def begin_denoiser(model: FitDiffDenoiser, path: Path) -> None:
    """Copy all weights into `model`, conditioner and prior included; what is fitted to data is to be fitted again.

    Raises as `begin_autoencoder` does.
    """
    checkpoint = _checkpoint(path, "denoiser")
    config = denoiser.config_from_json(checkpoint.config["denoiser"])
    _check_same(path, asdict(config), asdict(model.config))
    _copy(model, checkpoint)


def begin_occlusion(model: OcclusionNet, path: Path) -> None:
    """Copy all weights into `model`. Raises as `begin_autoencoder` does."""
    _begin_small(model, path, "occlusion", occlusion.json_from_config(model.config))


def begin_delighting(model: DelightingNet, path: Path) -> None:
    """Copy all weights into `model`. Raises as `begin_autoencoder` does."""
    _begin_small(model, path, "delighting", delighting.json_from_config(model.config))


def _begin_small(model: nn.Module, path: Path, role: str, architecture: dict[str, Any]) -> None:
    checkpoint = _checkpoint(path, role)
    _check_same(path, checkpoint.config, json.loads(json.dumps(architecture)))  # lists for tuples, as in a manifest
    _copy(model, checkpoint)


def _checkpoint(path: Path, role: str) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    if checkpoint.card.role != role:
        remedy = "give the checkpoint that this command writes"
        raise UsageError(f"init {path}", f"role {checkpoint.card.role!r}", f"role {role!r}", remedy)
    return checkpoint


def _check_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = _differences(found, wanted)
    if differing:
        got = ", ".join(f"{name} {a}" for name, a, _ in differing)
        expected = ", ".join(f"{name} {b}" for name, _, b in differing)
        raise UsageError(f"init {path}", got, expected, "give a checkpoint of this architecture, or train from scratch")


def _differences(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    rows: list[tuple[str, Any, Any]] = []
    for name, expected in wanted.items():
        got = found.get(name)
        if isinstance(got, dict) and isinstance(expected, dict):
            rows += _differences(got, expected, f"{prefix}{name}.")
        elif got != expected:
            rows.append((f"{prefix}{name}", got, expected))
    return rows


def _copy(model: nn.Module, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors.items()
    model.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in tensors})
