"""One run at a time on this machine: a file lock per environment; :mod:`remote_lease` is for other hosts.

The lock is a ``flock``, so the kernel frees it once every process that holds it has ended. The guardian holds
it too, so the environment stays taken until the fault of a killed run is restored. The file names the holder
for runs that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import FlagError, Occupied
from pytest_otel_diag.files import open_regular
from pytest_otel_diag.ports import report_waiting
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process
from pytest_otel_diag.undo.trust import check_state_folder, read_trusted

Notify = Callable[[str], None]
"""Gets a sentence that a person should read."""

_FILE_MODE = 0o644
_POLL_S = 0.2
_LONGEST_TEXT = 65_536


class Lease:
    """The held lock of one environment. A child process that inherits ``descriptor`` holds it as well."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._text: dict[str, Any] = {}
        _HELD.add(self)

    @classmethod
    def take(cls, state_dir: Path, identity: str, owner: Owner) -> Lease | None:
        """Take the lock; return None when it is held. Raises FlagError for a folder that cannot be used."""
        path = lease_path(state_dir, identity)
        try:
            Disk().folder(path.parent)
            check_state_folder(state_dir, path.parent.name)
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, follow=False, mode=_FILE_MODE)
        except OSError as error:
            raise FlagError(
                f"the lease {path} cannot be opened ({error.strerror}); name a writable folder with "
                "--otel-diag-state, the same one for all runs on this machine"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        lease = cls(path, descriptor)
        lease.sign(identity, owner)
        return lease

    def sign(self, identity: str, owner: Owner) -> None:
        """Write the holder into the file, for runs that wait."""
        self._text = {"identity": identity, "owner": owner.model_dump(mode="json")}
        self._write()

    def guarded_by(self, guardian: Process) -> None:
        """Write which guardian holds it too, for runs that find the owner dead and the lock taken."""
        self._text["guardian"] = dataclasses.asdict(guardian)
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._text).encode()
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only its holder stays unnamed
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, text, 0)

    def close_in_fork(self) -> None:
        """Close it in a forked child, which is not the run and must not prolong its lock."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1

    def release(self) -> None:
        """Release it, for children that inherited it too. The file stays, since others may wait for it."""
        if self.descriptor < 0:
            return
        _HELD.discard(self)
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)

    def leave(self) -> None:
        """Close it in this process only; a child that inherited it still holds it."""
        if self.descriptor < 0:
            return
        _HELD.discard(self)
        os.close(self.descriptor)


_HELD: weakref.WeakSet[Lease] = weakref.WeakSet()
"""The locks of this process. A fork inherits them by accident; the guardian gets its lock explicitly."""


def _close_all_in_fork() -> None:
    for lease in list(_HELD):
        lease.close_in_fork()


os.register_at_fork(after_in_child=_close_all_in_fork)


def lease_path(state_dir: Path, identity: str) -> Path:
    """Return the lock file of the environment."""
    return state_dir / "leases" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.lease"


def holder(path: Path) -> Owner | None:
    """Return the owner that the lock file names; None for a free lock or while the file is written."""
    try:
        return Owner.model_validate(_signed(path)["owner"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None


def _signed(path: Path) -> Any:
    """Return what the holder wrote into the lock file; raises OSError, ValueError, RecursionError.

    Another user's text is not used, since the processes that it names get signals.
    """
    check_state_folder(path.parents[1], path.parent.name)
    return json.loads(read_trusted(path, limit_bytes=_LONGEST_TEXT))


def wake_guardian(path: Path) -> bool:
    """Continue the stopped guardian (SIGSTOP) of a dead owner; return whether one was found.

    Stopping every process of a run stops its guardian too, which would then hold the lock for ever.
    """
    owner = holder(path)
    if owner is None or owner.process.alive is not False:
        return False
    try:
        guardian = Process(**_signed(path)["guardian"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    with contextlib.suppress(PermissionError):
        return guardian.stopped and guardian.send(signal.SIGCONT)
    return False


def lease_holders(state_dir: Path) -> Iterator[Owner]:
    """Yield the owners of all locks that are held now."""
    for path in sorted((state_dir / "leases").glob("*.lease")):
        with contextlib.suppress(OSError), os.fdopen(open_regular(path, follow=False), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = holder(path)
                if owner is not None:
                    yield owner


def describe_holder(path: Path) -> str:
    """Return who holds the lock, and whether that is only the guardian of a dead run."""
    owner = holder(path)
    if owner is None:
        return f"a process that has not signed {path} yet"
    if owner.process.alive is False:
        return f"{owner.sentence} (it has ended; its guardian is restoring the flags)"
    return owner.sentence


class Waiting:
    """A bounded wait for a holder: each new holder is reported to the session and by *notify*."""

    def __init__(self, wait_s: float, notify: Notify) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self._wait_s = wait_s
        self._notify = notify
        self._reported = ""

    @property
    def waited_s(self) -> float:
        """How long the wait has taken, in seconds."""
        return self._loop.time() - self._begun_s

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.waited_s >= self._wait_s

    async def pause(self, text: str, seconds: float) -> None:
        """Report *text*, unless it was the last report, and sleep."""
        if text != self._reported:
            self._reported = text
            self._notify(f"waiting: {text}")
            report_waiting(text)
        await asyncio.sleep(min(seconds, max(0.01, self._wait_s - self.waited_s)))

    def end(self) -> None:
        """Report that the wait is over."""
        if self._reported:
            report_waiting("")


async def wait_for(state_dir: Path, identity: str, owner: Owner, *, wait_s: float, notify: Notify) -> Lease:
    """Take the lock of the environment, waiting up to *wait_s* seconds; raises Occupied with the holder."""
    waiting = Waiting(wait_s, notify)
    try:
        return await _taken(state_dir, identity, owner, waiting)
    finally:
        waiting.end()


async def _taken(state_dir: Path, identity: str, owner: Owner, waiting: Waiting) -> Lease:
    while (lease := Lease.take(state_dir, identity, owner)) is None:
        wake_guardian(lease_path(state_dir, identity))
        who = describe_holder(lease_path(state_dir, identity))
        if waiting.over:
            raise Occupied(
                f"{identity} is held by {who}; waited {waiting.waited_s:.0f} s. Wait for that run, stop it, "
                "or raise --otel-diag-lease-wait-s"
            )
        await waiting.pause(f"{identity} is held by {who}", _POLL_S)
    return lease
