"""Waits until telemetry shows the fault, or until it cannot any more.

A control waits about as long as a session with a fault, so that the length of a session says nothing about
the answer. Traffic is driven in sessions with a fault only: a burst of calls in a control would be an anomaly
that the session itself made.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.events import ServiceSample
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.scoring.text import count as counted
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.faults.scheduler import FaultScheduler
from pytest_otel_diag.sessions.impact.assess import assess, hopeless, looks
from pytest_otel_diag.sessions.impact.comparison import (
    Comparison,
    exported_part,
    health_in,
    loads_of,
    settled_loads,
)
from pytest_otel_diag.sessions.impact.deviations import Measurement, all_deviations, states_of
from pytest_otel_diag.sessions.impact.driving import TrafficDriver
from pytest_otel_diag.sessions.impact.felt import whether_felt
from pytest_otel_diag.sessions.impact.samples import Changes
from pytest_otel_diag.sessions.impact.watchlist import observe
from pytest_otel_diag.sessions.settings import EngineSettings
from pytest_otel_diag.stats.two_sample import Load

_UNDRIVEN = 2 / 3
"""Traffic is driven once no more than this share of the wait is left, so that the system's own calls count
first."""


def control_duration_s(timing: Timing, settings: EngineSettings, rng: Random) -> float:
    """Draw how many seconds a control is observed, like a session with a fault.

    Faults that show late make their sessions longer. Half of the controls take ``observe_s``, the others end
    at one of the later instants at which the wait for an impact may end.
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


class ImpactWait:
    """Polls telemetry from the start of the fault at ``start_ns``, while the fault schedule goes on."""

    def __init__(
        self, context: SessionContext, faults: FaultScheduler, comparison: Comparison, *, start_ns: Nanos
    ) -> None:
        self._context = context
        self._faults = faults
        self._comparison = comparison
        self._start_ns = start_ns
        self._timeout_s = context.impact_timeout_s
        most = context.settings.max_driven_calls
        self._driver = TrafficDriver(context.system.traffic, comparison, most)
        self._changes = Changes()
        self._loads: Mapping[str, Load] = {}

    async def run(self) -> Impact:
        """Return the impact once it is visible, the time is over, or no fault could show in the time left.

        Raises SessionStopped when a flag of the session is no longer served or flags were changed externally,
        TelemetryError when telemetry cannot answer.
        """
        impact = Impact(reason=ImpactReason.NOT_YET_EXPORTED)
        timing = self._context.timing
        step_s, count = timing.impact_poll_s, looks(timing, self._timeout_s)
        if self._comparison.empty:
            step_s, count = self._timeout_s, 1  # nothing to compare with: one look at the end is enough
        for look in range(1, count + 1):
            # The last step is shorter where it would overshoot the wait.
            await self._faults.sleep(max(0.0, min(step_s, self._left_s())))
            await self._faults.check_external_changes()
            impact, changed = await self._look(last=look == count)
            self._context.log.impact_measured(impact, changed)
            if impact.reason is ImpactReason.VISIBLE:
                break
            await self._drive(step_s)
            if self._driver.exhausted and hopeless(self._comparison, self._loads, self._timeout_s):
                detail = (
                    f"{impact.detail}; not even a fault of every call could show in the "
                    f"{self._left_s():.0f} s left"
                )
                impact = impact.model_copy(update={"detail": detail})
                break
        impact = await whether_felt(self._context, impact, self._comparison.causes, self._start_ns)
        return self._with_driven(impact)

    def _with_driven(self, impact: Impact) -> Impact:
        """Return the impact with the calls that were really driven, and say so where none of them was."""
        asked, made = self._driver.calls, self._context.system.traffic.made()
        detail = impact.detail
        if asked and not made and impact.reason is not ImpactReason.VISIBLE:
            detail = (
                f"{detail}; traffic was driven in vain: none of {counted(asked, 'visit')} was answered by "
                "what it was made for, see driven in the provenance"
            )
        return impact.model_copy(update={"calls_driven": made, "detail": detail})

    def _left_s(self) -> float:
        return self._timeout_s - self._context.seconds_since(self._start_ns)

    async def _drive(self, step_s: float) -> None:
        left_s = self._left_s()
        if left_s <= self._timeout_s * _UNDRIVEN:
            await self._driver.drive(self._loads, remaining_s=left_s, step_s=step_s)

    async def _look(self, *, last: bool) -> tuple[Impact, tuple[ServiceSample, ...]]:
        """Return what is visible now, and the buckets of service health that changed since the last look."""
        telemetry, comparison = self._context.system.telemetry, self._comparison
        window = Window(start_ns=self._start_ns, end_ns=max(self._context.now(), self._start_ns))
        health = await health_in(telemetry, window, comparison.bucket_s)
        exported = exported_part(health, window, comparison.bucket_s)
        observed = await observe(telemetry, (exported,), comparison.bucket_s, comparison.evidence.watched)
        if not health and observed.empty:
            # Asked only here: in a quiet system, silence may mean late exports or missing calls.
            latest = await telemetry.latest()
            if latest is None or latest <= self._start_ns:
                late = "no telemetry is newer than the start of the fault"
                return Impact(reason=ImpactReason.NOT_YET_EXPORTED, detail=late), ()
        self._loads = loads_of(health, (exported,), comparison.bucket_s)
        settled = settled_loads(health, exported, comparison.bucket_s)
        seen = Measurement(self._loads, settled, observed, driven=bool(self._driver.calls), last=last)
        found = all_deviations(comparison, seen)
        impact = assess(comparison, seen, found)
        if impact.reason is ImpactReason.VISIBLE:
            impact = impact.model_copy(update={"time_to_impact_s": exported.duration_s})
        states = states_of(found, settled)
        return impact, self._changes.since_last(health, exported, comparison.bucket_s, states=states)
