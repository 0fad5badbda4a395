"""Files that hold a model: the weights, a JSON manifest beside them, and the licence they came under.

A model named `recogniser` is three files: `recogniser.safetensors`, `recogniser.json` (model card, network
configuration, SHA-256 of the weights) and `recogniser.LICENSE`. Weights in another format, such as the
detector's ONNX file, keep the same manifest. Nothing here knows any network: `config` is a plain dictionary
that the network's own `load_*` function turns into its dataclass.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ..errors import MissingError

FORMAT = "fitdiff-checkpoint/1"
WEIGHTS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ModelCard:
    """What a model is, where it came from, and whether a commercial user may use it."""

    role: str  # "recogniser", "landmarks", ...: the place in the pipeline that it fills
    name: str
    source: str  # registry package and version, or how it was trained
    licence: str  # SPDX identifier
    commercial: bool
    sha256: str = ""  # of the weights file; filled when the files are written


@dataclass(frozen=True)
class Checkpoint:
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    card: ModelCard


@dataclass(frozen=True)
class WeightsFile:
    """The bytes of a weights file that agreed with its manifest."""

    data: bytes
    config: dict[str, Any]
    card: ModelCard


def assets_dir() -> Path:
    """The folder of the embedded models; the environment variable FITDIFF_ASSETS names another."""
    override = os.environ.get("FITDIFF_ASSETS")
    return Path(override) if override else Path(__file__).resolve().parent.parent / "assets"


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    card: Mapping[str, Any] | ModelCard,
    licence_text: str | None = None,
) -> ModelCard:
    """Write `tensors` and their manifest; `path` has no suffix. Returns the card with its hash filled in."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(contiguous)
    return save_weights_file(path, WEIGHTS_SUFFIX, data, config, card, licence_text)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        MissingError: a file is absent, has an unknown format, or is not the one its manifest describes.
    """
    file = load_weights_file(path, WEIGHTS_SUFFIX)
    return Checkpoint(safetensors.torch.load(file.data), file.config, file.card)


def save_weights_file(
    path: Path,
    suffix: str,
    data: bytes,
    config: Mapping[str, Any],
    card: Mapping[str, Any] | ModelCard,
    licence_text: str | None = None,
) -> ModelCard:
    """Write PATH + suffix, PATH.json and PATH.LICENSE, each replaced whole.

    The manifest goes last, so an interrupted save leaves either the old model, or one that `load_*` refuses.
    """
    path = _stem(path, suffix)
    if not isinstance(card, ModelCard):
        card = ModelCard(**card)
    card = replace(card, sha256=hashlib.sha256(data).hexdigest())
    manifest = {"format": FORMAT, "card": asdict(card), "config": dict(config), "sha256": card.sha256}
    manifest_text = json.dumps(manifest, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    if licence_text is not None:
        _write_whole(Path(f"{path}.LICENSE"), licence_text.encode())
    _write_whole(Path(f"{path}{suffix}"), data)
    _write_whole(Path(f"{path}.json"), manifest_text.encode())
    return card


def load_weights_file(path: Path, suffix: str) -> WeightsFile:
    """Read PATH + suffix and check it against PATH.json. Raises as `load_checkpoint` does.

    The bytes that were hashed are the bytes returned: the file is read once.
    """
    path = _stem(path, suffix)
    weights_path, manifest_path = Path(f"{path}{suffix}"), Path(f"{path}.json")
    embedded = path.parent.resolve() == assets_dir().resolve()
    remedy = "reinstall fitdiff, which brings it" if embedded else "check the path, or save the model again"
    for file in (weights_path, manifest_path):
        if not file.is_file():
            raise MissingError(f"model file {file}", "no such file", "a file written by fitdiff", remedy)

    thing = f"model manifest {manifest_path}"
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise MissingError(thing, f"format {manifest['format']!r}", FORMAT, remedy)
        expected = manifest["sha256"]
        card = replace(ModelCard(**manifest["card"]), sha256=expected)
        config = manifest["config"]
    except (ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise MissingError(thing, got, "a fitdiff manifest in JSON", remedy) from error

    data = weights_path.read_bytes()
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        got = f"{len(data)} bytes with SHA-256 {actual}"
        wanted = f"{expected}, as {manifest_path.name} says"
        raise MissingError(f"model file {weights_path}", got, wanted, remedy)
    return WeightsFile(data, config, card)


def _stem(path: Path, suffix: str) -> Path:
    # Names may hold dots ("prior-1.2"), so only the one known suffix is taken off.
    return path.with_name(path.name.removesuffix(suffix))


def _write_whole(path: Path, data: bytes) -> None:
    # Beside the target, because os.replace is atomic only within one file system.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
