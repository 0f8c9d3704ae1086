"""Flags that a person sets and restores, with the same journal and leases as sessions.

A flag set by hand stays set until it is restored. The journal keeps the document from before the first change
as an entry in state ``KEPT``; restoring writes it back byte for byte. A run on the same flags refuses to
start while the entry exists.
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
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.operations.flag_overview import (
    Context,
    FlagOverview,
    catalog_entry,
    contexts_of,
    expected_variant,
    key_of,
    overview,
)
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.heal import heal_command
from pytest_otel_diag.undo.journal import Answer, Change, Damaged, Entry, Journal, State
from pytest_otel_diag.undo.lease import wait_for
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.remote_lease import hold_remote_lease
from pytest_otel_diag.undo.restore import restore_entry
from pytest_otel_diag.undo.verify import RestoreLimits

TARGET = "flags set by hand"
"""Target of the journal entries that this module writes."""

_READS = 2
_POLL_S = 0.2


@dataclass(frozen=True)
class ManualFlags:
    """The flags of one system and what changing them by hand needs.

    ``served_s`` bounds the wait until a change is served, ``lease_wait_s`` the wait for a run that holds the
    system; ``notify`` gets one sentence when that wait begins.
    """

    flags: SurfaceFlags
    state_dir: Path
    notify: Callable[[str], None]
    lease_wait_s: float = 0.0
    served_s: float = 30.0

    @property
    def journal(self) -> Journal:
        """The journal of this machine."""
        return Journal(self.state_dir)

    def entry(self) -> Entry | None:
        """Return the entry of flags set by hand here; raises FlagError for what must be healed first."""
        mine = None
        for entry in self.journal.entries():
            if isinstance(entry, Damaged):
                if entry.facts.get("identity") == self.flags.identity:
                    raise FlagError(entry.sentence)
            elif entry.identity == self.flags.identity:
                if entry.target != TARGET:
                    raise Occupied(
                        f"{entry.faults} was left on here by {entry.owner.sentence}; restore that first: "
                        f"{heal_command(self.state_dir)}"
                    )
                mine = entry
        return mine

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Owner]:
        """Hold the lease of the system while the block runs; raises Occupied that names the holder."""
        who = Owner.here(now_ns=time.time_ns())
        surface = self.flags.surface
        taken = await wait_for(
            self.state_dir, self.flags.identity, who, wait_s=self.lease_wait_s, notify=self.notify
        )
        try:
            async with hold_remote_lease(surface.lease(), who, wait_s=self.lease_wait_s, notify=self.notify):
                yield who
        finally:
            taken.release()


@dataclass(frozen=True)
class FlagSet:
    """A flag was written; ``served`` says whether it was served in time."""

    flag: str
    variant: str
    served: bool


@dataclass(frozen=True)
class FlagsReset:
    """Flags were restored: ``faults`` as ``flag=variant``, ``detail`` how, ``still_set`` the other flags."""

    faults: str
    detail: str
    still_set: tuple[str, ...]


@dataclass(frozen=True)
class LeftOn:
    """A flag that could not be set to off, and why."""

    flag: str
    reason: str


@dataclass(frozen=True)
class AllOff:
    """Every flag was set to off.

    ``changed`` are the changes as ``flag=variant``. ``saved`` is the file with the document from before, None
    when nothing was changed. ``served`` says whether the written document was served in time.
    """

    changed: tuple[str, ...]
    left: tuple[LeftOn, ...]
    saved: Path | None
    served: bool


async def set_flag(manual: ManualFlags, name: str, variant: str, *, force: bool = False) -> FlagSet:
    """Set a flag, by any of its names, keep in the journal how to restore it, and wait until it is served.

    Raises FlagError; the flags are unchanged then, unless the message says otherwise. *force* writes although
    flagd serves something else than what flagd-ui has.
    """
    found = await overview(manual.flags)
    if not force:
        _refuse_stale(found, str(manual.flags.access.control))
    key = key_of(name, found.document)
    contexts = contexts_of(found.document.flags[key], found.comparison.demo)
    change = FlagChange(key=key, variant=variant, context=contexts[0] or None)
    return FlagSet(key, variant, await _set(manual, change, contexts))


def _refuse_stale(found: FlagOverview, control: str) -> None:
    """Raise FlagError where a write would undo an edit that flagd-ui has not read."""
    different = [row.flag for row in found.rows if not row.agrees]
    if control.startswith("flagd-ui:") and different and not found.unserved:
        raise FlagError(
            f"flagd serves {', '.join(different)} otherwise than flagd-ui has it: the file was edited after "
            "flagd-ui had read it, and a write would undo that edit. Restart flagd-ui (docker compose "
            "restart flagd-ui), or write anyway with --force"
        )


async def _set(manual: ManualFlags, change: FlagChange, contexts: Sequence[Context]) -> bool:
    flags = manual.flags
    async with manual.held() as who:
        before = manual.entry()
        document = await flags.document()
        wanted = FlagdDocument(document.raw, source=flags.surface.name)
        wanted.change(change.key, change.variant, change.context)
        answers = [
            Answer(context=dict(context), variant=(await flags.served(change.key, context)).variant)
            for context in contexts
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
        manual.journal.write(
            entry.model_copy(update={"changes": _with(entry.changes, change, tuple(answers))})
        )
        try:
            await flags.apply(change)
        except FlagError:
            await _forget_if_unwritten(manual, before, entry, document.raw)
            raise
        if flags.surface.same((await flags.document()).raw, entry.previous):
            manual.journal.close(entry, watched=False)
    # The other contexts may be those of other users, whom the change does not concern.
    return await served_as(flags, wanted, [(change.key, contexts[0])], manual.served_s)


async def _forget_if_unwritten(manual: ManualFlags, before: Entry | None, entry: Entry, raw: bytes) -> None:
    """Take a change that failed out of the journal, when the document is surely unchanged."""
    try:
        unchanged = manual.flags.surface.same(await manual.flags.surface.read(), raw)
    except FlagError:
        unchanged = False
    if unchanged and before is None:
        manual.journal.close(entry, watched=False)
    elif unchanged and before is not None:
        manual.journal.write(before)


def _with(changes: tuple[Change, ...], change: FlagChange, answers: tuple[Answer, ...]) -> tuple[Change, ...]:
    for position, made in enumerate(changes):
        if made.key == change.key:
            again = made.model_copy(update={"variants": (*made.variants, change.variant)})
            return (*changes[:position], again, *changes[position + 1 :])
    return (*changes, Change(key=change.key, variants=(change.variant,), before=answers))


async def reset(manual: ManualFlags, names: Sequence[str] = ()) -> FlagsReset | None:
    """Restore what was set by hand, all of it or the flags *names*; None when nothing was set.

    Raises RestoreFailed, and FlagError for a flag that was not set by hand.
    """
    written = await manual.flags.document() if names else None
    keys = [key_of(name, written) for name in names] if written else []
    async with manual.held():
        entry = manual.entry()
        if entry is None:
            return None
        for key in keys:
            if key not in entry.keys:
                raise FlagError(
                    f"{key} was not set by hand here, so it cannot be restored; set by hand: "
                    f"{', '.join(entry.keys)}"
                )
        rest = tuple(change for change in entry.changes if keys and change.key not in keys)
        restored = tuple(change for change in entry.changes if change not in rest)
        narrowed = entry.model_copy(update={"changes": restored})
        done = await restore_entry(narrowed, manual.flags, limits=_limits(manual))
        own = {f"flag {change.key}" for change in rest}
        done = replace(done, external=tuple(text for text in done.external if text not in own))
        if rest:
            manual.journal.write(entry.model_copy(update={"changes": rest}))
        else:
            manual.journal.close(entry, watched=False)
        return FlagsReset(narrowed.faults, done.sentence, tuple(change.key for change in rest))


def _limits(manual: ManualFlags) -> RestoreLimits:
    return replace(RestoreLimits.of(manual.flags.surface), served_timeout_s=manual.served_s)


async def all_off(manual: ManualFlags) -> AllOff:
    """Set every flag to off, whoever set it; where off is no healthy state, to what the demo ships.

    Forgets what was set by hand and saves the document from before below the state folder. Raises FlagError.
    """
    demo = (await overview(manual.flags)).comparison.demo
    flags = manual.flags
    async with manual.held():
        entry = manual.entry()
        document = await flags.document()
        wanted = FlagdDocument(document.raw, source=flags.surface.name)
        changed, left = _switch_off(wanted, demo)
        saved = None
        if changed:
            saved = _save(manual, document.raw)
            await flags.surface.write(wanted.raw, expected=document.raw)
        if entry is not None:
            saved = saved or _save(manual, document.raw)
            manual.journal.close(entry, watched=False)
    evaluated: list[tuple[str, Context]] = [(key, {}) for key, flag in document.flags.items() if flag.enabled]
    return AllOff(changed, left, saved, await served_as(flags, wanted, evaluated, manual.served_s))


def _switch_off(document: FlagdDocument, demo: str) -> tuple[tuple[str, ...], tuple[LeftOn, ...]]:
    changed, left = [], []
    for key, flag in dict(document.flags).items():
        found = catalog_entry(key, demo)
        off = found[1].default if found is not None else "off"
        if off not in flag.variants:
            left.append(LeftOn(key, "it has no variant that is off"))
            continue
        before = document.raw
        try:
            document.change(key, off, contexts_of(flag, demo)[0] or None)
        except FlagError as error:
            left.append(LeftOn(key, str(error)))
            continue
        if document.flags[key] == flag:
            document.restore(before)
        else:
            changed.append(f"{key}={off}")
    return tuple(changed), tuple(left)


def _save(manual: ManualFlags, raw: bytes) -> Path:
    folder = manual.state_dir / "saved"
    path = folder / f"before-all-off-{time.time_ns()}.json"
    disk = Disk()
    try:
        disk.folder(folder)
        disk.write(path, raw)
        disk.sync(path)
    except OSError as error:
        raise FlagError(
            f"the document cannot be saved to {path} ({error.strerror}); nothing was changed. Choose another "
            "folder with --state"
        ) from error
    return path


async def served_as(
    flags: SurfaceFlags, wanted: FlagdDocument, keys: Sequence[tuple[str, Context]], timeout_s: float
) -> bool:
    """Return whether every flag is served, twice in a row, as *wanted* evaluates it, within *timeout_s*."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    in_a_row = 0
    while True:
        in_a_row = in_a_row + 1 if await _served_now(flags, wanted, keys) else 0
        if in_a_row >= _READS:
            return True
        if loop.time() >= deadline_s:
            return False
        await asyncio.sleep(_POLL_S)


async def _served_now(
    flags: SurfaceFlags, wanted: FlagdDocument, keys: Sequence[tuple[str, Context]]
) -> bool:
    try:
        for key, context in keys:
            if (await flags.served(key, context)).variant != expected_variant(wanted, key, context):
                return False
    except FlagError:
        return False
    return True
