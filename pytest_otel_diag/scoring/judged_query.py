"""Runs the diagnostic query of a diagnosis and searches its result for the root cause."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pytest_otel_diag.errors import OtelDiagError, TelemetryUnavailable
from pytest_otel_diag.model.diagnosis import DiagnosticQuery
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, SPANS_TABLE, QueryLimits, Table
from pytest_otel_diag.model.verdict import QueryVerdict
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.scoring.names import mentions

LIMITS = QueryLimits(time_s=30.0, result_rows=10_000)
"""A query for human readers takes at most half a minute and returns a screenful."""

SAMPLE_ROWS = 20
SAMPLE_CHARS = 200

_TABLES = (*(table for tables in SIGNAL_TABLES.values() for table in tables), SPANS_TABLE)
_READS_TELEMETRY = re.compile(rf"\b(?:{'|'.join(_TABLES)})\b")
_NOT_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.|'')*'", re.DOTALL)


async def run_diagnostic_query(
    query: DiagnosticQuery, telemetry: Telemetry, culprits: Iterable[str]
) -> QueryVerdict:
    """Run the query within LIMITS and return whether a row names one of *culprits*.

    The result of a query that reads no telemetry table never counts, since a constant is no evidence.
    Statements that the store rejects or aborts are reported in ``error``; raises TelemetryUnavailable when
    the store cannot be reached, which does not count against the analyzer.
    """
    try:
        query.sql.encode()  # a lone surrogate is a mistake of the analyzer, not of the database driver
        table = await telemetry.query(query.sql, None, LIMITS)
    except TelemetryUnavailable:
        raise
    except (OtelDiagError, UnicodeEncodeError) as problem:
        return QueryVerdict(executed=False, error=f"{type(problem).__name__}: {problem}")
    shows = reads_telemetry(query.sql) and _holds(table, frozenset(culprits))
    return QueryVerdict(
        executed=True,
        rows=len(table),
        shows_culprit=shows,
        elapsed_s=table.elapsed_s,
        columns=table.names,
        sample=tuple(tuple(_shown(cell) for cell in row) for row in islice(table.rows(), SAMPLE_ROWS)),
    )


def reads_telemetry(sql: str) -> bool:
    """Return whether the statement names a table of the exporter outside comments and strings."""
    return _READS_TELEMETRY.search(_NOT_CODE.sub(" ", sql)) is not None


def _holds(table: Table, names: frozenset[str]) -> bool:
    # By column and distinct text: ten thousand rows usually repeat a few names.
    for column in table.columns:
        texts = {text for cell in column for text in _texts(cell)}
        if any(mentions(text, name) for text in texts for name in names):
            return True
    return False


def _texts(cell: Any) -> Iterator[str]:
    if isinstance(cell, str):
        yield cell
    elif isinstance(cell, bytes):
        yield cell.decode("utf-8", "replace")
    elif isinstance(cell, Mapping):
        for key, value in cell.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(cell, (list, tuple, set, frozenset)):
        for item in cell:
            yield from _texts(item)


def _shown(cell: Any) -> str:
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
    return text if len(text) <= SAMPLE_CHARS else f"{text[: SAMPLE_CHARS - 1]}…"
