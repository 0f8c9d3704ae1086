"""Typed questions to telemetry: frozen values that say what is asked, in which window, and what comes back.

``await telemetry.ask(CallEdges(window))`` has the type of its answer. Windows are half-open in UTC
nanoseconds, buckets of ``bucket_s`` seconds start at the window's start, and a bucket without any
telemetry has no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import (
    CallEdge,
    FlagMention,
    LogCount,
    LogKind,
    MetricLevel,
    OperationHealth,
    ServiceHealth,
)
from pytest_otel_diag.model.windows import Window

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """The base of all questions; ``T`` is the type of the answer.

    ``name`` is the method of the Telemetry port that asks it, ``signals`` are the signals it reads.
    """

    name: ClassVar[str]
    signals: ClassVar[tuple[str, ...]]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self._arguments())})"

    def _arguments(self) -> Iterator[str]:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name == "bucket_s":
                yield f"{value:g} s"
            else:
                yield str(list(value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True, slots=True)
class WindowQuestion(Question[T]):
    """The base of questions about the telemetry that starts in a window, and about nothing else."""

    window: Window


@dataclass(frozen=True, slots=True)
class Latest(Question[Nanos | None]):
    """The end of the newest telemetry visible that ended by *until_ns*; None without any."""

    name = "latest"
    signals = ("traces", "logs", "metrics")

    until_ns: Nanos | None = None


@dataclass(frozen=True, slots=True)
class ServiceHealthOf(WindowQuestion[Sequence[ServiceHealth]]):
    """Requests, errors and latency per service and bucket, over server, consumer and root spans."""

    name = "service_health"
    signals = ("traces",)

    bucket_s: float


@dataclass(frozen=True, slots=True)
class CallEdges(WindowQuestion[Sequence[CallEdge]]):
    """The calls between services whose both spans start in the window."""

    name = "call_edges"
    signals = ("traces",)


@dataclass(frozen=True, slots=True)
class OperationHealthOf(WindowQuestion[Sequence[OperationHealth]]):
    """Calls, errors and latency per operation of the services and bucket, over spans of every kind."""

    name = "operation_health"
    signals = ("traces",)

    bucket_s: float
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricLevels(WindowQuestion[Sequence[MetricLevel]]):
    """The metrics of the services per bucket; counters as rates within the window.

    A metric belongs to the service that emits it, or that its attributes name as the container,
    deployment or consumer group measured.
    """

    name = "metric_levels"
    signals = ("metrics",)

    bucket_s: float
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogCounts(WindowQuestion[Sequence[LogCount]]):
    """Log lines of the services per bucket."""

    name = "log_counts"
    signals = ("logs",)

    bucket_s: float
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogKinds(WindowQuestion[Sequence[LogKind]]):
    """The log templates of the services, those in most buckets first (20,000 at most)."""

    name = "log_kinds"
    signals = ("logs",)

    bucket_s: float
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlagMentions(Question[Sequence[FlagMention]]):
    """The rows of the window that name one of the flags, in texts in any case; not for analyzers."""

    name = "flag_mentions"
    signals = ("traces", "logs", "metrics")

    window: Window
    flags: tuple[str, ...]


FOR_ANALYZERS: tuple[type[Question[Any]], ...] = (
    Latest,
    ServiceHealthOf,
    CallEdges,
    OperationHealthOf,
    MetricLevels,
    LogCounts,
    LogKinds,
)
"""The questions that an analyzer may ask."""
