"""Telemetry of simulated services in OpenTelemetry's data model; exporters turn it into rows or OTLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pytest_otel_diag.model.base import Nanos

AttributeValue = str | bool | int | float
Attributes = Mapping[str, AttributeValue]
SpanKind = Literal["Internal", "Server", "Client", "Producer", "Consumer"]
StatusCode = Literal["Unset", "Ok", "Error"]


MetricKind = Literal["gauge", "sum", "histogram"]


@dataclass(frozen=True, eq=False, slots=True)
class Resource:
    """One running instance of a service, compared by identity: a restart creates a new one."""

    service: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, eq=False, slots=True)
class Scope:
    """An instrumentation scope."""

    name: str
    version: str = ""


class EventRecord(NamedTuple):
    """A span event, for example an exception."""

    time_ns: Nanos
    name: str
    attributes: Attributes


class LinkRecord(NamedTuple):
    """A link to a span of another trace; ids are lower-case hex."""

    trace_id: str
    span_id: str
    attributes: Attributes


class SpanRecord(NamedTuple):
    """An ended span; ``start_ns`` is on the clock of its host, which may be skewed.

    ``exported_ns`` is the first instant at which a reader of the store sees it. Ids are lower-case hex of 32
    and 16 digits, ``parent_id`` is empty for a root span.
    """

    exported_ns: Nanos
    start_ns: Nanos
    duration_ns: Nanos
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: SpanKind
    resource: Resource
    scope: Scope
    attributes: Attributes
    status: StatusCode = "Unset"
    message: str = ""
    events: tuple[EventRecord, ...] = ()
    links: tuple[LinkRecord, ...] = ()


class LogRecord(NamedTuple):
    """A log record; trace and span id are empty where the service does not correlate logs."""

    exported_ns: Nanos
    time_ns: Nanos
    resource: Resource
    scope: Scope
    severity_text: str
    severity_number: int
    body: str
    attributes: Attributes
    trace_id: str = ""
    span_id: str = ""
    event_name: str = ""


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """A cumulative histogram; ``counts`` has one entry more than ``bounds``."""

    count: int
    sum: float
    counts: tuple[int, ...]
    bounds: tuple[float, ...]
    minimum: float
    maximum: float


@dataclass(frozen=True, eq=False, slots=True)
class Instrument:
    """The identity of a metric, which points refer to."""

    name: str
    kind: MetricKind
    unit: str = ""
    description: str = ""
    monotonic: bool = True


class MetricPoint(NamedTuple):
    """An exported data point; sums and histograms are cumulative since ``start_ns``."""

    exported_ns: Nanos
    time_ns: Nanos
    start_ns: Nanos
    resource: Resource
    scope: Scope
    instrument: Instrument
    attributes: Attributes
    value: float | HistogramValue


@dataclass(slots=True)
class Batch:
    """Records that became visible at the same time."""

    spans: list[SpanRecord] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)
    metrics: list[MetricPoint] = field(default_factory=list)
