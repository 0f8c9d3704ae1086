"""Identifies processes across hosts and time. Standard library only: the guardian imports it at start.

A process is identified by its id *and* its start time, since ids are reused, and by host, boot and process
namespace, since an id means nothing elsewhere: containers may share a host name, and a reboot reuses ids.
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
"""States of a process that has ended and waits to be reaped."""


@dataclass(frozen=True)
class Process:
    """One process of one machine. ``started`` is opaque: only equality means anything."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process with this id on this machine; ``started`` is empty when it does not exist."""
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
        """Whether the id is valid here: the same host and process namespace as the calling process."""
        return self.host == platform.node() and self.namespace in {_namespace(), ""}

    @property
    def alive(self) -> bool | None:
        """Whether it runs; None when this host or container cannot know."""
        if self.host == platform.node() and self.boot != _first_line(_PROC / "sys/kernel/random/boot_id"):
            return False  # the machine was rebooted since
        if not self.here:
            return None
        return bool(self.started) and _started(self.pid) == self.started

    @property
    def stopped(self) -> bool:
        """Whether it is stopped, as by SIGSTOP; False where /proc does not say."""
        if not self.alive:
            return False
        try:
            stat = (_PROC / str(self.pid) / "stat").read_text(errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in _STOPPED

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; return False when it has ended.

        Raises PermissionError when it belongs to another user.
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
    """Return the start time in the system's own unit; empty when the process has ended."""
    if not (_PROC / "self").exists():
        return _started_by_ps(pid)
    try:
        # The command's name may contain spaces and brackets, so fields count from the last bracket.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _GONE else fields[19]


def _started_by_ps(pid: int) -> str:
    """Return what ``ps`` says, for systems without /proc; to the second."""
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603 - a number
    except (OSError, subprocess.TimeoutExpired):
        return ""
    state, _, started = shown.strip().partition(" ")
    return "" if state[:1] in _GONE else " ".join(started.split())
