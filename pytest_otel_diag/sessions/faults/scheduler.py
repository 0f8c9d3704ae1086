"""Makes a schedule happen while the session waits: each sleep stops at what is due, does it, goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import Flag, FlagChange
from pytest_otel_diag.model.session import (
    DisturbanceMoment,
    FlagMoment,
    Impact,
    ImpactReason,
    Status,
    Witness,
)
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, seconds_to_ns
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.faults import not_served
from pytest_otel_diag.sessions.faults.external_changes import Changed, Contexts, FlagGuard, intruded
from pytest_otel_diag.sessions.faults.injection import NO_ANSWER, context_of, served_now, witness
from pytest_otel_diag.sessions.faults.schedule import Timeline
from pytest_otel_diag.sessions.log import SessionLog, SessionStopped
from pytest_otel_diag.sessions.settings import EngineSettings


@dataclass
class Conductor:
    """Applies the timeline of one session, and proves every change of a flag as served.

    Reading a flag back takes time of the target's clock; what became due meanwhile is done right
    after, so a flag always ends up where the schedule wants it *now*. ``contexts`` are the evaluation
    contexts of flags beyond the usual one. ``guard`` knows the flags of all others.
    """

    session: TargetSession
    log: SessionLog
    timeline: Timeline
    settings: EngineSettings
    contexts: Contexts = field(default_factory=dict)
    guard: FlagGuard | None = None
    _anchor_ns: Nanos | None = None
    _done_ns: Nanos = -1
    _current: dict[str, str] = field(default_factory=dict)
    _unproven: dict[str, str] = field(default_factory=dict)
    _rest: dict[str, str] = field(default_factory=dict)

    def found(self, served: Mapping[str, str]) -> None:
        """Note how the flags were found."""
        self._current = dict(served)
        self._rest = dict(served)
        now = self.session.clock.now()
        self.log.flags_answered(
            FlagMoment(at_ns=now, flag=key, variant=variant) for key, variant in served.items()
        )

    async def begin(self) -> None:
        """Start the schedule: from here its times count. Does what is due at once; see :meth:`prove`.

        A flag that was found at its fault's variant is set, and later proven, all the same.
        """
        self._anchor_ns = self.session.clock.now()
        await self._act(0, {course.key for course in self.timeline.courses if not course.at_ns})

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass on the target's clock and do what is due in them.

        Raises SessionStopped (INVALID) for a change that is not served and for a flag that somebody
        else changed.
        """
        await self._until(self.session.clock.now() + seconds_to_ns(seconds))

    async def first_fault(self) -> None:
        """Let time pass until the first fault is due and prove it; does nothing once it is."""
        due_ns = self.timeline.first_fault_ns
        if due_ns is not None:
            await self._until(self._start_ns + due_ns)

    async def prove(self) -> tuple[Witness, ...]:
        """Read the changed flags back as served; returns the proofs and records them.

        Raises SessionStopped (INVALID) when one is not served.
        """
        wanted, self._unproven = self._unproven, {}
        if not wanted:
            return ()
        proofs = await witness(self.session, wanted, self.settings, contexts=self.contexts)
        self.log.witnesses += proofs
        self.log.served(*proofs)
        missing = [proof for proof in proofs if not proof.confirmed]
        if missing:
            timeout_s = self.settings.witness_timeout_s
            told = await self._why(missing)
            raise self.refusal(f"not served after {timeout_s:g} s: {', '.join(told)}")
        return proofs

    async def _why(self, missing: list[Witness]) -> list[str]:
        written: Mapping[str, Flag] | None = None
        with suppress(FlagError, OSError, TimeoutError):  # it only helps to explain
            written = (await self.session.flags.document()).flags
        if written is None:
            return [f"{proof.flag}={proof.variant} ({proof.detail})" for proof in missing]
        return [
            not_served.reason(
                proof,
                written.get(proof.flag),
                context_of(proof.flag, self.settings, self.contexts),
                unreadable=proof.detail.startswith(NO_ANSWER),
            )
            for proof in missing
        ]

    def on(self) -> tuple[str, ...]:
        """Return ``flag=variant`` of the flags that this session left at another variant than found."""
        return tuple(
            f"{key}={variant}" for key, variant in self._current.items() if variant != self._rest[key]
        )

    async def undisturbed(self) -> None:
        """Refuse a session during which somebody else changed flags.

        Raises SessionStopped (INVALID), FlagError when nobody can tell.
        """
        if self.guard is not None:
            self._judge(await self.guard.look())

    def _judge(self, changed: Changed) -> None:
        for note in changed.notes:
            self.log.note(note)
        if changed.intruders:
            raise intruded(changed.intruders)
        if changed.lost:
            raise self._switched(changed.lost)

    async def still_served(self) -> None:
        """Refuse a session whose flags do not answer what the schedule last set: somebody else was there."""
        keys = [FlagChange(key=key, variant=variant) for key, variant in self._current.items()]
        served = await served_now(self.session, keys, self.settings, contexts=self.contexts)
        lost = [
            f"{key}={variant} (now {served[key]!r})"
            for key, variant in self._current.items()
            if served[key] != variant
        ]
        if lost:
            raise self._switched(lost)

    @property
    def _start_ns(self) -> Nanos:
        assert self._anchor_ns is not None, "the schedule has not begun"
        return self._anchor_ns

    async def _until(self, end_ns: Nanos) -> None:
        """Let time pass up to the instant. What falls due while a flag is read back may end it later."""
        clock = self.session.clock
        while True:
            due = self.timeline.next(self._done_ns)
            if due is not None and self._start_ns + due <= clock.now():
                await self.still_served()
                await self._act(clock.now() - self._start_ns)
                await self.prove()
            left_ns = end_ns - clock.now()
            if left_ns <= 0:
                return
            due = self.timeline.next(self._done_ns)
            if due is not None:
                left_ns = min(left_ns, max(0, self._start_ns + due - clock.now()))
            await clock.sleep(left_ns / NANOS_PER_SECOND)

    async def _act(self, offset_ns: Nanos, anew: Collection[str] = ()) -> None:
        """Bring flags to where they belong at the offset, and make the disturbances since the last time.

        Flags in *anew* are set whatever they answer.
        """
        disturbances = self.timeline.disturbances_in(self._done_ns, offset_ns)
        self._done_ns = offset_ns
        written: dict[str, str] = {}
        for key, variant in self.timeline.at(offset_ns).items():
            if self._current[key] != variant or key in anew:
                await self.session.flags.apply(FlagChange(key=key, variant=variant))
                self._current[key] = self._unproven[key] = written[key] = variant
        if written and self.guard is not None:
            self._judge(await self.guard.adopt(written))
        for disturbance in disturbances:
            assert self.session.disturb is not None, "refused in the preflight"
            await self.session.disturb(disturbance)
            self.log.disturbed(DisturbanceMoment(at_ns=self.session.clock.now(), disturbance=disturbance))

    def _switched(self, lost: Collection[str]) -> SessionStopped:
        return self.refusal(f"switched by somebody else during the session: {', '.join(lost)}")

    def refusal(self, detail: str) -> SessionStopped:
        """Return what ends a session whose fault is not served; notes it as its impact."""
        self.log.impact = Impact(reason=ImpactReason.NOT_SERVED, detail=detail)
        return SessionStopped(Status.INVALID, f"NOT_SERVED: {detail}")
