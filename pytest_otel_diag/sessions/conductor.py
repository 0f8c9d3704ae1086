"""Makes a schedule happen while the session waits: each sleep stops at what is due, does it, goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagChange
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
from pytest_otel_diag.sessions.injection import Contexts, served_now, witness
from pytest_otel_diag.sessions.plan import EngineSettings
from pytest_otel_diag.sessions.record import SessionLog, SessionStopped
from pytest_otel_diag.sessions.schedule import Timeline


@dataclass
class Conductor:
    """Applies the timeline of one session, and proves every change of a flag as served.

    Reading a flag back takes time of the target's clock; what became due meanwhile is done right
    after, so a flag always ends up where the schedule wants it *now*. ``contexts`` are the evaluation
    contexts of flags beyond the usual one.
    """

    session: TargetSession
    log: SessionLog
    timeline: Timeline
    settings: EngineSettings
    contexts: Contexts = field(default_factory=dict)
    _anchor_ns: Nanos | None = None
    _done_ns: Nanos = -1
    _current: dict[str, str] = field(default_factory=dict)
    _unproven: dict[str, str] = field(default_factory=dict)

    def found(self, served: Mapping[str, str]) -> None:
        """Note how the flags were found."""
        self._current = dict(served)
        now = self.session.clock.now()
        self.log.flag_timeline = tuple(
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
        missing = [f"{w.flag}={w.variant} ({w.detail})" for w in proofs if not w.confirmed]
        if missing:
            timeout_s = self.settings.witness_timeout_s
            self._refuse(f"not served after {timeout_s:g} s: {', '.join(missing)}")
        return proofs

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
            self._refuse(f"switched by somebody else during the session: {', '.join(lost)}")

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
        for key, variant in self.timeline.at(offset_ns).items():
            if self._current[key] != variant or key in anew:
                await self.session.flags.apply(FlagChange(key=key, variant=variant))
                self._current[key] = self._unproven[key] = variant
        for disturbance in disturbances:
            assert self.session.disturb is not None, "refused in the preflight"
            await self.session.disturb(disturbance)
            moment = DisturbanceMoment(at_ns=self.session.clock.now(), disturbance=disturbance)
            self.log.disturbances = (*self.log.disturbances, moment)

    def _refuse(self, detail: str) -> None:
        self.log.impact = Impact(reason=ImpactReason.NOT_SERVED, detail=detail)
        raise SessionStopped(Status.INVALID, f"NOT_SERVED: {detail}")
