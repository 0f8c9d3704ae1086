"""Ports: the Protocols between the layers. Adapters, built-in and third-party, implement them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.model.questions import (
    CallEdges,
    Latest,
    LogCounts,
    LogKinds,
    MetricLevels,
    OperationHealthOf,
    Question,
    ServiceHealthOf,
)
from pytest_otel_diag.model.scenario import Disturbance, Fault, Scenario
from pytest_otel_diag.model.session import Budget, Impact, QueryRecord, SessionWindows
from pytest_otel_diag.model.telemetry import (
    CallEdge,
    LogCount,
    LogKind,
    MetricLevel,
    OperationHealth,
    QueryLimits,
    ServiceHealth,
    Table,
    TelemetrySchema,
)
from pytest_otel_diag.model.windows import Window

T = TypeVar("T")


class Clock(Protocol):
    """Wall clock or virtual time."""

    def now(self) -> Nanos:
        """Return the current instant."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once *seconds* have passed on this clock."""
        ...


class FlagController(Protocol):
    """Reads, changes and restores the flags of a target."""

    async def document(self) -> FlagDocument:
        """Return all flags, with the exact bytes for a later restore; raises FlagError."""
        ...

    async def apply(self, change: FlagChange) -> None:
        """Set one flag; raises FlagError for an unknown flag or variant."""
        ...

    async def restore(self, document: FlagDocument) -> None:
        """Write the document back byte for byte; raises RestoreFailed."""
        ...

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Return what services get for the flag now, in this evaluation context; raises FlagError."""
        ...


class Telemetry(Protocol):
    """SQL over ClickHouse, cut to what has happened so far. Read-only.

    Implementations subclass this class and provide ``query``, ``schema`` and ``ask``; the methods named
    after questions are provided. Every method raises a TelemetryError subclass; none blocks the event loop.
    """

    @abstractmethod
    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT with server-side parameters ``{name:Type}``."""
        ...

    @abstractmethod
    async def schema(self) -> TelemetrySchema:
        """Return the tables and columns of the database (cached)."""
        ...

    @abstractmethod
    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question, a subclass of :class:`.Question`."""
        ...

    async def latest(self) -> Nanos | None:
        """Ask :class:`.Latest`: the end of the newest telemetry visible, None without any."""
        return await self.ask(Latest())

    async def service_health(self, window: Window, bucket_s: float) -> Sequence[ServiceHealth]:
        """Ask :class:`.ServiceHealthOf`: requests, errors and latency per service and bucket."""
        return await self.ask(ServiceHealthOf(window, bucket_s))

    async def call_edges(self, window: Window) -> Sequence[CallEdge]:
        """Ask :class:`.CallEdges`: the calls between services."""
        return await self.ask(CallEdges(window))

    async def operation_health(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[OperationHealth]:
        """Ask :class:`.OperationHealthOf`: calls, errors and latency per operation and bucket."""
        return await self.ask(OperationHealthOf(window, bucket_s, tuple(services)))

    async def metric_levels(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[MetricLevel]:
        """Ask :class:`.MetricLevels`: metrics per bucket, counters as rates within the window."""
        return await self.ask(MetricLevels(window, bucket_s, tuple(services)))

    async def log_counts(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[LogCount]:
        """Ask :class:`.LogCounts`: log lines per bucket."""
        return await self.ask(LogCounts(window, bucket_s, tuple(services)))

    async def log_kinds(self, window: Window, bucket_s: float, services: Sequence[str]) -> Sequence[LogKind]:
        """Ask :class:`.LogKinds`: log templates, those in most buckets first."""
        return await self.ask(LogKinds(window, bucket_s, tuple(services)))


class Guidance(Protocol):
    """Where an analyzer asks for help with an answer that may be wrong."""

    async def next(self, diagnosis: Diagnosis | None) -> str | None:
        """Return a hint if the attempt is wrong or missing, None if it is right or no hint is left.

        Each hint counts as a human prompt of the session. Raises AnalyzerError for what is no diagnosis, and
        BudgetExceeded once the investigation is over.
        """
        ...


Person = Callable[[Diagnosis | None], Awaitable[str | None]]
"""Somebody who reads an attempt of an analyzer and replies with a message, or None to accept it."""


class NoGuidance:
    """Guidance without hints."""

    async def next(self, diagnosis: Diagnosis | None) -> str | None:
        """Return None."""
        del diagnosis
        return None


class Transcript(Protocol):
    """The record of what an analyzer thinks, asks and reads, step by step, for people to follow."""

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Append one entry; free of charge.

        *kind* is ``message``, ``tool_call``, ``tool_result``, ``usage``, ``hypothesis``, ``output`` or
        ``note``. *content* is JSON; what JSON cannot hold is written as its ``str()``, and long texts are
        cut. The session masks credentials, and drops what exceeds its limits. Raises an OtelDiagError for
        another kind, BudgetExceeded after the investigation.
        """
        ...


class NoTranscript:
    """Drops every entry."""

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Drop the entry."""


asked_by: ContextVar[str] = ContextVar("otel_diag_asked_by", default="")
"""The tool that asks telemetry, which the session writes beside the query; '' for the analyzer itself."""


@dataclass(frozen=True)
class Investigation:
    """What an analyzer gets. It holds no expectation, no scenario id and no fault name.

    ``incident`` is the window to explain, ``baseline`` the time before it in the same session (None without
    telemetry), ``reference`` further windows known to be quiet, in order of time: anywhere, possibly none.
    ``seed`` makes randomised analyzers repeatable. ``guidance`` gives hints where the run allows them.
    ``transcript`` takes what the analyzer does, for people.
    """

    session_id: str
    incident: Window
    baseline: Window | None
    reference: tuple[Window, ...]
    telemetry: Telemetry
    clock: Clock
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    guidance: Guidance = field(default_factory=NoGuidance)
    transcript: Transcript = field(default_factory=NoTranscript)


@runtime_checkable
class Analyzer(Protocol):
    """The diagnosis under test."""

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return what is wrong, or that nothing is; raise anything to fail the session."""
        ...


@runtime_checkable
class PreparedAnalyzer(Analyzer, Protocol):
    """An analyzer that depends on something which can be checked before a fault is turned on."""

    async def prepare(self) -> tuple[str, ...]:
        """Make sure that an investigation can begin; return remarks for the record of the session.

        Called before each session, in several processes of a run, on an event loop that it must not block.
        Raises ConfigurationError for what the user must change, ModelUnavailable for a provider that does not
        answer, and SpendingLimitReached where the run may not pay for the session.
        """
        ...


@runtime_checkable
class DescribedAnalyzer(Analyzer, Protocol):
    """An analyzer that names what its answers depend on, and holds something beyond an investigation."""

    def describe(self) -> Mapping[str, str]:
        """Return model, hash of the prompt, parameters, versions: a part of its identity in the manifest.

        Must be cheap, and must not contain credentials.
        """
        ...

    async def close(self) -> None:
        """Release what it holds once the run is over; may do nothing."""
        ...


class Traffic(Protocol):
    """Makes calls to the services of a target."""

    async def drive(self, services: Sequence[str], calls: int) -> int:
        """Cause about *calls* calls of the services; return how many will be tried, 0 where none can be."""
        ...

    def made(self) -> int:
        """Return how many calls were really made so far, by what answered them.

        A call that the system failed was made; one that was redirected or refused was not.
        """
        ...


class Sightings(Protocol):
    """The ids and names that the answers to an analyzer's queries held; upper and lower case are the same.

    ``complete`` is False where the answers held more than is kept.
    """

    complete: bool

    def saw(self, text: str) -> bool:
        """Whether an answer held this id or name."""
        ...

    def queries_that_saw(self, name: str) -> frozenset[int]:
        """Return the indexes into :attr:`JudgeFacts.queries` of the queries that read this name."""
        ...


@dataclass(frozen=True)
class JudgeFacts:
    """What a judge gets beside the diagnosis.

    ``telemetry`` sees what the analyzer saw, without its budget. ``time_to_diagnosis_s`` is the wall time the
    analyzer took. ``known_services`` are the services that telemetry names in the session's windows,
    ``edges`` the calls between them in baseline and incident together; both are empty where telemetry cannot
    answer. ``sightings`` are what the queries read, None where that is unknown.
    """

    telemetry: Telemetry
    queries: tuple[QueryRecord, ...] = ()
    sightings: Sightings | None = None
    impact: Impact | None = None
    time_to_diagnosis_s: float | None = None
    known_services: tuple[str, ...] = ()
    edges: tuple[CallEdge, ...] = ()
    windows: SessionWindows = field(default_factory=SessionWindows)


class TableExporter(Protocol):
    """Reads whole tables of telemetry, without the limits of a query; methods block."""

    def tables(self) -> Mapping[str, Mapping[str, str]]:
        """Return the tables: exporter table → {column: ClickHouse type}; raises TelemetryError."""
        ...

    def batches(self, table: str, columns: Sequence[str], windows: Sequence[Window]) -> Iterator[Any]:
        """Yield the Arrow record batches of *table* within *windows* in order of time.

        Missing columns are left out; a missing table has no rows. Raises TelemetryError.
        """
        ...


@dataclass(frozen=True)
class TargetSession:
    """A system under fault, opened for one session and isolated from other sessions.

    ``reference`` are windows known to be quiet, in order of time. ``provenance`` goes into the result.
    ``disturb`` makes a harmless change of the scenario now; targets without it refuse scenarios with
    disturbances in :meth:`Target.validate`. ``normal`` maps flags to the variant that a healthy system serves
    although it is not ``off`` (a load generator that is switched on). ``residue`` is called once the faults
    are proven gone: it restarts what outlives a flag, where it can, and returns sentences about the effects
    that stay. ``restart`` restarts a service by its name in telemetry and returns why it could not ('' once
    it did); targets whose services are simulated or recorded have none. ``recovery_command`` is the shell
    command that turns off a fault which a failed undo left on. ``undo_timeout_s`` raises the engine's time
    limit of an undo. ``redacted`` says that ``telemetry`` hides evaluations of flags, as
    ``--otel-diag-leaks=redact`` asks.
    ``exporter`` returns an exporter of the visible telemetry for recordings; sessions of targets without it
    cannot be recorded.
    """

    clock: Clock
    flags: FlagController
    telemetry: Telemetry
    traffic: Traffic
    reference: tuple[Window, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    disturb: Callable[[Disturbance], Awaitable[None]] | None = None
    normal: Mapping[str, str] = field(default_factory=dict)
    residue: Callable[[Sequence[Fault]], Awaitable[tuple[str, ...]]] | None = None
    restart: Callable[[str], Awaitable[str]] | None = None
    recovery_command: str = ""
    undo_timeout_s: float = 0.0
    exporter: Callable[[], Awaitable[TableExporter]] | None = None
    redacted: bool = False


waiting: ContextVar[Callable[[str], None]] = ContextVar("otel_diag_waiting", default=lambda _: None)
"""Gets the reason why a target is not open yet; see :func:`report_waiting`."""


def report_waiting(text: str) -> None:
    """Report from within :meth:`Target.open` what it waits for; an empty text ends the wait.

    The wait counts against no time limit of the session, so the target has to limit it.
    """
    waiting.get()(text)


class Target(Protocol):
    """A system under fault: it opens sessions, and knows which scenarios it can run.

    ``exclusive`` targets hold one session at a time. ``seeded`` targets are simulated from
    ``scenario.environment.seed``: another seed is another incident.
    """

    name: str
    exclusive: bool
    seeded: bool

    @property
    def identity(self) -> object:
        """What makes two targets one system: the target itself, or the one that it delegates to.

        Sessions over targets of one identity share their queue and their state. Must be hashable and weakly
        referenceable.
        """
        ...

    def describe(self) -> Mapping[str, str]:
        """Return name, version and source of the system, for the manifest of the run."""
        ...

    def scenarios(self) -> Sequence[Scenario]:
        """Return the scenarios that come with the target, with their expectations."""
        ...

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        """Return a scenario with these faults: names resolved, timing, expectation; without faults a control.

        None where the target does not know what to expect of the faults; the caller then states it. Never
        raises: :meth:`validate` reports what is wrong with the faults.
        """
        ...

    def validate(self, scenario: Scenario) -> Sequence[str]:
        """Return every mistake in the scenario for this target, one sentence each."""
        ...

    def open(self, scenario: Scenario, session_id: str) -> AbstractAsyncContextManager[TargetSession]:
        """Open the target for one session; leaving the context releases what the session holds."""
        ...

    def close(self) -> None:
        """Release what the target holds beyond its sessions, such as a store; may do nothing."""
        ...
