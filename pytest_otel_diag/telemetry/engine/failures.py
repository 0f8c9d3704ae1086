"""What the driver and the engine raise, in the words of :mod:`pytest_otel_diag.errors`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_otel_diag.errors import (
    QueryFailed,
    QueryLimitExceeded,
    QueryRejected,
    SchemaError,
    TelemetryError,
    TelemetryUnavailable,
    nearest,
)
from pytest_otel_diag.model.telemetry import QueryLimits, TelemetrySchema

_TOO_MANY_ROWS = 396
_UNKNOWN_TABLE, _UNKNOWN_DATABASE = 60, 81
_UNKNOWN_COLUMN = (47, 16, 10)
_DENIED = (164, 497)
_ILLEGAL_PREWHERE = 182
_AUTHENTICATION = (516, 192, 193, 194)
# what waiting can cure: no space, files, statements or connections left, too many parts, read-only for now
_PASSING = frozenset({75, 76, 77, 78, 202, 209, 210, 225, 236, 242, 243, 279, 319, 425, 999})
_PASSING_TEXT = re.compile(
    r"No space left on device|Too many open files|Input/output error|Disk quota exceeded"
)
_NAME = re.compile(r"(?:identifier|Table|table|column|columns:|Database|named) ['`]?([\w.\-$]+)['`]?")
_INSIDE = re.compile(r"[:,.]?\s*while (?:executing|processing)\b.*?(?=\.?\s*\([A-Z_]+\)|$)", re.DOTALL | re.I)
"""Where in its plan the engine failed: in terms of the views, which may name what they hide."""
_CHECK = re.compile(r":? In scope SELECT formatQuerySingleLine\(.*\)(?=\.?\s*\([A-Z_]+\)|$)", re.DOTALL)
"""The guard's own statement, around a statement that cannot be parsed."""
_TRAILER = re.compile(r"\s*(?:\(version [^)]*\))?\s*(?:\(for url [^)]*\))?\s*$", re.DOTALL)


@contextmanager
def translated(
    *, limits: QueryLimits | None = None, schema: TelemetrySchema | None = None, what: str = "the statement"
) -> Iterator[None]:
    """Turn driver errors inside the block into TelemetryError subclasses; ours pass unchanged."""
    from clickhouse_connect.driver import exceptions as driver  # noqa: PLC0415 - heavy, loaded on use

    try:
        yield
    except TelemetryError:
        raise
    except (driver.ProgrammingError, driver.DataError, driver.NotSupportedError) as error:
        raise QueryFailed(f"the store could not run {what}: {_clean(str(error))}", error.code) from error
    except driver.DatabaseError as error:
        raise from_engine(error, limits=limits, schema=schema, what=what) from error
    except driver.Error as error:
        raise QueryFailed(f"the store could not run {what}: {_clean(str(error))}") from error


def from_engine(
    error: Exception,
    *,
    limits: QueryLimits | None = None,
    schema: TelemetrySchema | None = None,
    what: str = "the statement",
) -> TelemetryError:
    """Return the TelemetryError for an engine error with a ``code``."""
    code: int | None = getattr(error, "code", None)
    text = _clean(str(error))
    if code is None:
        return TelemetryUnavailable(f"the store did not answer {what}: {text}")
    limit = _limit(code, limits or QueryLimits())
    if limit:
        return _exceeded(what, limit, code)
    return _refusal(code, text, schema) or QueryFailed(f"the engine refused {what}: {text}", code)


def too_many_rows(limits: QueryLimits) -> QueryLimitExceeded:
    """Return the error for an answer with more rows than *limits* allow that the engine let pass."""
    return _exceeded("the statement", _limit(_TOO_MANY_ROWS, limits), _TOO_MANY_ROWS)


def _exceeded(what: str, limit: str, code: int) -> QueryLimitExceeded:
    return QueryLimitExceeded(f"{what} hit the limit of {limit} [ClickHouse code {code}]", code)


def _refusal(code: int, text: str, schema: TelemetrySchema | None) -> TelemetryError | None:
    """Return the error for codes that say more than "refused"."""
    error: TelemetryError | None = None
    if "Multi-statements are not allowed" in text:
        error = QueryRejected("only one statement may run at a time; send the others on their own")
    elif code in _PASSING or _PASSING_TEXT.search(text):
        error = TelemetryUnavailable(f"the store cannot work now: {text}")
    elif code in _AUTHENTICATION:
        error = TelemetryUnavailable(f"the server refused user or password: {text}; check the DSN")
    elif code in _DENIED:
        error = QueryRejected(f"the store does not allow this: {text}; only reading is possible here")
    elif code == _ILLEGAL_PREWHERE:
        error = QueryFailed(f"{text}; write WHERE, which means the same", code)
    elif code == _UNKNOWN_DATABASE:
        error = SchemaError(f"{text}; name the database that holds the exporter's tables")
    elif code == _UNKNOWN_TABLE:
        error = SchemaError(_missing_table(text, schema))
    elif code in _UNKNOWN_COLUMN:
        error = SchemaError(_missing_column(text, schema))
    return error


def _limit(code: int, limits: QueryLimits) -> str:
    return {
        159: f"{limits.time_s:g} s; narrow the window, aggregate earlier, or raise QueryLimits.time_s",
        160: f"{limits.time_s:g} s; narrow the window, aggregate earlier, or raise QueryLimits.time_s",
        241: f"{limits.memory_bytes:,} bytes of memory; narrow the window, group by fewer keys, "
        "or raise QueryLimits.memory_bytes",
        _TOO_MANY_ROWS: f"{limits.result_rows:,} result rows; add LIMIT or aggregate, or raise "
        "QueryLimits.result_rows",
        158: f"{limits.read_rows:,} rows read; narrow the window, or raise QueryLimits.read_rows",
        307: f"{limits.read_rows:,} rows read; narrow the window, or raise QueryLimits.read_rows",
    }.get(code, "")


def _clean(text: str) -> str:
    """Return the engine's sentence without the wrapping of the transport."""
    start = text.find("Code: ")
    body = text[start:] if start >= 0 else text
    body = re.sub(r"^Code: \d+\.\s*(?:DB::Exception:)?\s*", "", body)
    body = _INSIDE.sub("", _CHECK.sub("", _TRAILER.sub("", body)))
    return re.sub(r"\s+", " ", body).strip()[:1000] or "no reason given"


def _missing_table(text: str, schema: TelemetrySchema | None) -> str:
    if schema is None:
        return text
    if not schema.tables:
        return (
            f"{text}; database {schema.database!r} holds no telemetry tables: point the DSN at the "
            "database that the collector's ClickHouse exporter writes to"
        )
    name = _named(text)
    return f"{text}; known tables: {', '.join(sorted(schema.tables))}{nearest(name, schema.tables)}"


def _missing_column(text: str, schema: TelemetrySchema | None) -> str:
    if schema is None:
        return text
    columns = sorted({column for table in schema.tables.values() for column in table})
    hint = nearest(_named(text), columns)
    used = [name for name in sorted(schema.tables) if re.search(rf"\b{re.escape(name)}\b", text)]
    known = "; ".join(f"{name} has {', '.join(schema.tables[name])}" for name in used)
    return f"{text}{hint}" + (f"; {known}" if known else "")


def _named(text: str) -> str:
    match = _NAME.search(text)
    return match.group(1).rpartition(".")[2] if match else ""
