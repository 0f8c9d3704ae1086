"""The telemetry store: one API over chDB in process and a ClickHouse server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytest_otel_diag.errors import QueryFailed, QueryRejected, SchemaError, nearest
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry import ingest
from pytest_otel_diag.telemetry.dsn import parse_dsn
from pytest_otel_diag.telemetry.engine.abandoned import finish
from pytest_otel_diag.telemetry.engine.connection import Connection, Engine, quote
from pytest_otel_diag.telemetry.engine.failures import translated
from pytest_otel_diag.telemetry.engine.workers import Workers
from pytest_otel_diag.telemetry.guard import Parses
from pytest_otel_diag.telemetry.layout import Layout
from pytest_otel_diag.telemetry.leaks import NOTHING_HIDDEN, Hidden
from pytest_otel_diag.telemetry.placement import ExporterTable, exporter_tables
from pytest_otel_diag.telemetry.rights import PRIVATE_PREFIX
from pytest_otel_diag.telemetry.schema import discover, insertable, json_columns, unreadable_json
from pytest_otel_diag.telemetry.session import StoreResources, StoreTelemetry, writing
from pytest_otel_diag.telemetry.views import SessionViews, merged

if TYPE_CHECKING:
    import pyarrow

_SYSTEM = frozenset({"system", "information_schema", "INFORMATION_SCHEMA", "default", "_local"})


def _random_name() -> str:
    return f"{PRIVATE_PREFIX}{uuid.uuid4().hex[:12]}"


def _make(views: SessionViews, connection: Connection, json: tuple[str, ...]) -> None:
    """Create the views; raises SchemaError where it is the columns in *json* that cannot be evened out."""
    if not json:
        views.create(connection)
        return
    try:
        with translated(what="making views of attributes in JSON"):
            views.create(connection)
    except (QueryFailed, QueryRejected) as error:
        raise unreadable_json(json, str(error)) from error


class Store:
    """Telemetry databases. Methods block; what :meth:`telemetry` returns is asynchronous.

    All methods raise TelemetryError subclasses: TelemetryUnavailable when the store cannot be
    reached or was closed, SchemaError for tables, columns and files that do not fit, QueryFailed else.
    """

    def __init__(self, engine: Engine, *, new_name: Callable[[], str] = _random_name) -> None:
        self._engine = engine
        self._new_name = new_name
        self._columns: dict[str, Mapping[str, Mapping[str, str]]] = {}
        self._readonly = self._probe_readonly()
        self._resources = StoreResources(engine, Workers(), self._readonly, Parses())

    @classmethod
    def open(cls, dsn: str = "chdb://memory", *, new_name: Callable[[], str] = _random_name) -> Self:
        """Open ``chdb://memory``, ``chdb:///path`` or ``clickhouse[s]://user:password@host:port/database``.

        Stores on the same embedded path share it; another path in the same process raises
        TelemetryUnavailable. A DSN that cannot be read raises ConfigurationError. *new_name* names
        the private databases of sessions.
        """
        return cls(Engine(parse_dsn(dsn)), new_name=new_name)

    @property
    def dsn(self) -> str:
        """The address, without password."""
        return str(self._engine.address)

    @property
    def embedded(self) -> bool:
        """Whether the engine runs in this process."""
        return self._engine.embedded

    def close(self) -> None:
        """Release the engine or the connections; a second call does nothing."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def databases(self) -> tuple[str, ...]:
        """Return the databases, without those of the engine itself."""
        with (
            self._engine.connection(settings=self._writing()) as connection,
            translated(what="listing databases"),
        ):
            names = [
                str(row[0]) for row in connection.rows("SELECT name FROM system.databases ORDER BY name")
            ]
        return tuple(name for name in names if name not in _SYSTEM)

    def grants(self) -> tuple[str, ...]:
        """Return the lines of ``SHOW GRANTS`` for the store's user."""
        with self._engine.connection(settings=self._writing()) as connection, translated(what="SHOW GRANTS"):
            return tuple(connection.lines("SHOW GRANTS"))

    def exporter_tables(self) -> tuple[ExporterTable, ...]:
        """Return the tables of the exporter's layout in all databases, in order of database and name."""
        with (
            self._engine.connection(settings=self._writing()) as connection,
            translated(what="listing the exporter's tables"),
        ):
            return exporter_tables(connection)

    def version(self) -> str:
        """Return the engine's version."""
        return str(self._one("SELECT version()", what="asking for the version"))

    def clock_ns(self) -> Nanos:
        """Return the time of the host that the engine runs on, in UTC nanoseconds."""
        return int(self._one("SELECT toUnixTimestamp64Nano(now64(9))", what="asking for the time"))

    def _one(self, sql: str, *, what: str) -> Any:
        with self._engine.connection(settings=self._writing()) as connection, translated(what=what):
            return connection.rows(sql)[0][0]

    def create_database(self, name: str, *, layout: Layout | None = None) -> None:
        """Make the database with all tables that are missing; existing ones stay as they are."""
        layout = layout or Layout()
        with (
            self._engine.connection(settings=self._writing()) as connection,
            translated(what=f"making database {name!r}"),
        ):
            connection.command(layout.create_database(name))
            for statement in layout.ddl(name):
                connection.command(statement)

    def printed(
        self, database: str, sql: str, output: str | None, parameters: Mapping[str, object] | None = None
    ) -> bytes:
        """Run a statement of a person and return the answer as the engine prints it in the format *output*.

        Nothing checks the statement: this is for the owner of the telemetry, never for an analyzer. A server
        runs it as read-only. None for *output* leaves the format to the statement.
        """
        settings: dict[str, object] = {}
        if self._readonly != 1:
            settings["output_format_pretty_color"] = 0
        if not self.embedded and self._readonly == 0:
            settings["readonly"] = 2
        with self._engine.connection(database, settings) as connection, translated(what="the statement"):
            return connection.printed(sql, parameters, output)

    def count_rows(self, database: str, table: str) -> int:
        """Return how many rows a table holds; from the parts' metadata, so it is cheap."""
        with (
            self._engine.connection(settings=self._writing()) as connection,
            translated(what=f"counting the rows of {table!r}"),
        ):
            sql = f"SELECT count() FROM {quote(database)}.{quote(table)}"  # noqa: S608 - names are quoted
            return int(connection.rows(sql)[0][0])

    def drop_database(self, name: str) -> None:
        """Drop the database with everything in it; one that is not there is no error."""
        finish(partial(self._drop, name), "otel-diag drop")
        self._columns.pop(name, None)

    def _drop(self, name: str) -> None:
        with (
            self._engine.connection(settings=self._writing()) as connection,
            translated(what=f"dropping database {name!r}"),
        ):
            connection.command(f"DROP DATABASE IF EXISTS {quote(name)} SYNC")

    def ingest_parquet(self, database: str, table: str, path: Path) -> int:
        """Append a Parquet file to a table and return the number of rows.

        Columns are matched by name; missing ones get their default, unknown ones and types that
        cannot be converted raise SchemaError naming file and column. Nanoseconds are kept. The
        embedded engine reads the file itself, a server gets batches of 100,000 rows.
        """
        with self._engine.connection(settings=self._writing()) as connection:
            if self.embedded and ingest.reads_in_place(path):
                return ingest.ingest_parquet(connection, database, table, path)
            return ingest.stream_parquet(connection, database, table, path)

    def ingest_arrow(self, database: str, table: str, data: pyarrow.Table, *, token: str = "") -> int:
        """Append an Arrow table, matched by column name like :meth:`ingest_parquet`; return its rows.

        A call that failed may have written a part of its rows (to the table, but not to its companion, when
        the disk was full). Called again with the same *token*, it completes them without writing any twice,
        in tables made with ``Layout.knows_retries`` and in replicated ones.
        """
        with self._engine.connection(settings=self._writing()) as connection:
            wanted = self._wanted(connection, database, table, data.column_names)
            return ingest.ingest_arrow(connection, (database, table), data, wanted=wanted, token=token)

    def writable_columns(
        self, database: str, samples: Mapping[str, pyarrow.Table]
    ) -> Mapping[str, tuple[str, ...]]:
        """Return the columns that existing tables can take of *samples*; missing tables are left out.

        *samples* are Arrow tables by the table that they are for; their rows do not matter. Tables of older
        exporters lack columns. Raises SchemaError for a type that does not fit (attributes as JSON), and for
        a table without a column that this package reads.
        """
        with (
            self._engine.connection(settings=self._writing()) as connection,
            translated(what="looking up the tables"),
        ):
            there = insertable(connection, database)
        return {
            table: ingest.writable(sample, there[table], table=table)
            for table, sample in samples.items()
            if table in there
        }

    def _wanted(
        self, connection: Connection, database: str, table: str, names: Sequence[str]
    ) -> Mapping[str, str]:
        """Return the columns of a table, looked up again only where a name is not among the known ones."""
        known = self._columns.get(database, {})
        if not known.get(table, {}).keys() >= set(names):
            with translated(what=f"looking up {table}"):
                known = self._columns[database] = insertable(connection, database)
        return ingest.of_table(known, database, table)

    def telemetry(
        self,
        database: str,
        *,
        now: Callable[[], Nanos] | None = None,
        visible: Sequence[Window] | None = None,
        settled: Sequence[Window] = (),
        hidden: Hidden = NOTHING_HIDDEN,
        threads: int = 0,
    ) -> StoreTelemetry:
        """Return the read-only view of *database* for one session.

        With *now*, *visible* or *hidden* the session gets a private database of views that hides what has
        not ended by ``now()``, what lies outside the windows, and what *hidden* says; ``close()`` drops it.
        *settled* windows (the quiet reference of a recording) are visible beside these whatever the time.
        Without these three no DDL is made, so a user who may only read is enough, unless attributes are kept
        as JSON. *threads* is how many
        threads of the embedded engine work on one statement, 0 as many as the machine has: over a few
        hundred thousand rows, starting them costs more than they save. Raises SchemaError for an unknown
        database, and for attributes of a type that cannot be read.
        """
        visibility = None
        with (
            self._engine.connection(settings=self._writing()) as connection,
            translated(what=f"opening database {database!r}"),
        ):
            self._require(connection, database)
            base = discover(connection, database)
            json = json_columns(base)
            if now is not None or visible is not None or hidden or json:
                visibility = SessionViews(
                    self._new_name(),
                    base,
                    merged(visible) if visible is not None else None,
                    bounded=now is not None,
                    settled=merged(settled),
                    hidden=hidden,
                )
                _make(visibility, connection, json)
        return StoreTelemetry(
            self._resources, database=database, visibility=visibility, now=now, threads=threads
        )

    def _require(self, connection: Connection, database: str) -> None:
        """Raise SchemaError unless the database is there."""
        names = [str(row[0]) for row in connection.rows("SELECT name FROM system.databases ORDER BY name")]
        if database not in names:
            there = ", ".join(name for name in names if name not in _SYSTEM) or "none"
            raise SchemaError(
                f"{self.dsn} has no database {database!r}{nearest(database, names)}; databases there: {there}"
            )

    def _writing(self) -> dict[str, object]:
        return writing(self._readonly)

    def _probe_readonly(self) -> int:
        """Return the user's ``readonly`` setting: 0 free, 1 may not even change settings, 2 may."""
        with self._engine.connection() as connection, translated(what="the first statement"):
            found = connection.rows("SELECT value FROM system.settings WHERE name = 'readonly'")
        return int(found[0][0]) if found else 0
