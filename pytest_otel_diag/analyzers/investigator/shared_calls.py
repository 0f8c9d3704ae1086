"""What the processes of a run share about calls of models: money, waits that providers ask for, preflights.

It is an SQLite file in the folder of the run, which the operating system unlocks when a process is killed. A
reservation of a killed process stays: its call may have been charged.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_otel_diag.errors import OtelDiagError, SpendingLimitReached

FILE = "model-calls.sqlite"
"""Name of the file in the folder of a run."""

_BUSY_S = 60.0
_TABLES = (
    "CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY, model TEXT NOT NULL, usd REAL NOT NULL,"
    " open INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS waits (model TEXT PRIMARY KEY, until_s REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS preflights (model TEXT PRIMARY KEY, since_s REAL NOT NULL, outcome TEXT,"
    " words TEXT NOT NULL DEFAULT '')",
)


@dataclass(frozen=True)
class PreflightOutcome:
    """How a preflight ended: ``ok`` or the kind of its error, and the words of the latter."""

    outcome: str
    words: str = ""


class SharedCalls:
    """The file in the folder *run*; without a folder, a database of this object alone."""

    def __init__(self, run: Path | None) -> None:
        self._file = None if run is None else run / FILE
        self._lock = threading.Lock()
        self._own: sqlite3.Connection | None = None

    def reserve(self, model: str, usd: float, most_usd: float | None) -> int:
        """Reserve money for a call and return its id; raises SpendingLimitReached beyond *most_usd*."""
        with self._transaction() as database:
            spent = _total(database)
            if most_usd is not None and spent + usd > most_usd:
                raise SpendingLimitReached(
                    f"--otel-diag-max-cost={most_usd:g}: {spent:.4g} USD of the run are spent or reserved, "
                    f"and the next call of {model} may cost {usd:.4g} USD"
                )
            row = database.execute("INSERT INTO calls (model, usd, open) VALUES (?, ?, 1)", (model, usd))
            return int(row.lastrowid or 0)

    def settle(self, call: int, usd: float) -> None:
        """Replace the reservation of a call by what it cost."""
        with self._transaction() as database:
            database.execute("UPDATE calls SET usd = ?, open = 0 WHERE id = ?", (usd, call))

    def spent_usd(self) -> float:
        """Return the money that is spent or reserved so far."""
        with self._transaction() as database:
            return _total(database)

    def wait_until(self, model: str, until_s: float) -> None:
        """Let every process wait with its next call of the model until this wall time, in seconds."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO waits VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET until_s ="
                " max(until_s, excluded.until_s)",
                (model, until_s),
            )

    def waits_until_s(self, model: str) -> float:
        """Return the wall time in seconds before which the model must not be called; 0 for any time."""
        with self._transaction() as database:
            row = database.execute("SELECT until_s FROM waits WHERE model = ?", (model,)).fetchone()
        return float(row[0]) if row else 0.0

    def begin_preflight(self, model: str, now_s: float, patience_s: float) -> PreflightOutcome | None:
        """Return how the preflight of the model ended; None where the caller has to make it now.

        One that another process began is waited for: the outcome is '' until it ends. One that began more
        than *patience_s* ago belongs to a process that is gone.
        """
        with self._transaction() as database:
            row = database.execute(
                "SELECT since_s, outcome, words FROM preflights WHERE model = ?", (model,)
            ).fetchone()
            if row is None or (row[1] is None and now_s - row[0] > patience_s):
                database.execute("INSERT OR REPLACE INTO preflights VALUES (?, ?, NULL, '')", (model, now_s))
                return None
            return PreflightOutcome(row[1] or "", row[2])

    def end_preflight(self, model: str, outcome: PreflightOutcome) -> None:
        """Let every process know how the preflight of the model ended."""
        with self._transaction() as database:
            database.execute(
                "UPDATE preflights SET outcome = ?, words = ? WHERE model = ?",
                (outcome.outcome, outcome.words, model),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the database within one transaction that no other process runs beside."""
        try:
            with self._lock, self._connected() as database:
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise OtelDiagError(f"{self._file}: {error}; choose another folder for reports") from error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._file is None:
            if self._own is None:
                self._own = _connect(":memory:")
            yield self._own
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(self._file)) as database:
            yield database


def _connect(place: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(place, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    for table in _TABLES:
        database.execute(table)
    return database


def _total(database: sqlite3.Connection) -> float:
    return float(database.execute("SELECT coalesce(sum(usd), 0) FROM calls").fetchone()[0])
