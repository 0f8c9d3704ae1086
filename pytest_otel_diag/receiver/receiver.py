"""The receiver: two servers, one queue, one writer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver.addresses import GRPC, HTTP, Listen
from pytest_otel_diag.receiver.backlog import Backlog
from pytest_otel_diag.receiver.counts import Counts, Tally
from pytest_otel_diag.receiver.desk import Desk
from pytest_otel_diag.receiver.grpc_server import GrpcServer
from pytest_otel_diag.receiver.http_server import HttpServer
from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.writer import Destination, Writer

if TYPE_CHECKING:
    from pytest_otel_diag.telemetry import Store

_GRACE_S = 5.0  # for requests that are under way
_INSERT_S = 600.0  # an insert cannot be broken off; the store's own limit is not longer


def _say_nothing(_sentence: str) -> None:
    return


class Receiver:
    """Takes OTLP over HTTP and gRPC and stores it in the exporter's tables of *database*.

    ``with Receiver(store, "otel") as receiver:`` listens until the end of the block; the database and its
    tables are made where they are missing. *http* and *grpc* are ``HOST:PORT``, None for a protocol that
    is not spoken; port 0 takes a free one. *tell* gets a sentence when records are lost for the first
    time for a reason. All work happens on threads; one receiver is started once.
    """

    def __init__(
        self,
        store: Store,
        database: str,
        *,
        http: str | None = HTTP,
        grpc: str | None = GRPC,
        limits: Limits | None = None,
        tell: Callable[[str], object] = _say_nothing,
    ) -> None:
        if http is None and grpc is None:
            raise ConfigurationError("a receiver without http and without grpc would receive nothing")
        self._store = store
        self._database = database
        self._limits = limits or Limits()
        self._tally = Tally()
        self._backlog = Backlog(self._limits, time.monotonic)
        desk = Desk(self._backlog, self._tally, self._limits)
        self._http = HttpServer(desk, http) if http is not None else None
        self._grpc = GrpcServer(desk, grpc) if grpc is not None else None
        destination = Destination(store, database, self._limits.store_s)
        self._writer = Writer(self._backlog, destination, self._tally, tell)
        self._addresses = Listen(None, None)
        self._running = False
        self._started = False

    @property
    def addresses(self) -> Listen:
        """``HOST:PORT`` of each protocol as it is listened on; None while it is not."""
        return self._addresses

    def start(self) -> Self:
        """Make the tables and listen; raises ConfigurationError for an address that cannot be had.

        TelemetryError when the tables cannot be made. A second start is refused.
        """
        if self._started:
            raise ConfigurationError("this receiver was started before; make another one")
        self._store.create_database(self._database)
        self._started = True
        http = self._http.start() if self._http else None
        try:
            grpc = self._grpc.start() if self._grpc else None
        except BaseException:
            if self._http:
                self._http.stop(0.0)
            raise
        self._addresses = Listen(http, grpc)
        self._writer.start()
        self._running = True
        return self

    def stop(self) -> Counts:
        """Stop listening, store what was taken, and return the last counts; again it does nothing.

        After ``Limits.stop_s`` seconds what is not stored is counted as dropped, but for the insert that
        is under way: it cannot be broken off and is waited for.
        """
        if self._running:
            self._running = False
            self._close()
            self._writer.join(self._limits.stop_s)
            if self._writer.is_alive():
                self._writer.give_up()
                self._writer.join(_INSERT_S)
        return self.counts()

    def _close(self) -> None:
        """Stop listening first, so that requests under way are still taken."""
        for server in (self._http, self._grpc):
            if server is not None:
                server.stop(min(_GRACE_S, self._limits.stop_s))
        self._addresses = Listen(None, None)
        self._backlog.close()

    def counts(self) -> Counts:
        """Return what became of every record so far."""
        return self._tally.snapshot()

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Have everything that was taken so far stored; return whether it can be asked for now.

        False when *timeout_s* was not enough. Records that had to be dropped count as done.
        """
        return self._backlog.flush(timeout_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
