"""Operations, metrics and logs that a scenario expects to change, and how to read them.

Only what the expectation names is read: other metrics and logs are no evidence for the fault.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.diagnosis import Direction, Signal
from pytest_otel_diag.model.scenario import Expectation
from pytest_otel_diag.model.telemetry import LogCount, LogKind, MetricLevel, OperationHealth
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.scoring.names import same_operation
from pytest_otel_diag.stats.metric_shift import Floor, Point
from pytest_otel_diag.stats.two_sample import Load

Row = TypeVar("Row")
Series = tuple[str, str, str]
"""Service, metric and kind of number."""

LOG_BUCKET_S = 10.0
"""Least width of a bucket of logs in seconds: lines come in bursts, and a burst should count once."""

_NAMES: Mapping[Signal, tuple[str, tuple[str, ...], Floor]] = {
    Signal.CPU: (r"cpu", ("level", "rate"), Floor(1.5, grows=True)),
    Signal.MEMORY: (r"memory|heap|\brss\b|working_set", ("level",), Floor(1.2, grows=True)),
    Signal.GC: (r"(^|[._])gc([._]|$)", ("level", "rate", "count_rate", "sum_rate"), Floor(3.0, grows=True)),
    Signal.QUEUE: (r"lag|queue|backlog|pending", ("level",), Floor(1.5, counted=True)),
    Signal.NETWORK: (r"network|socket|tcp|packet", ("level", "rate"), Floor(1.5, grows=True)),
    Signal.RESTART: (r"restart", ("level",), Floor(1.0)),
    Signal.METRIC: (r"", ("level", "rate", "count_rate", "sum_rate"), Floor(1.5, grows=True)),
}
"""Signal → names of metrics that show it (as OpenTelemetry and its receivers spell them), kinds, floor."""


@dataclass(frozen=True, slots=True)
class MetricWatch:
    """A signal of a service that is read from metrics."""

    service: str
    signal: Signal
    direction: Direction | None = None

    @property
    def floor(self) -> Floor:
        """Return how large a change must be to matter."""
        return _NAMES[self.signal][2]

    def covers(self, series: Series) -> bool:
        """Whether the series shows the signal."""
        service, metric, kind = series
        pattern, kinds, _ = _NAMES[self.signal]
        return service == self.service and kind in kinds and re.search(pattern, metric) is not None


@dataclass(frozen=True)
class Watchlist:
    """What to read. ``operations`` are (service, operation as the expectation spells it, "" for any)."""

    operations: tuple[tuple[str, str], ...] = ()
    metrics: tuple[MetricWatch, ...] = ()
    logs: tuple[str, ...] = ()

    def operation_of(self, service: str, span_name: str) -> bool:
        """Whether the span is one of the operations."""
        return any(self.matches(name, wanted, (service, span_name)) for name, wanted in self.operations)

    @staticmethod
    def matches(service: str, operation: str, span: tuple[str, str]) -> bool:
        """Whether the *span* (service, name) is the operation, any of the service for ""."""
        return span[0] == service and (not operation or same_operation(operation, span[1]))


def watchlist(expectation: Expectation, *, traced: Iterable[str]) -> Watchlist:
    """Return what the expectation names.

    *traced* are the services with calls in traces. Any other service that is expected without a signal is
    watched by all its metrics, since nothing else could show it. Where latency is expected without an
    operation, each operation of the service is watched: a few slow calls do not show in the service as a
    whole.
    """
    causes = [(cause.service, cause.operation) for cause in expectation.root_causes]
    wanted = [(one.service, one.operation) for one in expectation.anomalies]
    operations = dict.fromkeys((name, op) for name, op in [*wanted, *causes] if op)
    slow = {one.service for one in expectation.anomalies if one.signal is Signal.LATENCY}
    operations |= dict.fromkeys((name, "") for name in sorted(slow - {name for name, _ in operations}))
    metrics = {
        (one.service, one.signal): MetricWatch(one.service, one.signal, one.direction)
        for one in expectation.anomalies
        if one.signal is not None and one.signal in _NAMES
    }
    known = frozenset(traced)
    for one in expectation.anomalies:
        if one.signal is None and one.service not in known:
            key = (one.service, Signal.METRIC)
            metrics.setdefault(key, MetricWatch(one.service, Signal.METRIC, one.direction))
    logs = dict.fromkeys(one.service for one in expectation.anomalies if one.signal is Signal.LOGS)
    return Watchlist(tuple(operations), tuple(metrics.values()), tuple(logs))


@dataclass(frozen=True)
class Observed:
    """What the watchlist shows over some windows; ``log_buckets`` includes buckets without lines."""

    operations: Mapping[tuple[str, str], Load] = field(default_factory=dict)
    metrics: Mapping[Series, tuple[Point, ...]] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    lines: Mapping[str, Load] = field(default_factory=dict)
    severe_buckets: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[tuple[str, str], tuple[int, bool]] = field(default_factory=dict)
    log_buckets: int = 0
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing was read at all."""
        return not (self.operations or self.metrics or self.lines)


async def observe(
    telemetry: Telemetry, windows: Sequence[Window], bucket_s: float, watched: Watchlist
) -> Observed:
    """Read the watchlist over all windows; signals without a table in the store are empty.

    Raises TelemetryError when the store cannot answer.
    """
    log_bucket_s = max(LOG_BUCKET_S, bucket_s)
    operations: list[OperationHealth] = []
    levels: list[MetricLevel] = []
    counts: list[LogCount] = []
    kinds: list[LogKind] = []
    traced = sorted({service for service, _ in watched.operations})
    metered = sorted({one.service for one in watched.metrics})
    for window in windows:
        if traced:
            operations += await _asked(telemetry.operation_health, window, bucket_s, traced)
        if metered:
            levels += await _asked(telemetry.metric_levels, window, bucket_s, metered)
        if watched.logs:
            counts += await _asked(telemetry.log_counts, window, log_bucket_s, watched.logs)
            kinds += await _asked(telemetry.log_kinds, window, log_bucket_s, watched.logs)
    seconds = sum(window.duration_s for window in windows)
    return Observed(
        operations=_operations(operations, seconds, watched),
        metrics=_series(levels),
        restarts=_restarts(levels),
        lines=_lines(counts, seconds),
        severe_buckets=_severe(counts),
        kinds=_kinds(kinds),
        log_buckets=sum(max(1, round(window.duration_s / log_bucket_s)) for window in windows),
        seconds=seconds,
    )


async def _asked(
    question: Callable[[Window, float, Sequence[str]], Awaitable[Sequence[Row]]],
    window: Window,
    bucket_s: float,
    services: Sequence[str],
) -> Sequence[Row]:
    if window.empty:
        return ()
    try:
        return await question(window, bucket_s, services)
    except SchemaError:
        return ()  # the preflight refuses scenarios whose signal is missing altogether


def _operations(
    rows: Iterable[OperationHealth], seconds: float, watched: Watchlist
) -> dict[tuple[str, str], Load]:
    pieces: dict[tuple[str, str], list[OperationHealth]] = {}
    for row in rows:
        if watched.operation_of(row.service, row.operation):
            pieces.setdefault((row.service, row.operation), []).append(row)
    return {
        key: Load(
            calls=sum(row.calls for row in found),
            errors=sum(row.errors for row in found),
            seconds=seconds,
            bucket_p95_ms=tuple(row.p95_ms for row in found),
            bucket_max_ms=tuple(row.max_ms for row in found),
        )
        for key, found in pieces.items()
    }


def _series(rows: Iterable[MetricLevel]) -> dict[Series, tuple[Point, ...]]:
    found: dict[Series, list[Point]] = {}
    for row in rows:
        if row.kind != "restarts":
            point = Point(row.bucket_start_ns / NANOS_PER_SECOND, row.value)
            found.setdefault((row.service, row.metric, row.kind), []).append(point)
    return {series: tuple(sorted(points)) for series, points in found.items()}


def _restarts(rows: Iterable[MetricLevel]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        if row.kind == "restarts":
            found[row.service] = found.get(row.service, 0) + round(row.value)
    return found


def _lines(rows: Iterable[LogCount], seconds: float) -> dict[str, Load]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row.service, []).append(row.lines)
    return {
        service: Load(calls=sum(counts), errors=0, seconds=seconds, bucket_calls=tuple(counts))
        for service, counts in found.items()
    }


def _severe(rows: Iterable[LogCount]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row.service] = found.get(row.service, 0) + (row.severe > 0)
    return found


def _kinds(rows: Iterable[LogKind]) -> dict[tuple[str, str], tuple[int, bool]]:
    found: dict[tuple[str, str], tuple[int, bool]] = {}
    for row in rows:
        buckets, severe = found.get((row.service, row.template), (0, False))
        found[row.service, row.template] = (buckets + row.buckets, severe or row.severe)
    return found
