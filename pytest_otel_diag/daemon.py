"""Starts daemon threads whose objects do not lead to their work.

``threading.Thread`` keeps its target until the thread ends, so any code of the process could walk from
``threading.enumerate()`` to what a session knows, an analyzer under test included.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Run *work* in a new daemon thread and return the thread."""
    handed = [work]
    thread = threading.Thread(target=_run, args=(handed,), name=name, daemon=True)
    thread.start()
    return thread


def _run(handed: list[Callable[[], object]]) -> None:
    handed.pop()()
