"""What a session finds in the journal of its environment when it begins, with the lease taken."""

from __future__ import annotations

import asyncio

from pytest_otel_diag.errors import FlagError, Occupied, RestoreFailed
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.heal import Life, command, settled
from pytest_otel_diag.undo.journal import Damaged, Entry, Journal, State
from pytest_otel_diag.undo.lease import Tell
from pytest_otel_diag.undo.restore import take_back


async def heal_first(journal: Journal, identity: str, inner: FlagController, tell: Tell) -> None:
    """Take back what dead runs left on here; raises when something must not be touched, or fails."""
    for each in list(journal.entries()):
        if isinstance(each, Damaged):
            _refuse_damaged(each, identity, tell)
        elif each.identity == identity:
            await _heal(each, journal, inner, tell)


def _refuse_damaged(damaged: Damaged, identity: str, tell: Tell) -> None:
    if damaged.facts.get("identity") == identity:
        raise FlagError(damaged.sentence)
    tell(damaged.sentence)


async def _heal(entry: Entry, journal: Journal, inner: FlagController, tell: Tell) -> None:
    mend = command(journal.folder.parent)
    if entry.state is State.KEPT:
        raise Occupied(
            f"{entry.faults} of {entry.identity} was left on on purpose by {entry.owner.sentence}; take it "
            f"back first with: {mend}"
        )
    if settled(entry.owner) is not Life.DEAD:
        raise Occupied(
            f"{entry.faults} of {entry.identity} is on by {entry.owner.sentence}, who may still be at work; "
            f"once it has ended for sure: {mend} --force"
        )
    try:
        done = await take_back(entry, inner)
    except RestoreFailed as error:
        raise RestoreFailed(
            f"A FAULT MAY STILL BE ON: {entry.faults} of {entry.identity}, left by {entry.owner.sentence}: "
            f"{error}. Once the flags can be reached, run: {mend}"
        ) from error
    await asyncio.to_thread(journal.close, entry, watched=False)
    tell(f"took back {entry.faults} of {entry.identity}, left by {entry.owner.sentence}: {done.sentence}")
