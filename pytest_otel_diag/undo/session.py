"""Flags that cannot be left on: what a target puts around its controller for one session.

Decisions. Entering takes the lease first and heals under it: two runs that start together must not heal side
by side. A fault that was left on on purpose (``keep``) is not healed in passing, it keeps new sessions out
until somebody says ``otel-diag heal``. The document that is put back is the one from before the *first
write*, whatever document ``restore`` is handed; see :mod:`taking_back` for edits of others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_otel_diag.errors import FlagError, Occupied, RestoreFailed
from pytest_otel_diag.flags.surface import FlagAccess, RemoteLease
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.drafts import draft
from pytest_otel_diag.undo.guardian.client import Guardian
from pytest_otel_diag.undo.heal import command
from pytest_otel_diag.undo.journal import Answer, Change, Entry, Journal, State
from pytest_otel_diag.undo.lease import Lease, Renewal, Tell, remote, wait_for
from pytest_otel_diag.undo.leftovers import heal_first
from pytest_otel_diag.undo.moved import moved_to
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.restore import check_document, take_back
from pytest_otel_diag.undo.settings import UndoSettings
from pytest_otel_diag.undo.verify import unbroken

_LOG = logging.getLogger(__name__)
_MOST_CONTEXTS = 8


class ProtectedFlags:
    """FlagController whose changes are journaled and guarded before they are made; see :func:`protected`.

    Every method raises FlagError once somebody else has taken the fault back: the guardian, because the
    deadline had passed, or a person with ``otel-diag heal``.
    """

    def __init__(
        self,
        inner: FlagController,
        first: Entry,
        guardian: Guardian,
        *,
        journal: Journal,
        settings: UndoSettings,
        outside: Outside,
    ) -> None:
        self._inner = inner
        self._draft = first
        self._guardian = guardian
        self._journal = journal
        self._settings = settings
        self._outside = outside
        self._lock = asyncio.Lock()
        self._entry: Entry | None = None
        self._watched: set[str] = set()
        self._pid = os.getpid()
        self._due_s = 0.0
        self._contexts: dict[str, list[dict[str, FlagValue]]] = {}
        self._unseen: dict[str, str] = {}

    @property
    def entry(self) -> Entry | None:
        """The open fault, None while there is none."""
        return self._entry

    @property
    def guardian(self) -> Guardian:
        """The process that watches over this one."""
        return self._guardian

    async def document(self) -> FlagDocument:
        """Return everything, exactly."""
        await self._look()
        return await self._inner.document()

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Return what the flag answers now; contexts asked before a change are asked again after the undo."""
        await self._look()
        asked = self._contexts.setdefault(key, [])
        if dict(context) not in asked and len(asked) < _MOST_CONTEXTS:
            asked.append(dict(context))
        answer = await self._inner.served(key, context)
        if self._unseen.get(key) == answer.variant:
            del self._unseen[key]
        return answer

    async def apply(self, change: FlagChange) -> None:
        """Set one flag, once the journal is on the disk and a guardian answers.

        Raises FlagError when either cannot be had, and what the controller raises; Occupied when the
        environment's own lease was lost to somebody else.
        """
        async with self._lock:
            await self._look()
            if self._outside.renewal.lost:
                raise Occupied(
                    f"the lease of {self._draft.identity} went to {self._outside.renewal.lost} meanwhile; "
                    "nothing more is changed"
                )
            await self._prepare(change)
            self._unseen[change.key] = change.variant
            # A write that was begun ends before anybody restores: it could overtake the restore otherwise.
            await unbroken(self._write(change))
            await self._not_taken_back_meanwhile()

    async def _write(self, change: FlagChange) -> None:
        limit_s = self._settings.patience.write_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._inner.apply(change)
        except TimeoutError as error:
            raise FlagError(
                f"{change.key}={change.variant} could not be written to {self._draft.identity} within "
                f"{limit_s:g} s"
            ) from error

    async def restore(self, document: FlagDocument) -> None:
        """Take back what was changed here and verify it as served; raises RestoreFailed with the command.

        Does nothing to a document that nothing was changed in.
        """
        self._only_here()
        check_document(document.raw)
        async with self._lock:
            if self._entry is None:
                await self._nothing_to_take_back(document)
                return
            if document.raw != self._entry.previous:
                self._outside.tell(
                    f"the document of {self._entry.identity} had changed between the preflight and the first "
                    "write here; that edit of somebody else is kept"
                )
            await self._take_back(self._entry)

    async def finish(self) -> bool:
        """Leave the environment in order; returns True, the lease may then be given back.

        Raises RestoreFailed when the fault could not be taken back: the guardian goes on with that, and
        holds the lease meanwhile.
        """
        if os.getpid() != self._pid:
            return True  # a fork that unwinds: nothing here is its own
        entry = self._entry
        try:
            if entry is not None and self._settings.keep:
                self._keep(entry)
            elif entry is not None:
                async with self._lock:
                    await self._take_back(entry)
        except BaseException:  # cancelled included: leaving now would leave the fault on
            self._outside.renewal.keep = True
            self._guardian.hand_over()
            raise
        await unbroken(asyncio.to_thread(self._guardian.dismiss))
        for entry_id in self._watched:
            self._journal.forget(entry_id)
        return True

    def _keep(self, entry: Entry) -> None:
        self._journal.write(entry.model_copy(update={"state": State.KEPT}))
        self._outside.tell(
            f"{entry.faults} of {entry.identity} was left on, as asked; take it back with: {self._command}"
        )

    @property
    def _command(self) -> str:
        return command(self._journal.folder.parent)

    async def _prepare(self, change: FlagChange) -> None:
        """Put the change on the disk and a guardian behind it."""
        first = self._entry is None
        entry = await self._with(change)
        self._entry = entry
        try:
            await unbroken(asyncio.to_thread(self._journal.write, entry))
            await self._guard(entry)
        except FlagError:
            if first:  # nothing was written to the flags yet
                self._entry = None
                await unbroken(asyncio.to_thread(self._journal.close, entry))
            raise

    async def _guard(self, entry: Entry) -> None:
        # Wall time may be set anew meanwhile: the deadline is for people, this is for the guardian.
        left_s = self._due_s - time.monotonic()
        self._watched.add(entry.id)
        await unbroken(asyncio.to_thread(self._guardian.ensure, entry.id, deadline_s=left_s))

    async def _with(self, change: FlagChange) -> Entry:
        entry = self._entry
        if entry is None:
            document, now_ns = await self._inner.document(), self._outside.now()
            update: dict[str, Any] = {
                "id": secrets.token_hex(8),
                "previous": document.raw,
                "started_ns": now_ns,
                "deadline_ns": now_ns + seconds_to_ns(self._settings.deadline_s),
            }
            entry = self._draft.model_copy(update=update)
            self._due_s = time.monotonic() + self._settings.deadline_s
        known = next((each for each in entry.changes if each.key == change.key), None)
        if known is None:
            mine = Change(key=change.key, variants=(change.variant,), before=await self._before(change.key))
        else:
            mine = known.model_copy(update={"variants": (*known.variants, change.variant)[-_MOST_CONTEXTS:]})
        changes = (*(each for each in entry.changes if each.key != change.key), mine)
        return entry.model_copy(update={"changes": changes})

    async def _before(self, key: str) -> tuple[Answer, ...]:
        """Ask the flag in every context known of it; raises FlagError when it answers in none."""
        answers: list[Answer] = []
        problem: FlagError | None = None
        for context in self._contexts.get(key) or [{}]:
            try:
                variant = (await self._inner.served(key, context)).variant
            except FlagError as error:
                problem = error
                continue
            answers.append(Answer(context=context, variant=variant))
        if problem is not None and not answers:
            raise problem
        return tuple(answers)

    def _only_here(self) -> None:
        """Raise FlagError in a forked child of the run: the fault and its guardian are the run's."""
        if os.getpid() != self._pid:
            raise FlagError(
                f"process {os.getpid()} is a fork of the run {self._pid}, which alone may change the flags "
                f"of {self._draft.identity}; end a forked child with os._exit"
            )

    async def _look(self) -> None:
        """Raise when the fault was taken back, or the place moved; see that a guardian is there."""
        self._only_here()
        entry = self._entry
        now = moved_to(entry or self._draft, self._inner)
        if now:
            raise FlagError(
                f"the flag file is {now} by now, in place of {self._draft.identity}: a link leads elsewhere; "
                "nothing more is changed. Put the link back, or start the test again"
            )
        if entry is None:
            return
        kept = await self._kept(entry)
        if kept is None:
            raise FlagError(
                f"{entry.faults} of {entry.identity} was taken back by somebody else meanwhile (otel-diag "
                "heal or emergency-stop); nothing more is changed, and what was seen since may be without it"
            )
        if kept.state is State.RETURNED:
            raise FlagError(f"the session took longer than its deadline, so its guardian {kept.note}")
        if not self._guardian.running:
            await self._guard(entry)

    async def _kept(self, entry: Entry) -> Entry | None:
        """Return the entry as it is kept now, None when it was closed; one that was lost is written again."""
        try:
            kept = self._journal.read(entry.id)
            if kept is not None or self._journal.closed(entry.id):
                return kept
            problem = "is gone, and nobody closed it"
        except FlagError:
            problem = "was damaged"
        self._outside.tell(f"the journal entry {self._journal.path(entry.id)} {problem}; it is written again")
        await unbroken(asyncio.to_thread(self._journal.write, entry))
        return entry

    async def _not_taken_back_meanwhile(self) -> None:
        """After a write: when the fault was taken back while it was made, it has to be taken back again."""
        try:
            await self._look()
        except FlagError:
            assert self._entry is not None
            await self._take_back(self._entry)
            raise

    async def _nothing_to_take_back(self, document: FlagDocument) -> None:
        now = (await self._inner.document()).raw
        if now != document.raw:
            self._outside.tell(
                f"the document of {self._draft.identity} was changed by somebody else; nothing was changed "
                "here, so it is left as it is"
            )

    async def _take_back(self, entry: Entry) -> None:
        try:
            patience = self._settings.patience
            if not self._unseen:  # what was written is served: no answer of before is still to change
                patience = replace(patience, settle_s=0.0)
            done = await take_back(entry, self._inner, patience=patience)
        except RestoreFailed as error:
            raise RestoreFailed(
                f"A FAULT MAY STILL BE ON: {entry.faults} of {entry.identity}: {error}. Once the flags can "
                f"be reached, run: {self._command}"
            ) from error
        if done.loud:
            self._outside.tell(f"{entry.identity}: {done.sentence}")
        if not (self._journal.holds(entry.id) or self._journal.closed(entry.id)):
            self._outside.tell(
                f"the journal entry {self._journal.path(entry.id)} was gone at the end, and nobody closed it"
                "; do not remove the state folder while runs are at work"
            )
        await unbroken(asyncio.to_thread(self._journal.close, entry))
        self._entry = None


@dataclass
class Outside:
    """What a session's flags know of the world: wall time in ns, whom to tell, the lease elsewhere."""

    now: Callable[[], Nanos]
    tell: Tell
    renewal: Renewal


@asynccontextmanager
async def protected(  # noqa: PLR0913 - each is a fact of its own about the session
    inner: FlagController,
    access: FlagAccess,
    identity: str,
    *,
    who: Owner,
    state_dir: Path,
    remote_lease: RemoteLease | None = None,
    settings: UndoSettings | None = None,
    target: str = "",
    now: Callable[[], Nanos] = time.time_ns,
    tell: Tell = _LOG.warning,
) -> AsyncIterator[ProtectedFlags]:
    """Hold the environment for one session: yields the flags to work with.

    *access* is how another process reaches what *inner* controls, *identity* the same text for every process
    that reaches the same place. *tell* hears what a person should know: who is waited for, what was healed,
    edits of others that were kept. *now* is wall time.

    Raises Occupied when another run holds the environment for longer than the wait allows, or a fault was
    left on on purpose; RestoreFailed when a dead run's fault, or this one's, cannot be taken back.
    """
    settings = settings or UndoSettings()
    Disk().folder(state_dir)
    journal = Journal(state_dir)
    lease = await wait_for(state_dir, identity, who, wait_s=settings.lease_wait_s, tell=tell)
    done = True
    try:
        wait_s = settings.lease_wait_s
        async with remote(remote_lease, who, wait_s=wait_s, tell=tell) as renewal:
            await heal_first(journal, identity, inner, tell)
            flags = ProtectedFlags(
                inner,
                draft(access, identity, who, target),
                _guardian(state_dir, lease, settings),
                journal=journal,
                settings=settings,
                outside=Outside(now=now, tell=tell, renewal=renewal),
            )
            try:
                yield flags
            finally:
                done = False
                done = await flags.finish()
    finally:
        if done:
            lease.release()
        else:
            lease.leave()


def _guardian(state_dir: Path, lease: Lease, settings: UndoSettings) -> Guardian:
    return Guardian(state_dir, lease, opener=settings.opener, patience_s=settings.guardian_patience_s)
