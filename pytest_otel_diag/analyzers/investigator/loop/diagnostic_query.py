"""Runs the diagnostic query of a submission before it is accepted; some queries are kept back for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from pytest_otel_diag.errors import BudgetExceeded, TelemetryError
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.questions import Latest, Question
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.ports import Telemetry

T = TypeVar("T")

REPAIRS = 2
"""How often the model may repair the query of its diagnosis."""

_LIMITS = QueryLimits(time_s=30.0, result_rows=10_000)
_READS_TELEMETRY = re.compile(
    rf"\b(?:{'|'.join(name for tables in SIGNAL_TABLES.values() for name in tables)})\b"
)
_SHOWN = 600


class ReservedTelemetry(Telemetry):
    """Telemetry of which the tools may use all but a few queries: those run the diagnostic query.

    What is kept back is at most a quarter of the budget.
    """

    def __init__(self, inner: Telemetry, queries: int) -> None:
        self._inner = inner
        self._budget = queries
        self._left = queries - min(1 + REPAIRS, queries // 4)

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT; see :meth:`pytest_otel_diag.ports.Telemetry.query`."""
        self._count()
        return await self._inner.query(sql, parameters, limits)

    async def schema(self) -> TelemetrySchema:
        """Return tables and columns; free of charge."""
        return await self._inner.schema()

    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question; :class:`.Latest` is free of charge."""
        if not isinstance(question, Latest):
            self._count()
        return cast("T", await self._inner.ask(question))

    def _count(self) -> None:
        if self._left <= 0:
            raise BudgetExceeded(f"the budget of {self._budget} queries is used up")
        self._left -= 1


async def problem_with_query(diagnosis: Diagnosis, telemetry: Telemetry) -> str:
    """Return why the query of a diagnosis is no evidence, '' where it is or where none is needed.

    A query is evidence if it reads telemetry and returns a row that names the first root cause.
    """
    if not diagnosis.detected or not diagnosis.root_causes:
        return ""
    if diagnosis.query is None or not diagnosis.query.sql.strip():
        return "it has none"
    if not _READS_TELEMETRY.search(diagnosis.query.sql):
        return "it reads no table of telemetry"
    try:
        table = await telemetry.query(diagnosis.query.sql, None, _LIMITS)
    except (TelemetryError, UnicodeError) as error:
        return f"it fails: {str(error)[:_SHOWN]}"
    return _problem_with_rows(table, diagnosis.root_causes[0].service)


def _problem_with_rows(table: Table, service: str) -> str:
    if not len(table):
        return "it returns no rows"
    if not any(_plain(service) in _plain(text) for column in table.columns for text in _texts(column)):
        return f"none of its {len(table)} rows names {service}"
    return ""


def _plain(text: str) -> str:
    """Return the letters and digits of a name, so that case and separators do not matter."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif not isinstance(value, bytes | int | float) and value is not None and hasattr(value, "__iter__"):
        for item in value:
            yield from _texts(item)
