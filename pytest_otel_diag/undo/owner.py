"""The owner of an environment, described so that other people can act on it."""

from __future__ import annotations

import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from pytest_otel_diag.model.base import Model, Nanos
from pytest_otel_diag.secret import masked_command
from pytest_otel_diag.undo.processes import Process

_COMMAND_LENGTH = 300


class Owner(Model):
    """One run on one machine. ``parent`` is the process that would start another worker in its place."""

    process: Process
    user: str
    command: str
    since_ns: Nanos = Field(ge=0, lt=1 << 63)
    run_id: str = ""
    session_id: str = ""
    worker: str = ""
    parent: Process | None = None

    @classmethod
    def here(cls, *, now_ns: Nanos, run_id: str = "", session_id: str = "", worker: str = "") -> Owner:
        """Return the calling process as owner. *worker* is its name where a controller runs several."""
        return cls(
            process=Process.this(),
            user=_user(),
            command=_command(),
            since_ns=now_ns,
            run_id=run_id,
            session_id=session_id,
            worker=worker,
            parent=Process.of(os.getppid()) if worker else None,
        )

    @property
    def label(self) -> str:
        """One word that is the same for all sessions of the process; remote leases store it."""
        process = self.process
        return f"{self.user}@{process.host}/{process.pid}/{process.started or '-'}"

    @property
    def sentence(self) -> str:
        """User, host, process, start and command, for a person."""
        since = datetime.fromtimestamp(self.since_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        run = f", run {self.run_id}" if self.run_id else ""
        return (
            f"{self.user} on {self.process.host} (process {self.process.pid}{run}) since {since}: "
            f"{self.command}"
        )


def dead_here(label: str) -> bool:
    """Return whether an :attr:`Owner.label` names a process of this machine that has ended.

    False for other machines and for texts that are not labels.
    """
    who, _, rest = label.partition("/")
    pid, _, started = rest.partition("/")
    me = Process.this()
    if who.rpartition("@")[2] != me.host or not pid.isdigit() or not started:
        return False
    return Process.of(int(pid)).started != started


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


def _command() -> str:
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name  # python -m NAME
    words = [name or "python", *sys.argv[1:]]
    return masked_command(words)[:_COMMAND_LENGTH]
