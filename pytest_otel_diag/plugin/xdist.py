"""Keeps sessions of workers of pytest-xdist on disk until a report has brought them to the controller.

A report that the controller never reads (the worker is killed, the run is interrupted) would take its
sessions with it. Each worker that runs sessions also writes its process id here, so that the controller can
ask it to end; a worker without that file has nothing to wait for. Imports pytest and the standard library
only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

INPUT = "otel_diag_spool"
"""Key of the folder in the input of a worker."""

_TICK_S = 0.05


class WorkerSpool:
    """The worker's side, a plugin of its pytest; creates the folder."""

    def __init__(self, folder: Path, worker: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._sessions = folder / f"{worker}.jsonl"
        self._pid = folder / f"{worker}.pid"
        self._pid.write_text(str(os.getpid()), encoding="ascii")

    def add(self, text: str) -> None:
        """Keep one ended session, given as JSON."""
        with self._sessions.open("a", encoding="utf-8") as stream:
            stream.write(f"{text}\n")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Let the controller know that every session of this worker has ended."""
        self._pid.unlink(missing_ok=True)


SPOOL: pytest.StashKey[WorkerSpool] = pytest.StashKey()
"""On the config of a worker: where ended sessions are kept until the controller has them."""


def keep_sessions(config: pytest.Config) -> None:
    """Keep the sessions of this process on disk, if it is a worker whose controller asks for that."""
    given = getattr(config, "workerinput", {})
    if INPUT in given and SPOOL not in config.stash:
        spool = config.stash[SPOOL] = WorkerSpool(Path(given[INPUT]), given["workerid"])
        config.pluginmanager.register(spool, "otel-diag-spool")


class Spool:
    """The controller's side."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.gettempdir()) / f"otel-diag-{os.getpid()}-{secrets.token_hex(4)}"

    def workers(self) -> dict[Path, int]:
        """Return the workers that may still run sessions, as their file and process id."""
        found = {}
        for file in self.folder.glob("*.pid"):
            with suppress(OSError, ValueError):
                pid = int(file.read_text(encoding="ascii"))
                os.kill(pid, 0)
                found[file] = pid
        return found

    def end(self, *, timeout_s: float, grace_s: float = 0.0) -> None:
        """Ask the workers to end, and wait until each has undone its fault; at most *timeout_s*.

        Those that end by themselves within *grace_s* are not asked.
        """
        self._wait(grace_s)
        for pid in self.workers().values():
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        self._wait(timeout_s)

    def _wait(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while self.workers() and time.monotonic() < deadline_s:
            time.sleep(_TICK_S)

    def texts(self) -> Iterator[str]:
        """Return the sessions that workers kept, as JSON; a line that a kill tore is left out."""
        for file in sorted(self.folder.glob("*.jsonl")):
            yield from file.read_text(encoding="utf-8").split("\n")[:-1]

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
