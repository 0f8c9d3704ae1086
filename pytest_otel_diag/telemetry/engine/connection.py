"""The one door to clickhouse-connect: clients, their pool, and the rules that keep them sound.

* A chDB query that fails part-way leaves its partial output in the connection and the next query on
  it would return it: :class:`Connection` drains with ``ping()`` after every exception.
* A client is used by one thread at a time; the pool lends it out and takes it back drained.
* One process hosts one embedded engine path; a second path is refused, with the remedy.
* The engine does not survive ``fork()``: a child that touches it gets an error instead of a hang.
  (A child that exits by ``sys.exit`` still hangs, inside chDB; ``os._exit`` and spawn are fine.)
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytest_otel_diag.errors import QueryFailed, QueryRejected, TelemetryUnavailable
from pytest_otel_diag.telemetry.dsn import Address, EmbeddedAddress
from pytest_otel_diag.telemetry.engine.clients import embedded_client, server_client
from pytest_otel_diag.telemetry.engine.failures import translated

_KEPT = 3
"""Clients that are opened before one with other settings is changed: for reading, writing and checking."""

_SEALED_KEPT = 8
"""Sealed clients that stay open: one for each set of limits, times the statements that run at once."""

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
_generation = 0


def _mark_forked() -> None:
    global _generation  # noqa: PLW0603 - the fork hook can reach nothing but module state
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


class _EmbeddedSlot:
    """The process's one embedded engine: which path it is open on, and by how many stores."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.path: str | None = None
        self.users = 0

    def enter(self, path: str) -> None:
        with self.lock:
            if self.users and self.path != path:
                raise TelemetryUnavailable(
                    f"this process already runs an embedded engine on {self.path!r} and chDB allows one "
                    f"path per process, so {path!r} cannot be opened; close the other store first, use the "
                    "same path, or reach a server with clickhouse://host:port/database"
                )
            self.path = path
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1


_slot = _EmbeddedSlot()
_SELECTING = re.compile(r"[\s(]*(SELECT|WITH)\b", re.IGNORECASE)


class Connection:
    """One client in the hands of one thread."""

    def __init__(self, client: Any, embedded: bool) -> None:
        self._client = client
        self._embedded = embedded
        self._home: str = client.database or "default"
        self._settings: dict[str, Any] = {}
        self.sealed = False

    def prepare(self, database: str | None, settings: Mapping[str, Any]) -> None:
        """Select database and settings for what follows; only differences cost a statement."""
        # never left on the database of an earlier session, which may be gone by now
        self._client.database = database or self._home
        for name, value in self._changed(settings):
            self._client.set_client_setting(name, value)
            self._settings[name] = value

    def seal(self) -> None:
        """Give up writing, table functions that reach outside, and changes of settings, for good.

        On a server, where settings travel with each statement, ``readonly`` among them does the same.
        """
        if self._embedded and not self.sealed:
            self._client.set_client_setting("readonly", 1)
        self.sealed = True

    def fits(self, settings: Mapping[str, Any], *, sealed: bool) -> bool:
        """Whether :meth:`prepare` and :meth:`seal` can make the client what is wanted."""
        return self.sealed == sealed and not (self.sealed and self._embedded and self.changes(settings))

    def changes(self, settings: Mapping[str, Any]) -> int:
        """Return how many settings :meth:`prepare` would change."""
        return sum(1 for _ in self._changed(settings))

    def _changed(self, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        wanted = dict(settings)
        if "readonly" in self._settings:
            wanted.setdefault("readonly", 0)  # the one setting that must not outlast its session
        for name, value in wanted.items():
            if self._settings.get(name) != value:
                yield name, value

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, named: bool = True
    ) -> tuple[tuple[str, ...], list[Any]]:
        """Return column names and columns; DateTime64 values are integers in ticks of their scale.

        An answer without rows has its names only where they are asked for: they cost a second statement.
        """
        with self._drained(), _bound():
            result = self._client.query(
                sql,
                parameters=dict(parameters) if parameters else None,
                query_formats={"DateTime64*": "int"},
                column_oriented=True,
            )
            names = tuple(result.column_names) or (self._described(sql, parameters) if named else ())
            return names, list(result.result_columns) or [() for _ in names]

    def _described(self, sql: str, parameters: Mapping[str, Any] | None) -> tuple[str, ...]:
        """Return the column names of a statement without rows: chDB sends no header for it."""
        if not _SELECTING.match(sql):
            return ()
        return tuple(str(row[0]) for row in self.rows(f"DESCRIBE TABLE (\n{sql}\n)", parameters))

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows as tuples."""
        return list(zip(*self.query(sql, parameters)[1], strict=True))

    def lines(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[str]:
        """Return a one-column answer as text, for statements that cannot carry a FORMAT clause."""
        with self._drained(), _bound():
            raw: bytes = self._client.raw_query(sql, parameters=dict(parameters) if parameters else None)
        return [_unescaped(line) for line in raw.decode().split("\n") if line]

    def printed(
        self, sql: str, parameters: Mapping[str, Any] | None = None, output: str | None = None
    ) -> bytes:
        """Return the answer as the engine prints it in the format *output*, or in the statement's own."""
        with self._drained(), _bound():
            raw: bytes = self._client.raw_query(
                sql, parameters=dict(parameters) if parameters else None, fmt=output
            )
        return raw

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return the rows as an Arrow table; DateTime64 values are timestamps of their scale."""
        with self._drained(), _bound():
            return self._client.query_arrow(
                sql, parameters=dict(parameters) if parameters else None, use_strings=True
            )

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement without a result."""
        with self._drained():
            self._client.command(sql, parameters=dict(parameters) if parameters else None)

    def insert_arrow(
        self, table: str, database: str, data: Any, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Append an Arrow table, matched by column name."""
        with self._drained():
            self._client.insert_arrow(table, data, database=database, settings=dict(settings or {}))

    def close(self) -> None:
        """Let go of the engine or the sockets."""
        self._client.close()

    @contextmanager
    def _drained(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self._embedded:
                self._client.ping()
            raise


@contextmanager
def _bound() -> Iterator[None]:
    """Turn what the driver raises for values it cannot send or read into an error that says so."""
    try:
        yield
    except RecursionError as error:
        raise QueryRejected("a value or type is nested too deep to be sent or read; flatten it") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise QueryFailed(
            f"the parameters cannot be sent ({error}); write them as {{name:Type}} with values of that type"
        ) from error


class Engine:
    """A pool of clients of one address. Thread-safe; closed once, after which it refuses work."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.embedded = isinstance(address, EmbeddedAddress)
        self._idle: list[Connection] = []
        self._open = 0
        self._lock = threading.Lock()
        self._generation = _generation
        self._closed = False
        if isinstance(address, EmbeddedAddress):
            _slot.enter(address.path)
        try:
            self._give_back(self._connect())
        except BaseException:
            if self.embedded:
                _slot.leave()
            raise

    @contextmanager
    def connection(
        self,
        database: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        sealed: bool = False,
    ) -> Iterator[Connection]:
        """Lend a client for the block; raises TelemetryUnavailable when closed or after a fork.

        Each change of a setting costs a statement, so the client that needs the fewest is lent, and a few
        clients are kept for different uses. A *sealed* client of the embedded engine has exactly these
        settings and ``readonly``, for ever: text that others wrote runs on nothing else.
        """
        self._check()
        wanted = settings or {}
        lent = self._take(wanted, sealed) or self._connect()
        try:
            with translated(what="the session's settings"):
                lent.prepare(database, wanted)
                if sealed:
                    lent.seal()
            yield lent
        finally:
            self._give_back(lent)

    def _take(self, wanted: Mapping[str, Any], sealed: bool) -> Connection | None:
        """Return the idle client that fits best, None where a new one is better."""
        with self._lock:
            fitting = [idle for idle in self._idle if idle.fits(wanted, sealed=sealed)]
            lent = min(fitting, key=lambda idle: idle.changes(wanted), default=None)
            if lent is not None and self._open < _KEPT and lent.changes(wanted):
                lent = None
            if lent is not None:
                self._idle.remove(lent)
        return lent

    def close(self) -> None:
        """Close idle clients now and lent ones as they return; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._generation != _generation:
                return  # the clients stay referenced: even dropping one would hang in a forked child
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self.embedded:
            _slot.leave()

    def _give_back(self, connection: Connection) -> None:
        surplus: Connection | None = connection
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                surplus = self._surplus()
        if surplus is not None:
            surplus.close()

    def _surplus(self) -> Connection | None:
        """Take the sealed client that has been idle longest, once there are too many with other limits."""
        sealed = [idle for idle in self._idle if idle.sealed]
        if len(sealed) <= _SEALED_KEPT:
            return None
        self._idle.remove(sealed[0])
        self._open -= 1
        return sealed[0]

    def _check(self) -> None:
        if self._generation != _generation:
            raise TelemetryUnavailable(
                f"the store {self.address} was opened before this process forked and cannot be used in the "
                "child; open it in the child, or start workers with spawn or forkserver"
            )
        if self._closed:
            raise TelemetryUnavailable(f"the store {self.address} is closed; open it again with Store.open")

    def _connect(self) -> Connection:
        with self._lock:
            self._open += 1
        if isinstance(self.address, EmbeddedAddress):
            return Connection(embedded_client(self.address), embedded=True)
        return Connection(server_client(self.address), embedded=False)


def quote(name: str) -> str:
    """Return *name* as a quoted identifier."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _unescaped(line: str) -> str:
    """Return a field of the TabSeparated format as it was."""
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match.group(1), match.group(1)), line)
