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
        """For a terminal: three decimals."""
        table = Table("", *self.columns, title=self.title)
        for name, values in self.rows.items():
            table.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values))
        return table

    def json(self) -> str:
        """One line: title, rows by name and column, figures, notes."""
        rows = {name: dict(zip(self.columns, values, strict=True)) for name, values in self.rows.items()}
        return json.dumps({"title": self.title, "rows": rows, **self.figures, "notes": list(self.notes)})
