"""Which process is meant, and whether it still lives. Standard library only: the guardian starts with it.

A process is named by its id *and* its start, since ids are used again, and by host, boot and process
namespace, since an id says nothing elsewhere: containers share a host's name, and a reboot starts anew.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STOPPED = frozenset("Tt")
_GONE = frozenset("ZXx")
"""States of a process that has ended and only waits to be collected."""


@dataclass(frozen=True)
class Process:
    """One process of one machine. ``started`` is opaque: it only ever compares with itself."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process with this id on this machine; ``started`` is empty when there is none."""
        return cls(
            host=platform.node(),
            boot=_first_line(_PROC / "sys/kernel/random/boot_id"),
            namespace=_namespace(),
            pid=pid,
            started=_started(pid),
        )

    @classmethod
    def this(cls) -> Process:
        """Return the calling process."""
        return cls.of(os.getpid())

    @property
    def here(self) -> bool:
        """Whether its id means something to the calling process: the same host and process namespace."""
        return self.host == platform.node() and self.namespace in {_namespace(), ""}

    @property
    def alive(self) -> bool | None:
        """Whether it runs; None when that cannot be told from here (another host or container)."""
        if self.host == platform.node() and self.boot != _first_line(_PROC / "sys/kernel/random/boot_id"):
            return False  # the machine was started anew since
        if not self.here:
            return None
        return bool(self.started) and _started(self.pid) == self.started

    @property
    def stopped(self) -> bool:
        """Whether it is there, but was stopped, by SIGSTOP say; False where /proc does not tell."""
        if not self.alive:
            return False
        try:
            stat = (_PROC / str(self.pid) / "stat").read_text(errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in _STOPPED

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; return whether it was there to get one, and was the same process.

        Raises PermissionError when it belongs to somebody else.
        """
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when the process began, in whatever unit the system counts; empty when it has ended."""
    if not (_PROC / "self").exists():
        return _started_by_ps(pid)
    try:
        # The name of the command may hold spaces and brackets: what follows the last one is counted.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _GONE else fields[19]


def _started_by_ps(pid: int) -> str:
    """Ask ``ps``, where there is no /proc; to the second."""
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603 - a number
    except (OSError, subprocess.TimeoutExpired):
        return ""
    state, _, started = shown.strip().partition(" ")
    return "" if state[:1] in _GONE else " ".join(started.split())
