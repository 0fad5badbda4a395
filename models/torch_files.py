"""Weights in files that PyTorch wrote: state dictionaries in a pickle, or a TorchScript archive. Runs no code of them.

Knows no network: names and shapes are compared by whoever loads them.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import MissingError

# Checkpoints of training runs hold a score beside the weights; what makes a number of numpy does nothing else.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"), (_SCALAR, "numpy._core.multiarray.scalar"), np.dtype,
    np.dtypes.Float32DType, np.dtypes.Float64DType,
]  # fmt: skip


def read_state(path: Path, thing: str) -> tuple[dict[str, Tensor], str]:
    """Weights by name, without the prefix of a parallel run, and the SHA-256 of the file.

    Args:
        thing: what the file is, for messages.

    Raises:
        MissingError: no such file, or PyTorch cannot read it as weights alone.
    """
    if not path.is_file():
        raise MissingError(f"{thing} {path}", "no such file", "a file of weights", "check the path")
    try:
        if _is_torchscript(path):
            found: Any = torch.jit.load(str(path), map_location="cpu").state_dict()
        else:
            with torch.serialization.safe_globals(_NUMBERS):
                found = torch.load(path, map_location="cpu", weights_only=True)
        state: Mapping[str, Any] = found.get("state_dict", found)
        weights = {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:  # PyTorch, zipfile and pickle have no error in common
        got = f"{type(error).__name__}: {str(error):.60}"
        raise MissingError(f"{thing} {path}", got, "weights that PyTorch saved", "download it again") from error
    return weights, hashlib.sha256(path.read_bytes()).hexdigest()


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], thing: str) -> None:
    """Give a network its weights, in float32; it is frozen and evaluated from then on.

    Raises:
        MissingError: names or shapes differ; the message names the first ones.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # older files have none
    differing = [name for name in wanted if given.get(name) != wanted[name] and name not in counters]
    if differing:
        first = differing[0]
        got = f"{first} {given.get(first, 'absent')}, and {len(differing) - 1} more that differ"
        raise MissingError(thing, got, f"{first} {wanted[first]}", "give the file of this very network")
    own = {name: value.float() for name, value in weights.items() if name in wanted and name not in counters}
    network.load_state_dict(own, strict=False)
    network.eval().requires_grad_(False)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())
