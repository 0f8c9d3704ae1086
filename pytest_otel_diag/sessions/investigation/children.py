"""Child processes that an analyzer leaves behind."""

from __future__ import annotations

import os

from pytest_otel_diag import process_table
from pytest_otel_diag.scoring.text import count


def running_children() -> frozenset[int]:
    """Return the ids of the child processes that run; empty where the system has no ``/proc``."""
    own = os.getpid()
    return frozenset(process for process, parent in process_table.running().items() if parent == own)


def left_behind(before: frozenset[int]) -> str:
    """Return a sentence about the children that were not there *before*, '' for none."""
    new = sorted(running_children() - before)
    if not new:
        return ""
    ids = ", ".join(map(str, new))
    left = (
        f"{count(len(new), 'child process', 'child processes')} of the investigation still running after it"
    )
    return f"{left} (process id {ids}); let the analyzer end what it starts"
