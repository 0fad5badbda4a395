"""One line of a file's engine profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EVERY = "all"  # instead of an engine's name


@dataclass(frozen=True)
class Finding:
    """Attributes:
    engine: name of a row of `engine_facts.ENGINES`, or `EVERY`.
    severity: how bad it is.
    subject: the extension, mesh, material, image or measure.
    message: what is so, and what it means.
    """

    engine: str
    severity: Literal["error", "warning", "note"]
    subject: str
    message: str
