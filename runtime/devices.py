"""Where tensors live: a device by its name, and copies between it and the host that the profiler sees.

On the CPU nothing is copied and every function here answers what it was given. Knows nothing of models and of photos.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import MissingError, UsageError
from ..rendering.rasteriser import Rasteriser
from .trace import span

CPU = torch.device("cpu")


def device_from_name(name: torch.device | str) -> torch.device:
    """ "cpu", "cuda" (the current device, looked up once, here) or "cuda:1" -> the device.

    Raises:
        UsageError: another kind of device, or no device's name.
        MissingError: that CUDA device is not present, or PyTorch is a build without CUDA.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError("device", repr(str(name)), "cpu, cuda or cuda:N", "choose one of these")
    if device.type == "cpu":
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        found = f"{count} CUDA devices" if torch.backends.cuda.is_built() else "a PyTorch that was built without CUDA"
        remedy = "use --device cpu, or install the driver and a PyTorch for it"
        raise MissingError(f"device {device}", found, "that CUDA device", remedy)
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def host_from_device(tensor: Tensor) -> Tensor:
    """The tensor on the CPU. From a GPU: a copy that waits for the work before it."""
    if tensor.device.type == "cpu":
        return tensor
    with span("copy", "copy", moved=tensor.nbytes):
        return tensor.cpu()


def device_from_host(device: torch.device, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of the CPU, all of one type, on `device`. To a GPU: as one copy that the host does not wait for."""
    if device.type == "cpu":
        return tensors
    packed = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with span("copy", "copy", moved=packed.nbytes):
        moved = packed.pin_memory().to(device, non_blocking=True)
    parts = moved.split([tensor.numel() for tensor in tensors])
    return tuple(part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


class HostRasteriser:
    """A rasteriser of the CPU for tensors of any device: vertices travel to it, and the index image back.

    Triangles are copied when they are first seen; whoever changes them in place makes another rasteriser.
    """

    def __init__(self, on_cpu: Rasteriser) -> None:
        self.on_cpu = on_cpu
        self._triangles = WeakTensorKeyDictionary()

    def __call__(self, vertices_px: Tensor, triangles: Tensor, height: int, width: int, cull: bool = False) -> Tensor:
        if vertices_px.device.type == "cpu":
            return self.on_cpu(vertices_px, triangles, height, width, cull)
        if triangles not in self._triangles:
            self._triangles[triangles] = host_from_device(triangles).int()
        index = self.on_cpu(host_from_device(vertices_px.detach()), self._triangles[triangles], height, width, cull)
        return device_from_host(vertices_px.device, index)[0]


def array_from_tensor(tensor: Tensor) -> np.ndarray:
    """A tensor of any device as a numpy array, detached."""
    return host_from_device(tensor.detach()).numpy()
