"""Removes what killed processes left of stores in memory.

chDB keeps a store "in memory" in a folder of the temporary folder, and removes that at the end of the
process, unless it is killed. Nothing can open such a folder again. The engine locks the file ``status`` in
it as long as it runs, in any container, so the folder of a running process is recognized by its lock.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.files import open_regular

_FOLDER = re.compile(r"clickhouse-embedded-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@cache
def start_removing_dead_stores() -> None:
    """Remove them in a daemon thread, once a process."""
    start_thread(remove_dead_stores, "otel-diag leftovers")


def remove_dead_stores(folder: Path | None = None) -> int:
    """Remove the stores in memory of this user whose processes have ended; return how many were removed.

    *folder* is the temporary folder by default. Raises nothing.
    """
    removed = 0
    with suppress(OSError):
        for store in Path(tempfile.gettempdir() if folder is None else folder).iterdir():
            with suppress(OSError):
                if _FOLDER.fullmatch(store.name) and _dead(store):
                    shutil.rmtree(store)
                    removed += 1
    return removed


def _dead(store: Path) -> bool:
    """Return whether an engine has run in the folder and has ended; raises OSError."""
    if store.is_symlink() or store.stat().st_uid != os.geteuid():
        return False
    descriptor = open_regular(store / "status", follow=False)
    try:
        if not os.fstat(descriptor).st_size:
            return False  # the engine locks the file before it writes it
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
