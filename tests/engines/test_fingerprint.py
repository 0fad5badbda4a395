"""The hash of a network: what changes it, what does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from fitdiff.engines.fingerprint import sha256_of_module


@dataclass
class Window:
    top: int
    rest: tuple[int, ...]


def scaled_by(scale: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x * scale


class Small(nn.Module):
    """One of everything that a network may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 3, 1)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.constant = torch.arange(3)
        self.array = np.arange(3)
        self.short = torch.ones(3, dtype=torch.bfloat16)
        self.window = Window(1, (2, 3))
        self.names = {"a": [1, 2.0], "b": None}
        self.activation = partial(nn.functional.interpolate, scale_factor=2)
        self.closure = scaled_by(3.0)
        self.itself = self.names


def made() -> Small:
    torch.manual_seed(0)
    return Small()


def set_weight(module: Small) -> None:
    module.layer.weight.data[0, 0] += 1e-6


def set_stride(module: Small) -> None:
    module.layer.stride = (2, 2)


def set_buffer(module: Small) -> None:
    module.get_buffer("passing")[0] = 2


def set_constant(module: Small) -> None:
    module.constant[0] = 5


def set_array(module: Small) -> None:
    module.array[0] = 5


def set_type(module: Small) -> None:
    module.short = module.short.half()


def set_dataclass(module: Small) -> None:
    module.window.rest = (2, 4)


def set_mapping(module: Small) -> None:
    module.names["a"] = [1, 3.0]


def set_partial(module: Small) -> None:
    module.activation = partial(nn.functional.interpolate, scale_factor=4)


def set_closure(module: Small) -> None:
    module.closure = scaled_by(4.0)


def set_child(module: Small) -> None:
    module.layer = nn.ConvTranspose2d(2, 3, 1)  # type: ignore[assignment]


def set_training(module: Small) -> None:
    module.eval()


CHANGES = [value for name, value in list(globals().items()) if name.startswith("set_")]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen(change: Callable[[Small], None]) -> None:
    module, before = made(), sha256_of_module(made())
    change(module)
    assert sha256_of_module(module) != before


def test_the_same_network_has_the_same_hash() -> None:
    module = made()
    before = sha256_of_module(module)
    assert before == sha256_of_module(made()) == sha256_of_module(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.requires_grad_(False)
    assert sha256_of_module(module) == before


def test_processes_agree() -> None:
    code = (
        "import torch; from torch import nn; from fitdiff.engines.fingerprint import sha256_of_module\n"
        "torch.manual_seed(0); print(sha256_of_module(nn.Sequential(nn.Conv2d(2, 3, 1), nn.SiLU(), nn.Flatten())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    assert done.stdout.strip() == sha256_of_module(nn.Sequential(nn.Conv2d(2, 3, 1), nn.SiLU(), nn.Flatten()))
