"""Vector algebra on component-first tensors: (3, ...) instead of (..., 3).

Component-first is several times faster on a CPU (each component is one contiguous run), so everything that
works on pixels or vertices in bulk keeps this layout.
"""

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(3, ...) and (3, ...) -> (...)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Tensor, b: Tensor) -> Tensor:
    """(3, ...) and (3, ...) -> (3, ...)."""
    (ax, ay, az), (bx, by, bz) = a.unbind(0), b.unbind(0)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def unit(vector: Tensor) -> Tensor:
    """(3, ...) -> (3, ...) of length 1; a zero vector stays zero and has a finite gradient."""
    return vector * (dot(vector, vector).clamp_min(1e-24)).rsqrt()


def columns_at(values: Tensor, index: Tensor) -> Tensor:
    """(C, M) values and (...) long indices into M -> (C, ...)."""
    # `gather` has the cheapest gradient of all the ways to index on a CPU.
    picked = values.gather(1, index.reshape(1, -1).expand(values.shape[0], -1))
    return picked.reshape(values.shape[0], *index.shape)


def columns_summed(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Sum (C, ...) values into `count` columns by (...) long indices -> (C, count)."""
    channels = values.shape[0]
    total = values.new_zeros(channels, count)
    return total.scatter_add(1, index.reshape(1, -1).expand(channels, -1), values.reshape(channels, -1))
