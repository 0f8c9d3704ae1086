"""What one test runs, and what the right answer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pytest_otel_diag.model.base import Finite, Model
from pytest_otel_diag.model.diagnosis import Direction, Mechanism, Signal


class FaultStep(Model):
    """From ``at_s`` seconds after the fault's own start on, another variant is served."""

    at_s: Finite = Field(gt=0)
    variant: str = Field(min_length=1)


class Fault(Model):
    """A flag set to a variant, written ``key=variant``, now or by a schedule.

    ``variant`` None means the target's default fault variant. ``at_s`` counts from the injection (0: the
    moment the session injects). ``steps`` change the variant later (a ramp). ``until_s`` turns the fault
    off again, counted from the injection too; with ``every_s`` it comes back each so many seconds, for
    as long as it lasted the first time (flapping). ``context`` is the evaluation context in which the
    service asks for the flag: a rule of targeting may answer by it, so the witness asks with it.
    """

    flag: str = Field(min_length=1)
    variant: str | None = None
    at_s: Finite = Field(default=0.0, ge=0)
    until_s: Finite | None = None
    every_s: Finite | None = None
    steps: tuple[FaultStep, ...] = ()
    context: tuple[tuple[str, str | bool | int | float], ...] = ()

    @field_validator("context", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return tuple(value.items()) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _schedule_holds(self) -> Self:
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(f"until_s={self.until_s:g} must lie after at_s={self.at_s:g}")
        if self.every_s is not None and (self.until_s is None or self.every_s <= self.until_s - self.at_s):
            raise ValueError(
                f"every_s={self.every_s:g} needs an until_s, and must be longer than the fault lasts"
            )
        times = [step.at_s for step in self.steps]
        if times != sorted(set(times)):
            raise ValueError(f"steps must have rising at_s, these are {times}")
        return self

    @property
    def scheduled(self) -> bool:
        """Whether the variant changes after the injection."""
        return bool(self.at_s or self.until_s is not None or self.steps)

    def __str__(self) -> str:
        return self.flag if self.variant is None else f"{self.flag}={self.variant}"


DisturbanceKind = Literal["load", "restart", "gc"]


class Disturbance(Model):
    """A harmless change that happens beside the faults or instead of one; naming it is a false alarm.

    ``load`` multiplies the traffic by ``factor``, ``restart`` replaces the instances of ``service`` like
    a deployment, ``gc`` makes the runtime of ``service`` collect its garbage once. ``at_s`` counts from
    the injection.
    """

    kind: DisturbanceKind
    service: str | None = None
    factor: Finite = Field(default=2.0, gt=0)
    at_s: Finite = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _service_named(self) -> Self:
        if (self.kind == "load") == (self.service is not None):
            wanted = "names no service" if self.kind == "load" else "needs a service"
            raise ValueError(f"a disturbance of kind {self.kind!r} {wanted}")
        return self


class Environment(Model):
    """What a simulated target is to be like; None leaves the choice to the target.

    ``demo`` is the release of the system (its generation decides names), ``users`` the virtual users of
    the load generator, ``browser_users`` those with a browser. ``seed`` varies everything drawn, with
    ``jitter`` also the topology (replicas, speed of services).
    """

    demo: str | None = None
    users: int | None = Field(default=None, ge=1, le=500)
    browser_users: int | None = Field(default=None, ge=0, le=50)
    seed: int | None = Field(default=None, ge=0)
    jitter: bool | None = None


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
    ``disturbances`` are harmless changes beside the faults. ``environment`` asks for a kind of target.
    ``ungated`` is the reason why the session does not count in the gate (empty: it counts); it is run
    and shown all the same.
    ``tags`` are free labels (fault type, system, severity) that scorecards group by.
    """

    id: str = Field(min_length=1)
    faults: tuple[Fault, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
    environment: Environment = Environment()
    ungated: str = ""
    expectation: Expectation
    timing: Timing = Timing()
    require_impact: bool = True
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def control(self) -> bool:
        """Whether the right answer is that nothing is wrong."""
        return self.expectation.healthy
