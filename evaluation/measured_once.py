"""Figures of one face that are kept in a file of rows and measured once for each seed and pair of trained models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..models.checkpoint import ModelCard
from .rows import RowFile

TRAINED_MODELS = ("denoiser", "autoencoder")


class MeasuredOnce:
    """The rows of one run: `figures(part, name, measure)` measures only what the file does not have."""

    def __init__(self, path: Path | None, cards: Sequence[ModelCard], seed: int) -> None:
        self.rows = RowFile(path)
        self.key = {"seed": seed} | {card.role: card.sha256 for card in cards if card.role in TRAINED_MODELS}

    def figures(self, part: str, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of face `name` in a part of the evaluation: from the file, or `measure()`, then added to it."""
        variant = f"{part}, seed {self.key['seed']}"
        row = self.rows.find(name, variant, self.key)
        if row is None:
            row = {"person": name, "variant": variant, "key": self.key, "part": part, "figures": measure()}
            self.rows.add(row)
        return row["figures"]
