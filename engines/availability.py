"""What a backend answers when it is asked whether it can run here."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Availability:
    """ok: it can run. reason: one clause, why not, or what it runs on. version: of its package, "" where absent."""

    ok: bool
    reason: str
    version: str = ""


def has_native_bfloat16() -> bool:
    """Does this processor multiply bfloat16 itself (AVX512-BF16 or AMX)? Elsewhere mixed precision is slower."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
