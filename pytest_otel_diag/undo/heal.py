"""Healing: what runs that died have left on is taken back, by whoever comes next.

An entry may be healed once its environment's lease is free and its owner does not live; see :func:`settled`.
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

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.surface import FlagAccess
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.journal import Damaged, Entry, Journal, State
from pytest_otel_diag.undo.lease import Lease, described, lease_path, wake_guardian
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process
from pytest_otel_diag.undo.restore import Patience, TakenBack, take_back

T = TypeVar("T")

GUARDIAN_S = 30.0
"""How long a guardian that had been stopped may take to take its fault back, once it goes on."""


class ClosingFlags(FlagController, Protocol):
    """A controller that holds connections."""

    async def aclose(self) -> None:
        """Release them."""
        ...


class Opener(Protocol):
    """Opens the flags that an entry names; ``flags.opening.open_flags`` is one."""

    def __call__(self, access: FlagAccess, *, now: Callable[[], Nanos]) -> ClosingFlags:
        """Return the controller; raises ConfigurationError."""
        ...


class Outcome(StrEnum):
    """What became of one entry. Only with RESTORED is its fault known to be gone.

    With UNPROVEN the document is back, but nobody answered what is served; only where that was allowed.
    """

    RESTORED = "restored"
    UNPROVEN = "unproven"
    WOULD_RESTORE = "would restore"
    ALIVE = "owner alive"
    OTHER_HOST = "other host"
    FAILED = "failed"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Healed:
    """One entry of the journal and what became of it. ``faults`` reads ``flag=variant, …``."""

    entry_id: str
    identity: str
    faults: str
    outcome: Outcome
    detail: str

    @property
    def gone(self) -> bool:
        """Whether its fault is known to be gone."""
        return self.outcome is Outcome.RESTORED


class Life(StrEnum):
    """What can be told of an owner whose lease is free."""

    DEAD = "dead"
    ALIVE = "alive"
    UNKNOWN = "unknown"


def settled(owner: Owner) -> Life:
    """Return whether an owner is at work, when the lease of its environment has just been taken from nobody.

    The lease is the kernel's: on the machine that it was taken on, in any container, a free one says that
    the owner has ended, unless somebody removed the file. Another machine's says nothing.
    """
    process, me = owner.process, Process.this()
    if process == me:
        return Life.DEAD  # a session of this very process that could not undo its fault
    alive = process.alive
    if alive is None:
        return Life.DEAD if process.boot and process.boot == me.boot else Life.UNKNOWN
    return Life.ALIVE if alive else Life.DEAD


async def with_flags(
    entry: Entry, opener: Opener, work: Callable[[Entry, FlagController], Awaitable[T]]
) -> T:
    """Open the entry's flags for *work* and close them."""
    flags = opener(entry.access, now=time.time_ns)
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
    patience: Patience | None = None,
) -> list[Healed]:
    """Take back what dead runs left on, and what was kept on purpose; returns what became of every entry.

    Owners that live, and those of other hosts, are reported only. With *force* their faults are taken back
    too, and entries whose flags nobody serves now are closed once the document is back. *dry_run* only
    tells. Raises nothing for an entry that fails.
    """
    journal = Journal(state_dir)
    return [
        _damaged(each, state_dir, dry_run=dry_run)
        if isinstance(each, Damaged)
        else await _Healing(state_dir, journal, opener, patience, force=force, dry_run=dry_run).one(each)
        for each in list(journal.entries())
    ]


class _Healing:
    def __init__(
        self,
        state_dir: Path,
        journal: Journal,
        opener: Opener,
        patience: Patience | None,
        **how: bool,
    ) -> None:
        self._state_dir = state_dir
        self._journal = journal
        self._opener = opener
        self._patience = patience
        self._force = how["force"]
        self._dry_run = how["dry_run"]

    async def one(self, entry: Entry) -> Healed:
        try:
            lease = Lease.take(self._state_dir, entry.identity, Owner.here(now_ns=time.time_ns()))
        except OtelDiagError as error:
            return _healed(entry, Outcome.FAILED, str(error))
        try:
            if lease is None and wake_guardian(lease_path(self._state_dir, entry.identity)):
                lease = await self._after_guardian(entry)
                if lease is not None and not self._journal.holds(entry.id):
                    detail = "its guardian, which had been stopped, took it back; see guardian.log"
                    return _healed(entry, Outcome.RESTORED, detail)
            return await self._under(lease, entry)
        finally:
            if lease is not None:
                lease.release()

    async def _after_guardian(self, entry: Entry) -> Lease | None:
        """Return the lease once a guardian that was woken has let it go; None when it does not in time."""
        until_s = time.monotonic() + GUARDIAN_S
        while time.monotonic() < until_s:
            lease = Lease.take(self._state_dir, entry.identity, Owner.here(now_ns=time.time_ns()))
            if lease is not None:
                return lease
            await asyncio.sleep(0.1)
        return None

    async def _under(self, lease: Lease | None, entry: Entry) -> Healed:
        if not self._force:
            if lease is None:
                who = described(lease_path(self._state_dir, entry.identity))
                return _healed(
                    entry,
                    Outcome.ALIVE,
                    f"held by {who}; it takes its fault back itself, or use --force",
                )
            life = Life.DEAD if entry.state is State.KEPT else settled(entry.owner)
            if life is not Life.DEAD:
                return _not_ours(entry, life)
        if self._dry_run:
            return _healed(entry, Outcome.WOULD_RESTORE, entry.owner.sentence)
        return await self._restore(entry, watched=lease is None)

    async def _restore(self, entry: Entry, *, watched: bool) -> Healed:
        async def work(entry: Entry, flags: FlagController) -> TakenBack:
            return await take_back(entry, flags, patience=self._patience, unproven=self._force)

        try:
            done = await with_flags(entry, self._opener, work)
            self._journal.close(entry, watched=watched)
        except Exception as error:  # the others must be healed all the same
            return _healed(entry, Outcome.FAILED, f"A FAULT MAY STILL BE ON: {error}")
        outcome = Outcome.UNPROVEN if done.unproven else Outcome.RESTORED
        return _healed(entry, outcome, f"{done.sentence} (left by {entry.owner.sentence})")


def _not_ours(entry: Entry, life: Life) -> Healed:
    if life is Life.ALIVE:
        return _healed(entry, Outcome.ALIVE, f"{entry.owner.sentence}; it takes its fault back itself")
    return _healed(
        entry,
        Outcome.OTHER_HOST,
        f"of another host: {entry.owner.sentence}; run otel-diag heal there, or here with --force once that "
        "run has ended for sure",
    )


def _healed(entry: Entry, outcome: Outcome, detail: str) -> Healed:
    return Healed(entry.id, entry.identity, entry.faults, outcome, detail)


def _damaged(damaged: Damaged, state_dir: Path, *, dry_run: bool) -> Healed:
    detail = damaged.sentence
    if damaged.document is not None and not dry_run:
        saved = state_dir / "saved" / f"{damaged.path.stem}.json"
        try:
            disk = Disk()
            disk.folder(saved.parent)
            disk.write(saved, damaged.document)
            detail += f". The document from before was copied to {saved}"
        except OSError as error:
            detail += f". The document from before could not be copied to {saved}: {error.strerror}"
    identity = damaged.facts.get("identity", "unknown")
    return Healed(damaged.path.stem, identity, "unknown", Outcome.DAMAGED, detail)


def command(state_dir: Path) -> str:
    """Return what a person types to have the faults taken back."""
    return f"otel-diag heal --state {shlex.quote(str(state_dir))}"
