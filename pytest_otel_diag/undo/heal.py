"""Heals what dead runs left behind: restores the flags of their open journal entries.

An entry may be healed once the lease of its environment is free and its owner is dead; see :func:`liveness`.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from pytest_otel_diag.errors import FlagError, Occupied, OtelDiagError, RestoreFailed
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.journal import Damaged, Entry, Foreign, Journal, State
from pytest_otel_diag.undo.lease import Lease, Notify, describe_holder, lease_path, wake_guardian
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process
from pytest_otel_diag.undo.remote_lease import release_left
from pytest_otel_diag.undo.restore import Restored, restore_entry
from pytest_otel_diag.undo.verify import RestoreLimits

T = TypeVar("T")

GUARDIAN_S = 30.0
"""How long a guardian that was stopped (SIGSTOP) may take to restore its fault once it continues."""


class Opener(Protocol):
    """Opens the flags that an entry names; ``flags.access.open_flags`` is one."""

    def __call__(self, access: FlagAddress, *, now: Callable[[], Nanos]) -> SurfaceFlags:
        """Return the flags; raises ConfigurationError."""
        ...


class HealOutcome(StrEnum):
    """What happened to one entry. Only RESTORED proves that the fault is off.

    UNPROVEN, only where it is allowed: the document was restored, but flagd did not answer. FOREIGN: another
    user could have written the entry, so nothing in it was used.
    """

    RESTORED = "restored"
    UNPROVEN = "unproven"
    WOULD_RESTORE = "would restore"
    ALIVE = "owner alive"
    OTHER_HOST = "other host"
    FAILED = "failed"
    DAMAGED = "damaged"
    FOREIGN = "not trusted"


@dataclass(frozen=True)
class Healed:
    """One entry of the journal and what happened to it. ``faults`` reads ``flag=variant, …``."""

    entry_id: str
    identity: str
    faults: str
    outcome: HealOutcome
    detail: str

    @property
    def gone(self) -> bool:
        """Whether the fault is proven to be off."""
        return self.outcome is HealOutcome.RESTORED


class Liveness(StrEnum):
    """Whether the owner of a free lease still runs."""

    DEAD = "dead"
    ALIVE = "alive"
    UNKNOWN = "unknown"


def liveness(owner: Owner) -> Liveness:
    """Return whether an owner still runs, given that the lease of its environment is free.

    The lease is a lock of the kernel: on the machine that took it, in any container, a free lease means that
    the owner has ended, unless its file was deleted. On other machines it means nothing.
    """
    process, this = owner.process, Process.this()
    if process == this:
        return Liveness.DEAD  # a session of this very process that could not undo its fault
    alive = process.alive
    if alive is None:
        return Liveness.DEAD if process.boot and process.boot == this.boot else Liveness.UNKNOWN
    return Liveness.ALIVE if alive else Liveness.DEAD


def heal_command(state_dir: Path) -> str:
    """Return the command that restores what is left on."""
    return f"otel-diag heal --state {shlex.quote(str(state_dir))}"


async def with_flags(
    entry: Entry,
    opener: Opener,
    work: Callable[[Entry, SurfaceFlags], Awaitable[T]],
    known: FlagAddress | None = None,
) -> T:
    """Open the flags of the entry, run *work* on them and close them.

    *known* has the credentials of the same address, which no journal stores. Raises FlagError without them.
    """
    access = entry.access if known is None else entry.access.completed_by(known)
    if not access.complete:
        raise FlagError(
            f"the journal stores no credentials, so {access.control}, served by {access.served}, cannot be "
            "opened; name the same addresses with --flags and --flagd, or with --frontend, or with "
            "OTEL_DIAG_FLAGS, OTEL_DIAG_FLAGD and OTEL_DIAG_FRONTEND"
        )
    flags = opener(access, now=time.time_ns)
    try:
        return await work(entry, flags)
    finally:
        await flags.aclose()


async def heal(
    state_dir: Path,
    *,
    opener: Opener = open_flags,
    force: bool = False,
    dry_run: bool = False,
    limits: RestoreLimits | None = None,
    known: FlagAddress | None = None,
) -> list[Healed]:
    """Restore what dead runs left on and what was kept intentionally; return what happened to each entry.

    Entries whose owner is alive or on another host are only reported. *force* restores them too, and closes
    entries whose flags nobody serves once the document is restored. *dry_run* only reports. An entry that
    fails raises nothing. *known* is an address with the credentials that the journal lacks.
    """
    journal = Journal(state_dir)
    healing = _Healing(state_dir, journal, opener, limits, known, force=force, dry_run=dry_run)
    return [
        _damaged(each, state_dir, dry_run=dry_run) if isinstance(each, Damaged) else await healing.one(each)
        for each in list(journal.entries())
    ]


@dataclass(frozen=True)
class _Healing:
    """The options of :func:`heal`, applied to one entry after the other."""

    state_dir: Path
    journal: Journal
    opener: Opener
    limits: RestoreLimits | None
    known: FlagAddress | None
    force: bool
    dry_run: bool

    async def one(self, entry: Entry) -> Healed:
        try:
            lease = self._take(entry)
        except OtelDiagError as error:
            return _healed(entry, HealOutcome.FAILED, str(error))
        try:
            if lease is None and wake_guardian(lease_path(self.state_dir, entry.identity)):
                lease = await self._after_guardian(entry)
                if lease is not None and not self.journal.holds(entry.id):
                    detail = "its guardian, which had been stopped, restored it; see guardian.log"
                    return _healed(entry, HealOutcome.RESTORED, detail)
            return await self._under(lease, entry)
        finally:
            if lease is not None:
                lease.release()

    def _take(self, entry: Entry) -> Lease | None:
        return Lease.take(self.state_dir, entry.identity, Owner.here(now_ns=time.time_ns()))

    async def _after_guardian(self, entry: Entry) -> Lease | None:
        """Return the lease once the woken guardian has released it; None when it does not in time."""
        deadline_s = time.monotonic() + GUARDIAN_S
        while time.monotonic() < deadline_s:
            lease = self._take(entry)
            if lease is not None:
                return lease
            await asyncio.sleep(0.1)
        return None

    async def _under(self, lease: Lease | None, entry: Entry) -> Healed:
        if not self.force:
            if lease is None:
                holder = describe_holder(lease_path(self.state_dir, entry.identity))
                detail = f"held by {holder}; it restores its fault itself, or use --force"
                return _healed(entry, HealOutcome.ALIVE, detail)
            state = Liveness.DEAD if entry.state is State.KEPT else liveness(entry.owner)
            if state is not Liveness.DEAD:
                return _left_alone(entry, state)
        if self.dry_run:
            return _healed(entry, HealOutcome.WOULD_RESTORE, entry.owner.sentence)
        return await self._restore(entry, watched=lease is None)

    async def _restore(self, entry: Entry, *, watched: bool) -> Healed:
        async def work(entry: Entry, flags: SurfaceFlags) -> Restored:
            done = await restore_entry(entry, flags, limits=self.limits, allow_unproven=self.force)
            if not watched:
                await release_left(flags.surface.lease(), entry.owner)
            return done

        try:
            done = await with_flags(entry, self.opener, work, self.known)
        except Exception as error:  # the other entries must be healed all the same
            return _healed(entry, HealOutcome.FAILED, f"A FAULT MAY STILL BE ON: {error}")
        outcome = HealOutcome.UNPROVEN if done.unproven else HealOutcome.RESTORED
        detail = f"{done.sentence} (left by {entry.owner.sentence})"
        try:
            self.journal.close(entry, watched=watched)
        except FlagError as error:
            detail = f"{detail}; {error}"
        return _healed(entry, outcome, detail)


def _left_alone(entry: Entry, state: Liveness) -> Healed:
    if state is Liveness.ALIVE:
        return _healed(entry, HealOutcome.ALIVE, f"{entry.owner.sentence}; it restores its fault itself")
    return _healed(
        entry,
        HealOutcome.OTHER_HOST,
        f"on another host: {entry.owner.sentence}; run otel-diag heal there, or here with --force once that "
        "run has certainly ended",
    )


def _healed(entry: Entry, outcome: HealOutcome, detail: str) -> Healed:
    return Healed(entry.id, entry.identity, entry.faults, outcome, detail)


def _damaged(damaged: Damaged, state_dir: Path, *, dry_run: bool) -> Healed:
    detail = damaged.sentence
    outcome = HealOutcome.FOREIGN if isinstance(damaged, Foreign) else HealOutcome.DAMAGED
    if damaged.document is not None and not dry_run:
        saved = state_dir / "saved" / f"{damaged.path.stem}.json"
        try:
            disk = Disk()
            disk.folder(saved.parent)
            disk.write(saved, damaged.document)
            detail += f". The previous document was copied to {saved}"
        except OSError as error:
            detail += f". The previous document could not be copied to {saved}: {error.strerror}"
    identity = damaged.facts.get("identity", "unknown")
    return Healed(damaged.path.stem, identity, "unknown", outcome, detail)


async def heal_environment(journal: Journal, flags: SurfaceFlags, notify: Notify) -> None:
    """Restore what dead runs left on in the environment of *flags*; its lease must be held.

    Raises FlagError for a damaged entry, Occupied for a fault that was kept intentionally or whose owner may
    be alive, RestoreFailed when the flags cannot be restored.
    """
    for each in list(journal.entries()):
        if isinstance(each, Damaged):
            if each.facts.get("identity") == flags.identity:
                raise FlagError(each.sentence)
            notify(each.sentence)
        elif each.identity == flags.identity:
            await _heal_left_behind(each, journal, flags, notify)


async def _heal_left_behind(entry: Entry, journal: Journal, flags: SurfaceFlags, notify: Notify) -> None:
    command = heal_command(journal.folder.parent)
    if entry.state is State.KEPT:
        raise Occupied(
            f"{entry.faults} of {entry.identity} was left on intentionally by {entry.owner.sentence}; "
            f"restore it first with: {command}"
        )
    if liveness(entry.owner) is not Liveness.DEAD:
        raise Occupied(
            f"{entry.faults} of {entry.identity} was turned on by {entry.owner.sentence}, which may still "
            f"run; once it has certainly ended: {command} --force"
        )
    try:
        done = await restore_entry(entry, flags)
    except RestoreFailed as error:
        raise RestoreFailed(
            f"A FAULT MAY STILL BE ON: {entry.faults} of {entry.identity}, left by {entry.owner.sentence}: "
            f"{error}. Once the flags can be reached, run: {command}"
        ) from error
    try:
        await asyncio.to_thread(journal.close, entry, watched=False)
    except FlagError as error:  # the flags are as before, which is what counts
        notify(str(error))
    notify(f"restored {entry.faults} of {entry.identity}, left by {entry.owner.sentence}: {done.sentence}")
