"""Calls of the embedded engine that outlived their deadline and still run.

The engine looks at its limits between blocks of rows, so one call of a function over a huge value cannot
be interrupted. Two things would wait for it: dropping a database that it reads, and the end of the process,
which destroys the engine. The first is therefore bounded, and the second skips the destruction.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any

from pytest_otel_diag.daemon import start_daemon

CLOSE_S = 5.0
_lock = threading.Lock()
_running: set[Future[Any]] = set()


def abandon(call: Future[Any]) -> None:
    """Note a call that nobody waits for any more; forget it when it ends."""
    with _lock:
        _running.add(call)
    call.add_done_callback(_ended)
    if not call.done():
        _end_without_destruction()


def abandoned() -> int:
    """Return how many abandoned calls still run in this process."""
    with _lock:
        return len(_running)


def finish(call: Callable[[], None], name: str) -> None:
    """Run *call*, which may have to wait for abandoned calls, for at most five seconds if there are any.

    After that it goes on in a daemon thread. Raises what the call raises.
    """
    if not abandoned():
        call()
        return
    outcome = start_daemon(call, name)
    try:
        outcome.result(CLOSE_S)
    except TimeoutError:
        if outcome.done():
            raise
        abandon(outcome)


def _ended(call: Future[Any]) -> None:
    with _lock:
        _running.discard(call)


@cache
def _end_without_destruction() -> None:
    """Let the process end with its exit code right after Python's own finalization.

    Handlers of ``exit`` run in reverse order, so that this one precedes the destructors of the engine, which
    would wait for the call or crash under it. By then Python has run its ``atexit`` functions and flushed its
    streams. Only glibc has ``on_exit``; elsewhere the process waits for the call.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)
