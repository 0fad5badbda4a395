"""Where training runs: one process on the CPU or a GPU, or several processes that share every batch.

Without a launcher there is one process, and every method below gives back what it was given. Started by `torchrun`
or `accelerate launch`, each process takes its own part of the batch, gradients are averaged, and process 0 decides,
validates and writes. Knows nothing of networks, losses or files.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import MissingError, UsageError

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(hours=12)  # of the others while process 0 encodes a large data folder for the first time


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    device: of this process; rank: 0 is the one that decides and writes; count: of processes.
    """

    device: torch.device = torch.device("cpu")
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, name: str, total: int) -> int:
        """This process's share of a batch of `total` samples.

        Raises:
            UsageError: the processes cannot share it evenly.
        """
        if total % self.count:
            remedy = f"choose a multiple of {self.count}, or start another number of processes"
            raise UsageError(name, f"{total} samples for {self.count} processes", "equal parts", remedy)
        return total // self.count

    def generator(self, seed: int) -> torch.Generator:
        """A generator on the CPU for this process's samples; process 0 has the one of a run on its own."""
        own = seed if self.is_first else int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])
        return torch.Generator().manual_seed(own)

    def moved(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device; towards a GPU from pinned memory, without waiting."""
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def autocast(self, bfloat16: bool) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)

    @torch.no_grad()
    def mean(self, tensor: Tensor) -> Tensor:
        """Mean of a tensor over the processes, without gradient."""
        if self.count == 1:
            return tensor
        from accelerate.utils import reduce

        return reduce(tensor.detach(), "mean")  # type: ignore[return-value]

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes: those of the mean loss of the whole batch."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        _unflatten(self.mean(_flat(gradients)), gradients)

    def mean_scalars(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of each value over the processes; all must have the same names."""
        if self.count == 1:
            return values
        mean = self.mean(torch.tensor(list(values.values()), dtype=torch.float32, device=self.device))
        return dict(zip(values, mean.tolist(), strict=True))

    def gathered(self, tensor: Tensor) -> Tensor:
        """(B, ...) of every process, in order of rank, as one (B * count, ...); the own part keeps its gradient."""
        if self.count == 1:
            return tensor
        from accelerate.utils import gather

        with torch.no_grad():
            parts = list(gather(tensor.detach().contiguous()).split(len(tensor)))  # type: ignore[union-attr]
        parts[self.rank] = tensor
        return torch.cat(parts)

    def own(self, gathered: Tensor) -> Tensor:
        """This process's rows of what `gathered` gave."""
        size = len(gathered) // self.count
        return gathered[self.rank * size : (self.rank + 1) * size]

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the tensors of process 0, in place."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        every = list(tensors)
        for dtype in dict.fromkeys(t.dtype for t in every):
            same = [t for t in every if t.dtype == dtype]
            flat = _flat(same).to(torch.uint8 if dtype == torch.bool else dtype)
            _unflatten(broadcast(flat), same)  # type: ignore[arg-type]

    def share_module(self, module: nn.Module) -> None:
        """Give every process the parameters and buffers of process 0's module."""
        self.share([*module.parameters(), *module.buffers()])

    def agreed(self, value: float) -> float:
        """Process 0's value, for all."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast

        shared = broadcast(torch.tensor([value], dtype=torch.float64, device=self.device))
        return float(shared)  # type: ignore[arg-type]

    def from_first(self, value: Any) -> Any:
        """Process 0's value, for all; anything that pickles. Others wait for it."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def listed(self, value: Any) -> list[Any]:
        """The values of all processes in order of rank."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Process 0 runs the block while the others wait; then they run it, and find what process 0 has made."""
        if not self.is_first:
            self.from_first(None)
        yield
        if self.is_first:
            self.from_first(None)


def is_first_process() -> bool:
    """Whether this process is the one that talks to the user; known before `start_workers`."""
    return int(os.environ.get("RANK", "0")) == 0


def start_workers(device: str | None = None) -> Workers:
    """Join the processes of the launcher, or be the only one.

    Args:
        device: "cpu", "cuda", or None for a GPU where there is one.

    Raises:
        UsageError: another device, or more processes on this machine than GPUs.
        MissingError: no GPU that PyTorch can use, or a launcher without the package `accelerate`.
    """
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if wanted not in ("cpu", "cuda"):
        raise UsageError("device", repr(wanted), "cpu or cuda", "choose one of them")
    if wanted == "cuda" and not torch.cuda.is_available():
        remedy = "install a PyTorch build for CUDA and a driver, or train with device cpu"
        raise MissingError("device cuda", "none that PyTorch can use", "an NVIDIA GPU", remedy)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers(torch.device(wanted))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if wanted == "cuda" and here > torch.cuda.device_count():
        got = f"{here} for {torch.cuda.device_count()} GPUs"
        raise UsageError("processes on this machine", got, "one a GPU", "start fewer processes")
    try:
        from accelerate import PartialState
    except ImportError as error:
        remedy = "pip install 'fitdiff[train]', or start one process without a launcher"
        raise MissingError("package accelerate", "not installed", "it, for several processes", remedy) from error
    state = PartialState(cpu=wanted == "cpu", timeout=PATIENCE)
    atexit.register(_leave, state)
    return Workers(torch.device(state.device or wanted), state.process_index, state.num_processes)


def _leave(state: PartialState) -> None:
    """End the group with its threads, or Python's own end destroys them as they run: now and then an abort."""
    gc.collect()  # models that share gradients hold the group
    state.destroy_process_group()


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def _unflatten(flat: Tensor, tensors: list[Tensor]) -> None:
    """Copy the pieces of `flat` into `tensors`, in whichever order their memory lies."""
    for piece, tensor in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True):
        tensor.copy_(piece.view(tensor.shape))
