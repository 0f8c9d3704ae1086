"""The telemetry of a live system: on a ClickHouse server, or in this process behind an OTLP receiver.

``--otel-diag-store=clickhouse://…`` names a server. Its database is the one in the DSN, else ``otel`` or
``default`` if it has the exporter's tables, else the only one that has them. Without a server, an OTLP
receiver writes to a database of the embedded store. It runs from the first session until the target is
closed, so it occupies its ports between sessions too.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from pytest_otel_diag.errors import ConfigurationError, QueryRejected, TelemetryError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.receiver import Counts, Receiver
from pytest_otel_diag.receiver.addresses import Listen, parse_listen
from pytest_otel_diag.targets.replay.recording_store import MEMORY_DSN
from pytest_otel_diag.telemetry.dsn import EmbeddedAddress, ServerAddress, parse_dsn
from pytest_otel_diag.telemetry.layout import Layout
from pytest_otel_diag.telemetry.leaks import NOTHING_HIDDEN, Hidden
from pytest_otel_diag.telemetry.placement import ExporterTable
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.telemetry.store import Store

KEEP_HOURS = 24
"""The embedded store drops older telemetry."""

_PREFIX = "live_"
_TRACES = "otel_traces"
_USUAL = ("otel", "default")


def _random_id() -> str:
    return uuid.uuid4().hex[:12]


def telemetry_source(store_dsn: str, receiver_spec: str, *, worker: str) -> ServerSource | ReceiverSource:
    """Return the source that the options name, not opened yet.

    Raises ConfigurationError for options that contradict each other.
    """
    address = parse_dsn(store_dsn or MEMORY_DSN)
    if isinstance(address, ServerAddress):
        return ServerSource(store_dsn, address)
    listen = parse_listen(receiver_spec)
    if listen is None:
        raise ConfigurationError(
            "--otel-diag-otlp-receiver=off leaves the target live without telemetry; name a server with "
            "--otel-diag-store=clickhouse://…, or leave the receiver on"
        )
    if worker.startswith("gw"):
        raise ConfigurationError(
            "the target live with its own OTLP receiver cannot run under pytest-xdist, since only one "
            "process can own the receiver's ports and store. Run without -n, or send telemetry to a "
            "ClickHouse server and name it with --otel-diag-store=clickhouse://…"
        )
    return ReceiverSource(address, listen)


class Opened:
    """An open store and the database with the telemetry.

    ``isolated`` says whether sessions get their own views, which end at the present; a read-only user cannot
    create them.
    """

    def __init__(self, store: Store, database: str, tables: Sequence[ExporterTable]) -> None:
        self.store = store
        self.database = database
        self.tables = tuple(tables)
        self.isolated = True

    def everything(self) -> StoreTelemetry:
        """Return the whole database, without views."""
        return self.store.telemetry(self.database)

    def session(
        self,
        now: Callable[[], Nanos],
        since_ns: Nanos,
        quiet: Sequence[Window] = (),
        hidden: Hidden = NOTHING_HIDDEN,
    ) -> StoreTelemetry:
        """Return the telemetry between *since_ns* and ``now()`` and in the *quiet* windows (blocking).

        Other earlier telemetry may contain the faults of other sessions. Raises TelemetryError, also where
        flags are to be hidden and this user may not create views.
        """
        if self.isolated:
            try:
                window = Window(start_ns=since_ns, end_ns=2**63 - 1)
                return self.store.telemetry(self.database, now=now, visible=(*quiet, window), hidden=hidden)
            except QueryRejected:  # this user may not create views
                self.isolated = False
        if hidden.flags is not None:
            raise QueryRejected(
                f"the user of {self.store.dsn} may not create views, which --otel-diag-leaks=redact needs; "
                "let a user with the right CREATE VIEW read it, or use keep"
            )
        return self.everything()

    def describe(self) -> dict[str, str]:
        """Return address, database, version of the engine and placement of traces."""
        traces = next((table for table in self.tables if table.name == _TRACES), None)
        shown = {"store": self.store.dsn, "database": self.database, "engine": self.store.version()}
        if traces is not None and traces.distributed:
            shown["traces"] = f"cluster {traces.cluster}, {traces.traces} ({traces.sharding_key or 'no key'})"
        return shown


class _Source:
    """Opened once, on first use; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resources = ExitStack()
        self._opened: Opened | None = None

    def open(self) -> Opened:
        """Return the open store, opening it if necessary (blocking); raises OtelDiagError."""
        with self._lock:
            if self._opened is None:
                with ExitStack() as stack:
                    self._opened = self._open(stack)
                    self._resources = stack.pop_all()
            return self._opened

    def close(self) -> None:
        """Close everything; :meth:`open` opens it again."""
        with self._lock:
            self._opened = None
            self._resources.close()

    def _open(self, stack: ExitStack) -> Opened:
        raise NotImplementedError


class ServerSource(_Source):
    """The tables that the collector's ClickHouse exporter fills."""

    own = False

    def __init__(self, dsn: str, address: ServerAddress) -> None:
        super().__init__()
        self._dsn = dsn
        self._address = address

    @property
    def name(self) -> str:
        """The address, without password."""
        return str(self._address)

    def receiving(self) -> Mapping[str, str]:
        """Return no address: the exporter writes to the server."""
        return {}

    def counts(self) -> None:
        """Return no counts: only the exporter has them."""

    def flush(self) -> None:
        """Do nothing: the exporter decides when it writes."""

    def _open(self, stack: ExitStack) -> Opened:
        store = stack.enter_context(Store.open(self._dsn))
        tables = store.exporter_tables()
        database = chosen_database(tables, self._address.database, str(self._address))
        return Opened(store, database, [table for table in tables if table.database == database])


def chosen_database(tables: Sequence[ExporterTable], named: str | None, address: str) -> str:
    """Return the database with the exporter's tables: the named one, a usual one, or the only one.

    Raises ConfigurationError when no database or more than one qualifies.
    """
    found = dict.fromkeys(table.database for table in tables if table.name == _TRACES)
    if named is not None:
        if named in found or named in {table.database for table in tables}:
            return named
        known = ", ".join(found) or "no database"
        raise ConfigurationError(
            f"{address}: database {named!r} has none of the exporter's tables; {known} has otel_traces"
        )
    usual = next((name for name in _USUAL if name in found), None)
    if usual is not None:
        return usual
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise ConfigurationError(
            f"{address}: no database has a table otel_traces that this user may see; let the collector's "
            "clickhouse exporter write to it (create_schema: true creates the tables), or name the database "
            "in the DSN"
        )
    raise ConfigurationError(
        f"{address}: otel_traces is in {', '.join(found)}; name one in the path of the DSN, "
        f"{address.rstrip('/')}/{next(iter(found))}"
    )


class ReceiverSource(_Source):
    """A database of the embedded store that this process's own OTLP receiver fills."""

    own = True

    def __init__(
        self, address: EmbeddedAddress, listen: Listen, *, new_id: Callable[[], str] = _random_id
    ) -> None:
        super().__init__()
        self._dsn = str(address)
        self._listen = listen
        self._new_id = new_id
        self._receiver: Receiver | None = None

    @property
    def name(self) -> str:
        """The store's address."""
        return self._dsn

    def receiving(self) -> Mapping[str, str]:
        """Return the addresses that receive OTLP, by protocol; empty while closed."""
        if self._receiver is None:
            return {}
        listening = self._receiver.addresses
        spoken = {"http": listening.http, "grpc": listening.grpc}
        return {kind: address for kind, address in spoken.items() if address is not None}

    def counts(self) -> Counts | None:
        """Return the counts of the receiver, None while closed."""
        return self._receiver.counts() if self._receiver is not None else None

    def flush(self) -> None:
        """Make everything received so far queryable (blocking)."""
        if self._receiver is not None:
            self._receiver.flush()

    def _open(self, stack: ExitStack) -> Opened:
        store = stack.enter_context(Store.open(self._dsn))
        for name in store.databases():
            if name.startswith(_PREFIX) and self._dsn != MEMORY_DSN:
                store.drop_database(
                    name
                )  # left by a killed process, since only one process can open the engine
        database = f"{_PREFIX}{self._new_id()}"
        store.create_database(database, layout=Layout(ttl_hours=KEEP_HOURS, knows_retries=True))
        stack.callback(_dropped, store, database)
        self._receiver = stack.enter_context(
            Receiver(store, database, http=self._listen.http, grpc=self._listen.grpc)
        )
        stack.callback(self._forget)
        return Opened(store, database, store.exporter_tables())

    def _forget(self) -> None:
        self._receiver = None


def _dropped(store: Store, database: str) -> None:
    try:
        store.drop_database(database)
    except TelemetryError:
        return  # a closed store has dropped it already
