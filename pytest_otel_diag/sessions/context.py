"""What every part of a session works with."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Scenario, Timing
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.log import SessionLog
from pytest_otel_diag.sessions.settings import EngineSettings


@dataclass(frozen=True)
class SessionContext:
    """One session on an open target: the system under fault, the growing record, the engine's settings."""

    system: TargetSession
    log: SessionLog
    settings: EngineSettings

    @property
    def scenario(self) -> Scenario:
        """The scenario of the session."""
        return self.log.plan.scenario

    @property
    def timing(self) -> Timing:
        """How long the phases may take."""
        return self.scenario.timing

    def now(self) -> Nanos:
        """Return the target's time."""
        return self.system.clock.now()

    def seconds_since(self, instant_ns: Nanos) -> float:
        """Return the seconds since the instant on the target's clock."""
        return (self.now() - instant_ns) / NANOS_PER_SECOND

    @property
    def impact_timeout_s(self) -> float:
        """Seconds to wait for the impact; no longer than ``observe_s`` where it is not required."""
        timing = self.timing
        if self.scenario.require_impact:
            return timing.impact_timeout_s
        return min(timing.impact_timeout_s, timing.observe_s)
