"""One table of figures: for people as text, for programs as JSON. Knows nothing of what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Evaluation:
    """A finished measurement.

    rows: a name and the values of `columns`, None where nothing was measured. figures: what the JSON adds to the rows
    (counts, settings, reference figures). notes: lines for people, such as photos that had no face.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def table(self) -> Table:
        """For a terminal: three decimals, or two digits of what is smaller than .01."""
        table = Table("", *self.columns, title=self.title)
        for name, values in self.rows.items():
            table.add_row(name, *map(_cell, values))
        return table

    def json(self) -> str:
        """One line: title, rows by name and column, figures, notes."""
        rows = {name: dict(zip(self.columns, values, strict=True)) for name, values in self.rows.items()}
        return json.dumps({"title": self.title, "rows": rows, **self.figures, "notes": list(self.notes)})


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.3f}"
