"""Queries telemetry with few, wide statements whose results do not grow with the number of spans."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from pytest_otel_diag.analyzers.builtin.diagnostic_query import OWNER
from pytest_otel_diag.analyzers.builtin.evidence.observations import (
    MatrixBuilder,
    Metrics,
    Observations,
    Operation,
    Outgrown,
    SeriesKey,
    row_of,
)
from pytest_otel_diag.analyzers.builtin.evidence.restarts import outgrown
from pytest_otel_diag.analyzers.builtin.robust_statistics import Floats
from pytest_otel_diag.analyzers.builtin.slots import Slots
from pytest_otel_diag.analyzers.builtin.templates import MASK, Body, Templates, mine
from pytest_otel_diag.errors import QueryFailed, SchemaError
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, SPANS_TABLE, QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.statements import (
    KEY_MAX,
    Statement,
    in_front,
    key_slices,
    load,
    over_spans,
    window_parameters,
)

KEYS_MAX = 20_000
"""Maximal rows of a result: the busiest operations, calls and flows."""

BODIES_MAX = 5_000
SERIES_MAX = 5_000
SPANS_PER_SLICE = 1_200_000
"""Spans grouped at once, which takes about half a gigabyte."""

SPANS_MAX = 5_000_000
"""Above this number of spans, only a random share of whole traces is read (by the hash of their id): the
spread between slots, which is the unit of all scores, does not shrink with more spans."""

_CELLS = ("counts", "low", "mid", "high", "took_mid", "took_high", "failed", "origins", "lonely")


def after(relation: str, statement: Statement) -> Statement:
    """Return the statement with ``relation`` (``log_events`` or ``points``, from its file) in front."""
    name = "points" if relation.startswith("points") else "log_events"
    source = Statement(relation, load(__package__, relation).sql.replace("OWNER", OWNER))
    return Statement(f"{statement.name}/{relation}", in_front(name, source, statement).sql)


_LEVELS = {"otel_metrics_gauge": "1", "otel_metrics_sum": "NOT IsMonotonic"}


def _peaks(table: str) -> Statement:
    text = load(__package__, "peaks").sql.replace("OWNER", OWNER)
    return Statement(f"peaks/{table}", text.replace("TABLE_NAME", table).replace("LEVELS", _LEVELS[table]))


def _present(table: str) -> Statement:
    """Return the statement that checks whether a table is empty (names cannot be parameters)."""
    return Statement(f"present/{table}", load(__package__, "present").sql.replace("TABLE_NAME", table))


class Gatherer:
    """Collects the observations of one session's telemetry."""

    def __init__(self, telemetry: Telemetry, schema: TelemetrySchema, slots: Slots) -> None:
        self._telemetry = telemetry
        self._schema = schema
        self._slots = slots
        self._limits = QueryLimits(time_s=120.0, result_rows=200_000)
        self._shared: dict[str, Any] = {
            **window_parameters(slots.windows),
            **slots.parameters(),
            **next(key_slices(1)),
            "keys": KEYS_MAX,
            "mask": MASK,
            "bodies": [0],
            "templates": [0],
        }
        self._filled: frozenset[str] = frozenset()
        self._loose_lines = False
        self.spans = 0
        self.notes: list[str] = []

    async def gather(self) -> Observations:
        """Return the observations; signals without a table or without rows are empty."""
        self._filled = await self._tables()
        operations, bodies, requests, metrics = await asyncio.gather(
            self._operations(), self._bodies(), self._requests(), self._metrics()
        )
        self.spans = sum(operation.spans for operation in operations.values())
        metrics = metrics.spoken_of({operation.service for operation in operations.values()}).filled()
        templates = mine(bodies)
        if templates.bodies:
            self._shared["bodies"] = list(templates.bodies)
            self._shared["templates"] = list(templates.template_of_body)
        features, log_rates, begun_anew = await asyncio.gather(
            self._features(templates), self._log_rates(templates), self._outgrown()
        )
        return Observations(
            self._slots,
            operations,
            features.matrices(),
            templates,
            log_rates,
            requests,
            metrics,
            begun_anew,
        )

    @property
    def _traces(self) -> bool:
        return self._schema.has("otel_traces") or self._schema.has(SPANS_TABLE)

    async def _ask(self, statement: Statement, extra: Mapping[str, Any] | None = None) -> Table:
        wanted = statement.parameters
        values = {**self._shared, **(extra or {})}
        return await self._telemetry.query(
            statement.sql, {name: value for name, value in values.items() if name in wanted}, self._limits
        )

    async def _optional(self, statement: Statement, extra: Mapping[str, Any] | None = None) -> Table:
        """Run a query; if it fails, continue without its result and add a note."""
        try:
            return await self._ask(statement, extra)
        except (SchemaError, QueryFailed) as error:
            self.notes.append(f"{statement.name} was not read: {error}")
            return Table((), ())

    async def _tables(self) -> frozenset[str]:
        """Return the tables of logs and metrics that have rows."""
        names = [
            name for name in (*SIGNAL_TABLES["logs"], *SIGNAL_TABLES["metrics"]) if self._schema.has(name)
        ]
        found = await asyncio.gather(*(self._optional(_present(name)) for name in names))
        return frozenset(
            name for name, table in zip(names, found, strict=True) if len(table) and any(table.column("n"))
        )

    async def _operations(self) -> dict[int, Operation]:
        if not self._traces:
            return {}
        table = await self._ask(over_spans(load(__package__, "operations"), self._schema))
        return {
            int(op): Operation(str(service), str(name), str(kind), int(n), int(roots))
            for op, service, name, kind, n, roots in table.rows()
        }

    async def _bodies(self) -> list[Body]:
        if not self._schema.has("otel_logs", "Body") or "otel_logs" not in self._filled:
            return []
        table = await self._optional(load(__package__, "log_bodies"), {"keys": BODIES_MAX})
        self._loose_lines = len(table) > 0 and any(table.column("loose"))
        return [
            Body(int(body), str(service), str(severity), str(masked))
            for masked, body, service, severity, _, _ in table.rows()
        ]

    async def _requests(self) -> dict[str, tuple[Floats, Floats]]:
        if not self._traces:
            return {}
        table = await self._ask(over_spans(load(__package__, "requests"), self._schema))
        columns = self._slots.count
        return {
            str(service): (row_of(columns, slots, roots, 0.0), row_of(columns, slots, entries, 0.0))
            for service, slots, roots, entries in table.rows()
        }

    async def _features(self, templates: Templates) -> MatrixBuilder:
        builder = MatrixBuilder(self._slots.count)
        if not self.spans:
            return builder
        relation = "log_events" if templates.bodies else "log_events_none"
        # first the relation of log lines, then spans in front of it
        statement = over_spans(after(relation, load(__package__, "features")), self._schema)
        for keys in _slices(self.spans):
            table = await self._ask(statement, keys)
            cells = [table.column(name) for name in _CELLS]
            for index, (feature, op, a, b, slots) in enumerate(
                zip(*(table.column(name) for name in ("feature", "op", "a", "b", "slots")), strict=True)
            ):
                values = {name: column[index] for name, column in zip(_CELLS, cells, strict=True)}
                builder.add(int(feature), (int(op), int(a), int(b)), slots, values)
        return builder

    async def _log_rates(self, templates: Templates) -> dict[tuple[str, int], Floats]:
        if not templates.bodies or not self._loose_lines:
            return {}
        table = await self._optional(load(__package__, "log_rates"))
        return {
            (str(service), int(template)): row_of(self._slots.count, slots, counts, 0.0)
            for service, template, slots, counts in table.rows()
        }

    async def incident_spans(self, statement: Statement, *, share: float, extra: Mapping[str, Any]) -> Table:
        """Run a statement over the spans of the incident, or over a random *share* of its traces."""
        window = window_parameters([self._slots.incident])
        keys = {"key_from": 0, "key_to": min(KEY_MAX, int(KEY_MAX * share))}
        return await self._ask(over_spans(statement, self._schema), {**window, **keys, **extra})

    async def exemplars(self, service: str) -> tuple[str, ...]:
        """Return up to three traces of the incident through the service: failed ones, then slow ones."""
        if not self._schema.has("otel_traces"):
            return ()
        incident = self._slots.incident
        instants = {"start_ns": incident.start_ns, "end_ns": incident.end_ns}
        table = await self._ask(load(__package__, "exemplars"), {"service": service, **instants})
        return tuple(map(str, table.column("trace_id"))) if len(table) else ()

    async def _metrics(self) -> Metrics:
        names = [name for name in SIGNAL_TABLES["metrics"] if name in self._filled]
        statements = [
            after(f"points_{name.removeprefix('otel_metrics_')}", load(__package__, "metrics"))
            for name in names
        ]
        tables = await asyncio.gather(*(self._optional(one, {"keys": SERIES_MAX}) for one in statements))
        found: dict[SeriesKey, tuple[Floats, Floats, Floats]] = {}
        whole: set[SeriesKey] = set()
        for name, table in zip(names, tables, strict=True):
            for service, metric, unit, series, slots, *cells, integral in table.rows():
                key = SeriesKey(str(service), str(service), str(metric), str(unit), str(series), name)
                level, hits, seconds = (row_of(self._slots.count, slots, cell, math.nan) for cell in cells)
                found[key] = (level, hits, seconds)
                if integral:
                    whole.add(key)
        return Metrics.of(found, self._slots.count, whole=whole)

    async def _outgrown(self) -> dict[str, Outgrown]:
        """Return the peaks of services that outgrew their memory; empty without restarted processes."""
        table = "otel_metrics_sum"
        if table not in self._filled or not self._schema.has(table, "StartTimeUnix"):
            return {}
        incident = self._slots.incident
        instants = {"start_ns": incident.start_ns, "end_ns": incident.end_ns}
        text = load(__package__, "begun").sql.replace("OWNER", OWNER)
        begun = dict((await self._optional(Statement("begun", text), instants)).rows())
        if not begun:
            return {}
        tables = [_peaks(name) for name in _LEVELS if name in self._filled]
        asked = {**instants, "services": list(begun)}
        found = await asyncio.gather(*(self._optional(one, asked) for one in tables))
        return outgrown(begun, [row for table in found for row in table.rows()])


def _slices(spans: int) -> list[dict[str, int]]:
    """Return ranges of the trace hash with about SPANS_PER_SLICE spans each and SPANS_MAX in total."""
    ranges = list(key_slices(max(1, math.ceil(spans / SPANS_PER_SLICE))))
    return ranges[: max(1, SPANS_MAX // SPANS_PER_SLICE)]
