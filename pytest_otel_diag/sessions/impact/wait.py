"""The wait for the impact of a fault, and a control's likeness of it: times tell nothing.

Traffic is driven for faults only. A burst of orders that a control drove in the same way made the analyzer
under test raise alarms that were ours, not its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.faults.scheduler import Conductor
from pytest_otel_diag.sessions.impact.assess import Comparison, ImpactWatch, looks
from pytest_otel_diag.sessions.impact.forecast import hopeless
from pytest_otel_diag.sessions.log import SessionLog
from pytest_otel_diag.sessions.settings import EngineSettings

_UNDRIVEN = 2 / 3
"""Traffic is driven once no more than this share of the wait is left: at first the system's own counts."""


def likeness(timing: Timing, settings: EngineSettings, rng: Random) -> float:
    """Draw how long a control is observed, in seconds.

    Faults that show late make their sessions longer. A control takes as long by a draw, or its length would
    tell that it is none: as often as not ``observe_s``, else one of the other ends that the wait has.
    """
    first_s = (settings.witness_reads - 1) * settings.witness_poll_s
    ends = sorted(
        {
            min(first_s + look * timing.impact_poll_s, timing.impact_timeout_s)
            for look in range(1, looks(timing, timing.impact_timeout_s) + 1)
        }
    )
    later = [end for end in ends if end > timing.observe_s]
    return rng.choice(later) if later and rng.random() < 0.5 else timing.observe_s


@dataclass
class Wait:
    """Time from the start of a fault, or of the window that a control is judged by, at ``start_ns``."""

    session: TargetSession
    conductor: Conductor
    log: SessionLog
    settings: EngineSettings
    timing: Timing
    start_ns: Nanos
    timeout_s: float

    @property
    def passed_s(self) -> float:
        """Seconds since the start, on the target's clock."""
        return (self.session.clock.now() - self.start_ns) / NANOS_PER_SECOND

    async def until(self, seconds: float) -> None:
        """Let time pass until so long after the start."""
        await self.conductor.sleep(max(0.0, seconds - self.passed_s))

    async def for_impact(self, comparison: Comparison) -> Impact:
        """Look until the impact is visible, the time is over, or nothing could show in what is left of it."""
        watch = ImpactWatch(self.session, comparison, self.start_ns)
        impact = Impact(reason=ImpactReason.NOT_YET_EXPORTED)
        step_s, count = self.timing.impact_poll_s, looks(self.timing, self.timeout_s)
        if not (comparison.loads or comparison.quiet.seen):
            step_s, count = self.timeout_s, 1  # nothing to compare with: one look at the end tells all
        for _ in range(count):
            # The last step is shorter where it would overshoot the wait.
            await self.conductor.sleep(max(0.0, min(step_s, self.timeout_s - self.passed_s)))
            await self.conductor.undisturbed()
            impact = await watch.look()
            self.log.impact_measured(impact, watch.samples)
            if impact.reason is ImpactReason.VISIBLE:
                break
            await self._drive(watch, step_s)
            if self._cannot_show(watch):
                left_s = self.timeout_s - self.passed_s
                over = (
                    f"{impact.detail}; not even a fault of every call could show in the {left_s:.0f} s left"
                )
                impact = impact.model_copy(update={"detail": over})
                break
        return impact.model_copy(update={"calls_driven": watch.driven.calls})

    async def _drive(self, watch: ImpactWatch, step_s: float) -> None:
        left_s = self.timeout_s - self.passed_s
        if left_s <= self.timeout_s * _UNDRIVEN:
            await watch.drive(remaining_s=left_s, most=self.settings.max_driven_calls, step_s=step_s)

    def _cannot_show(self, watch: ImpactWatch) -> bool:
        """Whether the wait is in vain: too few calls come, and the target makes none."""
        may_drive = watch.driven.calls < self.settings.max_driven_calls and not watch.driven.refused
        return not may_drive and hopeless(watch.comparison, watch.loads, self.timeout_s)
