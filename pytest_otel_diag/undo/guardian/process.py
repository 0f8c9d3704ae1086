"""The guardian: a small process that restores the flags when the run that changed them no longer can.

``python -m pytest_otel_diag.undo.guardian.process``, started by the client, never by hand. It runs in a new
process session, out of reach of signals to the run's process group, and imports nothing heavy until it has to
act. It reads orders as lines of JSON from its standard input: ``watch``, ``done``, ``take_over``. The end of
that input, or of the parent process, means that the run is dead.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pytest_otel_diag.undo.guardian.log import log
from pytest_otel_diag.undo.processes import Process
from pytest_otel_diag.undo.trust import ENTRY_BYTES, read_trusted

RETRY_S = 300.0
"""How long it retries a failed restore before it leaves the fault to the next run."""

_STDIN = 0
_POLL_S = 0.5
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_OOM_SCORE = "-900"
"""Makes the guardian one of the last processes to be killed for memory, where the kernel allows it."""

Orders = dict[str, Any]


class Watch:
    """The watched entry and the source of orders."""

    def __init__(self, first: Orders, source: int) -> None:
        self.state_dir = Path(first["state_dir"])
        self.opener: str = first["opener"]
        self.import_path: list[str] = first["import_path"]
        self.retry_s: float = first["retry_s"]
        self.parent = Process(**first["parent"])
        self.copy = b""
        self.turn_to(first)
        self._source = source
        self._buffer = b""
        self._pidfd = _pidfd(self.parent)

    def turn_to(self, order: Orders) -> None:
        """Watch the entry of the order, whose deadline is in ``deadline_s`` seconds."""
        self.entry_id: str = order["watch"]
        self.access: dict[str, str] | None = order.get("access")
        with contextlib.suppress(OSError):  # the file may be deleted or damaged while its fault is on
            path = self.state_dir / "journal" / f"{self.entry_id}.json"
            self.copy = read_trusted(path, limit_bytes=ENTRY_BYTES)
        self.deadline_s = time.monotonic() + order["deadline_s"]

    def next(self) -> Orders:
        """Return the next order, ``{"gone": True}`` for a dead run or ``{"late": True}`` at the deadline."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                order: Orders = json.loads(line)
                return order
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0:
                return {"late": True}
            wait_s = min(left_s, _POLL_S if self._pidfd is None else 60.0)
            sources = [self._source] if self._pidfd is None else [self._source, self._pidfd]
            ready, _, _ = select.select(sources, [], [], wait_s)
            if self._source in ready:
                data = os.read(self._source, 65_536)
                if not data:
                    return {"gone": True}
                self._buffer += data
            elif not self.parent.alive:
                return {"gone": True}


def _pidfd(parent: Process) -> int | None:
    """Return a descriptor that becomes readable when the process ends; None where there is none."""
    try:
        descriptor: int = os.pidfd_open(parent.pid)
    except (OSError, AttributeError):
        return None
    if not parent.alive:  # the id was used again before it could be opened
        os.close(descriptor)
        return None
    return descriptor


def main() -> int:
    """Watch until the run is done; return 1 when a fault had to be left on."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a shutdown ends the run too, which leaves work to do
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    with os.fdopen(_STDIN, "rb", buffering=0, closefd=False) as source:  # unbuffered, for select
        first = source.readline()
    if not first:
        return 0  # the run died before it gave an order
    watch = Watch(json.loads(first), _STDIN)
    _say({"watching": watch.entry_id})
    return _watch(watch)


def _watch(watch: Watch) -> int:
    while True:
        order = watch.next()
        if "done" in order:
            return 0
        if "watch" in order:
            watch.turn_to(order)
            _say({"watching": watch.entry_id})
        elif "late" in order:
            watch.deadline_s = float("inf")
            _restore_with_retries(watch, gone=False)
        else:  # gone, or an order to take over
            return 0 if _restore_with_retries(watch, gone=True) else 1


def _restore_with_retries(watch: Watch, *, gone: bool) -> bool:
    """Restore the flags, with retries for a while; return whether the fault is off."""
    give_up_s = time.monotonic() + watch.retry_s
    pause_s = _FIRST_PAUSE_S
    while problem := _act(watch, gone=gone):
        _log(watch, problem)
        if time.monotonic() > give_up_s:
            _log(watch, f"giving up on {watch.entry_id} after {watch.retry_s:g} s; run: otel-diag heal")
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return True


def _act(watch: Watch, *, gone: bool) -> str:
    """Try once; return what went wrong, empty on success."""
    try:
        # Heavy, and rarely needed.
        restore = importlib.import_module("pytest_otel_diag.undo.guardian.restore")
        problem: str = restore.restore_watched(
            watch.state_dir,
            watch.entry_id,
            opener=watch.opener,
            gone=gone,
            copy=watch.copy,
            access=watch.access,
        )
    except Exception as error:  # even a failed import is retried: nobody else will do it
        problem = f"{watch.entry_id}: {type(error).__name__}: {error}"
    if problem:
        _extend_import_path(watch)
    return problem


def _extend_import_path(watch: Watch) -> None:
    """Let the next attempt import what the run could, such as a controller of the user's.

    The run's path is appended, since a tests folder at its front may hold a ``queue.py``.
    """
    sys.path.extend(place for place in watch.import_path if place and place not in sys.path)
    importlib.invalidate_caches()


def _log(watch: Watch, text: str) -> None:
    with contextlib.suppress(OSError):
        log(watch.state_dir, text)


def _say(answer: Orders) -> None:
    with contextlib.suppress(OSError):  # the run is gone, which the end of the input shows
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
