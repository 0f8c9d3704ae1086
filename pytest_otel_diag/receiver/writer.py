"""Writes batches from the backlog to the store, on a single thread."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pytest_otel_diag.errors import QueryLimitExceeded, TelemetryUnavailable
from pytest_otel_diag.receiver import packages
from pytest_otel_diag.receiver.backlog import Backlog, Delivery
from pytest_otel_diag.receiver.counts import Tally
from pytest_otel_diag.receiver.packages import SIGNALS, Signal
from pytest_otel_diag.receiver.rows import tables
from pytest_otel_diag.receiver.rows.columns import joined

if TYPE_CHECKING:
    import pyarrow

UNREADABLE = "could not be turned into rows"
REFUSED = "refused by the store"
STOPPED = "stopped before it was stored"

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_FAILURES_A_TABLE = 64
_CHUNK_RECORDS = 1_000

Warn = Callable[[str], object]


class Sink(Protocol):
    """What the writer needs of a store; ``telemetry.Store`` has it."""

    def ingest_arrow(self, database: str, table: str, data: pyarrow.Table, *, token: str = "") -> int:
        """Append rows; a call with the same *token* completes one that failed.

        Raises TelemetryUnavailable or QueryLimitExceeded when a retry may help, another error for bad rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Where rows go; ``columns`` are those that the tables have."""

    sink: Sink
    database: str
    columns: Mapping[str, Sequence[str]]


@dataclass(slots=True)
class _Attempt:
    """How often the insert of one table's rows may still fail, and how long to wait before the next."""

    signal: Signal
    table: str
    failures_left: int = _FAILURES_A_TABLE
    wait_s: float = _FIRST_WAIT_S


class Writer(threading.Thread):
    """Stores batches until the backlog is closed and empty, or until :meth:`give_up`.

    While the store is unavailable, the insert is retried and the backlog refuses new deliveries. When the
    store refuses rows, the batch is bisected so that a bad row costs no good one; after 64 failures of a
    table in one batch, failing parts are dropped whole. Lost records are counted as dropped and passed to
    *warn*, once per reason; so is the beginning of every time without a store.
    """

    def __init__(self, backlog: Backlog, destination: Destination, tally: Tally, warn: Warn) -> None:
        super().__init__(name="otel-diag-receiver-writer", daemon=True)
        self._backlog = backlog
        self._destination = destination
        self._tally = tally
        self._warn = warn
        self._warned: set[str] = set()
        self._given_up = threading.Event()

    def run(self) -> None:
        """Write until the backlog is closed and empty."""
        while batch := self._backlog.take():
            for signal in SIGNALS:
                self._store(signal, [delivery for delivery in batch if delivery.signal == signal])
            self._backlog.done(batch)

    def give_up(self) -> None:
        """Stop retrying, and drop what the backlog still holds."""
        self._given_up.set()
        for delivery in self._backlog.abandon():
            self._drop(delivery.signal, delivery.records, STOPPED)

    def _store(self, signal: Signal, deliveries: Sequence[Delivery]) -> None:
        for table, data in self._rows(signal, deliveries):
            self._insert(_Attempt(signal, table), data.select(self._destination.columns[table]))

    def _rows(self, signal: Signal, deliveries: Sequence[Delivery]) -> list[tuple[str, Any]]:
        """Return the rows by table; a delivery that cannot be converted is dropped without the others."""
        if not deliveries:
            return []
        try:
            return list(_decoded(signal, deliveries).items())
        except Exception as error:  # a bad request must not end the thread
            if len(deliveries) == 1:
                self._drop(signal, deliveries[0].records, UNREADABLE, error)
                return []
        return [pair for delivery in deliveries for pair in self._rows(signal, [delivery])]

    def _insert(self, attempt: _Attempt, data: pyarrow.Table) -> None:
        place = self._destination
        token = uuid.uuid4().hex
        while True:
            if self._given_up.is_set():
                self._drop(attempt.signal, data.num_rows, STOPPED)
                return
            try:
                place.sink.ingest_arrow(place.database, attempt.table, data, token=token)
                self._tally.stored(attempt.signal, data.num_rows)
                self._backlog.release()
                return
            except (TelemetryUnavailable, QueryLimitExceeded) as error:
                self._wait(attempt, error)
            except Exception as error:  # bad rows must not end the thread
                self._backlog.release()
                attempt.failures_left -= 1
                if data.num_rows == 1 or attempt.failures_left <= 0:
                    self._drop(attempt.signal, data.num_rows, REFUSED, error)
                    return
                break
        half = data.num_rows // 2
        self._insert(attempt, data.slice(0, half))
        self._insert(attempt, data.slice(half))

    def _wait(self, attempt: _Attempt, error: Exception) -> None:
        """Refuse new deliveries and wait before the next attempt."""
        if not self._backlog.held:
            self._backlog.hold()
            self._warn(f"the store is unavailable, so clients are asked to send again later ({error})")
        self._given_up.wait(attempt.wait_s)
        attempt.wait_s = min(2 * attempt.wait_s, _LONGEST_WAIT_S)

    def _drop(self, signal: Signal, records: int, reason: str, error: Exception | None = None) -> None:
        self._tally.dropped(signal, records, reason)
        if reason not in self._warned:
            self._warned.add(reason)
            self._warn(
                f"{records:,} records of {signal} dropped: {reason}" + (f" ({error})" if error else "")
            )


def _decoded(signal: Signal, deliveries: Sequence[Delivery]) -> Mapping[str, pyarrow.Table]:
    request = packages.services()[signal].request
    pieces: dict[str, list[pyarrow.Table]] = {}
    for chunk in _chunks(deliveries):
        messages = [request.FromString(delivery.body) for delivery in chunk]
        for table, data in tables(signal, messages).items():
            pieces.setdefault(table, []).append(data)
    return {table: joined(found) for table, found in pieces.items()}


def _chunks(deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """Yield deliveries in groups of slightly more than 1,000 records.

    Each record becomes dozens of short-lived objects. If those of a whole batch were alive at once, garbage
    collection would traverse them repeatedly, at half the cost of everything else.
    """
    chunk: list[Delivery] = []
    records = 0
    for delivery in deliveries:
        chunk.append(delivery)
        records += delivery.records
        if records >= _CHUNK_RECORDS:
            yield chunk
            chunk, records = [], 0
    if chunk:
        yield chunk
