"""Named SQL statements, and the relation of spans that they use.

A statement is a ``.sql`` file beside the code that uses it; values are server-side
parameters (``{name:Type}``), never text. Statements about traces read the relation ``spans``,
which :func:`over_spans` puts in front as a common table expression, from the slim companion table
where the store has one and from ``otel_traces`` otherwise.

Columns of ``spans`` (one row a span that starts in one of the windows):

=============  ======================  ==================================================
trace          UInt64                  hash of TraceId
span           UInt64                  hash of SpanId
parent         UInt64                  hash of ParentSpanId, 0 for roots
start_ns       Int64                   UTC nanoseconds
end_ns         Int64                   start_ns + duration_ns
duration_ns    Int64                   never negative
service        LowCardinality(String)  service.name
operation      LowCardinality(String)  span name
kind           LowCardinality(String)  'Server', 'Client', 'Internal', 'Producer', 'Consumer', ''
error          UInt8                   1 where the status is Error (Unset is no error)
instance       LowCardinality(String)  pod, service instance or host, '' when unknown
win            UInt16                  index from 1 into the windows (the first that contains start_ns)
=============  ======================  ==================================================

Parameters of ``spans``: ``window_starts Array(Int64)``, ``window_ends Array(Int64)`` (half-open, ns),
``key_from UInt64``, ``key_to UInt64`` (inclusive range of ``trace``: loop over equal slices of
0..2**64-1 to bound memory, since hashes are uniform).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pytest_otel_diag.model.telemetry import SPANS_TABLE, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements.spellings import evened_out

KEY_MAX = 2**64 - 1
_PARAMETER = re.compile(r"\{(\w+):")
_COMMENT = re.compile(r"--[^\n]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with a name; ``parameters`` are the names of its parameters."""

    name: str
    sql: str

    @property
    def parameters(self) -> frozenset[str]:
        """Names of the server-side parameters in the text."""
        return frozenset(_PARAMETER.findall(self.sql))


@cache
def load(package: str, name: str) -> Statement:
    """Return the statement in ``<package>/sql/<name>.sql``; raises FileNotFoundError.

    Comments are removed, and names of :mod:`.spellings` replaced.
    """
    text = resources.files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return Statement(name, evened_out(_COMMENT.sub("", text).strip().rstrip(";")))


def over_spans(statement: Statement, schema: TelemetrySchema) -> Statement:
    """Return the statement with the relation ``spans`` in front of it."""
    source = "spans_slim" if schema.has(SPANS_TABLE) else "spans_raw"
    joined = in_front("spans", load(__name__, source), statement)
    return Statement(f"{statement.name}/{source}", joined.sql)


def in_front(name: str, relation: Statement, statement: Statement) -> Statement:
    """Return the statement with *relation* in front of it, as a common table expression of that name."""
    body = statement.sql
    rest = f",\n{body[4:].lstrip()}" if body[:4].upper() == "WITH" else f"\n{body}"
    return Statement(statement.name, f"WITH {name} AS (\n{relation.sql}\n){rest}")


def window_parameters(windows: Sequence[Window]) -> dict[str, list[int]]:
    """Return the window parameters of ``spans``; rows get ``win`` = 1 for the first window, and so on."""
    return {
        "window_starts": [window.start_ns for window in windows],
        "window_ends": [window.end_ns for window in windows],
    }


def key_slices(count: int) -> Iterator[dict[str, int]]:
    """Yield the ``key_from``/``key_to`` parameters of *count* equal slices of the trace hash."""
    edges = [KEY_MAX * index // count for index in range(count + 1)]
    for index in range(count):
        yield {"key_from": edges[index] + (1 if index else 0), "key_to": edges[index + 1]}
