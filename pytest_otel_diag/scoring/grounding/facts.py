"""What telemetry says about the things a diagnosis cites, asked in a handful of statements."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_otel_diag import statements
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.diagnosis import Measure
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.scoring.judged_query import LIMITS  # the same ones: other limits cost another client
from pytest_otel_diag.scoring.names import fold_case

MOST_SERVICES = 50

INCIDENT, BASELINE, REFERENCE, QUIET, FIRST_OTHER = 1, 2, 3, 4, 10
"""Labels of windows: ``QUIET`` is baseline and reference together; other windows of figures follow."""

_AROUND_NS = 3600 * NANOS_PER_SECOND
_MOST_KNOWN = 50
_EXACT_CALLS = 200
_ROWS = 5000
_LEVELS: Mapping[Measure, tuple[float, int]] = {"p50_ms": (0.5, 0), "p95_ms": (0.95, 3), "p99_ms": (0.99, 6)}


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of a service or operation in one window; durations in nanoseconds."""

    calls: int = 0
    failed: int = 0
    longest_ns: int = 0
    first_ns: Sequence[int] = ()
    quantiles_ns: Sequence[float] = ()

    def plus(self, other: Calls) -> Calls:
        """Return the calls of both, without their durations."""
        return Calls(
            self.calls + other.calls, self.failed + other.failed, max(self.longest_ns, other.longest_ns)
        )

    def span_of(self, measure: Measure) -> tuple[float, float] | None:
        """Return the least and greatest true value of the measure, None where it has none.

        A quantile of few calls lies between neighbouring durations, and estimators differ within these.
        """
        if measure in {"calls", "failed"}:
            count = float(self.calls if measure == "calls" else self.failed)
            return count, count
        if not self.calls:
            return None
        if measure == "error_ratio":
            return self.failed / self.calls, self.failed / self.calls
        if measure not in _LEVELS:
            return None
        return self._quantile(*_LEVELS[measure])

    def _quantile(self, level: float, index: int) -> tuple[float, float] | None:
        if self.calls > _EXACT_CALLS or len(self.first_ns) < self.calls:
            three = self.quantiles_ns[index : index + 3]
            return (three[0] / 1e6, three[2] / 1e6) if len(three) == 3 else None
        ordered, n = sorted(self.first_ns), self.calls
        # nearest rank, and interpolation that includes or excludes the ends
        low = min(math.floor(level * (n - 1)), math.ceil(level * n) - 1, math.floor(level * (n + 1)) - 1)
        high = max(math.floor(level * n), math.ceil(level * (n - 1)), math.ceil(level * (n + 1)) - 1)
        return ordered[max(0, low)] / 1e6, ordered[min(n - 1, high)] / 1e6


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cited trace or span is: its services, and whether some of it lies in the session's windows."""

    services: frozenset[str]
    in_windows: bool

    def plus(self, other: Place) -> Place:
        """Return both places as one."""
        return Place(self.services | other.services, self.in_windows or other.in_windows)


@dataclass(frozen=True, slots=True)
class Lines:
    """Log lines of a service in one window; ``holding`` are those that contain each subject."""

    lines: int
    severe: int
    errors: int
    holding: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Points:
    """Values of a metric of a service in one window."""

    mean: float
    least: float
    most: float
    last: float
    total: bool


@dataclass(frozen=True)
class Wanted:
    """What to ask telemetry for; names of services as telemetry spells them."""

    services: tuple[str, ...] = ()
    trace_ids: tuple[str, ...] = ()
    span_ids: tuple[str, ...] = ()
    latency: bool = False
    lines: bool = False
    subjects: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()


@dataclass
class Facts:
    """The answers; ``problems`` says of each kind (calls, ids, lines, points) why it has none."""

    calls: dict[tuple[int, str, str | None, str], Calls] = field(default_factory=dict)
    operations: dict[str, dict[str, None]] = field(default_factory=dict)
    elsewhere: dict[str, set[str]] = field(default_factory=dict)
    views: dict[tuple[int, str], list[tuple[str, Calls]]] = field(default_factory=dict)
    peers: set[str] = field(default_factory=set)
    traces: dict[str, Place] = field(default_factory=dict)
    spans: dict[str, Place] = field(default_factory=dict)
    lines: dict[tuple[int, str], Lines] = field(default_factory=dict)
    points: dict[tuple[int, str, str], Points] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class Asker:
    """Asks *telemetry*; what cannot be answered becomes a problem of the facts.

    *windows* have the labels of the figures, *known* are the windows of the session.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        schema: TelemetrySchema,
        windows: Sequence[tuple[int, Window]],
        known: Sequence[Window],
    ) -> None:
        self._telemetry = telemetry
        self._schema = schema
        self._windows = [(label, window) for label, window in windows if not window.empty]
        self._known = [window for window in known if not window.empty][:_MOST_KNOWN]
        self.facts = Facts()

    async def ask(self, wanted: Wanted) -> Facts:
        """Return the facts that are wanted."""
        if wanted.services:
            await self._try("calls", self._calls(wanted))
        if wanted.trace_ids or wanted.span_ids:
            await self._try("ids", self._ids(wanted))
        if wanted.lines and wanted.services:
            await self._try("lines", self._lines(wanted))
        if wanted.metrics:
            await self._try("points", self._points(wanted))
        return self.facts

    async def find_operations(self, names: Sequence[str]) -> None:
        """Search operations that no cited service has in all of telemetry, by the end of their names."""
        lowered = sorted({fold_case(name) for name in names})

        async def search() -> None:
            for row in await self._spans("operations", self._known, {"names": lowered}):
                self.facts.elsewhere.setdefault(row["operation_name"], set()).add(row["service_name"])

        await self._try("operations", search())

    async def find_peers(self, names: Sequence[str]) -> None:
        """Search names that no service has: peers that spans name, and containers that metrics measure."""
        hull = _hull(self._known)
        asked = {
            "start_ns": hull.start_ns,
            "end_ns": hull.end_ns,
            "names": sorted({fold_case(name) for name in names}),
        }

        asking = []
        if self._schema.has("otel_traces", "SpanAttributes"):
            asking.append(statements.load(__package__, "peers").sql)
        for table in ("otel_metrics_gauge", "otel_metrics_sum"):
            if self._schema.has(table, "Attributes", "ResourceAttributes"):
                asking.append(statements.load(__package__, "measured").sql.replace("metric_table", table))

        async def search() -> None:
            for sql in asking:
                answer = await self._telemetry.query(sql, asked, LIMITS)
                self.facts.peers.update(row["name"] for row in answer.dicts())

        await self._try("peers", search())

    async def look_again(self, services: Sequence[str]) -> None:
        """Ask for further views on the calls of the services, which a figure may be about."""
        if not self._has_spans() or not services:
            return

        async def ask() -> None:
            labelled = {**self._labelled(), "services": list(services[:MOST_SERVICES])}
            for row in await self._spans("views", [window for _, window in self._windows], labelled):
                seen = Calls(
                    row["calls"], row["failed"], row["longest_ns"], row["first_ns"], row["quantiles_ns"]
                )
                self._view(row["label"], row["service"], row["words"], seen)
            for label, window in self._windows:
                if label in (INCIDENT, BASELINE):
                    for edge in await self._telemetry.call_edges(window):
                        words = f"its calls from {edge.caller}"
                        self._view(label, edge.callee, words, Calls(edge.calls, edge.errors))

        await self._try("views", ask())

    def _view(self, label: int, service: str, words: str, calls: Calls) -> None:
        self.facts.views.setdefault((label, service), []).append((words, calls))

    async def _try(self, kind: str, asking: Awaitable[None]) -> None:
        try:
            await asking
        except OtelDiagError as error:
            self.facts.problems[kind] = f"telemetry did not answer: {error}"

    async def _spans(
        self, name: str, windows: Sequence[Window], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        statement = statements.over_spans(statements.load(__package__, name), self._schema)
        given = {
            **statements.window_parameters(windows),
            **next(statements.key_slices(1)),
            **parameters,
        }
        return list((await self._telemetry.query(statement.sql, given, LIMITS)).dicts())

    async def _calls(self, wanted: Wanted) -> None:
        if not self._has_spans():
            self.facts.problems["calls"] = "the session has no traces"
            return
        services = {"services": list(wanted.services[:MOST_SERVICES])}
        plain = all(label < FIRST_OTHER for label, _ in self._windows) and not wanted.latency
        if plain:  # windows that do not overlap, counts only: a fifth of the time
            windows = [one for one in self._windows if one[0] != QUIET]
            rows = await self._spans("counts", [window for _, window in windows], services)
            for row in rows:
                self._count(row, windows[row["win"] - 1][0])
        else:
            labelled = {**self._labelled(), **services}
            rows = await self._spans("calls", [window for _, window in self._windows], labelled)
            for row in rows:
                self._keep(row)
        if len(rows) >= _ROWS:
            self.facts.problems["operations"] = "the services have too many operations"
        for _, service, operation, _role in self.facts.calls:
            known = self.facts.operations.setdefault(service, {})
            if operation is not None:
                known[operation] = None

    def _count(self, row: Mapping[str, Any], label: int) -> None:
        """Add the calls of one operation and kind to all that they belong to."""
        kind = row["kind"]
        inner = "exit" if kind in {"Client", "Producer"} else "inner"
        own = "entry" if row["root"] or kind in {"Server", "Consumer"} else inner
        one = Calls(row["calls"], row["failed"], row["longest_ns"])
        for name in (label, QUIET) if label in (BASELINE, REFERENCE) else (label,):
            for operation in (None, row["operation"]):
                for role in ("", own):
                    key = (name, row["service"], operation, role)
                    self.facts.calls[key] = self.facts.calls.get(key, Calls()).plus(one)

    def _keep(self, row: Mapping[str, Any]) -> None:
        operation = None if row["of_service"] else row["operation_name"]
        role = "" if row["of_any_role"] else row["role"]
        self.facts.calls[row["label"], row["service_name"], operation, role] = Calls(
            row["calls"], row["failed"], row["longest_ns"], row["first_ns"], row["quantiles_ns"]
        )

    async def _ids(self, wanted: Wanted) -> None:
        traces, spans = _spellings(wanted.trace_ids), _spellings(wanted.span_ids)
        around = _around(self._known)
        bounds = {"start_ns": around.start_ns, "end_ns": around.end_ns}
        if self._schema.has("otel_traces"):
            sql = statements.load(__package__, "cited").sql
            asked = {**bounds, "trace_ids": traces, "span_ids": spans}
            for row in (await self._telemetry.query(sql, asked, LIMITS)).dicts():
                reach = Window(start_ns=row["first_ns"], end_ns=row["last_ns"] + 1)
                inside = any(reach.overlaps(window) for window in self._known)
                self._found(row["trace_id"], row["spans"], Place(frozenset({row["service"]}), inside))
        missing = [id_ for id_ in traces if fold_case(id_) not in self.facts.traces]
        absent = [id_ for id_ in spans if fold_case(id_) not in self.facts.spans]
        if (missing or absent) and self._schema.has("otel_logs", "TraceId", "SpanId"):
            await self._logged(missing, absent, around)

    def _found(self, trace: str, spans: Sequence[str], place: Place) -> None:
        for known, ids in ((self.facts.traces, [trace]), (self.facts.spans, spans)):
            for id_ in map(fold_case, ids):
                known[id_] = place if id_ not in known else known[id_].plus(place)

    async def _logged(self, traces: list[str], spans: list[str], around: Window) -> None:
        """Search ids in log lines: a trace may be sampled out that lines still name."""
        sql = statements.load(__package__, "logged").sql
        for window, inside in ((_hull(self._known), True), (around, False)):
            bounds = {"start_ns": window.start_ns, "end_ns": window.end_ns}
            asked = {**bounds, "trace_ids": traces, "span_ids": spans}
            for row in (await self._telemetry.query(sql, asked, LIMITS)).dicts():
                self._found(row["trace_id"], row["spans"], Place(frozenset(row["services"]), inside))

    async def _lines(self, wanted: Wanted) -> None:
        if not self._schema.has("otel_logs"):
            self.facts.problems["lines"] = "the session has no logs"
            return
        asked = {
            **self._labelled(),
            "services": list(wanted.services[:MOST_SERVICES]),
            "subjects": list(wanted.subjects),
        }
        sql = statements.load(__package__, "lines").sql
        for row in (await self._telemetry.query(sql, asked, LIMITS)).dicts():
            holding = dict(zip(wanted.subjects, row["holding"], strict=False))
            counted = Lines(row["lines"], row["severe"], row["errors"], holding)
            self.facts.lines[row["label"], row["service"]] = counted

    async def _points(self, wanted: Wanted) -> None:
        tables = [t for t in ("otel_metrics_gauge", "otel_metrics_sum") if self._schema.has(t)]
        if not tables:
            self.facts.problems["points"] = "the session has no gauges and sums"
        sql = statements.load(__package__, "points").sql
        asked = {**self._labelled(), "metrics": list(wanted.metrics)}
        for table in tables:
            answer = await self._telemetry.query(sql.replace("metric_table", table), asked, LIMITS)
            for row in answer.dicts():
                points = Points(row["mean"], row["least"], row["most"], row["last"], table.endswith("sum"))
                self.facts.points[row["label"], row["service"], row["metric"]] = points

    def _labelled(self) -> dict[str, Any]:
        labels = [label for label, _ in self._windows]
        return {
            **statements.window_parameters([window for _, window in self._windows]),
            "window_labels": labels,
        }

    def _has_spans(self) -> bool:
        return bool(self._windows) and "traces" in self._schema.signals()


def _hull(windows: Sequence[Window]) -> Window:
    return Window(
        start_ns=min(window.start_ns for window in windows), end_ns=max(window.end_ns for window in windows)
    )


def _around(windows: Sequence[Window]) -> Window:
    hull = _hull(windows)
    return Window(start_ns=hull.start_ns - _AROUND_NS, end_ns=hull.end_ns + _AROUND_NS)


def _spellings(ids: Sequence[str]) -> list[str]:
    """Return the ids as written and in lower case, in which exporters write them."""
    return list(dict.fromkeys(spelling for id_ in sendable(ids) for spelling in (id_, id_.lower())))


def sendable(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the texts that can be sent to the engine: not empty, and without lone surrogates."""
    return tuple(text for text in texts if text and text == text.encode("utf-8", "ignore").decode())
