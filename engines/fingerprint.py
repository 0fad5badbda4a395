"""The hash of a network: weights, settings and classes, the same in every process. Knows nothing of graphs and files.

A state dictionary alone is not enough: an exported graph also has constants in it that stand in plain attributes.
What other packages' objects hold is not looked at, but for PyTorch's modules, tensors and traced programs.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format, Enum, Path)
_OURS = __name__.partition(".")[0]
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))  # hooks and such; parameters, buffers and children are named below


def sha256_of_module(module: nn.Module) -> str:
    """Hash of parameters, buffers, and all other attributes of a network and what it holds."""
    walk = _Walk()
    walk.add(module)
    return walk.hash.hexdigest()


class _Walk:
    """Visits each object once; a second visit hashes the number of the first."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # an object that went away could give its id to another

    def add(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._text(f"{type(value).__name__} {value!r}")
            return
        if id(value) in self._seen:
            self._text(f"again {self._seen[id(value)]}")
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        if isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, fx.Node | fx.Graph):
            self._text(str(value.format_node() if isinstance(value, fx.Node) else value))
        elif isinstance(value, np.ndarray):
            self._text(f"array {value.dtype} {value.shape}")
            self.hash.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, Mapping):
            self._items(type(value).__name__, value)
        elif isinstance(value, Set):
            self._text(f"set {sorted(map(repr, value))}")
        elif isinstance(value, Sequence):
            self._items(type(value).__name__, dict(enumerate(value)))
        elif isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, functools.partial):
            self._items("partial", {"function": value.func, "arguments": value.args, "keywords": value.keywords})
        elif isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType):
            self._function(value)
        elif is_dataclass(value) or type(value).__module__.partition(".")[0] == _OURS:
            self._items(_name(type(value)), vars(value))
        else:
            self._text(_name(type(value)))

    def _module(self, module: nn.Module) -> None:
        own = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
        self._items(_name(type(module)), own | {"training": module.training})
        self._items("parameters", dict(module.named_parameters(recurse=False)))
        self._items("buffers", dict(module.named_buffers(recurse=False)))
        self._items("children", dict(module.named_children()))

    def _function(self, function: Any) -> None:
        """By name, with what it was given when it was made: its code is hashed with the source files."""
        cells = getattr(function, "__closure__", None) or ()
        bound = {"self": getattr(function, "__self__", None), "closure": [cell.cell_contents for cell in cells]}
        self._items(_name(function), {} if isinstance(function, type | BuiltinFunctionType) else bound)

    def _tensor(self, tensor: Tensor) -> None:
        self._text(f"tensor {tensor.dtype} {tuple(tensor.shape)}")
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        self.hash.update(data.numpy().data)

    def _items(self, kind: str, values: Mapping[Any, Any]) -> None:
        self._text(f"{kind} {len(values)}")
        for name, value in values.items():
            self._text(repr(name))
            self.add(value)

    def _text(self, text: str) -> None:
        data = text.encode()
        self.hash.update(len(data).to_bytes(8, "little") + data)


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
