"""The diagnosis: what an analyzer returns."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from pytest_otel_diag.model.base import Finite, Model, Ratio
from pytest_otel_diag.model.windows import Window


class Mechanism(StrEnum):
    """Why a component fails: the documented taxonomy of root causes."""

    ERROR = "error"
    LATENCY = "latency"
    CPU = "cpu"
    MEMORY = "memory"
    GC = "gc"
    NETWORK = "network"
    UNREACHABLE = "unreachable"
    QUEUE = "queue"
    TRAFFIC = "traffic"
    CONFIGURATION = "configuration"


class Signal(StrEnum):
    """What deviates: the documented taxonomy of anomalies."""

    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    REQUEST_RATE = "request_rate"
    CPU = "cpu"
    MEMORY = "memory"
    GC = "gc"
    NETWORK = "network"
    QUEUE = "queue"
    RESTART = "restart"
    LOGS = "logs"
    CALLS = "calls"
    METRIC = "metric"


Direction = Literal["up", "down", "changed"]


Measure = Literal["calls", "failed", "error_ratio", "p50_ms", "p95_ms", "p99_ms", "log_lines", "metric"]
"""What a :class:`Figure` measures."""


class Figure(Model):
    """A number that telemetry can confirm.

    ``calls`` are spans of the operation, or without one the requests that the service answers. ``failed`` are
    those with the status Error, ``error_ratio`` is their share, as a ratio unless ``unit`` is ``%``.
    Latencies are in milliseconds unless ``unit`` is ``s``, ``us`` or ``ns``. ``subject`` is the name of the
    metric, or a text that each of the log lines counted contains. ``value`` is compared in the precision in
    which it is written: 0.37 is any ratio from 0.365 to 0.375.
    """

    measure: Measure
    value: Finite
    service: str
    operation: str | None = None
    window: Literal["incident", "baseline"] | Window = "incident"
    unit: str = ""
    subject: str = ""


class Evidence(Model):
    """One observation that supports a finding: in words, and in a form that can be checked.

    ``trace_ids`` and ``span_ids`` are hexadecimal, as the exporter writes them. ``services`` and
    ``operations`` are names that the observation is about beside those of the finding.
    """

    source: Literal["traces", "logs", "metrics"]
    summary: str
    trace_ids: tuple[str, ...] = ()
    span_ids: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()


class Anomaly(Model):
    """A deviation from the baseline.

    ``baseline`` and ``observed`` are in ``unit``; ``score`` is a robust z; ``p_value`` is adjusted
    for multiple testing where the analyzer computes one.
    """

    signal: Signal
    service: str
    operation: str | None = None
    direction: Direction = "changed"
    baseline: Finite | None = None
    observed: Finite | None = None
    unit: str = ""
    score: Finite = 0.0
    p_value: Ratio | None = None
    evidence: tuple[Evidence, ...] = ()


class PathEdge(Model):
    """One call on a path."""

    source: str
    target: str


class PathMetrics(Model):
    """Load and health of a path; latencies in milliseconds."""

    requestCount: int = Field(ge=0)
    avgLatency: Finite = Field(ge=0)
    errorRate: Ratio
    p99Latency: Finite = Field(ge=0)


class CriticalPath(Model):
    """A service path that decides the duration of requests (field names are an interchange format)."""

    id: str
    name: str
    services: tuple[str, ...] = Field(min_length=1)
    startService: str
    endService: str
    edges: tuple[PathEdge, ...]
    metrics: PathMetrics
    priority: Literal["critical", "high", "medium", "low"]
    severity: Ratio


class RootCause(Model):
    """A candidate culprit; the diagnosis lists them best first."""

    service: str
    operation: str | None = None
    mechanism: Mechanism | None = None
    score: Finite = 0.0
    confidence: Ratio = 0.0
    explanation: str = ""
    evidence: tuple[Evidence, ...] = ()


class Hypothesis(Model):
    """A hypothesis that the analyzer considered, and whether it kept it."""

    statement: str
    service: str | None = None
    mechanism: Mechanism | None = None
    status: Literal["kept", "eliminated"]
    reason: str


class DiagnosticQuery(Model):
    """A complete SQL statement over the exporter's tables that shows the evidence."""

    sql: str
    description: str = ""


class Usage(Model):
    """What the diagnosis cost, as the analyzer reports it; the session meters queries itself.

    ``prompts`` are the requests to a model. ``cached_tokens`` are among the input tokens,
    ``reasoning_tokens`` among the output tokens. ``steps`` are the rounds of an agent's loop, ``repairs`` the
    prompts that asked it to correct its answer or a query.
    """

    prompts: int = 0
    human_prompts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    steps: int = 0
    repairs: int = 0
    cost_usd: Finite = 0.0
    model: str | None = None


class Diagnosis(Model):
    """What an analyzer returns.

    ``detected`` says whether anything is wrong at all. ``root_causes`` are ranked best first, even when
    nothing is detected (the best guess): detection and localisation are scored separately. ``confidence`` is
    the probability that the first root cause is right.
    """

    detected: bool
    anomalies: tuple[Anomaly, ...] = ()
    critical_paths: tuple[CriticalPath, ...] = ()
    root_causes: tuple[RootCause, ...] = ()
    query: DiagnosticQuery | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    confidence: Ratio = 0.0
    summary: str = ""
    usage: Usage = Usage()
