"""Results of the named questions about traces and logs. Durations in milliseconds, instants in UTC ns."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median, 95th and 99th percentile; NaN where nothing was counted."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class SelfTime:
    """Self time of an operation's spans; ``window`` counts the given windows from 1."""

    window: int
    service: str
    operation: str
    spans: int
    total_ms: float
    self_ms: Quantiles


@dataclass(frozen=True, slots=True)
class CriticalOperation:
    """What an operation contributes to the critical paths of a window.

    ``on_path`` spans lie on a path, ``own_ms`` is their time that no critical child covers,
    ``share_ratio`` that time's share of all paths' time.
    """

    window: int
    service: str
    operation: str
    on_path: int
    own_ms: float
    share_ratio: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a critical path: the own time of one span (ids are hashes, 0: no parent)."""

    span: int
    parent: int
    service: str
    operation: str
    start_ns: Nanos
    end_ns: Nanos


@dataclass(frozen=True, slots=True)
class TracePath:
    """Critical path of one root span; the segments tile its interval in order of time."""

    window: int
    trace: int
    root: int
    service: str
    operation: str
    start_ns: Nanos
    end_ns: Nanos
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class ServicePath:
    """Requests whose time is decided along the same chain of services, from the root downwards."""

    window: int
    services: tuple[str, ...]
    requests: int
    errors: int
    mean_ms: float
    p99_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One span worth looking at; ``trace_id`` is the exporter's."""

    trace_id: str
    service: str
    operation: str
    start_ns: Nanos
    duration_ms: float
    error: bool


@dataclass(frozen=True, slots=True)
class LogTemplate:
    """Lines of a service that differ only in words with digits (``<*>``)."""

    window: int
    service: str
    severity: str
    template: str
    lines: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class OperationChange:
    """An operation before and after: spans, errors and duration."""

    service: str
    operation: str
    spans_before: int
    spans_after: int
    errors_before: int
    errors_after: int
    ms_before: Quantiles
    ms_after: Quantiles


@dataclass(frozen=True, slots=True)
class EdgeChange:
    """Calls between two services before and after."""

    caller: str
    callee: str
    calls_before: int
    calls_after: int
    errors_before: int
    errors_after: int
    ms_before: Quantiles
    ms_after: Quantiles


@dataclass(frozen=True, slots=True)
class SelfTimeChange:
    """Self time of an operation before and after."""

    service: str
    operation: str
    spans_before: int
    spans_after: int
    ms_before: Quantiles
    ms_after: Quantiles
    total_ms_before: float
    total_ms_after: float


@dataclass(frozen=True, slots=True)
class TemplateChange:
    """Lines of a log template before and after; ``trace_id`` is one of those after, or empty."""

    service: str
    severity: str
    template: str
    lines_before: int
    lines_after: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class TelemetryChanges:
    """Everything before and after; ``seconds_*`` turn counts into rates."""

    seconds_before: float
    seconds_after: float
    operations: tuple[OperationChange, ...]
    edges: tuple[EdgeChange, ...]
    self_times: tuple[SelfTimeChange, ...]
    templates: tuple[TemplateChange, ...]
