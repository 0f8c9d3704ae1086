"""Loading telemetry: Parquet files and Arrow tables into the exporter's tables."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_otel_diag import arrow
from pytest_otel_diag.errors import SchemaError, nearest
from pytest_otel_diag.telemetry.engine.connection import Connection, quote
from pytest_otel_diag.telemetry.engine.failures import translated
from pytest_otel_diag.telemetry.schema import NEEDED, insertable

if TYPE_CHECKING:
    import pyarrow

_OTHER_DATABASE = (
    "receive into another database, which gets tables that fit, or let the Collector's exporter make new ones"
)
BATCH_ROWS = 100_000
_ONCE = {"insert_deduplicate": 1, "deduplicate_blocks_in_dependent_materialized_views": 1}
_GLOB = re.compile(r"[*?{}\[\]]|::")
_WRAPPED = re.compile(r"^(?:Nullable|LowCardinality)\((.*)\)$")
_FAMILIES = (
    ("instant", r"DateTime|Date"),
    ("map", r"Map\("),
    ("json", r"JSON\b|Object\("),
    ("array", r"Array\("),
    ("text", r"String|FixedString|Enum|UUID"),
    ("number", r"U?Int|Float|Decimal|Bool"),
)


def ingest_parquet(connection: Connection, database: str, table: str, path: Path) -> int:
    """Append a Parquet file by column name and return its rows; see :meth:`Store.ingest_parquet`."""
    wanted = columns_of(connection, database, table)
    if not path.is_file():
        raise SchemaError(f"{path}: no such file")
    source = _source(path)
    with translated(what=f"reading {path}"):
        described = connection.rows(f"DESCRIBE TABLE {source}")
    found = {str(row[0]): str(row[1]) for row in described}
    _check(found, wanted, where=str(path), table=table)
    names = ", ".join(quote(name) for name in found)
    target = f"{quote(database)}.{quote(table)}"
    # names and path are quoted identifiers and literals: a table function takes no parameters here
    insert = f"INSERT INTO {target} ({names}) SELECT {names} FROM {source}"  # noqa: S608
    with translated(what=f"loading {path} into {table}"):
        counted = connection.rows(f"SELECT count() FROM {source}")  # noqa: S608
        connection.command(insert)
    return int(counted[0][0])


def stream_parquet(connection: Connection, database: str, table: str, path: Path) -> int:
    """Append a Parquet file through Arrow batches of 100,000 rows (servers cannot see local files)."""
    pa = arrow.arrow()
    pq = arrow.parquet()
    rows, wanted = 0, columns_of(connection, database, table)
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                data = pa.Table.from_batches([batch])
                rows += ingest_arrow(connection, (database, table), data, wanted=wanted, where=str(path))
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: not a readable Parquet file: {error}") from error
    return rows


def ingest_arrow(
    connection: Connection,
    place: tuple[str, str],
    data: pyarrow.Table,
    *,
    wanted: Mapping[str, str],
    where: str = "the Arrow table",
    token: str = "",
) -> int:
    """Append an Arrow table by column name and return its rows.

    *place* names database and table, *wanted* are its columns, as :func:`columns_of` returns them; for
    *token* see :meth:`Store.ingest_arrow`.
    """
    database, table = place
    found = {field.name: _arrow_type(field.type) for field in data.schema}
    _check(found, wanted, where=where, table=table)
    with translated(what=f"loading {where} into {table}"):
        for start in range(0, data.num_rows, BATCH_ROWS):
            batch = data.slice(start, BATCH_ROWS)
            settings = {**_ONCE, "insert_deduplication_token": f"{token or uuid.uuid4()} {start}"}
            connection.insert_arrow(table, database, batch, settings)
    return int(data.num_rows)


def writable(found: pyarrow.Table, wanted: Mapping[str, str], *, table: str) -> tuple[str, ...]:
    """Return the columns of *found* that a table has.

    *wanted* are the table's columns. Raises SchemaError for a column of another type, and without a column
    that this package reads.
    """
    missing = [name for name in NEEDED.get(table, ()) if name not in wanted]
    if missing:
        raise SchemaError(f"{table} lacks {', '.join(missing)}; {_OTHER_DATABASE}")
    kinds = {field.name: _arrow_type(field.type) for field in found.schema if field.name in wanted}
    try:
        _check(kinds, wanted, where="received telemetry", table=table)
    except SchemaError as error:
        raise SchemaError(f"{error}; {_OTHER_DATABASE}") from error
    return tuple(kinds)


def reads_in_place(path: Path) -> bool:
    """Whether the engine's ``file()`` takes the path literally (it expands wildcards)."""
    return not _GLOB.search(str(path))


def _source(path: Path) -> str:
    escaped = str(path.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"file('{escaped}', 'Parquet')"


def columns_of(connection: Connection, database: str, table: str) -> Mapping[str, str]:
    """Return the columns that an INSERT may name with their types; raises SchemaError without the table."""
    with translated(what=f"looking up {table}"):
        return of_table(insertable(connection, database), database, table)


def of_table(columns: Mapping[str, Mapping[str, str]], database: str, table: str) -> Mapping[str, str]:
    """Return the columns of one table of *columns*; raises SchemaError without the table."""
    if table not in columns:
        raise SchemaError(
            f"database {database!r} has no table {table!r}; "
            "make the exporter's tables with Store.create_database"
        )
    return columns[table]


def _check(found: Mapping[str, str], wanted: Mapping[str, str], *, where: str, table: str) -> None:
    """Refuse unknown columns and types that cannot become the table's, naming file and column."""
    for name, kind in found.items():
        if name not in wanted:
            raise SchemaError(
                f"{where}: column {name!r} is not a column of {table}{nearest(name, wanted)}; "
                f"{table} has {', '.join(wanted)}"
            )
        have, want = _family(kind), _family(wanted[name])
        if have != want and "other" not in {have, want}:
            raise SchemaError(f"{where}: column {name!r} is {kind}, {table} needs {wanted[name]}")


def _family(kind: str) -> str:
    match = _WRAPPED.match(kind)
    while match:
        kind = match.group(1)
        match = _WRAPPED.match(kind)
    return next((family for family, pattern in _FAMILIES if re.match(pattern, kind)), "other")


def _arrow_type(kind: Any) -> str:
    types = arrow.arrow().types
    if types.is_dictionary(kind):
        return _arrow_type(kind.value_type)
    tests = (
        (types.is_temporal, "DateTime64(9)"),
        (types.is_map, "Map(String, String)"),
        (types.is_list, "Array(String)"),
        (types.is_large_list, "Array(String)"),
        (types.is_string, "String"),
        (types.is_large_string, "String"),
        (types.is_boolean, "Bool"),
        (types.is_integer, "Int64"),
        (types.is_floating, "Float64"),
    )
    return next((name for test, name in tests if test(kind)), str(kind))
