"""The guardian: a small process that takes a fault back when the run that made it no longer can.

``python -m pytest_otel_diag.undo.guardian.process``, started by the client, never by hand. It lives in a
session of its own, so that signals to the run's process group pass it by, and imports nothing heavy until
it has to act. Lines of JSON come in on its standard input: what to ``watch``, ``done``, ``take_over``. The
end of that input, or of the process at the other end, is the run's death.
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

PATIENCE_S = 300.0
"""How long it goes on trying to take a fault back before it leaves that to the next run."""

_STDIN = 0
_LOOK_S = 0.5
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_OOM_SCORE = "-900"
"""Where the kernel lets it, the guardian is among the last to be killed for memory."""

Orders = dict[str, Any]


class Watch:
    """What is watched, and the input that orders come from."""

    def __init__(self, first: Orders, source: int) -> None:
        self.state_dir = Path(first["state_dir"])
        self.opener: str = first["opener"]
        self.import_path: list[str] = first["import_path"]
        self.patience_s: float = first["patience_s"]
        self.parent = Process(**first["parent"])
        self.copy = b""
        self.turn_to(first["watch"], first["deadline_s"])
        self._source = source
        self._buffer = b""
        self._pidfd = _pidfd(self.parent)

    def turn_to(self, entry_id: str, deadline_s: float) -> None:
        """Watch this entry from now on, which is due in *deadline_s* seconds."""
        self.entry_id = entry_id
        with contextlib.suppress(OSError):  # kept: the file may be deleted or cut while its fault is on
            self.copy = (self.state_dir / "journal" / f"{entry_id}.json").read_bytes()
        self.deadline_s = time.monotonic() + deadline_s

    def next(self) -> Orders:
        """Return the next order: what came in, ``{"gone": True}``, or ``{"late": True}`` at the deadline."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                order: Orders = json.loads(line)
                return order
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0:
                return {"late": True}
            wait_s = min(left_s, _LOOK_S if self._pidfd is None else 60.0)
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
    """Return a descriptor that tells of the process's end, None where the system has none for it."""
    try:
        descriptor: int = os.pidfd_open(parent.pid)
    except (OSError, AttributeError):
        return None
    if not parent.alive:  # the id was used again before it could be opened
        os.close(descriptor)
        return None
    return descriptor


def main() -> int:
    """Watch until told that all is done; return 1 when a fault had to be left on."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a shutdown ends the run, and then there may be work
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    with os.fdopen(_STDIN, "rb", buffering=0, closefd=False) as source:  # no buffer: select must see all
        first = source.readline()
    if not first:
        return 0  # whoever started it has died before there was anything to watch
    watch = Watch(json.loads(first), _STDIN)
    _say({"watching": watch.entry_id})
    return _watch(watch)


def _watch(watch: Watch) -> int:
    while True:
        order = watch.next()
        if "done" in order:
            return 0
        if "watch" in order:
            watch.turn_to(order["watch"], order["deadline_s"])
            _say({"watching": watch.entry_id})
        elif "late" in order:
            watch.deadline_s = float("inf")
            _until_done(watch, gone=False)
        else:  # gone, or told to take over
            return 0 if _until_done(watch, gone=True) else 1


def _until_done(watch: Watch, *, gone: bool) -> bool:
    """Take the fault back, again and again for a while; return whether it is gone."""
    give_up_s = time.monotonic() + watch.patience_s
    pause_s = _FIRST_PAUSE_S
    while problem := _act(watch, gone=gone):
        _log(watch, problem)
        if time.monotonic() > give_up_s:
            _log(watch, f"giving up on {watch.entry_id} after {watch.patience_s:g} s; run: otel-diag heal")
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return True


def _act(watch: Watch, *, gone: bool) -> str:
    """Try once; return what went wrong, whatever it was."""
    try:
        rescue = importlib.import_module(
            "pytest_otel_diag.undo.guardian.restore"
        )  # heavy; only now is it needed
        problem: str = rescue.rescue(
            watch.state_dir, watch.entry_id, opener=watch.opener, gone=gone, copy=watch.copy
        )
    except Exception as error:  # an import that fails: tried again, there is nobody else
        problem = f"{watch.entry_id}: {type(error).__name__}: {error}"
    if problem:
        _reach_further(watch)
    return problem


def _reach_further(watch: Watch) -> None:
    """Let the next try import what the run could, a controller of the user's own, say.

    Always behind our own path: a tests folder may hold a ``queue.py``, and the run has it in front.
    """
    sys.path.extend(place for place in watch.import_path if place and place not in sys.path)
    importlib.invalidate_caches()


def _log(watch: Watch, text: str) -> None:
    with contextlib.suppress(OSError):
        log(watch.state_dir, text)


def _say(answer: Orders) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more; the input tells
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
