"""Finds and kills processes of an agent that its supervisor can no longer reach."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from pytest_otel_diag import process_table

VARIABLE = "AGENT_RUN_MARK"
"""Names the run of an agent in the environment of each process that it starts."""

_PAUSE_S = 0.02


async def kill(supervisor: int | None, mark: str, timeout_s: float) -> None:
    """Kill the descendants of *supervisor* and all processes marked *mark*, with theirs, until none is left.

    A process that cleared its environment and whose parents have died is found by neither. Fails silently
    after *timeout_s*, and where there is no ``/proc``.
    """
    deadline_s = time.monotonic() + timeout_s
    while found := _found(supervisor, mark):
        for process in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > deadline_s:
            return
        await asyncio.sleep(_PAUSE_S)


def _found(supervisor: int | None, mark: str) -> set[int]:
    entry = f"{VARIABLE}={mark}".encode()
    parents = process_table.running()
    found = {process for process in parents if entry in _environment(process)}
    family = found if supervisor is None else found | {supervisor}
    while more := {process for process, parent in parents.items() if parent in family} - family:
        family = family | more
    return family - {supervisor, os.getpid()}


def _environment(process: int) -> list[bytes]:
    with suppress(OSError):
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return []
