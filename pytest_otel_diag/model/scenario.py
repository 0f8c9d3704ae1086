"""What one test runs, and what the right answer is."""

from __future__ import annotations

from pydantic import Field

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.diagnosis import Direction, Mechanism, Signal


class Fault(Model):
    """A flag set to a variant, written ``key=variant``.

    ``variant`` None means the target's default fault variant.
    """

    flag: str = Field(min_length=1)
    variant: str | None = None

    def __str__(self) -> str:
        return self.flag if self.variant is None else f"{self.flag}={self.variant}"


class ExpectedAnomaly(Model):
    """A deviation that a good diagnosis names; None matches anything."""

    service: str
    signal: Signal | None = None
    operation: str | None = None
    direction: Direction | None = None


class ExpectedRootCause(Model):
    """An accepted culprit. Several expected causes of one fault are alternatives unless ``fault`` differs."""

    service: str
    operation: str | None = None
    mechanisms: tuple[Mechanism, ...] = ()
    fault: str | None = None


class Expectation(Model):
    """Ground truth of a scenario. Never reaches the analyzer.

    ``healthy`` is the expectation of a control: the right answer is "nothing is wrong".
    ``red_herrings`` are services that must not be named first.
    """

    healthy: bool = False
    anomalies: tuple[ExpectedAnomaly, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()
    root_causes: tuple[ExpectedRootCause, ...] = ()
    red_herrings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class Timing(Model):
    """How long the phases of a session may take, in seconds of the target's clock.

    ``guard_s`` is the time a control lets pass between baseline and judged window, as switching on a
    fault takes time: what a session shows of its times must not tell the two apart.
    """

    baseline_s: float = Field(default=120.0, gt=0)
    guard_s: float = Field(default=0.0, ge=0)
    impact_timeout_s: float = Field(default=180.0, gt=0)
    impact_poll_s: float = Field(default=5.0, gt=0)
    observe_s: float = Field(default=120.0, ge=0)
    recover_timeout_s: float = Field(default=120.0, ge=0)
    analyze_timeout_s: float = Field(default=600.0, gt=0)


class Scenario(Model):
    """Zero or more faults, timing and expectation. No fault means a control.

    ``require_impact`` False scores the session even where the impact detector saw nothing: right for
    recordings, whose fault is known to be there, and told in the result.
    ``tags`` are free labels (fault type, system, severity) that scorecards group by.
    """

    id: str = Field(min_length=1)
    faults: tuple[Fault, ...] = ()
    expectation: Expectation
    timing: Timing = Timing()
    require_impact: bool = True
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def control(self) -> bool:
        """Whether the right answer is that nothing is wrong."""
        return self.expectation.healthy
