"""Child processes that an analyzer leaves behind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pytest_otel_diag.scoring.text import count

_TASKS = Path("/proc/self/task")


def running_children() -> frozenset[int]:
    """Return the ids of the child processes that run; empty where the system has no ``/proc`` for that."""
    found: set[int] = set()
    for listed in _TASKS.glob("*/children"):
        with suppress(OSError, ValueError):  # a thread that has ended meanwhile
            found.update(map(int, listed.read_text(encoding="ascii").split()))
    return frozenset(pid for pid in found if _state(pid) not in {"", "Z", "X"})


def _state(pid: int) -> str:
    """Return the state of a process as one letter, '' for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


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
