"""What a backend answers when it is asked whether it can run here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Availability:
    """ok: it can run. reason: one clause, why not, or what it runs on. version: of its package, "" where absent."""

    ok: bool
    reason: str
    version: str = ""
