"""The receiver: an HTTP and a gRPC server, a bounded queue and a writer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver import packages
from pytest_otel_diag.receiver.addresses import GRPC, HTTP, Listen
from pytest_otel_diag.receiver.backlog import Backlog
from pytest_otel_diag.receiver.counts import Counts, Tally
from pytest_otel_diag.receiver.export_service import ExportService
from pytest_otel_diag.receiver.grpc_server import GrpcServer
from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.rows import samples
from pytest_otel_diag.receiver.writer import Destination, Writer
from pytest_otel_diag.telemetry.layout import Layout

if TYPE_CHECKING:
    from pytest_otel_diag.receiver.http_server import HttpServer
    from pytest_otel_diag.telemetry import Store

_GRACE_S = 5.0  # for requests in progress
_INSERT_S = 600.0  # an insert cannot be cancelled; the store limits it to less


def _ignore(_warning: str) -> None:
    return


def _http_server(service: ExportService, address: str) -> HttpServer:
    """Return the HTTP server; raises ConfigurationError when its packages are not installed."""
    packages.load("httptools")
    packages.load("uvicorn")
    from pytest_otel_diag.receiver.http_server import HttpServer  # noqa: PLC0415 - imports uvicorn

    return HttpServer(service, address)


class Receiver:
    """Receives OTLP over HTTP and gRPC and stores it in the exporter's tables of *database*.

    ``with Receiver(store, "otel") as receiver:`` listens until the end of the block and creates the
    database and its tables if they are missing. *http* and *grpc* are ``HOST:PORT``, or None to disable a
    protocol; port 0 picks a free port. *warn* is called, once per reason, when records are lost, and
    whenever the store becomes unavailable. All work happens on threads. A receiver can be started once.
    """

    def __init__(
        self,
        store: Store,
        database: str,
        *,
        http: str | None = HTTP,
        grpc: str | None = GRPC,
        limits: Limits | None = None,
        warn: Callable[[str], object] = _ignore,
    ) -> None:
        if http is None and grpc is None:
            raise ConfigurationError("a receiver needs an address for http or grpc; both are None")
        self._store = store
        self._database = database
        self._limits = limits or Limits()
        self._tally = Tally()
        self._backlog = Backlog(self._limits, time.monotonic)
        service = ExportService(self._backlog, self._tally, self._limits)
        self._http = _http_server(service, http) if http is not None else None
        self._grpc = GrpcServer(service, grpc) if grpc is not None else None
        self._warn = warn
        self._writer: Writer | None = None
        self._addresses = Listen(None, None)
        self._running = False
        self._started = False

    @property
    def addresses(self) -> Listen:
        """The ``HOST:PORT`` that each protocol listens on; None while it does not."""
        return self._addresses

    def start(self) -> Self:
        """Create the tables and listen.

        Raises ConfigurationError for an unavailable address or a second start, TelemetryError when the
        tables cannot be created or cannot hold what is received. Columns that tables of an older exporter
        lack are not written; *warn* is called with their names.
        """
        if self._started:
            raise ConfigurationError("a receiver can be started once; create another one")
        destination = self._destination()
        self._started = True
        http = self._http.start() if self._http else None
        try:
            grpc = self._grpc.start() if self._grpc else None
        except BaseException:
            if self._http:
                self._http.stop(0.0)
            raise
        self._addresses = Listen(http, grpc)
        self._writer = Writer(self._backlog, destination, self._tally, self._warn)
        self._writer.start()
        self._running = True
        return self

    def _destination(self) -> Destination:
        """Create the tables that are missing and return what all of them can take."""
        written = samples()
        self._store.writable_columns(
            self._database, written
        )  # before views are made over tables that do not fit
        self._store.create_database(self._database, layout=Layout(knows_retries=True))
        columns = self._store.writable_columns(self._database, written)
        for table, taken in columns.items():
            lacking = [name for name in written[table].column_names if name not in taken]
            if lacking:
                self._warn(
                    f"{table} has no {', '.join(lacking)}: the table was made by an older exporter, so "
                    "they are not written"
                )
        return Destination(self._store, self._database, columns)

    def stop(self) -> Counts:
        """Stop listening, store what was accepted, and return the final counts; idempotent.

        After ``Limits.stop_s`` seconds the records not yet stored are dropped, except for those of the
        running insert, which cannot be cancelled.
        """
        writer = self._writer
        if self._running and writer is not None:
            self._running = False
            self._close()
            writer.join(self._limits.stop_s)
            if writer.is_alive():
                writer.give_up()
                writer.join(_INSERT_S)
        return self.counts()

    def _close(self) -> None:
        """Stop the servers first, so that requests in progress are still accepted."""
        for server in (self._http, self._grpc):
            if server is not None:
                server.stop(min(_GRACE_S, self._limits.stop_s))
        self._addresses = Listen(None, None)
        self._backlog.close()

    def counts(self) -> Counts:
        """Return the counts of all records so far, by outcome."""
        return self._tally.snapshot()

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Store everything accepted so far; return whether it can be queried.

        False when that takes longer than *timeout_s*. Dropped records do not count as missing.
        """
        return self._backlog.flush(timeout_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
