"""Runs one command and leaves no process of it behind; a program for ``python -I -S``, standard library only.

Arguments: file descriptor of the control pipe, seconds between SIGTERM and SIGKILL, memory limit in bytes (0:
none), folder, then the command. The command runs until it ends or the control pipe is closed, which also
happens when the process that holds it dies; then the folder is removed too. The exit code is that of the
command, 128 plus the number of the signal that ended it, or 127 where it cannot be started.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.01
_NOT_STARTED = 127


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code of this process."""
    control, grace_s, memory_bytes = int(arguments[0]), float(arguments[1]), int(arguments[2])
    folder, command = Path(arguments[3]), arguments[4:]
    os.set_inheritable(control, False)
    with suppress(OSError, AttributeError):  # orphans of the command become children of this process
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _ignore)
    agent = os.fork()
    if agent == 0:
        _become(command, memory_bytes)
    for stream in range(3):  # so that the reader sees the end of the output once the command has ended
        with suppress(OSError):
            os.close(stream)
    code = _wait(agent, control, woken)
    if code is None:
        code = _terminated(agent, grace_s)
        _kill_all()
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _kill_all()
    return code


def _ignore(number: int, frame: FrameType | None) -> None:
    """Handle SIGCHLD, so that its number is written to the wakeup pipe."""


def _become(command: list[str], memory_bytes: int) -> NoReturn:
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        os.execvp(command[0], command)  # noqa: S606 - the command that the user named
    except Exception as error:
        os.write(2, f"cannot start {command[0]}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(_NOT_STARTED)


def _wait(agent: int, control: int, woken: int) -> int | None:
    """Return the exit code of the command, None once the control pipe is closed."""
    while True:
        code = _reap(agent)
        if code is not None:
            return code
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 512)
        if control in ready:
            return None


def _reap(agent: int) -> int | None:
    """Reap the children that have ended; return the exit code of *agent* if it is among them."""
    found = None
    with suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            if child == agent:
                code = os.waitstatus_to_exitcode(status)
                found = code if code >= 0 else 128 - code
    return found


def _terminated(agent: int, grace_s: float) -> int:
    """Ask every descendant to end; return the exit code of the command, that of SIGKILL where it goes on."""
    _signal_all(signal.SIGTERM)
    deadline_s = time.monotonic() + grace_s
    code = None
    while code is None and time.monotonic() < deadline_s:
        time.sleep(_PAUSE_S)
        code = _reap(agent)
    return 128 + signal.SIGKILL if code is None else code


def _kill_all() -> None:
    """Kill every descendant until none is left; those of the dead become children of this process."""
    while True:
        _signal_all(signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(_PAUSE_S)
        except ChildProcessError:
            return


def _signal_all(number: signal.Signals) -> None:
    for process in list(_descendants(os.getpid())):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def _descendants(process: int) -> Iterator[int]:
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, listed.read_text(encoding="ascii").split()):
                yield child
                yield from _descendants(child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
