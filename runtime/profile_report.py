"""A measurement as one HTML page: timeline, stacked bars, tables, environment. It loads nothing from anywhere.

The page itself is `profile_report.html`; here it is given its data. Knows nothing of how the runs were made.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from .profile import BatchProfile, Measurement, Profile
from .profile_statistics import Run, breakdown, layers
from .profile_table import (
    STAGE_COLUMNS,
    WORK_COLUMNS,
    comparison_lines,
    header_lines,
    stage_cells,
    warning_lines,
    work_cells,
)

_PAGE = Path(__file__).with_name("profile_report.html")


def html_from_measurement(measurement: Measurement) -> str:
    """The whole page. The timeline shows the median run of the smallest batch of each backend."""
    data = {"timelines": [_timeline(profile) for profile in measurement.profiles]}
    sections = "".join(_section(profile, batch) for profile in measurement.profiles for batch in profile.batches)
    parts = {
        "HEADER": "".join(f"<p>{escape(line)}</p>" for line in header_lines(measurement)),
        "WARNINGS": _list("warnings", "Warnings", warning_lines(measurement)),
        "COMPARISONS": _list(
            "comparisons",
            "Ratios, pair by pair",
            [line for comparison in measurement.comparisons for line in comparison_lines(comparison)],
        ),
        "SECTIONS": sections,
        "ENVIRONMENT": "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in measurement.environment.items()
        ),
        # "</script>" in a name would end the data; "<" is the same to JSON when it is escaped.
        "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = _PAGE.read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


def _timeline(profile: Profile) -> dict[str, Any]:
    """Rectangles [name, kind, depth, begin, length, length on the GPU or -1] in microseconds; names by number."""
    batch = min(profile.batches, key=lambda found: found.batch)
    run = _median_run(batch)
    names = list(dict.fromkeys(span.name for span in run.spans))
    kinds = list(dict.fromkeys(span.kind for span in run.spans))
    rows = [
        [
            names.index(span.name), kinds.index(span.kind), depth, round((span.begin - run.begin) / 1e3, 1),
            round((span.end - span.begin) / 1e3, 1), -1 if span.device_begin is None else round(span.cost * 1e6, 1),
        ]
        for span, depth in layers(run.spans)
    ]  # fmt: skip
    return {
        "title": f"{profile.backend}, batch {batch.batch}, the median run",
        "length": round(run.seconds * 1e6, 1),
        "names": names,
        "kinds": kinds,
        "spans": rows,
    }


def _median_run(batch: BatchProfile) -> Run:
    return sorted(batch.runs, key=lambda run: run.seconds)[(len(batch.runs) - 1) // 2]


def _section(profile: Profile, batch: BatchProfile) -> str:
    title = f"{profile.backend}, batch {batch.batch}"
    figures = (
        f"{batch.seconds:.3f} s a run, {batch.avatars_per_second:.3f} avatars/s, "
        f"{batch.overhead:.1%} outside the engines"
    )
    return (
        f"<section><h2>{escape(title)}</h2><p>{escape(figures)}</p>{_bars(batch)}"
        f"{_table(STAGE_COLUMNS, [stage_cells(row) for row in batch.stages])}"
        f"{_table(WORK_COLUMNS, [work_cells(row) for row in batch.work])}</section>"
    )


def _bars(batch: BatchProfile) -> str:
    """One stacked bar a stage, as long as the stage, cut by what ran in it."""
    pieces = breakdown(batch.runs)
    longest = max((sum(found.values()) for found in pieces.values()), default=0.0) or 1.0
    kinds = {row.name: row.kind for row in batch.work}
    bars = []
    for stage, found in pieces.items():
        cuts = "".join(
            f'<span class="cut" data-name="{escape(name)}" data-kind="{kinds.get(name, "stage")}" '
            f'style="width:{100 * seconds / longest:.3f}%" '
            f'data-tip="{escape(name)}: {seconds * 1e3:.1f} ms a run"></span>'
            for name, seconds in sorted(found.items(), key=lambda item: -item[1])
        )
        bars.append(
            f'<div class="bar"><span class="label">{escape(stage)}</span><span class="cuts">{cuts}</span>'
            f'<span class="sum">{sum(found.values()):.3f} s</span></div>'
        )
    return f'<div class="bars">{"".join(bars)}</div>'


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(style: str, title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="{style}"><h2>{escape(title)}</h2><ul>{items}</ul></section>'
