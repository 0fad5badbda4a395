"""From recorded spans to figures: one row a stage, one a network or named piece of work, and what deserves a warning.

Knows nothing of how the runs were made and of how the rows are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .trace import COMPUTE, Kind, Span

OVERHEAD_LIMIT = 0.20  # share of a stage with engines, on a CPU, that may lie outside them
IDLE_LIMIT = 0.50  # the same on a GPU: more, and it waits for the host
MANY_CALLS = 10  # of engines in a stage, from which small ones make it launch-bound; fewer leave it host-bound
TAIL_LIMIT = 3.0  # p99 over p50
SPREAD_LIMIT = 0.15  # slowest less fastest run, over their median
UNNAMED = "in no span"
SHARE_OF_NOTE = 0.01  # rows with less of the run raise no warning


@dataclass(frozen=True)
class Run:
    """One measured run: its spans, and its begin and end in their clock, nanoseconds."""

    spans: tuple[Span, ...]
    begin: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / 1e9


@dataclass(frozen=True)
class Row:
    """One name in all runs. Milliseconds are percentiles over the calls of all runs, on the GPU where known.

    calls: a run. seconds: a run, mean. own_seconds: less what other rows of the same table count. share: own_seconds
    over the run's.
    """

    name: str
    kind: Kind
    calls: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    seconds: float
    own_seconds: float
    share: float


@dataclass(frozen=True)
class StageRow(Row):
    """A stage. engine_seconds: what of `seconds` engines and PyTorch worked; the rest is the host's overhead.

    unnamed_seconds: what lies in no span at all. run_seconds: of each run. Memory is the largest of all runs, MiB;
    None where it was not taken.
    """

    engine_seconds: float
    unnamed_seconds: float
    engine_calls: float
    on_device: bool  # engine_seconds were measured on a GPU
    copies: float
    copied_mib: float
    run_seconds: tuple[float, ...]
    host_peak_mib: float | None
    device_peak_mib: float | None

    @property
    def overhead(self) -> float:
        """Share of the stage outside engines and PyTorch, 0 to 1: the host's."""
        return 1 - self.engine_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class _Node:
    """A span, the span that it lies in, and the stage around it: indices, -1 for none."""

    span: Span
    parent: int
    stage: int
    in_engine: bool  # some span around it is one of COMPUTE


def stage_rows(runs: Sequence[Run]) -> tuple[StageRow, ...]:
    """One row for each name of an outermost stage, in order of appearance, over all runs."""
    trees = [_tree(run.spans) for run in runs]
    total = sum(run.seconds for run in runs)
    rows = []
    for name in _names(n.span for tree in trees for n in tree if n.span.kind == "stage" and n.stage < 0):
        found = [_StageSum() for _ in runs]
        for tree, sums in zip(trees, found, strict=True):
            sums.add(tree, name)
        spans = [span for sums in found for span in sums.spans]
        count = len(runs)
        seconds = sum(sums.seconds for sums in found) / count
        rows.append(
            StageRow(
                **_shared(name, "stage", spans, [s.seconds for s in spans], seconds, seconds, count, total),
                engine_seconds=min(seconds, sum(s.engine_seconds for s in found) / count),
                unnamed_seconds=max(0.0, seconds - sum(s.named_seconds for s in found) / count),
                engine_calls=sum(s.engine_calls for s in found) / count,
                on_device=any(s.on_device for s in found),
                copies=sum(s.copies for s in found) / count,
                copied_mib=sum(s.copied for s in found) / count / 2**20,
                run_seconds=tuple(s.seconds for s in found),
                host_peak_mib=_largest(span.host_peak_mib for span in spans),
                device_peak_mib=_largest(span.device_peak_mib for span in spans),
            )
        )
    return tuple(rows)


def work_rows(runs: Sequence[Run]) -> tuple[Row, ...]:
    """One row for each engine, copy and named piece of host work; engines first, the longest first."""
    total = sum(run.seconds for run in runs)
    found: dict[tuple[str, Kind], list[tuple[Span, float]]] = {}
    for run in runs:
        tree = _tree(run.spans)
        for node, seconds in zip(tree, _own_seconds(tree), strict=True):
            if node.span.kind != "stage":
                found.setdefault((node.span.name, node.span.kind), []).append((node.span, seconds))
    rows = []
    for (name, kind), pieces in found.items():
        costs = [span.cost for span, _ in pieces]
        seconds, own_seconds = sum(costs) / len(runs), sum(own for _, own in pieces) / len(runs)
        spans = [span for span, _ in pieces]
        rows.append(Row(**_shared(name, kind, spans, costs, seconds, own_seconds, len(runs), total)))
    order = ("engine", "pytorch", "copy", "host", "stage")
    return tuple(sorted(rows, key=lambda row: (order.index(row.kind), -row.own_seconds)))


def breakdown(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Of each stage the own seconds of what ran in it, a run; what lies in no span stands under `UNNAMED`."""
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        tree = _tree(run.spans)
        for node, seconds in zip(tree, _own_seconds(tree), strict=True):
            outermost = tree[node.stage].span.name if node.stage >= 0 else node.span.name
            if node.stage < 0 and node.span.kind != "stage":
                continue
            name = UNNAMED if node.span.kind == "stage" else node.span.name
            pieces = found.setdefault(outermost, {})
            pieces[name] = pieces.get(name, 0.0) + seconds / len(runs)
    return found


def warnings_of(stages: Sequence[StageRow], work: Sequence[Row], runs: Sequence[Run]) -> tuple[str, ...]:
    """A line for each stage that waits for its host, and for whatever is unstable; none for a calm profile."""
    lines = []
    for stage in stages:
        limit = IDLE_LIMIT if stage.on_device else OVERHEAD_LIMIT
        if stage.engine_calls and stage.share >= SHARE_OF_NOTE and stage.overhead > limit:
            bound = "launch-bound" if stage.engine_calls >= MANY_CALLS else "host-bound"
            where = "the GPU works" if stage.on_device else "engines and PyTorch work"
            lines.append(
                f"{stage.name} is {bound}: {where} {1 - stage.overhead:.0%} of its time "
                f"in {stage.engine_calls:.0f} calls; expected {1 - limit:.0%} or more"
            )
    for row in (*stages, *work):
        if row.share >= SHARE_OF_NOTE and row.p99_ms > TAIL_LIMIT * row.p50_ms:
            lines.append(
                f"{row.name} is unstable: p99 {row.p99_ms:.2f} ms is {row.p99_ms / row.p50_ms:.1f} times p50 "
                f"{row.p50_ms:.2f} ms; expected at most {TAIL_LIMIT:.0f}"
            )
    for name, seconds in [("the run", [run.seconds for run in runs]), *((s.name, s.run_seconds) for s in stages)]:
        if sum(seconds) >= SHARE_OF_NOTE * sum(run.seconds for run in runs) and spread(seconds) > SPREAD_LIMIT:
            lines.append(
                f"{name} is unstable: runs took {min(seconds):.3f} to {max(seconds):.3f} s, {spread(seconds):.0%} of "
                f"their median apart; expected at most {SPREAD_LIMIT:.0%}"
            )
    return tuple(lines)


def spread(seconds: Sequence[float]) -> float:
    """Slowest less fastest, over the median."""
    middle = float(np.median(seconds))
    return (max(seconds) - min(seconds)) / middle if middle else 0.0


def layers(spans: Sequence[Span]) -> list[tuple[Span, int]]:
    """Each span and how many others, of any thread, it lies in; `spans` in order of begin, as a recorder has them."""
    found: list[tuple[Span, int]] = []
    for node in _tree(spans):
        found.append((node.span, found[node.parent][1] + 1 if node.parent >= 0 else 0))
    return found


class _StageSum:
    """What the stages of one name add up to in one run."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.seconds = self.engine_seconds = self.named_seconds = 0.0
        self.engine_calls = self.copies = self.copied = 0
        self.on_device = False

    def add(self, tree: Sequence[_Node], name: str) -> None:
        for node in tree:
            span = node.span
            if node.stage < 0:
                if span.kind == "stage" and span.name == name:
                    self.spans.append(span)
                    self.seconds += span.seconds
                continue
            if tree[node.stage].span.name != name:
                continue
            if span.kind in COMPUTE and not node.in_engine:
                self.engine_seconds += span.cost
                self.on_device |= span.device_begin is not None
            if node.parent == node.stage:
                self.named_seconds += span.seconds
            self.engine_calls += span.kind == "engine"
            self.copies += span.kind == "copy"
            self.copied += span.moved


def _tree(spans: Sequence[Span]) -> list[_Node]:
    """Who lies in whom, by time and over all threads; `spans` in order of begin, the longer one first.

    A span directly in one of its own name and kind (an engine called through a network of its name) is left out.
    """
    nodes: list[_Node] = []
    around: list[int] = []  # indices of nodes that have not ended yet, outermost first
    for span in spans:
        around = [i for i in around if nodes[i].span.end > span.begin]
        parent = next((i for i in reversed(around) if nodes[i].span.end >= span.end), -1)
        if parent >= 0 and (nodes[parent].span.name, nodes[parent].span.kind) == (span.name, span.kind):
            continue
        if parent < 0:
            nodes.append(_Node(span, -1, -1, False))
        else:
            above = nodes[parent]
            outermost = parent if above.span.kind == "stage" and above.stage < 0 else above.stage
            nodes.append(_Node(span, parent, outermost, above.in_engine or above.span.kind in COMPUTE))
        around.append(len(nodes) - 1)
    return nodes


def _own_seconds(tree: Sequence[_Node]) -> list[float]:
    """The cost of each span less that of the spans directly in it."""
    own = [node.span.cost for node in tree]
    for node in tree:
        if node.parent >= 0:
            # A launch is shorter than its work: within what the host does on a GPU, the host's time counts.
            on_device = tree[node.parent].span.device_begin is not None
            own[node.parent] -= node.span.cost if on_device else node.span.seconds
    return [max(0.0, seconds) for seconds in own]


def _shared(
    name: str, kind: Kind, spans: Sequence[Span], costs: Sequence[float], seconds: float, own_seconds: float,
    runs: int, total: float,
) -> dict[str, Any]:  # fmt: skip
    p50, p90, p99 = (float(value) * 1e3 for value in np.percentile(costs, (50, 90, 99)))
    return {
        "name": name, "kind": kind, "calls": len(spans) / runs, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99,
        "seconds": seconds, "own_seconds": own_seconds, "share": own_seconds * runs / total if total else 0.0,
    }  # fmt: skip


def _names(spans: Iterable[Span]) -> list[str]:
    return list(dict.fromkeys(span.name for span in spans))


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
