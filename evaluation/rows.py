"""A file of JSON lines that lets a long measurement be continued: what stands there is not done again.

Every line has a person, a variant and a `key`, under which it is valid. Knows nothing of what was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class RowFile:
    """Lines by person and variant; the last one of the same name counts. Without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._torn = False  # the last line has no end: the run before was killed while it wrote
        if path is None or not path.exists():
            return
        text = path.read_text(encoding="utf-8")
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._rows[row["person"], row["variant"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # half a line: that row is measured again

    def find(self, person: str, variant: str, key: dict[str, Any]) -> dict[str, Any] | None:
        """The row with exactly this key, if there is one."""
        row = self._rows.get((person, variant))
        return row if row is not None and row.get("key") == json.loads(json.dumps(key)) else None

    def add(self, row: dict[str, Any]) -> None:
        """Append a row with `person`, `variant` and `key` in one write, so that shards may share the file."""
        self._rows[row["person"], row["variant"]] = row
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = ("\n" if self._torn else "") + json.dumps(row) + "\n"
        self._torn = False
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())
