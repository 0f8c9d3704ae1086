"""A lock between processes, which the operating system releases when its holder is killed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pytest_otel_diag.errors import RecordingError

WAIT_S = 900.0
"""Timeout of the wait for another process that imports or loads the same recording."""


@contextmanager
def exclusive(path: Path, *, wait_s: float = WAIT_S) -> Iterator[sqlite3.Connection]:
    """Hold the lock of the SQLite file *path* and yield the connection, inside a transaction.

    Writes through the connection are committed when the block ends without an exception, and rolled back
    otherwise, also after a kill. Raises RecordingError when the lock is not free within *wait_s* seconds or
    the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(
            f"the cache folder {path.parent} cannot be created ({error.strerror}); choose a writable "
            "folder with --otel-diag-cache"
        ) from error
    with closing(_connect(path, wait_s)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise RecordingError(
                f"{path} is locked for more than {wait_s:.0f} s ({error}); another process is loading the "
                "same recording; wait for it or choose another folder with --otel-diag-cache"
            ) from error
        except sqlite3.DatabaseError as error:
            raise RecordingError(f"{path} is damaged ({error}); remove this cache file") from error
        try:
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def _connect(path: Path, wait_s: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, timeout=wait_s, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise RecordingError(
            f"{path} cannot be opened ({error}); choose a writable folder with --otel-diag-cache"
        ) from error
