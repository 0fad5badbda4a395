"""One table, as text and as JSON."""

import io
import json

from rich.console import Console

from fitdiff.evaluation.result import Evaluation

FOUND = Evaluation("faces", ("a", "b"), {"one": (0.12345, None), "two": (2.0, 3.0)}, {"people": 4}, ("x: no face",))


def test_json_is_one_line_by_row_and_column() -> None:
    text = FOUND.json()
    assert "\n" not in text
    assert json.loads(text) == {
        "title": "faces",
        "rows": {"one": {"a": 0.12345, "b": None}, "two": {"a": 2.0, "b": 3.0}},
        "people": 4,
        "notes": ["x: no face"],
    }


def test_table_has_three_decimals_and_a_dash_for_nothing() -> None:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(FOUND.table())
    text = capture.get()
    assert "faces" in text
    assert [line.split()[1:-1:2] for line in text.splitlines() if "0.123" in line or "2.000" in line] == [
        ["one", "0.123", "-"],
        ["two", "2.000", "3.000"],
    ]
