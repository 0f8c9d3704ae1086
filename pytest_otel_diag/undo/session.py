"""Flags whose changes are undone whatever happens: what a target wraps around its flags for one session.

The session takes the lease first and heals under it, so two runs that start together never heal side by
side. A fault that was kept intentionally (``keep``) is not healed in passing: it keeps new sessions out until
``otel-diag heal`` runs. The session restores the document of before its *first write*, whatever document
``restore`` is given; :mod:`merge` says what happens to external changes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_otel_diag.errors import FlagError, Occupied, RestoreFailed
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.undo.guardian.client import Guardian
from pytest_otel_diag.undo.heal import heal_command, heal_environment
from pytest_otel_diag.undo.journal import Answer, Change, Entry, Journal, State
from pytest_otel_diag.undo.lease import Lease, Notify, wait_for
from pytest_otel_diag.undo.merge import check_document
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.remote_lease import Renewal, hold_remote_lease
from pytest_otel_diag.undo.restore import restore_entry
from pytest_otel_diag.undo.settings import UndoSettings
from pytest_otel_diag.undo.verify import RestoreLimits, shielded

_LOG = logging.getLogger(__name__)
_REMEMBERED = 8
"""Contexts per flag and variants per change that are remembered."""


@dataclass(frozen=True)
class UndoContext:
    """What guarded flags work with. ``now`` returns wall time in UTC nanoseconds, ``notify`` logs."""

    owner: Owner
    journal: Journal
    guardian: Guardian
    renewal: Renewal
    settings: UndoSettings
    limits: RestoreLimits
    now: Callable[[], Nanos]
    notify: Notify

    @property
    def command(self) -> str:
        """The command that restores what this session leaves on."""
        return heal_command(self.journal.folder.parent)


class GuardedFlags:
    """FlagController that journals and guards each change before it is written; see :func:`guarded`.

    Every method raises FlagError once the fault was restored from outside: by the guardian at the deadline,
    or by ``otel-diag heal``.
    """

    def __init__(self, flags: SurfaceFlags, undo: UndoContext) -> None:
        self._flags = flags
        self._undo = undo
        self._identity = flags.identity
        self._access = flags.access
        self._pid = os.getpid()
        self._lock = asyncio.Lock()
        self._entry: Entry | None = None
        self._watched: set[str] = set()
        self._deadline_s = 0.0
        self._contexts: dict[str, list[dict[str, FlagValue]]] = {}
        self._unserved: dict[str, str] = {}
        """Variants that were written and not served yet, by flag."""

    @property
    def entry(self) -> Entry | None:
        """The open journal entry, None while nothing is changed."""
        return self._entry

    @property
    def guardian(self) -> Guardian:
        """The guardian process of this session."""
        return self._undo.guardian

    async def document(self) -> FlagDocument:
        """Return the whole document, exactly."""
        await self._check()
        return await self._flags.document()

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag; contexts asked for before a change are verified after the undo."""
        await self._check()
        contexts = self._contexts.setdefault(key, [])
        if dict(context) not in contexts and len(contexts) < _REMEMBERED:
            contexts.append(dict(context))
        answer = await self._flags.served(key, context)
        if self._unserved.get(key) == answer.variant:
            del self._unserved[key]
        return answer

    async def apply(self, change: FlagChange) -> None:
        """Set one flag, once the journal entry is on disk and a guardian watches it.

        Raises FlagError when either fails, Occupied when the environment's own lease was lost, and what the
        flags raise.
        """
        async with self._lock:
            await self._check()
            if self._undo.renewal.lost:
                raise Occupied(
                    f"the lease of {self._identity} was taken by {self._undo.renewal.lost}; no further "
                    "change is made"
                )
            await self._prepare(change)
            self._unserved[change.key] = change.variant
            # A write under way must end before any restore, which it could otherwise overtake.
            await shielded(self._write(change))
            await self._restore_if_closed_meanwhile()

    async def restore(self, document: FlagDocument) -> None:
        """Undo the changes made here and verify what is served; raises RestoreFailed with the command.

        Writes nothing when nothing was changed here.
        """
        self._refuse_fork()
        check_document(document.raw)
        async with self._lock:
            entry = self._entry
            if entry is None:
                if (await self._flags.document()).raw != document.raw:
                    self._undo.notify(
                        f"the document of {self._identity} was changed from outside; nothing was changed "
                        "here, so it is left as it is"
                    )
                return
            if document.raw != entry.previous:
                self._undo.notify(
                    f"the document of {self._identity} was changed from outside between the preflight and "
                    "the first write here; that change is kept"
                )
            await self._restore(entry)

    async def finish(self) -> bool:
        """Leave the environment as it was; returns True, the lease may then be released.

        Raises RestoreFailed when the flags could not be restored: the guardian goes on trying, and holds the
        lease meanwhile.
        """
        if os.getpid() != self._pid:
            return True  # a fork that unwinds owns nothing here
        entry = self._entry
        try:
            if entry is not None and self._undo.settings.keep:
                self._keep(entry)
            elif entry is not None:
                async with self._lock:
                    await self._restore(entry)
        except BaseException:  # cancellation included: leaving now would leave the fault on
            self._undo.renewal.keep = True
            self.guardian.hand_over()
            raise
        await shielded(asyncio.to_thread(self.guardian.dismiss))
        for entry_id in self._watched:
            self._undo.journal.forget(entry_id)
        return True

    def _keep(self, entry: Entry) -> None:
        self._undo.journal.write(entry.model_copy(update={"state": State.KEPT}))
        self._undo.notify(
            f"{entry.faults} of {entry.identity} was left on, as requested; restore it with: "
            f"{self._undo.command}"
        )

    async def _prepare(self, change: FlagChange) -> None:
        """Write the change to the journal and have a guardian watch it."""
        first = self._entry is None
        entry = self._with(await self._opened(), change, await self._before(change))
        self._entry = entry
        try:
            await shielded(asyncio.to_thread(self._undo.journal.write, entry))
            await self._guard(entry)
        except FlagError:
            if first:  # no flag was written yet
                self._entry = None
                with suppress(FlagError):  # the first error says more
                    await shielded(asyncio.to_thread(self._undo.journal.close, entry))
            raise

    async def _opened(self) -> Entry:
        """Return the open entry, or a new one with the document of before the first write."""
        if self._entry is not None:
            return self._entry
        document, now_ns = await self._flags.document(), self._undo.now()
        deadline_s = self._undo.settings.deadline_s
        self._deadline_s = time.monotonic() + deadline_s
        return Entry(
            id=secrets.token_hex(8),
            identity=self._identity,
            access=self._access,
            target=self._undo.settings.target,
            owner=self._undo.owner,
            started_ns=now_ns,
            deadline_ns=now_ns + seconds_to_ns(deadline_s),
            previous=document.raw,
        )

    async def _before(self, change: FlagChange) -> tuple[Answer, ...]:
        """Return the answers of before the flag's first change; raises FlagError when there is none."""
        if self._entry is not None and change.key in self._entry.keys:
            return ()
        answers: list[Answer] = []
        problem: FlagError | None = None
        for context in self._contexts.get(change.key) or [{}]:
            try:
                variant = (await self._flags.served(change.key, context)).variant
            except FlagError as error:
                problem = error
                continue
            answers.append(Answer(context=context, variant=variant))
        if problem is not None and not answers:
            raise problem
        return tuple(answers)

    @staticmethod
    def _with(entry: Entry, change: FlagChange, before: tuple[Answer, ...]) -> Entry:
        known = next((each for each in entry.changes if each.key == change.key), None)
        if known is None:
            latest = Change(key=change.key, variants=(change.variant,), before=before)
        else:
            latest = known.model_copy(update={"variants": (*known.variants, change.variant)[-_REMEMBERED:]})
        changes = (*(each for each in entry.changes if each.key != change.key), latest)
        return entry.model_copy(update={"changes": changes})

    async def _guard(self, entry: Entry) -> None:
        # The entry's deadline is wall time, for people; wall time may be set meanwhile, so the guardian
        # gets the time left.
        left_s = self._deadline_s - time.monotonic()
        self._watched.add(entry.id)
        await shielded(
            asyncio.to_thread(self.guardian.ensure, entry.id, deadline_s=left_s, access=self._access)
        )

    async def _write(self, change: FlagChange) -> None:
        limit_s = self._undo.limits.write_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._flags.apply(change)
        except TimeoutError as error:
            raise FlagError(
                f"{change.key}={change.variant} could not be written to {self._identity} within {limit_s:g} s"
            ) from error

    def _refuse_fork(self) -> None:
        """Raise FlagError in a forked child: the fault and its guardian belong to the run."""
        if os.getpid() != self._pid:
            raise FlagError(
                f"process {os.getpid()} is a fork of the run {self._pid}; only the run may change the flags "
                f"of {self._identity}. End a forked child with os._exit"
            )

    async def _check(self) -> None:
        """Raise FlagError when the fault was restored or its place moved; restart a dead guardian."""
        self._refuse_fork()
        moved = self._flags.surface.moved_from(self._identity)
        if moved is not None:
            raise FlagError(
                f"the flag file is now {moved.identity} instead of {self._identity}, because a symlink was "
                "retargeted; no further change is made. Point the symlink back, or restart the test"
            )
        entry = self._entry
        if entry is None:
            return
        stored = await self._stored(entry)
        if stored is None:
            raise FlagError(
                f"{entry.faults} of {entry.identity} was restored from outside (otel-diag heal or "
                "emergency-stop); no further change is made, and telemetry since then may lack the fault"
            )
        if stored.state is State.RETURNED:
            raise FlagError(f"the session exceeded its deadline, so its guardian {stored.note}")
        if not self.guardian.running:
            await self._guard(entry)

    async def _stored(self, entry: Entry) -> Entry | None:
        """Return the entry as stored, None when it was closed; a lost entry is written again."""
        journal = self._undo.journal
        try:
            stored = journal.read(entry.id)
            if stored is not None or journal.closed(entry.id):
                return stored
            problem = "is missing, although nobody closed it"
        except FlagError:
            problem = "was damaged"
        self._undo.notify(f"the journal entry {journal.path(entry.id)} {problem}; it is written again")
        await shielded(asyncio.to_thread(journal.write, entry))
        return entry

    async def _restore_if_closed_meanwhile(self) -> None:
        """Restore again what was written while the fault was restored from outside."""
        try:
            await self._check()
        except FlagError:
            assert self._entry is not None
            await self._restore(self._entry)
            raise

    async def _restore(self, entry: Entry) -> None:
        limits, journal = self._undo.limits, self._undo.journal
        if not self._unserved:  # all writes were served, so no answer can still change to the fault
            limits = replace(limits, settle_s=0.0)
        try:
            done = await restore_entry(entry, self._flags, limits=limits)
        except RestoreFailed as error:
            raise RestoreFailed(
                f"A FAULT MAY STILL BE ON: {entry.faults} of {entry.identity}: {error}. Once the flags can "
                f"be reached, run: {self._undo.command}"
            ) from error
        if done.notable:
            self._undo.notify(f"{entry.identity}: {done.sentence}")
        if not (journal.holds(entry.id) or journal.closed(entry.id)):
            self._undo.notify(
                f"the journal entry {journal.path(entry.id)} was missing at the end, although nobody closed "
                "it; do not delete the state folder while runs are in progress"
            )
        try:
            await shielded(asyncio.to_thread(journal.close, entry))
        except FlagError as error:  # the flags are as before, which is what counts
            self._undo.notify(str(error))
        self._entry = None


@asynccontextmanager
async def guarded(
    flags: SurfaceFlags,
    *,
    owner: Owner,
    state_dir: Path,
    settings: UndoSettings | None = None,
    now: Callable[[], Nanos] = time.time_ns,
    notify: Notify = _LOG.warning,
) -> AsyncIterator[GuardedFlags]:
    """Hold the environment of *flags* for one session and yield flags whose changes are undone.

    *notify* gets what a person should know: who holds the environment, what was healed, which external
    changes were kept. *now* returns wall time in UTC nanoseconds.

    Raises Occupied when another run holds the environment longer than the wait allows, or a fault was left
    on intentionally; RestoreFailed when the fault of a dead run, or of this one, cannot be restored.
    """
    settings = settings or UndoSettings()
    wait_s = settings.lease_wait_s
    lease = await wait_for(state_dir, flags.identity, owner, wait_s=wait_s, notify=notify)
    done = True
    try:
        elsewhere = flags.surface.lease()
        async with hold_remote_lease(elsewhere, owner, wait_s=wait_s, notify=notify) as renewal:
            journal = Journal(state_dir)
            await heal_environment(journal, flags, notify)
            undo = UndoContext(
                owner=owner,
                journal=journal,
                guardian=_guardian(state_dir, lease, settings),
                renewal=renewal,
                settings=settings,
                limits=settings.limits or RestoreLimits.of(flags.surface),
                now=now,
                notify=notify,
            )
            session = GuardedFlags(flags, undo)
            try:
                yield session
            finally:
                done = False
                done = await session.finish()
    finally:
        if done:
            lease.release()
        else:
            lease.leave()


def _guardian(state_dir: Path, lease: Lease, settings: UndoSettings) -> Guardian:
    return Guardian(state_dir, lease, opener=settings.opener, retry_s=settings.guardian_retry_s)
