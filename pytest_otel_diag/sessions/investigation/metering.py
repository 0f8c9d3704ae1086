"""Counts and limits what the analyzer asks of telemetry."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sized
from typing import Any, Literal, TypeVar, cast

from pytest_otel_diag.errors import BudgetExceeded
from pytest_otel_diag.model.questions import Latest, Question
from pytest_otel_diag.model.session import Budget, QueryRecord
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, SPANS_TABLE, QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.ports import Telemetry, asked_by
from pytest_otel_diag.sessions.ending import writable
from pytest_otel_diag.sessions.investigation.leaks import FlagReading
from pytest_otel_diag.sessions.investigation.sightings import Sightings

T = TypeVar("T")
Place = Literal["statement", "answer"]

# What is never closed ends with the text; otherwise the search for its end takes quadratic time.
_NOT_CODE = re.compile(r"'(?:[^'\\]|\\.?|'')*(?:'|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_WORD = re.compile(r"\w+")
_SOURCE_OF = {table: signal for signal, tables in SIGNAL_TABLES.items() for table in tables} | {
    SPANS_TABLE: "traces"
}


_USUAL = QueryLimits()
MOST = QueryLimits(
    time_s=10 * _USUAL.time_s,
    result_rows=10 * _USUAL.result_rows,
    read_rows=10 * _USUAL.read_rows,
    memory_bytes=2 * _USUAL.memory_bytes,
)
"""The most that an analyzer may allow its own query: ten times the usual time and rows, twice the memory
(4 GB), which the machine shares with the tests. 0, which the engine takes for "no limit", is the most too."""


def _capped(wanted: float, most: float) -> float:
    """Return what is wanted, at most *most*; for 0, negative values and NaN, *most*."""
    return wanted if 0 < wanted <= most else most


def data_sources(sql: str) -> tuple[str, ...]:
    """Return the signals whose tables the statement names, comments and literals aside."""
    words = _WORD.findall(_NOT_CODE.sub(" ", sql))
    return tuple(sorted({_SOURCE_OF[word] for word in words if word in _SOURCE_OF}))


class MeteredTelemetry(Telemetry):
    """Counts and limits what the analyzer asks.

    Queries and typed questions count against ``budget.queries``; a query gets no more time
    than is left of ``budget.time_s``. Beyond either, BudgetExceeded is raised; an analyzer may catch
    it and answer with what it has. Whatever limits it asks for, a query gets at most :data:`MOST`.
    """

    def __init__(
        self,
        inner: Telemetry,
        budget: Budget,
        *,
        monotonic: Callable[[], float],
        reading: FlagReading | None = None,
    ) -> None:
        self._inner = inner
        self._budget = budget
        self._reading = reading or FlagReading(())
        self._monotonic = monotonic
        self._began = monotonic()
        self._deadline = self._began + budget.time_s
        self._records: list[QueryRecord] = []
        self._asked = 0
        self.sightings = Sightings()

    @property
    def records(self) -> tuple[QueryRecord, ...]:
        """Every query asked so far."""
        return tuple(self._records)

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT; see :meth:`pytest_otel_diag.ports.Telemetry.query`."""

        async def ask() -> Table:
            return await self._inner.query(sql, parameters, self._within(limits))

        asks = self._reading.statement(sql, parameters)
        return cast(
            "Table", await self._metered(sql, data_sources(sql), ask, parameters, asks_for_flags=asks)
        )

    async def schema(self) -> TelemetrySchema:
        """Return tables and columns; free of charge."""
        return await self._inner.schema()

    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question; counts as a query over its signals, :class:`.Latest` is free of charge."""

        async def ask() -> Any:
            return await self._inner.ask(question)

        if isinstance(question, Latest):
            return cast("T", await ask())
        return cast("T", await self._metered(str(question), question.signals, ask))

    def _within(self, limits: QueryLimits | None) -> QueryLimits:
        wanted, most = limits or QueryLimits(), MOST
        left = max(0.001, self._deadline - self._monotonic())
        return QueryLimits(
            time_s=min(_capped(wanted.time_s, most.time_s), left),
            result_rows=int(_capped(wanted.result_rows, most.result_rows)),
            read_rows=int(_capped(wanted.read_rows, most.read_rows)),
            memory_bytes=int(_capped(wanted.memory_bytes, most.memory_bytes)),
        )

    async def _metered(
        self,
        sql: str,
        sources: tuple[str, ...],
        ask: Callable[[], Awaitable[Sized]],
        parameters: object = None,
        *,
        asks_for_flags: bool = False,
    ) -> Any:
        started = self._monotonic()
        if self._asked >= self._budget.queries:
            raise BudgetExceeded(
                f"the budget of {self._budget.queries} queries is used up; answer with what you have"
            )
        if started >= self._deadline:
            raise BudgetExceeded(
                f"the budget of {self._budget.time_s:g} s is used up; answer with what you have"
            )
        self._asked += 1
        rows, failure, answers, result = 0, None, False, None
        try:
            result = await ask()
            rows = len(result)
            answers = self._reading.answer(result)
        except BaseException as error:
            failure = writable(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._records.append(
                QueryRecord(
                    sql=writable(sql),
                    elapsed_s=self._monotonic() - started,
                    rows=rows,
                    at_s=started - self._began,
                    tool=writable(asked_by.get()),
                    data_sources=sources,
                    names_flag=_places(statement=asks_for_flags, answer=answers),
                    error=failure,
                )
            )
            # in the order of the records, so that a query has the same index in both
            self.sightings.add(sql, parameters, result)
        return result


def _places(*, statement: bool, answer: bool) -> tuple[Place, ...]:
    found: dict[Place, bool] = {"statement": statement, "answer": answer}
    return tuple(place for place, named in found.items() if named)
