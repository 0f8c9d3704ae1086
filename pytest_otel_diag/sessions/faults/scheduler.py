"""Applies the fault schedule of a session while it sleeps, and proves each change as served."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument
from pytest_otel_diag.model.session import (
    DisturbanceMoment,
    FlagMoment,
    Impact,
    ImpactReason,
    Status,
    Witness,
)
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, seconds_to_ns
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.ending import SessionStopped
from pytest_otel_diag.sessions.faults import not_served
from pytest_otel_diag.sessions.faults.external_changes import (
    ExternalChangeDetector,
    ExternalChanges,
    changed_externally,
)
from pytest_otel_diag.sessions.faults.schedule import Schedule
from pytest_otel_diag.sessions.faults.undo import FaultUndo
from pytest_otel_diag.sessions.faults.witness import NO_ANSWER, FlagWitness
from pytest_otel_diag.sessions.log import SessionLog


def refuse_not_served(log: SessionLog, detail: str) -> SessionStopped:
    """Return what ends a session whose fault is not served; records that as its impact."""
    log.impact = Impact(reason=ImpactReason.NOT_SERVED, detail=detail)
    return SessionStopped(Status.INVALID, f"NOT_SERVED: {detail}")


class FaultScheduler:
    """Sets flags and makes disturbances when the schedule says so; every change is read back as served.

    Reading a flag back takes time of the target's clock. What fell due meanwhile is done right afterwards, so
    a flag always ends up where the schedule wants it *now*. *document* holds all flags before the session,
    *found* the variants that the flags of the schedule answered then.
    """

    def __init__(
        self,
        context: SessionContext,
        schedule: Schedule,
        witness: FlagWitness,
        document: FlagDocument,
        found: Mapping[str, str],
    ) -> None:
        self.schedule = schedule
        self._context = context
        self._system = context.system
        self._log = context.log
        self._witness = witness
        self._detector = ExternalChangeDetector(witness, document)
        self._prepared_undo = FaultUndo(witness, document, found) if found else None
        self._found = dict(found)
        self._current = dict(found)
        self._unproven: dict[str, str] = {}
        self._started = False
        self._start_ns: Nanos = 0
        self._done_ns: Nanos = -1
        now_ns = context.now()
        self._log.flags_answered(
            FlagMoment(at_ns=now_ns, flag=key, variant=one) for key, one in found.items()
        )

    @property
    def undo(self) -> FaultUndo | None:
        """What restores the flags, from the moment before the first one is set; None without faults."""
        return self._prepared_undo if self._started else None

    def faults_on(self) -> tuple[str, ...]:
        """Return ``flag=variant`` of the flags that are not at the variant they were found at."""
        return tuple(
            f"{key}={variant}" for key, variant in self._current.items() if variant != self._found[key]
        )

    async def start(self) -> None:
        """Start the schedule and do what is due at once; its times count from now.

        A flag that was found at its fault's variant is set, and later proven, all the same.
        """
        self._started = True
        self._start_ns = self._context.now()
        await self._apply(0, always={course.key for course in self.schedule.courses if not course.at_ns})

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass on the target's clock and apply what is due meanwhile.

        Raises SessionStopped (INVALID) for a change that is not served and for a flag of the session that
        another client changed.
        """
        await self._sleep_until(self._context.now() + seconds_to_ns(seconds))

    async def first_fault(self) -> None:
        """Sleep until the first fault is due and prove it; return at once when it is on already."""
        due_ns = self.schedule.first_fault_ns
        if due_ns is not None:
            await self._sleep_until(self._start_ns + due_ns)

    async def _sleep_until(self, end_ns: Nanos) -> None:
        """Sleep up to the instant, longer where flags that fell due are still being read back."""
        clock = self._system.clock
        while True:
            due_ns = self.schedule.next(self._done_ns)
            if due_ns is not None and self._start_ns + due_ns <= clock.now():
                await self.check_served()
                await self._apply(clock.now() - self._start_ns)
                await self.prove()
            left_ns = end_ns - clock.now()
            if left_ns <= 0:
                return
            due_ns = self.schedule.next(self._done_ns)
            if due_ns is not None:
                left_ns = min(left_ns, max(0, self._start_ns + due_ns - clock.now()))
            await clock.sleep(left_ns / NANOS_PER_SECOND)

    async def _apply(self, offset_ns: Nanos, always: Collection[str] = ()) -> None:
        """Set each flag to its variant at the offset and make the disturbances since the last time.

        Flags in *always* are set whatever they answer.
        """
        disturbances = self.schedule.disturbances_in(self._done_ns, offset_ns)
        self._done_ns = offset_ns
        written: dict[str, str] = {}
        for key, variant in self.schedule.at(offset_ns).items():
            if self._current[key] != variant or key in always:
                context = self._witness.contexts.get(key)
                await self._system.flags.apply(FlagChange(key=key, variant=variant, context=context))
                self._current[key] = self._unproven[key] = written[key] = variant
        if written:
            self._refuse(await self._detector.adopt(written))
        for disturbance in disturbances:
            assert self._system.disturb is not None, "the preflight refuses such scenarios"
            await self._system.disturb(disturbance)
            self._log.disturbed(DisturbanceMoment(at_ns=self._context.now(), disturbance=disturbance))

    async def prove(self) -> None:
        """Read the flags that were set back as served and record the proofs.

        Raises SessionStopped (INVALID) when one is not served.
        """
        wanted, self._unproven = self._unproven, {}
        if not wanted:
            return
        proofs = await self._witness.confirm(wanted)
        self._log.witnesses += proofs
        self._log.served(*proofs)
        missing = [proof for proof in proofs if not proof.confirmed]
        if missing:
            timeout_s = self._context.settings.witness_timeout_s
            reasons = await self._reasons(missing)
            raise refuse_not_served(self._log, f"not served after {timeout_s:g} s: {', '.join(reasons)}")

    async def _reasons(self, missing: list[Witness]) -> list[str]:
        written: Mapping[str, Flag] | None = None
        with suppress(FlagError, OSError, TimeoutError):  # the document only helps to explain
            written = (await self._system.flags.document()).flags
        if written is None:
            return [f"{proof.flag}={proof.variant} ({proof.detail})" for proof in missing]
        return [
            not_served.reason(
                proof,
                written.get(proof.flag),
                self._witness.context_of(proof.flag),
                unreadable=proof.detail.startswith(NO_ANSWER),
            )
            for proof in missing
        ]

    async def check_undisturbed(self) -> None:
        """Refuse a session during which flags changed externally, its own or others.

        Raises SessionStopped (INVALID), FlagError when the flags cannot be read.
        """
        await self.check_external_changes()
        await self.check_served()

    async def check_external_changes(self) -> None:
        """Compare the flag document with what this session left; raises as :meth:`check_undisturbed`."""
        self._refuse(await self._detector.check())

    async def check_served(self) -> None:
        """Check that flags answer what the schedule set last; raises as :meth:`check_undisturbed`."""
        served = await self._witness.variants(self._current)
        self._refuse_lost(
            f"{key}={variant} (now {served[key]!r})"
            for key, variant in self._current.items()
            if served[key] != variant
        )

    def _refuse(self, changed: ExternalChanges) -> None:
        for note in changed.notes:
            self._log.note(note)
        if changed.faults:
            raise changed_externally(changed.faults)
        self._refuse_lost(changed.lost)

    def _refuse_lost(self, flags: Iterable[str]) -> None:
        if lost := ", ".join(flags):
            raise refuse_not_served(self._log, f"changed by another client during the session: {lost}")
