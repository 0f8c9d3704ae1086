"""Telemetry stores with recordings, each of which is loaded once."""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_otel_diag.errors import RecordingError, TelemetryError, TelemetryUnavailable
from pytest_otel_diag.model.telemetry import SPANS_TABLE
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.recordings.lock import exclusive
from pytest_otel_diag.targets.private import PrivateDatabases
from pytest_otel_diag.telemetry.store import Store

_LOG = logging.getLogger(__name__)

MEMORY_DSN = "chdb://memory"
_TRACES = "otel_traces"
_PREFIX = "telemetry_"
_SESSION_PREFIX = "session_"


def _random_id() -> str:
    return uuid.uuid4().hex[:12]


class RecordingStore:
    """A telemetry store with recordings.

    Each recording has a database named after its content. For stores that outlive the process (a path, a
    server), an SQLite file in *cache_dir* lists the loaded recordings. An entry is written after the last
    row, so a killed load is repeated, and so is one that has lost rows. Machines that share a server need a
    common cache folder, or must not load the same recording at the same time.
    """

    def __init__(self, dsn: str, cache_dir: Path, *, new_id: Callable[[], str] = _random_id) -> None:
        self._store = Store.open(dsn, new_name=lambda: self.private_name(new_id()))
        self._private = PrivateDatabases(self._store.drop_database)
        self._ledger = None if dsn == MEMORY_DSN else _ledger(self._store.dsn, cache_dir)
        if self._store.embedded:
            self._sweep()
        self._lock = threading.Lock()
        self._loaded: set[str] = set()

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    def database_of(self, recording: Recording) -> str:
        """Return the database of the recording, which is loaded first if necessary.

        Safe for several threads and processes; blocks while it loads. Raises RecordingError for files that
        differ from the manifest, TelemetryError when the store fails.
        """
        name = database_name(recording)
        with self._lock:
            if name not in self._loaded:
                self._ensure(recording, name)
                self._loaded.add(name)
        return name

    def private_name(self, unique: str) -> str:
        """Return a name for the database of a session; see :meth:`discard`."""
        return self._private.add(f"{_SESSION_PREFIX}{unique}")

    def discard(self, name: str) -> None:
        """Drop the database of a session (blocking).

        Raises TelemetryError on failure; the drop is repeated with the next one and at close.
        """
        self._private.drop(name)

    def close(self) -> None:
        """Drop the remaining databases of sessions and close the store."""
        left = self._private.drop_all()
        if left and not self._store.embedded:  # an embedded store drops them at its next start
            _LOG.warning(
                "%s keeps what sessions made for themselves: %s could not be dropped; drop them by hand",
                self._store.dsn,
                ", ".join(left),
            )
        self._store.close()

    def _sweep(self) -> None:
        """Drop the databases that a killed process left; no other process can have the engine open."""
        for name in self._store.databases():
            if name.startswith(_SESSION_PREFIX):
                self._store.drop_database(name)

    def _ensure(self, recording: Recording, name: str) -> None:
        if self._ledger is None:
            self._load(recording, name)
            return
        with exclusive(self._ledger) as ledger:
            ledger.execute(
                "CREATE TABLE IF NOT EXISTS loaded (database TEXT PRIMARY KEY, sha256 TEXT NOT NULL)"
            )
            row = ledger.execute("SELECT sha256 FROM loaded WHERE database = ?", (name,)).fetchone()
            if row == (recording.sha256,) and self._holds(recording, name):
                return
            self._load(recording, name)
            ledger.execute("REPLACE INTO loaded VALUES (?, ?)", (name, recording.sha256))

    def _holds(self, recording: Recording, name: str) -> bool:
        """Return whether all rows exist: the engine silently skips damaged parts."""
        wanted = {file.table: file.rows for file in recording.manifest.files}
        if _TRACES in wanted:
            wanted[SPANS_TABLE] = wanted[_TRACES]
        try:
            return all(self._store.count_rows(name, table) == rows for table, rows in wanted.items())
        except TelemetryError:
            return False  # a missing or unreadable database or table is loaded again

    def _load(self, recording: Recording, name: str) -> None:
        recording.verify()
        self._store.drop_database(name)
        self._store.create_database(name)
        for file in recording.manifest.files:
            rows = self._store.ingest_parquet(name, file.table, recording.path(file))
            if rows != file.rows:
                raise RecordingError(
                    f"{recording.path(file)}: {rows} rows were loaded, the manifest says {file.rows}; "
                    "validate the recording and import it again"
                )


class _Shared:
    """The stores of this process; targets with the same DSN share one, so recordings are loaded once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[RecordingStore, int]] = {}

    def acquire(self, dsns: Sequence[str], cache_dir: Path) -> tuple[str, RecordingStore]:
        """Return the first of *dsns* that can be opened; raises the last one's TelemetryUnavailable."""
        with self._lock:
            for dsn in dsns[:-1]:
                try:
                    return dsn, self._use(dsn, cache_dir)
                except TelemetryUnavailable:
                    continue  # another process or another engine of this one holds the path: try the next
            return dsns[-1], self._use(dsns[-1], cache_dir)

    def release(self, dsn: str) -> None:
        """Release a store; the last release closes it."""
        with self._lock:
            store, users = self._open[dsn]
            if users > 1:
                self._open[dsn] = (store, users - 1)
                return
            del self._open[dsn]
            store.close()

    def _use(self, dsn: str, cache_dir: Path) -> RecordingStore:
        store, users = self._open[dsn] if dsn in self._open else (RecordingStore(dsn, cache_dir), 0)
        self._open[dsn] = (store, users + 1)
        return store


shared = _Shared()


@contextmanager
def shared_store(dsns: Sequence[str], cache_dir: Path) -> Iterator[RecordingStore]:
    """Lend the store of the first of *dsns* that can be opened."""
    dsn, store = shared.acquire(dsns, cache_dir)
    try:
        yield store
    finally:
        shared.release(dsn)


def database_name(recording: Recording) -> str:
    """Return the name of the recording's database, which reveals nothing about its content."""
    return f"{_PREFIX}{recording.sha256[:16]}"


def _ledger(dsn: str, cache_dir: Path) -> Path:
    return cache_dir / "stores" / f"{hashlib.sha256(dsn.encode()).hexdigest()[:16]}.sqlite"
