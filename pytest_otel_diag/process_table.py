"""The processes of this machine, as ``/proc`` lists them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_ENDED = (b"Z", b"X")


def running() -> dict[int, int]:
    """Return the id of each process that has not ended → that of its parent; empty without ``/proc``.

    The kernel's own lists of children (``/proc/self/task/*/children``) miss those whose thread ends.
    """
    found: dict[int, int] = {}
    for listed in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent = listed.read_bytes().rpartition(b")")[2].split()[:2]
            if state not in _ENDED:
                found[int(listed.parent.name)] = int(parent)
    return found
