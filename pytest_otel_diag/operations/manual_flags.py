"""Flags that a person sets and takes back, with the same journal and leases as sessions.

A flag set by hand stays on when the command ends: that is what it was set for. The document from before the
first change is in the journal, as an entry that is kept; taking it back puts it back byte for byte. A run
over the same flags refuses to start while such an entry is there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_otel_diag.errors import FlagError, Occupied
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.flags.surface import FlagAccess
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.operations.flag_overview import Context, answer_of
from pytest_otel_diag.undo import lease as leases
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.heal import command
from pytest_otel_diag.undo.journal import Answer, Change, Damaged, Entry, Journal, State
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.restore import Patience, take_back

TARGET = "flags set by hand"

_READS = 2
_POLL_S = 0.2

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Hands:
    """What a change by hand needs. ``served_s`` bounds the wait until it is served, in seconds."""

    flags: SurfaceFlags
    access: FlagAccess
    state_dir: Path
    tell: Tell
    lease_wait_s: float = 0.0
    served_s: float = 30.0

    @property
    def journal(self) -> Journal:
        """The journal of this machine."""
        return Journal(self.state_dir)

    def kept(self) -> Entry | None:
        """Return what was set by hand here before; raises FlagError for what must be healed first."""
        mine = None
        for entry in self.journal.entries():
            if isinstance(entry, Damaged):
                if entry.facts.get("identity") == self.flags.identity:
                    raise FlagError(entry.sentence)
            elif entry.identity == self.flags.identity:
                if entry.target != TARGET:
                    raise Occupied(
                        f"{entry.faults} was left on here by {entry.owner.sentence}; take that back first: "
                        f"{command(self.state_dir)}"
                    )
                mine = entry
        return mine

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Owner]:
        """Hold the environment while the block runs; raises Occupied that names who has it."""
        who = Owner.here(now_ns=time.time_ns())
        surface = self.flags.surface
        taken = await leases.wait_for(
            self.state_dir, self.flags.identity, who, wait_s=self.lease_wait_s, tell=self.tell
        )
        try:
            async with leases.remote(surface.lease(), who, wait_s=self.lease_wait_s, tell=self.tell):
                yield who
        finally:
            taken.release()


async def set_flag(hands: Hands, change: FlagChange, asked: Sequence[Context]) -> bool:
    """Set the flag and keep how to take it back; return whether it is served within ``served_s``.

    *asked* are the contexts to ask it in. Raises FlagError, and then nothing has changed unless it says so.
    """
    flags = hands.flags
    async with hands.held() as who:
        before = hands.kept()
        document = await flags.document()
        wanted = FlagdDocument(document.raw, source=flags.surface.name)
        wanted.change(change.key, change.variant)
        answers = [
            Answer(context=dict(context), variant=(await flags.served(change.key, context)).variant)
            for context in asked
        ]
        entry = before or Entry(
            id=f"by-hand-{secrets.token_hex(6)}",
            identity=flags.identity,
            access=flags.access,
            target=TARGET,
            owner=who,
            started_ns=who.since_ns,
            deadline_ns=who.since_ns,
            previous=document.raw,
            state=State.KEPT,
        )
        hands.journal.write(
            entry.model_copy(update={"changes": _with(entry.changes, change, tuple(answers))})
        )
        try:
            await flags.apply(change)
        except FlagError:
            await _unwritten(hands, before, entry, document.raw)
            raise
        if flags.surface.same((await flags.document()).raw, entry.previous):
            hands.journal.close(entry, watched=False)
    return await served_as(flags, wanted, [(change.key, context) for context in asked], hands.served_s)


async def _unwritten(hands: Hands, before: Entry | None, entry: Entry, raw: bytes) -> None:
    """Forget a change that was not made, when that is sure."""
    try:
        sure = hands.flags.surface.same(await hands.flags.surface.read(), raw)
    except FlagError:
        sure = False
    if sure and before is None:
        hands.journal.close(entry, watched=False)
    elif sure and before is not None:
        hands.journal.write(before)


def _with(changes: tuple[Change, ...], change: FlagChange, answers: tuple[Answer, ...]) -> tuple[Change, ...]:
    for position, made in enumerate(changes):
        if made.key == change.key:
            again = made.model_copy(update={"variants": (*made.variants, change.variant)})
            return (*changes[:position], again, *changes[position + 1 :])
    return (*changes, Change(key=change.key, variants=(change.variant,), before=answers))


async def reset(hands: Hands, keys: Sequence[str]) -> str:
    """Take back what was set by hand, all of it or the flags *keys*; return what a person should know.

    Empty when there was nothing. Raises RestoreFailed, FlagError for a flag that was not set by hand.
    """
    async with hands.held():
        entry = hands.kept()
        if entry is None:
            return ""
        for key in keys:
            if key not in entry.keys:
                raise FlagError(
                    f"{key} was not set by hand here, so there is nothing to take back; set were "
                    f"{', '.join(entry.keys)}"
                )
        rest = tuple(change for change in entry.changes if keys and change.key not in keys)
        back = tuple(change for change in entry.changes if change not in rest)
        narrowed = entry.model_copy(update={"changes": back})
        done = await take_back(narrowed, hands.flags, patience=_patience(hands))
        own = {f"flag {change.key}" for change in rest}
        done = replace(done, foreign=tuple(text for text in done.foreign if text not in own))
        if rest:
            hands.journal.write(entry.model_copy(update={"changes": rest}))
        else:
            hands.journal.close(entry, watched=False)
        still = f"; still set: {', '.join(change.key for change in rest)}" if rest else ""
        return f"{narrowed.faults} taken back: {done.sentence}{still}"


def _patience(hands: Hands) -> Patience:
    usual = Patience(served_timeout_s=hands.served_s)
    return replace(usual, write_timeout_s=max(usual.write_timeout_s, hands.flags.surface.write_timeout_s))


@dataclass(frozen=True)
class AllOff:
    """``saved`` is where the document from before is, None when nothing was changed."""

    changed: tuple[str, ...]
    left: tuple[str, ...]
    saved: Path | None
    served: bool


async def all_off(hands: Hands, shipped: Callable[[str], str]) -> AllOff:
    """Set every flag to what *shipped* says is off for it (empty: nothing is).

    What was set by hand is forgotten; the document from before is saved below the state folder. Raises
    FlagError.
    """
    flags = hands.flags
    async with hands.held():
        entry = hands.kept()
        document = await flags.document()
        wanted = FlagdDocument(document.raw, source=flags.surface.name)
        changed, left = _switch_off(wanted, shipped)
        saved = None
        if changed:
            saved = _save(hands, document.raw)
            await flags.surface.write(wanted.raw, expected=document.raw)
        if entry is not None:
            saved = saved or _save(hands, document.raw)
            hands.journal.close(entry, watched=False)
    asked: list[tuple[str, Context]] = [(key, {}) for key, flag in document.flags.items() if flag.enabled]
    return AllOff(changed, left, saved, await served_as(flags, wanted, asked, hands.served_s))


def _switch_off(
    document: FlagdDocument, shipped: Callable[[str], str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    changed, left = [], []
    for key, flag in dict(document.flags).items():
        off = shipped(key)
        if off not in flag.variants:
            left.append(f"{key}: it has no variant that is off")
            continue
        before = document.raw
        try:
            document.change(key, off)
        except FlagError as error:
            left.append(f"{key}: {error}")
            continue
        if document.flags[key] == flag:
            document.restore(before)
        else:
            changed.append(f"{key}={off}")
    return tuple(changed), tuple(left)


def _save(hands: Hands, raw: bytes) -> Path:
    folder = hands.state_dir / "saved"
    path = folder / f"before-all-off-{time.time_ns()}.json"
    disk = Disk()
    try:
        disk.folder(folder)
        disk.write(path, raw)
        disk.sync(path)
    except OSError as error:
        raise FlagError(
            f"the document cannot be saved to {path} ({error.strerror}); nothing was changed. Give another "
            "folder with --state"
        ) from error
    return path


async def served_as(
    flags: SurfaceFlags, wanted: FlagdDocument, asked: Sequence[tuple[str, Context]], timeout_s: float
) -> bool:
    """Return whether every flag is answered, twice in a row, as *wanted* answers, within *timeout_s*."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    row = 0
    while True:
        row = row + 1 if await _alike(flags, wanted, asked) else 0
        if row >= _READS:
            return True
        if loop.time() >= deadline_s:
            return False
        await asyncio.sleep(_POLL_S)


async def _alike(flags: SurfaceFlags, wanted: FlagdDocument, asked: Sequence[tuple[str, Context]]) -> bool:
    try:
        for key, context in asked:
            if (await flags.served(key, context)).variant != answer_of(wanted, key, context):
                return False
    except FlagError:
        return False
    return True
