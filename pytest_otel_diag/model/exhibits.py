"""What a session keeps of its telemetry, so that pictures can be drawn later without the store."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pytest_otel_diag.model.base import Finite, Model, Nanos

MAX_SERIES = 6
MAX_BUCKETS = 60
MAX_EDGES = 120
MAX_SPANS = 40
"""Bounds of what is kept: about 20 kB of JSON a session, 100 kB at the very most."""

NAME_CHARS = 120
"""Longer names of services and operations are cut when they are kept."""


class ServiceSeries(Model):
    """One service over time, one entry a bucket; ``p95_ms`` is None in buckets without calls."""

    service: str
    requests: tuple[int, ...]
    errors: tuple[int, ...]
    p95_ms: tuple[Finite | None, ...]

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {len(self.requests), len(self.errors), len(self.p95_ms)}
        if len(lengths) != 1:
            raise ValueError(f"series of {self.service!r} differ in length: {sorted(lengths)}")
        return self


class Timeline(Model):
    """The involved services over the whole session, most involved first.

    Bucket i starts ``i * bucket_s`` after ``start_ns``. The last bucket may reach beyond ``end_ns``,
    where the session ends.
    """

    start_ns: Nanos
    end_ns: Nanos
    bucket_s: Finite = Field(gt=0)
    services: tuple[ServiceSeries, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the session in seconds."""
        return max(0.0, (self.end_ns - self.start_ns) / 1e9)


class CallLoad(Model):
    """Calls in one window; ``p50_ms`` is the caller's latency."""

    calls: int = Field(ge=0)
    errors: int = Field(ge=0)
    p50_ms: Finite = 0.0


class ServiceCall(Model):
    """Calls from one service to another, before and during the incident (None: no calls)."""

    caller: str
    callee: str
    baseline: CallLoad | None = None
    incident: CallLoad | None = None


class ExhibitSpan(Model):
    """One span of the exemplar trace. Times are offsets from the start of the trace.

    ``parent`` is an index into the kept spans (None: a root, or the parent was not kept).
    ``on_path`` says that the span is on the critical path, ``critical`` holds the intervals (from, to) in
    which its own time decides the duration; a span whose children account for all of it has none.
    """

    parent: int | None = Field(default=None, ge=0)
    service: str
    operation: str
    kind: str = ""
    start_ms: Finite
    duration_ms: Finite = Field(ge=0)
    self_ms: Finite = Field(default=0.0, ge=0)
    error: bool = False
    on_path: bool = False
    critical: tuple[tuple[Finite, Finite], ...] = ()


class ExemplarTrace(Model):
    """One request of the incident.

    ``choice`` says why it was chosen; ``spans_total`` includes the spans that were not kept.
    """

    trace_id: str
    start_ns: Nanos
    choice: str = ""
    spans_total: int = Field(ge=0)
    spans: tuple[ExhibitSpan, ...] = ()

    @model_validator(mode="after")
    def _parents_there(self) -> Self:
        bad = [s.parent for s in self.spans if s.parent is not None and s.parent >= len(self.spans)]
        if bad:
            raise ValueError(f"parents {bad} are not among the {len(self.spans)} kept spans")
        return self


class Exhibits(Model):
    """Everything the pictures of a session need; ``notes`` say what is missing, and why.

    ``baseline_s`` and ``incident_s`` are the lengths of the windows that ``calls`` were counted in.
    """

    timeline: Timeline | None = None
    calls: tuple[ServiceCall, ...] = ()
    baseline_s: Finite = 0.0
    incident_s: Finite = 0.0
    trace: ExemplarTrace | None = None
    notes: tuple[str, ...] = ()
