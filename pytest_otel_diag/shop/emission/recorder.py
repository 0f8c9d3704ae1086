"""Export of telemetry from services to the store, with the records in flight.

SDKs export in batches on a timer, and the collector writes batches to the store on another one. A record is
visible after both. Records that a killed process has not exported are lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.shop.emission.span_metrics import SpanMetrics
from pytest_otel_diag.shop.emission.texts import Text
from pytest_otel_diag.shop.records import Batch, LogRecord, MetricPoint, SpanRecord

_MIX = 2_654_435_761  # Knuth's multiplicative hash

R = TypeVar("R", SpanRecord, LogRecord, MetricPoint)
_Sealed: TypeAlias = tuple[Nanos, int, list[R]]


@dataclass(frozen=True, slots=True)
class ExportPeriods:
    """Export periods of an SDK in seconds: its batch processors and its metric reader."""

    spans_s: float = 5.0
    logs_s: float = 1.0
    metrics_s: float = 60.0


@dataclass(frozen=True, slots=True)
class CollectorPeriods:
    """Periods of the collector: it writes to the store every ``flush_s``; a write takes ``insert_s``."""

    flush_s: float = 5.0
    insert_s: float = 0.05


class Collector:
    """Computes when telemetry that leaves a service becomes visible in the store."""

    def __init__(self, start_ns: Nanos, rng: random.Random, periods: CollectorPeriods) -> None:
        self._flush_ns = seconds_to_ns(periods.flush_s)
        self._insert_ns = seconds_to_ns(periods.insert_s)
        self._origin_ns = start_ns - rng.randrange(self._flush_ns)

    def visible_ns(self, sent_ns: Nanos) -> Nanos:
        """Return when telemetry sent at *sent_ns* becomes visible: after the network and the next write.

        The jitter of the network is a function of the instant, so the result is the same for every caller.
        """
        arrived = sent_ns + 2_000_000 + sent_ns * _MIX % 10_000_000
        flushes = (arrived - self._origin_ns) // self._flush_ns + 1
        return self._origin_ns + flushes * self._flush_ns + self._insert_ns


class Buffer(Generic[R]):
    """The batch processor of one signal in one process.

    ``exported_ns`` is the time for a record added now; call :meth:`roll` first when the time has reached
    ``deadline_ns``.
    """

    __slots__ = ("_collector", "_period_ns", "_sealed", "deadline_ns", "exported_ns", "records")

    def __init__(
        self, collector: Collector, sealed: Callable[[Nanos, list[R]], None], first_ns: Nanos, period_s: float
    ) -> None:
        self._collector = collector
        self._sealed: Callable[[Nanos, list[R]], None] = sealed
        self._period_ns = seconds_to_ns(period_s)
        self.records: list[R] = []
        self.deadline_ns = first_ns
        self.exported_ns = collector.visible_ns(first_ns)

    def roll(self, now_ns: Nanos) -> None:
        """Send the batches due before *now_ns* and make the period of *now_ns* the current one."""
        if now_ns < self.deadline_ns:
            return
        if self.records:
            self._sealed(self.exported_ns, self.records)
            self.records = []
        periods = (now_ns - self.deadline_ns) // self._period_ns + 1
        self.deadline_ns += periods * self._period_ns
        self.exported_ns = self._collector.visible_ns(self.deadline_ns)

    def flush(self, now_ns: Nanos) -> None:
        """Send all records now, as at a graceful shutdown."""
        self.roll(now_ns)
        if self.records:
            visible = self._collector.visible_ns(now_ns)
            self._sealed(visible, [record._replace(exported_ns=visible) for record in self.records])
            self.records = []

    def lose(self, now_ns: Nanos) -> int:
        """Drop the records that are not sent yet, as a kill does; return their number."""
        self.roll(now_ns)
        lost = len(self.records)
        self.records = []
        return lost


class Recorder:
    """All emitted records that have not been taken."""

    def __init__(self, start_ns: Nanos, rng: random.Random, periods: CollectorPeriods) -> None:
        self.collector = Collector(start_ns, rng, periods)
        self._rng = rng
        self._spans: list[_Sealed[SpanRecord]] = []
        self._logs: list[_Sealed[LogRecord]] = []
        self._points: list[_Sealed[MetricPoint]] = []
        self._buffers: dict[Buffer[SpanRecord] | Buffer[LogRecord], None] = {}
        self._processes = 0
        self.span_metrics = SpanMetrics(start_ns)
        self.texts: list[Text] = []

    def buffers(self, now_ns: Nanos, periods: ExportPeriods) -> tuple[Buffer[SpanRecord], Buffer[LogRecord]]:
        """Return the buffers of spans and logs of a process that starts now."""
        self._processes += 1
        number = self._processes

        def seal_spans(exported_ns: Nanos, records: list[SpanRecord]) -> None:
            self._spans.append((exported_ns, number, records))
            self.span_metrics.add(records)

        def seal_logs(exported_ns: Nanos, records: list[LogRecord]) -> None:
            self._logs.append((exported_ns, number, records))

        spans = Buffer(self.collector, seal_spans, self._phase_ns(now_ns, periods.spans_s), periods.spans_s)
        logs = Buffer(self.collector, seal_logs, self._phase_ns(now_ns, periods.logs_s), periods.logs_s)
        self._buffers[spans] = None
        self._buffers[logs] = None
        return spans, logs

    def _phase_ns(self, now_ns: Nanos, period_s: float) -> Nanos:
        return now_ns + 1 + int(self._rng.random() * seconds_to_ns(period_s))

    def retire(self, *buffers: Buffer[SpanRecord] | Buffer[LogRecord]) -> None:
        """Remove the buffers of an ended process; flush or drop their records first."""
        for buffer in buffers:
            self._buffers.pop(buffer, None)

    def points(self, exported_ns: Nanos, points: list[MetricPoint]) -> None:
        """Accept the points of a metric reader."""
        if points:
            self._points.append((exported_ns, 0, points))

    def roll(self, now_ns: Nanos) -> None:
        """Send all batches that are due by now."""
        for buffer in self._buffers:
            buffer.roll(now_ns)

    def read_span_metrics(self, now_ns: Nanos) -> int:
        """Export the collector's span metrics; return the number of points."""
        self.roll(now_ns)
        exported_ns = self.collector.visible_ns(now_ns)
        points = self.span_metrics.collect(now_ns, exported_ns)
        self.points(exported_ns, points)
        return len(points)

    def take(self, now_ns: Nanos, until_ns: Nanos) -> Batch:
        """Remove and return the records that are visible in the store at *until_ns*, at most *now_ns*."""
        self.roll(now_ns)
        horizon = min(now_ns, until_ns)
        batch = Batch(
            spans=_taken(self._spans, horizon),
            logs=_taken(self._logs, horizon),
            metrics=_taken(self._points, horizon),
        )
        for text in self.texts:
            text.write(batch)
        return batch


def _taken(sealed: list[_Sealed[R]], horizon_ns: Nanos) -> list[R]:
    """Remove and return the visible records, ordered by visibility and process."""
    due = [entry for entry in sealed if entry[0] <= horizon_ns]
    sealed[:] = [entry for entry in sealed if entry[0] > horizon_ns]
    due.sort(key=lambda entry: entry[:2])
    return [record for *_, records in due for record in records]
