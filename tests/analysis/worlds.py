"""A small made-up system whose faults are known, in the exporter's columns."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry import Store

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND
MS = 1_000_000
MAP = pa.map_(pa.string(), pa.string())


@dataclass
class Span:
    """One span; ``offset_ms`` is its start within the trace."""

    trace: str
    id: str
    parent: str
    service: str
    name: str
    kind: str
    start_ns: int
    took_ns: int
    error: bool = False


@dataclass
class World:
    """Rows of telemetry."""

    spans: list[Span] = field(default_factory=list)
    logs: list[tuple[int, str, str, str, str, str]] = field(default_factory=list)
    gauges: list[tuple[int, str, str, str, dict[str, str], float]] = field(default_factory=list)
    sums: list[tuple[int, str, str, str, float]] = field(default_factory=list)
    histograms: list[tuple[int, str, str, str, float, int]] = field(default_factory=list)
    begun: dict[str, int] = field(default_factory=dict)
    """When processes began anew, by service; all others began before the first row."""

    def load(self, store: Store, database: str) -> None:
        """Write the rows."""
        if self.spans:
            store.ingest_arrow(database, "otel_traces", _traces(self.spans))
        if self.logs:
            store.ingest_arrow(database, "otel_logs", _logs(self.logs))
        if self.gauges:
            store.ingest_arrow(database, "otel_metrics_gauge", _gauges(self.gauges))
        if self.sums:
            store.ingest_arrow(database, "otel_metrics_sum", _sums(self.sums, self.begun))
        if self.histograms:
            store.ingest_arrow(database, "otel_metrics_histogram", _histograms(self.histograms))


def _times(values: list[int]) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("ns", "UTC"))


def _resources(services: list[str]) -> pa.Array:
    return pa.array([[("service.name", s), ("k8s.pod.name", f"{s}-0")] for s in services], MAP)


def _traces(spans: list[Span]) -> pa.Table:
    return pa.table(
        {
            "Timestamp": _times([s.start_ns for s in spans]),
            "TraceId": [s.trace for s in spans],
            "SpanId": [s.id for s in spans],
            "ParentSpanId": [s.parent for s in spans],
            "SpanName": [s.name for s in spans],
            "SpanKind": [s.kind for s in spans],
            "ServiceName": [s.service for s in spans],
            "ResourceAttributes": _resources([s.service for s in spans]),
            "Duration": pa.array([max(0, s.took_ns) for s in spans], pa.uint64()),
            "StatusCode": ["Error" if s.error else "Unset" for s in spans],
        }
    )


def _logs(rows: list[tuple[int, str, str, str, str, str]]) -> pa.Table:
    times, traces, spans, services, severities, bodies = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "Timestamp": _times(times),
            "TraceId": traces,
            "SpanId": spans,
            "ServiceName": services,
            "SeverityText": severities,
            "Body": bodies,
        }
    )


def _metrics(rows: list[Any], attributes: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "TimeUnix": _times([row[0] for row in rows]),
        "ServiceName": [row[1] for row in rows],
        "MetricName": [row[2] for row in rows],
        "MetricUnit": [row[3] for row in rows],
        "Attributes": pa.array([list(a.items()) for a in attributes], MAP),
    }


def _gauges(rows: list[tuple[int, str, str, str, dict[str, str], float]]) -> pa.Table:
    return pa.table({**_metrics(rows, [row[4] for row in rows]), "Value": [row[5] for row in rows]})


def _sums(rows: list[tuple[int, str, str, str, float]], begun: dict[str, int]) -> pa.Table:
    anew = [begun.get(row[1], row[0] + 1) for row in rows]
    return pa.table(
        {
            **_metrics(rows, [{}] * len(rows)),
            "StartTimeUnix": _times(
                [at if at <= row[0] else T0 - 60 * SECOND for at, row in zip(anew, rows, strict=True)]
            ),
            "Value": [row[4] for row in rows],
            "AggregationTemporality": pa.array([2] * len(rows), pa.int32()),
            "IsMonotonic": [True] * len(rows),
        }
    )


def _histograms(rows: list[tuple[int, str, str, str, float, int]]) -> pa.Table:
    return pa.table(
        {
            **_metrics(rows, [{}] * len(rows)),
            "Sum": [row[4] for row in rows],
            "Count": pa.array([row[5] for row in rows], pa.uint64()),
            "AggregationTemporality": pa.array([2] * len(rows), pa.int32()),
        }
    )


# The system: who calls whom, in order, and how long each works itself (ms).
CALLS: dict[str, tuple[str, ...]] = {
    "web": ("basket", "search", "orders"),
    "orders": ("stock", "billing", "mail"),
    "search": ("stock",),
}
WORK_MS = {"web": 5.0, "basket": 3.0, "search": 6.0, "orders": 8.0, "stock": 2.0, "billing": 4.0, "mail": 3.0}
SERVICES = tuple(WORK_MS)
NETWORK_MS = 1.0


@dataclass
class Fault:
    """What is different during the incident."""

    slow: dict[str, float] = field(default_factory=dict)
    failing: dict[str, float] = field(default_factory=dict)
    unreachable: tuple[str, str] | None = None
    down: str = ""
    delayed: dict[str, float] = field(default_factory=dict)
    returns_early: dict[str, float] = field(default_factory=dict)
    rate: float = 1.0
    lag_ms: float = 0.0
    gauge: dict[tuple[str, str], float] = field(default_factory=dict)
    counter: dict[tuple[str, str], float] = field(default_factory=dict)
    histogram: dict[tuple[str, str], float] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)


BASELINE = Window(start_ns=T0, end_ns=T0 + 200 * SECOND)
INCIDENT = Window(start_ns=T0 + 200 * SECOND, end_ns=T0 + 300 * SECOND)


class Simulation:
    """Draws the telemetry of the made-up system."""

    def __init__(self, seed: int, fault: Fault, *, per_second: float = 3.0, logs: bool = True) -> None:
        self.random = random.Random(seed)
        self.fault = fault
        self.world = World()
        self.per_second = per_second
        self.logs = logs
        self._next = 0
        self.on = False

    def run(self, name: Callable[[str], str] = lambda service: service) -> World:
        """Return the world; *name* renames services."""
        self.name = name
        self._requests(BASELINE, 1.0, on=False)
        self._requests(INCIDENT, self.fault.rate, on=True)
        self._metrics()
        return self.world

    def _requests(self, window: Window, factor: float, *, on: bool) -> None:
        self.on = on
        at = window.start_ns
        while True:
            at += int(self.random.expovariate(self.per_second * factor) * SECOND)
            if at >= window.end_ns:
                return
            self._serve("web", self._id(32), "", at)

    def _id(self, digits: int) -> str:
        self._next += 1
        return f"{self._next * 0x9E3779B97F4A7C15 % 16**digits:0{digits}x}"

    def _work(self, service: str) -> float:
        extra = self.fault.slow.get(service, 0.0) if self.on else 0.0
        return WORK_MS[service] * self.random.lognormvariate(0.0, 0.2) + extra

    def _chance(self, table: dict[str, float], service: str) -> bool:
        return self.on and self.random.random() < table.get(service, 0.0)

    def _serve(self, service: str, trace: str, parent: str, at: int) -> tuple[int, bool]:
        """Write the server span and everything below; return its end and whether it failed."""
        me = self._id(16)
        now = at + int(self._work(service) * MS)
        failed = self._chance(self.fault.failing, service)
        early = self._chance(self.fault.returns_early, service)
        self._log(now, trace, me, service, failed=failed)
        for callee in () if failed or early else CALLS.get(service, ()):
            now, broken = self._call(service, callee, trace, me, now)
            if broken:
                failed = True
                break
        kind = "Consumer" if service == "mail" else "Server"
        self._span(Span(trace, me, parent, service, f"{service}/handle", kind, at, now - at, failed))
        return now, failed

    def _call(self, caller: str, callee: str, trace: str, parent: str, now: int) -> tuple[int, bool]:
        me = self._id(16)
        network = NETWORK_MS * self.random.lognormvariate(0.0, 0.2)
        if self.on:
            network += self.fault.delayed.get(callee, 0.0)
        reached = now + int(network / 2 * MS)
        if callee == "mail":
            lag = int((2.0 + (self.fault.lag_ms if self.on else 0.0)) * MS)
            self._serve(callee, trace, me, reached + lag)
            self._span(Span(trace, me, parent, caller, "mail send", "Producer", now, MS))
            return now + MS, False
        lost = self._chance({self.fault.down: 0.5}, callee)
        if lost or (self.on and self.fault.unreachable == (caller, callee)):
            self._span(Span(trace, me, parent, caller, f"call {callee}", "Client", now, 2 * MS, True))
            return now + 2 * MS, True
        end, failed = self._serve(callee, trace, me, reached)
        end += int(network / 2 * MS)
        self._span(Span(trace, me, parent, caller, f"call {callee}", "Client", now, end - now, failed))
        return end, failed

    def _span(self, span: Span) -> None:
        span.service, span.name = self.name(span.service), span.name
        self.world.spans.append(span)

    def _log(self, at: int, trace: str, span: str, service: str, *, failed: bool) -> None:
        if not self.logs:
            return
        number = self.random.randrange(100_000)
        row = (at, trace, span, self.name(service))
        self.world.logs.append((*row, "INFO", f"handled request {number} of {service}"))
        if failed:
            self.world.logs.append((*row, "ERROR", f"cannot handle {number}: boom"))
        if self.on and service in self.fault.log:
            self.world.logs.append((at, "", "", self.name(service), "ERROR", self.fault.log[service]))

    def _metrics(self) -> None:
        totals: dict[tuple[str, str], float] = {}
        for at in range(T0, INCIDENT.end_ns, 10 * SECOND):
            on = at >= INCIDENT.start_ns
            for service in SERVICES:
                self._points(at, service, on, totals)

    def _points(self, at: int, service: str, on: bool, totals: dict[tuple[str, str], float]) -> None:
        name = self.name(service)
        for metric, level in (
            ("process.cpu.utilization", 0.2),
            ("process.memory.usage", 5e7),
            ("queue.lag", 3.0),
        ):
            factor = self.fault.gauge.get((service, metric), 1.0) if on else 1.0
            value = level * factor * self.random.lognormvariate(0.0, 0.05)
            self.world.gauges.append((at, name, metric, "1", {"kind": "a"}, value))
        for metric, step in (("gc.collections", 20.0), ("http.requests", 100.0)):
            factor = self.fault.counter.get((service, metric), 1.0) if on else 1.0
            totals[service, metric] = totals.get(
                (service, metric), 0.0
            ) + step * factor * self.random.lognormvariate(0, 0.05)
            self.world.sums.append((at, name, metric, "{event}", totals[service, metric]))
        factor = self.fault.histogram.get((service, "pool.wait"), 1.0) if on else 1.0
        count = totals.get((service, "n"), 0.0) + 10
        total = totals.get((service, "sum"), 0.0) + 10 * 0.01 * factor
        totals[service, "n"], totals[service, "sum"] = count, total
        self.world.histograms.append((at, name, "pool.waiting", "{thread}", total, int(count)))
