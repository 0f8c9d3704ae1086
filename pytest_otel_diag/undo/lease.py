"""One runner at a time: a lock of this machine, and the one of the environment itself where it has any.

The lock is the kernel's (``flock``), so that it is free as soon as every process that holds it has ended. The
guardian holds it too: the environment stays taken until a killed run's fault is really back. The file says
who has it, for whoever waits.
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
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import FlagError, Occupied
from pytest_otel_diag.flags.surface import RemoteLease
from pytest_otel_diag.ports import tell_waiting
from pytest_otel_diag.undo.disk import FOLDER_MODE
from pytest_otel_diag.undo.owner import Owner, dead_here
from pytest_otel_diag.undo.processes import Process

Tell = Callable[[str], None]

_FILE_MODE = 0o644
_POLL_S = 0.2
_REMOTE_POLL_S = 1.0
_GIVE_BACK_S = 10.0
_LONGEST_TEXT = 65_536

REMOTE_S = 60.0
"""How long a lease elsewhere lasts unless it is renewed, which happens three times in that time."""


class Lease:
    """The lock of one environment, held. ``descriptor`` is what a child inherits to hold it as well."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._text: dict[str, Any] = {}
        _HELD.add(self)

    @classmethod
    def take(cls, state_dir: Path, identity: str, owner: Owner) -> Lease | None:
        """Take the lock, or return None when somebody holds it; raises FlagError for a bad folder."""
        path = lease_path(state_dir, identity)
        try:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            raise FlagError(
                f"the lease {path} cannot be opened ({error.strerror}); give a folder that may be written "
                "with --otel-diag-state, the same for all runs of this machine"
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
        """Write who holds it, for those who wait."""
        self._text = {"identity": identity, "owner": owner.model_dump(mode="json")}
        self._write()

    def guarded_by(self, guardian: Process) -> None:
        """Write which process holds it as well, for who finds the owner dead and the lock taken."""
        self._text["guardian"] = dataclasses.asdict(guardian)
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._text).encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text, 0)

    def forsake(self) -> None:
        """Let go of it in a forked child, which is not the run and must not outlive its lock."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1

    def release(self) -> None:
        """Give it back, also for children that inherited it. The file stays: others may wait on it."""
        if self.descriptor < 0:
            return
        _HELD.discard(self)
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)

    def leave(self) -> None:
        """Let go of it in this process only: a child that inherited it goes on holding it."""
        if self.descriptor < 0:
            return
        _HELD.discard(self)
        os.close(self.descriptor)


_HELD: weakref.WeakSet[Lease] = weakref.WeakSet()
"""The locks of this process. A fork inherits them; the guardian does so by its own way, not by a fork."""


def _forsake_all() -> None:
    for lease in list(_HELD):
        lease.forsake()


os.register_at_fork(after_in_child=_forsake_all)


def lease_path(state_dir: Path, identity: str) -> Path:
    """Return the file of the environment's lock."""
    return state_dir / "leases" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.lease"


def holder(path: Path) -> Owner | None:
    """Return who says in the file to hold the lock; None when nobody does, or it is just being written."""
    try:
        return Owner.model_validate(json.loads(path.read_bytes()[:_LONGEST_TEXT])["owner"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def wake_guardian(path: Path) -> bool:
    """Let a stopped guardian of a dead owner go on; return whether there was one.

    Who stops every process of a run stops its guardian too, and it would hold the lock for ever.
    """
    owner = holder(path)
    if owner is None or owner.process.alive is not False:
        return False
    try:
        guardian = Process(**json.loads(path.read_bytes()[:_LONGEST_TEXT])["guardian"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    with contextlib.suppress(PermissionError):
        return guardian.stopped and guardian.send(signal.SIGCONT)
    return False


def held(state_dir: Path) -> Iterator[Owner]:
    """Yield the owners of the locks that are held now."""
    for path in sorted((state_dir / "leases").glob("*.lease")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = holder(path)
                if owner is not None:
                    yield owner


def described(path: Path) -> str:
    """Return who holds the lock in a sentence, and whether that is only a dead run's guardian."""
    owner = holder(path)
    if owner is None:
        return f"somebody who has not signed {path}"
    if owner.process.alive is False:
        return f"{owner.sentence} (it has ended; its guardian is taking its fault back)"
    return owner.sentence


class _Waiting:
    """Who is waited for, told when that changes: to the session by the port, to people by *tell*."""

    def __init__(self, wait_s: float, tell: Tell) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self._wait_s = wait_s
        self._tell = tell
        self._told = ""

    @property
    def waited_s(self) -> float:
        return self._loop.time() - self._begun_s

    @property
    def over(self) -> bool:
        return self.waited_s >= self._wait_s

    async def pause(self, text: str, seconds: float) -> None:
        if text != self._told:
            self._told = text
            self._tell(f"waiting: {text}")
            tell_waiting(text)
        await asyncio.sleep(min(seconds, max(0.01, self._wait_s - self.waited_s)))

    def end(self) -> None:
        if self._told:
            tell_waiting("")


async def wait_for(state_dir: Path, identity: str, owner: Owner, *, wait_s: float, tell: Tell) -> Lease:
    """Take the lock of the environment, waiting up to *wait_s* wall seconds; *tell* hears who has it.

    Raises Occupied that names who holds it.
    """
    waiting = _Waiting(wait_s, tell)
    try:
        return await _taken(state_dir, identity, owner, waiting)
    finally:
        waiting.end()


async def _taken(state_dir: Path, identity: str, owner: Owner, waiting: _Waiting) -> Lease:
    while (lease := Lease.take(state_dir, identity, owner)) is None:
        wake_guardian(lease_path(state_dir, identity))
        who = described(lease_path(state_dir, identity))
        if waiting.over:
            raise Occupied(
                f"{identity} is held by {who}; waited {waiting.waited_s:.0f} s. Wait for it, stop it, or "
                "allow more with --otel-diag-lease-wait-s"
            )
        await waiting.pause(f"{identity} is held by {who}", _POLL_S)
    return lease


class Renewal:
    """A lease elsewhere while it is held: ``lost`` names who has it now, when that is somebody else.

    With ``keep`` it is not given back at the end but left to run out: the fault is still on.
    """

    lost = ""
    keep = False


@asynccontextmanager
async def remote(
    lease: RemoteLease | None, owner: Owner, *, wait_s: float, tell: Tell, seconds: float = REMOTE_S
) -> AsyncIterator[Renewal]:
    """Hold the environment's own lease, renewed while the block runs; does nothing where there is none.

    A lease of a run of this machine that has ended is taken over. Raises Occupied after *wait_s*.
    """
    renewal = Renewal()
    if lease is None:
        yield renewal
        return
    await _acquire(lease, owner.label, wait_s=wait_s, tell=tell, seconds=seconds)
    task = asyncio.get_running_loop().create_task(_renew(lease, owner.label, seconds, renewal))
    try:
        yield renewal
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not renewal.keep:
            await _give_back(lease, owner.label, seconds, tell)


async def _give_back(lease: RemoteLease, label: str, seconds: float, tell: Tell) -> None:
    try:
        async with asyncio.timeout(_GIVE_BACK_S):
            await lease.release(label)
    except (FlagError, OSError, TimeoutError) as error:
        tell(f"the lease of {label} could not be given back ({error}); it ends after {seconds:g} s")


async def _acquire(lease: RemoteLease, label: str, *, wait_s: float, tell: Tell, seconds: float) -> None:
    waiting = _Waiting(wait_s, tell)
    try:
        await _acquired(lease, label, waiting, tell=tell, seconds=seconds)
    finally:
        waiting.end()


async def _acquired(lease: RemoteLease, label: str, waiting: _Waiting, *, tell: Tell, seconds: float) -> None:
    while (other := await lease.acquire(label, seconds=seconds)) is not None:
        if dead_here(other):
            tell(f"taking over the lease of {other}, which has ended")
            await lease.release(other)
            if await lease.acquire(label, seconds=seconds) is None:
                return
        if waiting.over:
            raise Occupied(
                f"the environment is held by {other} on another host or in another container; waited "
                f"{waiting.waited_s:.0f} s. Wait for it, or allow more with --otel-diag-lease-wait-s"
            )
        await waiting.pause(f"the environment is held by {other}", _REMOTE_POLL_S)


async def _renew(lease: RemoteLease, label: str, seconds: float, renewal: Renewal) -> None:
    loop = asyncio.get_running_loop()
    good_until_s = loop.time() + seconds
    while True:
        await asyncio.sleep(seconds / 3)
        begun_s = loop.time()
        try:
            async with asyncio.timeout(seconds / 3):
                other = await lease.acquire(label, seconds=seconds)
        except (FlagError, OSError, TimeoutError):
            if loop.time() > good_until_s:
                renewal.lost = "nobody that can be asked: it could not be renewed in time"
            continue
        renewal.lost = other or ""
        if other is None:
            good_until_s = begun_s + seconds
