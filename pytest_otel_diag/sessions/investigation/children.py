"""Child processes that an analyzer leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_otel_diag.scoring.text import count

_PROCESSES = Path("/proc")
_ENDED = frozenset("ZX")


def running_children() -> frozenset[int]:
    """Return the ids of the child processes that run; empty where the system has no ``/proc``.

    The kernel's own lists of children (``/proc/self/task/*/children``) miss those whose thread ends.
    """
    own = str(os.getpid())
    found: set[int] = set()
    for listed in _PROCESSES.glob("[0-9]*/stat"):
        try:
            text = listed.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        state, parent, *_ = text.rpartition(")")[2].split()
        if parent == own and state not in _ENDED:
            found.add(int(listed.parent.name))
    return frozenset(found)


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
