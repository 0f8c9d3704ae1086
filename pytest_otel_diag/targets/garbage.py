"""Pauses the collector of reference cycles while simulated sessions run."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_running = 0
_was_enabled = False


@contextmanager
def paused_collector() -> Iterator[None]:
    """Keep the collector from running for the block; blocks on several threads may overlap.

    A simulated session makes hundreds of thousands of objects that live until they are written to the
    store. Traversing them again and again would take a tenth of the session's CPU time. Each block ends
    with a collection of what it left behind, so overlapping sessions do not pile up garbage.
    """
    global _running, _was_enabled  # noqa: PLW0603 - the collector is process-wide, and so is who pauses it
    with _lock:
        if not _running:
            _was_enabled = gc.isenabled()
            gc.disable()
        _running += 1
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if not _running and _was_enabled:
                gc.enable()
        gc.collect(0)
