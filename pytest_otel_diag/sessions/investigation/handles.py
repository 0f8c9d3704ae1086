"""Telemetry, clock and transcript for the analyzer: closed handles, for any thread and event loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from pytest_otel_diag.errors import AnalyzerError, QueryRejected, nearest
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.questions import FOR_ANALYZERS, CallEdges, Question
from pytest_otel_diag.model.telemetry import QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation, Telemetry, asked_by
from pytest_otel_diag.sessions.investigation.answer import MOST_BYTES, as_diagnosis, written
from pytest_otel_diag.sessions.investigation.closed_line import AnalyzerEnd, SessionEnd
from pytest_otel_diag.sessions.investigation.transcript import as_text, checked_entry

T = TypeVar("T")

_LONGEST_NAME = 100  # of a tool

_QUESTIONS = {kind.__name__: kind for kind in FOR_ANALYZERS}


class AnalyzerTelemetry(Telemetry):
    """Asks the session's telemetry; holds nothing but the analyzer's end of the line."""

    def __init__(self, line: AnalyzerEnd) -> None:
        self._line = line

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT; see :meth:`pytest_otel_diag.ports.Telemetry.query`."""
        return cast("Table", await self._line.ask("query", sql, parameters, limits, asked_by.get()))

    async def schema(self) -> TelemetrySchema:
        """Return tables and columns; free of charge."""
        return cast("TelemetrySchema", await self._line.ask("schema"))

    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question; counts as a query over its signals, :class:`.Latest` is free of charge."""
        return cast("T", await self._line.ask("ask", question, asked_by.get()))


class AnalyzerClock:
    """The target's clock, for the analyzer."""

    def __init__(self, line: AnalyzerEnd) -> None:
        self._line = line

    def now(self) -> Nanos:
        """Return the target's time."""
        return cast("Nanos", self._line.ask_at_once("now"))

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass on the target's clock."""
        await self._line.ask("sleep", seconds)


class AnalyzerGuidance:
    """Asks the session for a hint; holds nothing but the analyzer's end of the line."""

    def __init__(self, line: AnalyzerEnd) -> None:
        self._line = line

    async def next(self, diagnosis: Diagnosis | None) -> str | None:
        """Return the next hint; see :meth:`pytest_otel_diag.ports.Guidance.next`."""
        attempt = "" if diagnosis is None else as_diagnosis(diagnosis).model_dump_json()
        return cast("str | None", await self._line.ask("guidance", attempt))


class AnalyzerTranscript:
    """Takes the analyzer's transcript; what is sent is text."""

    def __init__(self, line: AnalyzerEnd) -> None:
        self._line = line

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Append one entry; see :meth:`pytest_otel_diag.ports.Transcript.add`."""
        await self._line.ask("transcript", kind, as_text(content))


def connect(investigation: Investigation) -> SessionEnd:
    """Return a line over which an analyzer reaches what the session gives to it."""
    telemetry, clock = investigation.telemetry, investigation.clock

    async def schema() -> TelemetrySchema:
        found = await telemetry.schema()
        return TelemetrySchema(
            found.database, {name: dict(columns) for name, columns in found.tables.items()}
        )

    async def query(sql: str, parameters: Any, limits: QueryLimits | None, tool: str) -> Table:
        asked_by.set(tool)
        return await telemetry.query(sql, parameters, limits)

    async def ask(question: Question[Any], tool: str) -> Any:
        asked_by.set(tool)
        answer = await telemetry.ask(question)  # the target may keep it and give it to the judge too
        if isinstance(question, CallEdges):
            return [edge.model_copy() for edge in answer]
        return list(answer) if isinstance(answer, Sequence) else answer

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)

    return SessionEnd(
        services={
            "query": query,
            "schema": schema,
            "ask": ask,
            "sleep": sleep,
            "guidance": investigation.guidance.next,
            "transcript": investigation.transcript.add,
        },
        prompt={"now": clock.now},
        plain=plain_arguments,
    )


def plain_arguments(service: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a request as plain values, whose use runs no code of the analyzer.

    Raises QueryRejected, BadEntry and TypeError for what the service does not take.
    """
    if service == "query":
        sql, parameters, limits, tool = arguments
        return _plain(sql), _parameters(parameters), _limits(limits), _tool(tool)
    if service == "ask":
        question, tool = arguments
        return _question(question), _tool(tool)
    if service == "sleep":
        (seconds,) = arguments
        return (float(seconds),)
    if service == "guidance":
        (attempt,) = arguments
        return (_attempt(attempt),)
    if service == "transcript":
        kind, text = arguments
        return checked_entry(_plain(kind), text)
    return ()


def _tool(name: object) -> str:
    return str.__str__(name)[:_LONGEST_NAME] if isinstance(name, str) else ""


def _attempt(text: str) -> Diagnosis | None:
    if len(text) > MOST_BYTES:
        raise AnalyzerError(f"the attempt has {len(text):,} characters; the limit is {MOST_BYTES:,}")
    return written(str.__str__(text)) if text else None


def _parameters(parameters: object) -> object:
    if not isinstance(parameters, Mapping):
        return parameters  # None, or what the telemetry refuses with its reason
    try:
        return _plain(parameters)
    except RecursionError:
        raise QueryRejected("a parameter is nested too deep to be sent; flatten it") from None


def _plain(value: Any) -> Any:
    """Return texts and containers as instances of the built-in types; other values unchanged."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        kind = tuple if isinstance(value, tuple) else list
        return kind(_plain(item) for item in value)
    return value


def _limits(limits: object) -> QueryLimits | None:
    if limits is None:
        return None
    if not isinstance(limits, QueryLimits):
        raise TypeError(f"limits must be QueryLimits, these are {type(limits).__name__}")
    return QueryLimits.model_construct(
        time_s=float(limits.time_s),
        result_rows=_count(limits.result_rows),
        read_rows=_count(limits.read_rows),
        memory_bytes=_count(limits.memory_bytes),
    )


def _count(number: float) -> int:
    return int(number) if math.isfinite(number) else 0


def _question(question: object) -> Question[Any]:
    kind = _QUESTIONS.get(type(question).__name__)
    if kind is None or type(question) is not kind:
        name = type(question).__name__
        known = ", ".join(_QUESTIONS)
        raise QueryRejected(
            f"{name} is no question to telemetry{nearest(name, _QUESTIONS)}; ask one of {known}"
        )
    values = (_field(getattr(question, field.name)) for field in fields(question))
    return kind(*values)


def _field(value: Any) -> Any:
    if isinstance(value, Window):
        return Window(start_ns=value.start_ns, end_ns=value.end_ns)
    if isinstance(value, float):
        return float(value)
    return value if value is None else int(value) if isinstance(value, int) else tuple(_plain(value))
